"""Depth networks and autoencoders small enough for tests, and weights that keys alone decide."""

import copy
import json
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
)

from tests.tiny import roughen

DATA = Path(__file__).parent / "data"
CPU = torch.device("cpu")
DEPTH_SIDE = 64

TINY_VAE: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
}


def recorded(name: str) -> dict[str, Any]:
    """Keys, shapes and results of an original network, recorded from its own code."""
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def seeded(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights in float16 that depend on keys and shapes alone: those that were recorded with."""
    state = {}
    for key, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 100
        scale = 1.0 if len(shape) == 1 and key.endswith("weight") else 0.0
        state[key] = (torch.randn(shape, generator=generator) / fan_in**0.5 + scale).half()
    return state


def tiny_dpt_config() -> DPTConfig:
    """DPT-hybrid of few and narrow layers."""
    return DPTConfig(
        is_hybrid=True,
        backbone_config={
            "model_type": "bit",
            "global_padding": "same",
            "layer_type": "bottleneck",
            "depths": [1, 2, 1],
            "hidden_sizes": [128, 128, 128, 128],
            "embedding_size": 32,
            "out_features": ["stage1", "stage2", "stage3"],
            "embedding_dynamic_padding": True,
        },
        backbone_featmap_shape=[1, 128, DEPTH_SIDE // 16, DEPTH_SIDE // 16],
        backbone_out_indices=[0, 0, 1, 2],
        image_size=DEPTH_SIDE,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        neck_hidden_sizes=[128, 128, 40, 48],
        fusion_hidden_size=16,
        layer_norm_eps=1e-6,
    )


def tiny_depth_anything_config() -> DepthAnythingConfig:
    """Depth Anything V2 of few and narrow layers."""
    backbone = Dinov2Config(
        image_size=56,
        patch_size=14,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    return DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 12, 16, 20],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )


DepthModel = DPTForDepthEstimation | DepthAnythingForDepthEstimation


def _seeded_module(network: Any, settings: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = network(settings)
    roughen(module, 0, 0.05)
    return module.eval().requires_grad_(False)


def tiny_depth(kind: str) -> DepthModel:
    """A transformers depth network: "dpt" or "depth_anything"; all it gives is above 0."""
    return copy.deepcopy(_tiny_depth(kind))


@cache
def _tiny_depth(kind: str) -> DepthModel:
    if kind == "dpt":
        model = _seeded_module(DPTForDepthEstimation, tiny_dpt_config())
        model.head.head[4].bias.fill_(2.0)
    else:
        model = _seeded_module(DepthAnythingForDepthEstimation, tiny_depth_anything_config())
        model.head.conv3.bias.fill_(2.0)
    return model


def tiny_vae(**settings: Any) -> AutoencoderKL:
    """An autoencoder of Stable Diffusion's form with factor 2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(**{**TINY_VAE, **settings})
    roughen(vae, 0, 0.02)
    return vae.eval().requires_grad_(False)


def pictures(count: int, height: int, width: int) -> Tensor:
    """Random pictures, (count, 3, height, width) in [0, 1]."""
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
