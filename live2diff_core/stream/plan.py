"""What follows from a session's parameters."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cache import FLOAT8, FrameShape, cache_bytes, cache_dtype
from ..config import Guidance, StreamConfig
from ..errors import ConfigError
from ..models.translator import TranslationModel
from ..schedule import Schedule, make_schedule
from .denoise import Conditioning
from .runtime import check_runtime


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Model, settings, coefficients and conditioning of a stream: replaced as a whole by an
    update.
    """

    model: TranslationModel
    config: StreamConfig
    schedule: Schedule
    condition: Conditioning
    prompt: str | Tensor

    def state_bytes(self, model: TranslationModel) -> int:
        """Bytes of the state that denoising keeps under this plan."""
        config, steps, unet = self.config, self.schedule.steps, model.unet
        height, width = (side // model.autoencoder.factor for side in (config.height, config.width))
        depth = unet.depth_mapping.conv_out.out_channels
        frame = FrameShape(height * width, model.autoencoder.channels, depth)
        shapes, rows = unet.cache_shapes(height, width), steps * self.condition.branches
        kept = cache_dtype(config.cache, model.dtype)
        cache = cache_bytes(shapes, rows, config.window, kept)
        return cache + steps * frame.nbytes(2, model.dtype)


def make_plan(model: TranslationModel, config: StreamConfig, prompt: str | Tensor) -> Plan:
    """Check settings and prompt against the model. prompt: words or an embedding (1, tokens, dim).

    Raises FrameSizeError, PromptError or ConfigError.
    """
    model.check_size(config.width, config.height)
    _check_window(model, config)
    check_runtime(config.runtime, model.device, model.dtype)
    _check_cache(config, model.device)
    condition = read_condition(model, config.guidance, prompt)
    schedule = make_schedule(model.schedule, config.steps, model.device)
    condition = prepare(condition, model, schedule)
    return Plan(model, config, schedule, condition, prompt)


@torch.inference_mode()
def prepare(condition: Conditioning, model: TranslationModel, schedule: Schedule) -> Conditioning:
    """The condition with what this network makes of it."""
    return replace(condition, guides=condition.guided(model.unet, schedule))


@torch.inference_mode()
def read_condition(
    model: TranslationModel,
    guidance: Guidance,
    prompt: str | Tensor,
    negative: Tensor | None = None,
) -> Conditioning:
    """What guides the rows. negative: the negative prompt's embedding, if it is known already.

    Raises PromptError or ConfigError.
    """
    text = model.text.encode(prompt) if isinstance(prompt, str) else prompt
    if text.ndim != 3 or text.shape[0] != 1 or text.shape[2] != model.text_channels:
        raise ConfigError(
            f"a text embedding is (1, tokens, {model.text_channels}), got {tuple(text.shape)}"
        )
    text = text.to(model.device, model.dtype)
    if guidance.mode != "full":
        return Conditioning(text, guidance)
    if model.text_encoder is None:
        raise ConfigError(
            f"full guidance needs the embedding of a negative prompt and {model.name} reads no "
            "words: choose guidance none or self"
        )
    if negative is None:
        negative = model.text.encode_batch([guidance.negative]).to(text)
    text, negative = model.text.align(text, negative)
    return Conditioning(text, guidance, negative)


def _check_window(model: TranslationModel, config: StreamConfig) -> None:
    positions = model.unet.motion.temporal.max_positions
    if config.window.slots > positions:
        raise ConfigError(
            f"{model.name} knows {positions} positions in time, the window has "
            f"{config.window.slots}: choose fewer sinks or ring slots"
        )


def _check_cache(config: StreamConfig, device: torch.device) -> None:
    if config.cache == "float8":
        try:
            torch.empty(1, dtype=FLOAT8, device=device)
        except (TypeError, RuntimeError) as error:
            raise ConfigError(f"cache float8 cannot be had on {device}: {error}") from error
