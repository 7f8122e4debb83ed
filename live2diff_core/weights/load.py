"""Strict loading of state dicts into modules."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..errors import WeightsKeyError, WeightsValueError
from ..models.unet import StreamingUNet
from . import tables
from .files import some


def rename(key: str, table: Iterable[tuple[str, str]]) -> str:
    """Replace the first prefix of the table that fits, if any; {0}, {1} stand for numbers."""
    for old, new in table:
        pattern = re.sub(r"\\\{\d\\\}", r"(\\d+)", re.escape(old))
        match = re.match(pattern, key)
        if match:
            return new.format(*match.groups()) + key[match.end() :]
    return key


def from_live2diff(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Live2Diff's key names to StreamingUNet's; spatial keys go below `spatial`."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.endswith(tables.LIVE2DIFF_DERIVED):
            continue
        ours = rename(key, tables.LIVE2DIFF_PREFIXES)
        if ours == key:
            ours = f"spatial.{key}"
        elif ours.startswith("temporal_"):
            head, index, layer, rest = ours.split(".", 3)
            ours = ".".join([head, index, layer, rename(rest, tables.LIVE2DIFF_TRANSFORMER)])
        renamed[ours] = tensor
    return renamed


def load_strict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    device: torch.device | None = None,
) -> None:
    """Put a state dict into a module, in the module's dtype; all keys or none.

    With a device the tensors take the place of the module's own there, which may be empty ones on
    the meta device; without one they are copied into them. Raises WeightsKeyError for missing or
    unexpected keys and other shapes, WeightsValueError for NaN and infinity, with the module as it
    was.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    types = [
        f"{key}: {state[key].dtype}"
        for key in sorted(own.keys() & state.keys())
        if own[key].is_floating_point() and not state[key].is_floating_point()
    ]
    shapes = [
        f"{key}: expected {tuple(own[key].shape)}, got {tuple(state[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if own[key].shape != state[key].shape
    ]
    problems = [
        f"{len(keys)} {kind} ({some(keys)})"
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
            ("of integers (quantised?)", types),
        )
        if keys
    ]
    if problems:
        raise WeightsKeyError(f"{what} does not fit this network: {'; '.join(problems)}")
    if device is not None:
        state = {key: tensor.to(device, own[key].dtype) for key, tensor in state.items()}
    check_finite(state, what)
    module.load_state_dict(state, strict=True, assign=device is not None)


def check_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Raise WeightsValueError if a tensor that has values holds NaN or infinite ones."""
    valued = {key: tensor for key, tensor in state.items() if tensor.numel() and not tensor.is_meta}
    floating = {key: tensor for key, tensor in valued.items() if tensor.is_floating_point()}
    bad = [key for key, tensor in floating.items() if not _is_finite(tensor)]
    if bad:
        raise WeightsValueError(
            f"{what} holds NaN or infinite values in {len(bad)} tensors ({some(bad)}): it was "
            "damaged or merged wrongly, or holds values too large for this precision; download or "
            "merge it again, or take bfloat16 or float32"
        )


def _is_finite(tensor: Tensor) -> bool:
    plain = tensor.float() if tensor.element_size() == 1 else tensor  # fp8 has no extremes in torch
    return bool(torch.isfinite(torch.stack(torch.aminmax(plain))).all())


def load_live2diff(unet: StreamingUNet, state: Mapping[str, Tensor], what: str) -> None:
    """Load a whole network (spatial, temporal, depth) in the reference's key names, strictly."""
    load_strict(unet, from_live2diff(state), what)
