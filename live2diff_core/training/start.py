"""The model that training starts from: frozen networks, and motion weights in float32."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from ..models.translator import TranslationModel
from ..models.unet import MotionConfig, StreamingUNet
from ..weights.base import open_base
from ..weights.budget import StreamSize
from ..weights.bundled import load_bundled
from ..weights.component import empty
from ..weights.model import load_model
from ..weights.random import random_model, sd15
from ..weights.spec import BUNDLED, STRUCTURE, ModelSpec
from .config import RANDOM, SILENT, TAESD, TrainConfig
from .motion_file import (
    beside,
    is_animatediff,
    load_animatediff,
    load_motion,
    save_motion,
    silence_depth,
)

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_start(config: TrainConfig, device: torch.device) -> TranslationModel:
    """The model of a run before its first step.

    Frozen networks are in the run's precision, temporal layers and depth mapping in float32 with
    gradients. Raises WeightsError, ConfigError, MemoryBudgetError, FrameSizeError.
    """
    part, dtype = config.model, DTYPES[config.optimisation.precision]
    torch.manual_seed(config.seed)
    motion = None if part.motion == SILENT else model_spec(config).find(part.motion, "motion")
    if part.base == BUNDLED:
        model = replace(load_bundled(device=device, dtype=dtype), is_fixed=False)
    elif part.base == RANDOM:
        model = _random(config, device, dtype)
    else:
        model = _from_files(config, motion, device, dtype)
    model.check_size(config.data.width, config.data.height)
    trained = beside(model.unet).float()
    begin(model.unet, motion, has_depth=part.base == BUNDLED)
    model.unet.requires_grad_(False)
    trained.requires_grad_(True)
    return model


def begin(unet: StreamingUNet, motion: Path | None, has_depth: bool) -> None:
    """Give temporal layers and depth mapping what they start with; None: what changes nothing.

    has_depth: the base brings a depth mapping of its own, which stays.
    """
    if motion is None:
        _reset(unet.temporal_down, unet.temporal_up)
        for transformer in unet.transformers():
            transformer.start_silent()
        if not has_depth:
            _reset(unet.depth_mapping)
            silence_depth(unet)
    elif is_animatediff(motion):
        load_animatediff(unet, motion)
    else:
        load_motion(unet, motion)


def _reset(*parts: nn.Module) -> None:
    for part in parts:
        for module in part.modules():
            reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()


def model_spec(config: TrainConfig) -> ModelSpec:
    """The parts of a run's model, as the loader takes them."""
    part = config.model
    spec = ModelSpec(
        base=part.base,
        autoencoder=part.vae,
        depth=part.depth,
        text_encoder=part.text_encoder,
        clip_skip=part.clip_skip,
        width=config.data.width,
        height=config.data.height,
        download=part.download,
    )
    return spec if part.models is None else replace(spec, models=part.models)


def _random(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> TranslationModel:
    part, data = config.model, config.data
    make = partial(sd15, part.vae != TAESD, part.depth == STRUCTURE)
    return random_model(make, StreamSize(data.width, data.height, 1), device, dtype, config.seed)


def _from_files(
    config: TrainConfig, motion: Path | None, device: torch.device, dtype: torch.dtype
) -> TranslationModel:
    """Through the ordinary loader, which wants motion weights: they are made where it has none."""
    spec = model_spec(config)
    if motion is not None and not is_animatediff(motion):
        return load_model(replace(spec, motion=str(motion)), device, dtype)
    with TemporaryDirectory(dir=config.directory, prefix=".start-") as folder:
        made = Path(folder) / "motion.safetensors"
        settings = open_base(spec.find(spec.base, "base")).settings
        spatial = empty(UNet2DConditionModel, settings, spec.base)
        save_motion(made, StreamingUNet(spatial, MotionConfig()), {})
        return load_model(replace(spec, motion=str(made)), device, dtype)
