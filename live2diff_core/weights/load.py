"""Strict loading of state dicts into modules."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import WeightsFormatError, WeightsKeyError
from ..models.unet import StreamingUNet
from . import tables

SHOWN_KEYS = 5


def read_safetensors(*paths: Path) -> dict[str, Tensor]:
    """All tensors of one or more safetensors files. Raises WeightsFormatError for anything else."""
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise WeightsFormatError(f"{path} cannot be read as safetensors: {error}") from error
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            raise WeightsKeyError(f"{path} repeats keys of an earlier file: {_some(twice)}")
        tensors |= found
    return tensors


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


def load_strict(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Copy a state dict into a module, keeping the module's dtype and device; all keys or none.

    Raises WeightsKeyError, with the module as it was, for missing or unexpected keys and other
    shapes.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key}: expected {tuple(own[key].shape)}, got {tuple(state[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if own[key].shape != state[key].shape
    ]
    problems = [
        f"{len(keys)} {kind} ({_some(keys)})"
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise WeightsKeyError(f"{what} does not fit this network: {'; '.join(problems)}")
    module.load_state_dict(state, strict=True)


def load_live2diff(unet: StreamingUNet, state: Mapping[str, Tensor], what: str) -> None:
    """Load a whole network (spatial, temporal, depth) in the reference's key names, strictly."""
    load_strict(unet, from_live2diff(state), what)


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more
