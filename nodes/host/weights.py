"""The weights of what ComfyUI holds, with every change that a graph made to them.

`ModelPatcher.get_key_patches` would give them, too, but not those of a quantised model: it walks
the state dict, which has the parts of a quantised weight under names that the layer does not know.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .memory import storage_device
from .progress import Progress

# What the layers of 8-bit and 4-bit models keep beside a weight. ComfyUI's conversion applies those
# of the weight; those of the input round it, and we do not round.
SCALES = ("scale_weight", "scale_input", "input_scale", "pre_quant_scale")


@dataclass(frozen=True, eq=False)
class HeldWeight:
    """One weight as ComfyUI holds it.

    stored: as it was loaded, before any change; perhaps quantised. convert: gives plain values.
    changes: LoRAs and merges in ComfyUI's form. smoothing: (columns,), what the layer multiplies
    its input by; None for most layers.
    """

    key: str
    stored: Tensor
    convert: Callable[..., Tensor]
    changes: Sequence[Any]
    smoothing: Tensor | None = None

    def merged(self) -> Tensor:
        """The weight with all changes, as a new float32 tensor."""
        weight = self.convert(self.stored.to(torch.float32, copy=True), inplace=True)
        if self.changes:
            from comfy import lora

            weight = lora.calculate_weight(self.changes, weight, self.key)
        return weight if self.smoothing is None else weight * self.smoothing.to(weight)


def held_weights(patcher: Any, prefix: str = "") -> dict[str, HeldWeight]:  # noqa: ANN401
    """The weights of a ModelPatcher's network below a prefix, by their names without it."""
    with patcher.use_ejected():  # without what other packs put around the layers
        return {
            weight.key.removeprefix(prefix): weight
            for path, layer in patcher.model.named_modules()
            for name, current in layer.named_parameters(recurse=False)
            if f"{path}.{name}".startswith(prefix) and name not in SCALES
            for weight in [_held(patcher, path, layer, name, current)]
        }


def merged(
    weights: Mapping[str, HeldWeight], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Copies, made one after the other: hardly more than their sum is in memory at a time."""
    progress = Progress(len(weights), None)
    copies: dict[str, Tensor] = {}
    for key, weight in weights.items():
        progress.step()
        copies[key] = weight.merged().to(device, dtype)
    return copies


def plain_copy(patcher: Any, dtype: torch.dtype) -> nn.Module:  # noqa: ANN401 - a ModelPatcher
    """A new network of the class and settings of a MODEL's, with its weights, off the device.

    It computes in one precision and fetches nothing while it runs.
    """
    from comfy.ops import disable_weight_init

    settings = {**patcher.model.model_config.unet_config, "dtype": dtype}
    device = storage_device()
    network: nn.Module = type(patcher.model.diffusion_model)(
        **settings, device=device, operations=disable_weight_init
    )
    network.load_state_dict(merged(held_weights(patcher, "diffusion_model."), device, dtype))
    return network


def _held(patcher: Any, path: str, layer: Any, name: str, current: Tensor) -> HeldWeight:  # noqa: ANN401
    key = f"{path}.{name}" if path else name
    stored = current  # unless changes were merged in place
    if key in patcher.backup:
        stored = patcher.backup[key].weight
    if key in patcher.hook_backup:
        stored = patcher.hook_backup[key][0]
    return HeldWeight(
        key,
        stored,
        getattr(layer, f"convert_{name}", _unchanged),
        patcher.patches.get(key, ()),
        getattr(layer, "pre_quant_scale", None) if name == "weight" else None,
    )


def _unchanged(weight: Tensor, **_: object) -> Tensor:
    return weight
