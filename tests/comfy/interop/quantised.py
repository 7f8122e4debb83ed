"""Quantised MODELs of comfy-kitchen: ours have the values that their weights stand for."""

import json
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.comfy.interop.common import (
    HAS_QUANTISED,
    check,
    error,
    model_of,
    ours,
    theirs,
    weights,
    with_lora,
)


@dataclass(frozen=True)
class Format:
    """How comfy-kitchen makes weights of a kind, and what a checkpoint says of them."""

    layout: str
    made: dict[str, object]
    columns: int  # what their number must divide by
    told: dict[str, object] = field(default_factory=dict)


ROTATED = {"convrot": True, "convrot_groupsize": 16}
FORMATS = {
    "float8_e4m3fn": Format("TensorCoreFP8E4M3Layout", {"scale": "recalculate"}, 16),
    "float8_e5m2": Format("TensorCoreFP8E5M2Layout", {"scale": "recalculate"}, 16),
    "mxfp8": Format("TensorCoreMXFP8Layout", {}, 32),
    "nvfp4": Format("TensorCoreNVFP4Layout", {}, 16),
    "int8_tensorwise": Format("TensorWiseINT8Layout", {}, 16),
    "int8_tensorwise, rotated": Format(
        "TensorWiseINT8Layout", {"per_channel": True, **ROTATED}, 16, ROTATED
    ),
    "convrot_w4a4": Format(
        "TensorCoreConvRotW4A4Layout", {"convrot_groupsize": 64}, 64, {"convrot_groupsize": 64}
    ),
}


def quantised(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a checkpoint whose linear layers are quantised, and what they stand for."""
    from comfy.quant_ops import QuantizedTensor

    kind, stored, exact = FORMATS[name], weights(), weights()
    told = json.dumps({"format": name.partition(",")[0], **kind.told}).encode()
    for key in [key for key, t in stored.items() if is_fit(key, t, kind.columns)]:
        small = QuantizedTensor.from_float(stored[key], kind.layout, **kind.made)
        exact[key] = small.dequantize()
        stored.update(small.state_dict(key))
        stored[key.replace(".weight", ".comfy_quant")] = torch.tensor([*told], dtype=torch.uint8)
    return stored, exact


def is_fit(key: str, weight: Tensor, columns: int) -> bool:
    """ComfyUI reads the width of the text from `attn2.to_k`, which packing would halve."""
    return weight.ndim == 2 and weight.shape[1] % columns == 0 and "attn2.to_k" not in key


def compared(stored: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Errors of ours against ComfyUI's network of the values that the weights stand for."""
    model, plain = model_of(stored), model_of(exact)
    changed = with_lora(model, 1, 0.7)
    found = {
        "layers": sum(key.endswith("comfy_quant") for key in stored),
        "plain": error(ours(model), theirs(plain)),
        "lora": error(ours(changed), theirs(with_lora(plain, 1, 0.7))),
    }
    theirs(changed)  # which patches the weights in place
    return found | {"after_a_run": error(ours(model), theirs(model_of(exact)))}


@check
def quantised_models() -> object:
    """Each kind, none where ComfyUI knows none."""
    if not HAS_QUANTISED:
        return {}
    found = {name: compared(*quantised(name)) for name in FORMATS}
    return found | {"nvfp4, smoothed": smoothed()}


def smoothed() -> dict[str, float]:
    """Weights whose layers multiply their input by a number for each column first."""
    stored, exact = quantised("nvfp4")
    for key in [key for key in stored if key.endswith(".comfy_quant")]:
        weight = key.replace(".comfy_quant", ".weight")
        scale = torch.linspace(0.5, 1.5, exact[weight].shape[1])
        stored[key.replace(".comfy_quant", ".pre_quant_scale")] = scale
        exact[weight] = exact[weight] * scale
    return {"plain": error(ours(model_of(stored)), theirs(model_of(exact)))}
