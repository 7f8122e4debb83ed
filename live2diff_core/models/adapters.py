"""Low-rank changes of a network's weights (LoRA), and variants of a network that have them merged.

Networks are shared by sessions and never changed: a variant stands beside its origin.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import ConfigError, WeightsKeyError

MAX_STRENGTH = 5.0

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """Change of one weight: scale x up x down. Hu et al. 2021 (LoRA), sec. 4.1.

    up: (out, rank), down: (rank, in); of convolutions (out, rank, 1, 1) and (rank, in, k, k).
    scale: alpha / rank.
    """

    up: Tensor
    down: Tensor
    scale: float

    def fits(self, weight: Tensor) -> bool:
        """Whether the change has as many rows and columns as the weight."""
        rows, columns = self.up.shape[0], self.down.flatten(1).shape[1]
        return rows == weight.shape[0] and rows * columns == weight.numel()

    def delta(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """The change of a weight at a strength, float32, in the weight's shape, on its device."""
        up, down = (t.to(weight.device, torch.float32).flatten(1) for t in (self.up, self.down))
        return (up * (self.scale * strength) @ down).view(weight.shape)


Changes = Mapping[str, LowRank]


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """A LoRA: what it changes in the spatial UNet and in the text model, by parameter name."""

    name: str
    unet: Changes
    text: Changes


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """A LoRA at a strength for the UNet and one for the text model, -5 to 5; 0 leaves it out."""

    adapter: Adapter
    unet: float = 1.0
    text: float = 1.0

    def __post_init__(self) -> None:
        for part, strength in (("unet", self.unet), ("text", self.text)):
            if not math.isfinite(strength) or abs(strength) > MAX_STRENGTH:
                raise ConfigError(
                    f"{part} strength of LoRA {self.adapter.name} is {strength}, expected "
                    f"{-MAX_STRENGTH:g} to {MAX_STRENGTH:g}"
                )


def variant(module: Module, changes: Sequence[tuple[Changes, float]]) -> Module:
    """A copy of a module with changes merged in, each at its strength; the module stays as it is.

    All that no change touches is shared with the module; the module itself comes back if that is
    everything. The sum is made in float32, one weight at a time, and rounded once to the weight's
    dtype; the order of two changes does not matter to the bit. May run on a thread of its own while
    others use the module. Raises WeightsKeyError for a weight that the module lacks.
    """
    wanted: defaultdict[str, list[tuple[LowRank, float]]] = defaultdict(list)
    for weights, strength in changes:
        for key, change in weights.items():
            if strength:
                wanted[key].append((change, strength))
    if not wanted:
        return module
    own = dict(module.named_parameters(remove_duplicate=False))
    misfits = [
        key
        for key, found in wanted.items()
        if key not in own or not all(change.fits(own[key]) for change, _ in found)
    ]
    if misfits:
        raise WeightsKeyError(
            f"{len(misfits)} weights that the LoRAs change are missing here or have another shape "
            f"(first {misfits[0]}): they were loaded for another model; load them for this one"
        )
    tensors: Iterable[Tensor] = chain(module.parameters(), module.buffers())
    memo: dict[int, object] = {id(tensor): tensor for tensor in tensors}
    memo |= {id(own[key]): _merged(own[key], found) for key, found in wanted.items()}
    return copy.deepcopy(module, memo)


def with_child(module: Module, name: str, child: nn.Module) -> Module:
    """A copy of a module with another child under a name; everything else is shared with it."""
    twin = copy.copy(module)
    registers = {key: copy.copy(v) for key, v in vars(module).items() if isinstance(v, dict)}
    vars(twin).update(registers)  # not shared, or the child would be the module's too
    twin.add_module(name, child)
    return twin


@torch.no_grad()
def _merged(weight: Tensor, changes: Iterable[tuple[LowRank, float]]) -> nn.Parameter:
    first, *others = (change.delta(weight, strength) for change, strength in changes)
    total = first
    for other in others:
        total.add_(other)
    total.add_(weight)
    return nn.Parameter(torch.empty_like(weight).copy_(total), requires_grad=False)
