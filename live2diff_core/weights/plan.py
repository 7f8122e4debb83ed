"""What a model and a stream need, what is free and what would fit: as figures and in words."""

from dataclasses import asdict
from typing import Any

import torch

from .budget import (
    Footprint,
    StreamSize,
    estimate,
    free_memory,
    in_gb,
    largest_size,
    largest_steps,
)

PARTS = {
    "weights": "weights",
    "adapters": "weights that LoRAs are merged into",
    "cache": "cache",
    "activations": "activations",
    "runtime": "CUDA graphs and packed weights",
    "total": "together",
}


def make_plan(
    model: Footprint,
    stream: StreamSize,
    device: torch.device,
    free: int | None = None,
    sides: range | None = None,
) -> dict[str, Any]:
    """What is needed, what is free and what would fit, for JSON.

    free: bytes that can be had, from who knows better than the device: with what the model itself
    holds already, and what others would give back. sides: those of sizes that may be proposed,
    the model's if None. Raises FrameSizeError.
    """
    budget = estimate(model, stream)
    room = free_memory(device) if free is None else free
    size = largest_size(model, stream, room, sides)
    return {
        "size": f"{stream.width}x{stream.height}",
        "steps": stream.steps,
        "branches": stream.branches,
        "device": str(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "bytes": asdict(budget) | {"total": budget.total},
        "free_bytes": room,
        "fits": budget.total <= room,
        "prompt_change_bytes": budget.cache,
        "prompt_change_fits": budget.total + budget.cache <= room,
        "largest_size": f"{size[0]}x{size[1]}" if size else None,
        "largest_steps": largest_steps(model, stream, room),
    }


def plan_text(plan: dict[str, Any]) -> str:
    """A plan in plain lines."""
    lines = [heading(plan), *(f"{label}: {in_gb(count)}" for label, count in figures(plan))]
    return "\n".join(lines + verdict(plan))


def heading(plan: dict[str, Any]) -> str:
    """What was planned."""
    return f"{plan['size']}, {_steps(plan)}, {plan['dtype']} on {plan['device']}"


def figures(plan: dict[str, Any]) -> list[tuple[str, int]]:
    """Labels and bytes: of what is needed, its sum, and what is free."""
    needed = [(label, plan["bytes"][name]) for name, label in PARTS.items()]
    return [*needed, ("free", plan["free_bytes"])]


def verdict(plan: dict[str, Any]) -> list[str]:
    """Whether it fits, and what would."""
    change = _fits(plan["prompt_change_fits"])
    return [
        _fits(plan["fits"]),
        f"changing the prompt of a running stream takes its cache once more: {change}",
        f"largest size in this shape with {_steps(plan)}: {plan['largest_size'] or 'none'}",
        f"most steps at {plan['size']}: {plan['largest_steps'] or 'none'}",
    ]


def _steps(plan: dict[str, Any]) -> str:
    return f"{plan['steps']} step{'s' * (plan['steps'] > 1)}"


def _fits(fits: bool) -> str:
    return "fits" if fits else "does not fit"
