"""A model of full size without its files: the weights are random, speed and memory are real."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from transformers import DPTConfig, DPTForDepthEstimation

from ..config import NoiseScheduleConfig, StepSelection
from ..models.autoencoder import Autoencoder, KLAutoencoder, TinyAutoencoder
from ..models.depth import DepthEstimator, DepthNetwork, StructureMap
from ..models.layout import lay_out
from ..models.translator import ModelDefaults, TranslationModel
from ..models.unet import MotionConfig, StreamingUNet
from .budget import StreamSize, check, model_footprint
from .depth import MIDAS_HYBRID

NAME = "random"
DEFAULTS = ModelDefaults(512, 512, StepSelection(strength=0.8, steps=2))
TOKENS = 77  # of a text embedding
SPREAD = 0.02  # of parameters that no layer knows how to start, such as position tables
SD_VAE: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Networks:
    """The parts of a model that a frame goes through."""

    unet: StreamingUNet
    autoencoder: Autoencoder
    depth: DepthEstimator


def sd15(full_autoencoder: bool = False, structure: bool = False) -> Networks:
    """Stable Diffusion 1.5 with Live2Diff's motion weights, TAESD and DPT-hybrid.

    full_autoencoder: Stable Diffusion's own. structure: the map without weights in place of depth.
    """
    unet = StreamingUNet(UNet2DConditionModel(cross_attention_dim=768), MotionConfig())
    autoencoder = (
        KLAutoencoder(AutoencoderKL(**SD_VAE))
        if full_autoencoder
        else TinyAutoencoder(AutoencoderTiny())
    )
    if structure:
        return Networks(unet, autoencoder, StructureMap())
    depth = DepthNetwork(DPTForDepthEstimation(DPTConfig(**MIDAS_HYBRID)))
    return Networks(unet, autoencoder, depth)


def random_model(
    make: Callable[[], Networks],
    stream: StreamSize,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
) -> TranslationModel:
    """A model of networks as they are before training; memory holds one copy of the weights.

    make: builds the networks; it is called where their weights take no memory. stream: what is to
    run on them; raises MemoryBudgetError where both do not fit. One seed gives the same weights
    again on the same device. The model reads no words: see `random_text`.
    """
    with init_empty_weights():
        made = make()
    model = TranslationModel(
        name=NAME,
        unet=_in_dtype(made.unet, dtype),
        autoencoder=_in_dtype(made.autoencoder, dtype),
        depth=_in_dtype(made.depth, dtype),
        text_encoder=None,
        schedule=NoiseScheduleConfig(),
        defaults=DEFAULTS,
    )
    check(model_footprint(model), stream, device)
    forked = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(forked, device_type=device.type):
        torch.manual_seed(seed)
        for part in (model.unet, model.autoencoder, model.depth):
            _fill(part, device)
    lay_out((model.unet, model.autoencoder, model.depth), device)
    return model


def random_text(model: TranslationModel, seed: int = 0) -> Tensor:
    """An embedding of no words in particular, (1, 77, dim)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, TOKENS, model.text_channels, generator=generator)


def _in_dtype(part: Part, dtype: torch.dtype) -> Part:
    if isinstance(part, nn.Module):
        nn.Module.to(part.eval(), dtype)  # diffusers' own warns of precision
    return part


def _fill(part: object, device: torch.device) -> None:
    """Give every parameter memory and the value that its layer starts with."""
    if not isinstance(part, nn.Module):
        return
    for module in part.modules():
        own = dict(module.named_parameters(recurse=False))
        start: Callable[[], None] | None = getattr(module, "reset_parameters", None)
        for name, empty in own.items():
            values = torch.empty_like(empty, device=device)
            if start is None:
                values.normal_(std=SPREAD)
            setattr(module, name, nn.Parameter(values, requires_grad=False))
        if own and start is not None:
            start()
    nn.Module.to(part, device)  # buffers
