"""Tiny networks of Stable Diffusion's form, and LoRAs for them in the layouts of all trainers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff_core.models.adapters import Adapter
from live2diff_core.weights.ldm import ldm_names
from live2diff_core.weights.lora import load_lora

UNET_SETTINGS: dict[str, Any] = {
    "sample_size": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 12,
    "norm_num_groups": 4,
}
TEXT_SETTINGS: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

Shapes = Mapping[str, tuple[int, ...]]
State = dict[str, Tensor]
# part -> layer -> (up, down, alpha)
Factors = dict[str, dict[str, tuple[Tensor, Tensor, float]]]


def make_unet(**settings: Any) -> UNet2DConditionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(**{**UNET_SETTINGS, **settings}).eval().requires_grad_(False)


def make_text() -> CLIPTextModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return CLIPTextModel(CLIPTextConfig(**TEXT_SETTINGS)).eval().requires_grad_(False)


def layer_shapes(module: nn.Module) -> Shapes:
    return {
        name: tuple(child.weight.shape)
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear | nn.Conv2d)
    }


def is_attention(layer: str) -> bool:
    return ".attn" in layer or ".self_attn" in layer


def make_factors(
    parts: Mapping[str, Shapes],
    rank: int = 2,
    wanted: Callable[[str], bool] = lambda _: True,
    alpha: float | None = None,
) -> Factors:
    """Random factors of every wanted layer; alphas of 1, 2, 3 in turn unless one is given."""
    generator = torch.Generator().manual_seed(2)

    def layer(number: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, float]:
        up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=generator)
        down = torch.randn(rank, *shape[1:], generator=generator)
        return up, down, float(1 + number % 3) if alpha is None else alpha

    return {
        part: {
            name: layer(number, shape)
            for number, (name, shape) in enumerate(shapes.items())
            if wanted(name)
        }
        for part, shapes in parts.items()
    }


def expected_delta(factors: tuple[Tensor, Tensor, float]) -> Tensor:
    """alpha / rank x up x down, in double precision."""
    up, down, alpha = factors
    rank = down.shape[0]
    product = torch.einsum("or,ri->oi", up.double().reshape(-1, rank), down.double().flatten(1))
    return (alpha / rank * product).reshape(len(up), *down.shape[1:])


def _write(
    factors: Factors,
    names: Mapping[str, Callable[[str], str]],
    ends: tuple[str, str],
    alpha: bool = False,
) -> State:
    state: State = {}
    for part, layers in factors.items():
        for layer, (up, down, value) in layers.items():
            name = names[part](layer)
            state |= {f"{name}.{ends[0]}.weight": up, f"{name}.{ends[1]}.weight": down}
            if alpha:
                state[f"{name}.alpha"] = torch.tensor(value)
    return state


def kohya(factors: Factors) -> State:
    names = {
        "unet": lambda layer: "lora_unet_" + layer.replace(".", "_"),
        "text": lambda layer: "lora_te_text_model_" + layer.replace(".", "_"),
    }
    return _write(factors, names, ("lora_up", "lora_down"), alpha=True)


def kohya_original(factors: Factors) -> State:
    # the count of a block's layers and which blocks have attention must show in the names
    original = ldm_names([*factors["unet"], *layer_shapes(make_unet())])
    renamed = {original[layer]: found for layer, found in factors["unet"].items()}
    return kohya({**factors, "unet": renamed})


def diffusers_processors(factors: Factors) -> State:
    def unet(layer: str) -> str:
        block, _, name = layer.replace("to_out.0", "to_out").rpartition(".")
        return f"unet.{block}.processor.{name}_lora"

    def text(layer: str) -> str:
        block, _, name = layer.rpartition(".")
        return f"text_encoder.text_model.{block}.to_{name.removesuffix('_proj')}_lora"

    return _write(factors, {"unet": unet, "text": text}, ("up", "down"))


def diffusers(factors: Factors) -> State:
    names = {"unet": "unet.{}".format, "text": "text_encoder.text_model.{}".format}
    unet = _write({"unet": factors["unet"]}, names, ("lora.up", "lora.down"))
    ends = "lora_linear_layer.up", "lora_linear_layer.down"
    return unet | _write({"text": factors["text"]}, names, ends)


def peft(factors: Factors) -> State:
    names = {"unet": "unet.{}".format, "text": "text_encoder.text_model.{}".format}
    return _write(factors, names, ("lora_B", "lora_A"))


def peft_wrapped(factors: Factors) -> State:
    names = dict.fromkeys(("unet", "text"), "base_model.model.{}".format)
    return _write(factors, names, ("lora_B.default", "lora_A.default"), alpha=True)


def written(folder: Path, state: State, metadata: dict[str, str] | None = None) -> Path:
    path = folder / "ink.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path, metadata)
    return path


def load(path: Path) -> Adapter:
    return load_lora(path, UNET, TEXT)


def with_alpha(state: State, alpha: torch.Tensor) -> State:
    return {key: alpha.clone() if key.endswith(".alpha") else t for key, t in state.items()}


UNET, TEXT = make_unet(), make_text()
PARTS = {"unet": layer_shapes(UNET), "text": layer_shapes(TEXT)}
RANK = 2
