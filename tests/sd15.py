"""Stable Diffusion 1.5 at a tiny size, written as the files that people have."""

import json
import re
from functools import cache
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff_core.models.unet import MotionConfig, StreamingUNet
from tests.tiny import roughen

WIDTHS, LAYERS, TEXT = (32, 64), 1, 64
CLIP_PREFIX, UNET_PREFIX = "cond_stage_model.transformer.", "model.diffusion_model."

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def original_name(key: str, layers: int, attended_up: list[bool]) -> str:
    """A UNet key of diffusers as the original files name it, written down from their layout."""
    for new, old in TOP.items():
        if key.startswith(f"{new}."):
            return old + _inner(key.removeprefix(new))
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(\..*)", key)
    assert match, key
    side, block, part, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    first = block * (layers + 1)
    if part == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op{rest.removeprefix('.conv')}"
    if part == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if attended_up[block] else 1}{rest}"
    place = (
        f"input_blocks.{1 + first + layer}" if side == "down" else f"output_blocks.{first + layer}"
    )
    return f"{place}.{1 if part == 'attentions' else 0}{_inner(rest)}"


def _inner(rest: str) -> str:
    part = rest.split(".")[1]
    return rest.replace(f".{part}", f".{RESNET[part]}", 1) if part in RESNET else rest


def original_unet(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """A UNet's tensors in original names, with their prefix."""
    attended = [hasattr(block, "attentions") for block in unet.up_blocks]
    layers = int(unet.config.layers_per_block)
    return {
        UNET_PREFIX + original_name(key, layers, attended): tensor
        for key, tensor in unet.state_dict().items()
    }


def reference_motion(unet: StreamingUNet) -> dict[str, Tensor]:
    """Motion weights of a network under the reference's key names, position tables included."""
    state: dict[str, Tensor] = {}
    for side in ("down", "up"):
        for key, tensor in getattr(unet, f"temporal_{side}").state_dict().items():
            block, layer, rest = key.split(".", 2)
            rest = re.sub(r"^attentions\.(\d)\.to_out\.", r"attentions.\1.to_out.0.", rest)
            rest = re.sub(r"^attentions\.", "attention_blocks.", rest)
            rest = re.sub(r"^attention_norms\.", "norms.", rest)
            if not rest.startswith(("norm.", "proj_")):
                rest = f"transformer_blocks.0.{rest}"
            state[f"{side}_blocks.{block}.motion_modules.{layer}.temporal_transformer.{rest}"] = (
                tensor
            )
    for key in [key for key in state if key.endswith("to_q.weight")]:
        table = position_table(24, state[key].shape[0])
        state[key.replace("to_q.weight", "pos_encoder.pe")] = table[None]
    depth = unet.depth_mapping.state_dict()
    return state | {f"flow_conv_in.{key}": tensor for key, tensor in depth.items()}


def position_table(length: int, width: int) -> Tensor:
    """Sine and cosine in turn, from their definition."""
    place = torch.arange(length, dtype=torch.float64)[:, None]
    angle = place / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).float()


@cache
def tiny_unet() -> StreamingUNet:
    """Random weights, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spatial = UNet2DConditionModel(
            block_out_channels=WIDTHS,
            layers_per_block=LAYERS,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=TEXT,
        )
        unet = StreamingUNet(spatial, MotionConfig())
    return _ready(unet)


@cache
def tiny_clip() -> CLIPTextModel:
    """A text model with the real vocabulary, position count and head width."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = CLIPTextConfig(
            vocab_size=49408,
            hidden_size=TEXT,
            intermediate_size=4 * TEXT,
            num_hidden_layers=3,
            num_attention_heads=TEXT // 64,
            bos_token_id=49406,
            eos_token_id=49407,
        )
        model = CLIPTextModel(config)
    return _ready(model)


def clip_state() -> dict[str, Tensor]:
    """The text model's tensors as files name them."""
    state = tiny_clip().state_dict()
    return {
        f"text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in state.items()
    }


def _ready(module: nn.Module) -> nn.Module:
    roughen(module, 2, 0.02)
    return module.eval().requires_grad_(False)


def checkpoint() -> dict[str, Tensor]:
    """A single-file checkpoint with UNet and text encoder, as finetunes are published."""
    text = {CLIP_PREFIX + key: tensor for key, tensor in clip_state().items()}
    return original_unet(tiny_unet().spatial) | text


def save(state: dict[str, Tensor], path: Path) -> Path:
    """Write tensors as safetensors, or as a torch pickle for any other suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def save_folder(folder: Path) -> Path:
    """A diffusers folder with UNet and text encoder."""
    unet = tiny_unet().spatial
    config = {key: value for key, value in unet.config.items() if not key.startswith("_")}
    save(unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.safetensors")
    (folder / "unet" / "config.json").write_text(
        json.dumps({"_class_name": "UNet2DConditionModel", **config})
    )
    save(clip_state(), folder / "text_encoder" / "model.safetensors")
    (folder / "text_encoder" / "config.json").write_text(
        json.dumps({"architectures": ["CLIPTextModel"], "hidden_size": TEXT})
    )
    return folder
