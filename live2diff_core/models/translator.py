"""A whole translation model: every network that a session needs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import NoiseMode, NoiseScheduleConfig, StepSelection
from ..errors import ConfigError, FrameSizeError, PromptError
from .adapters import AdapterUse, variant
from .autoencoder import Autoencoder
from .depth import DepthEstimator, DepthRange, depth_latent
from .text import TextEncoder
from .unet import StreamingUNet


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """Settings that a model does best with; size in pixels."""

    width: int
    height: int
    steps: StepSelection
    noise: NoiseMode = "fresh"


@dataclass(frozen=True, slots=True, eq=False)
class TranslationModel:
    """Networks on one device; holds weights, no state, and serves any number of sessions.

    text_encoder: what reads prompts; None where they come as embeddings alone. adapters: the LoRAs
    that are merged into `unet` and `text`. origin: this model without any. is_fixed: nobody
    changes the weights, and there is room for the UNet's twice.
    """

    name: str
    unet: StreamingUNet
    autoencoder: Autoencoder
    depth: DepthEstimator
    text_encoder: TextEncoder | None
    schedule: NoiseScheduleConfig
    defaults: ModelDefaults
    adapters: tuple[AdapterUse, ...] = ()
    origin: "TranslationModel | None" = None
    is_fixed: bool = False

    def with_adapters(self, uses: Sequence[AdapterUse]) -> "TranslationModel":
        """A variant of this model with these LoRAs at these strengths in place of its own.

        It shares all that no LoRA touches; what they touch is merged from the origin, so strength
        0 is the origin to the bit. This model stays as it is, so a running session is not
        disturbed: make the variant on another thread, then `Session.update(model=variant)`.
        Raises ConfigError for a LoRA that is there twice, and for one that changes the text encoder
        of a model without one.
        """
        if len({id(use.adapter) for use in uses}) < len(uses):
            names = ", ".join(use.adapter.name for use in uses)
            raise ConfigError(f"each LoRA can be used once, got {names}")
        origin = self.origin or self
        spatial = variant(origin.unet.spatial, [(u.adapter.unet, u.unet) for u in uses])
        return replace(
            origin,
            unet=origin.unet.with_spatial(spatial),
            text_encoder=origin._text_variant(uses),
            adapters=tuple(uses),
            origin=origin,
            is_fixed=False,
        )

    def with_strength(self, strength: float) -> "TranslationModel":
        """A variant with the last of its LoRAs at another strength, -5 to 5.

        Raises ConfigError for a model without LoRAs, and for a strength beyond that.
        """
        if not self.adapters:
            raise ConfigError(f"{self.name} has no LoRA whose strength could be changed")
        *others, last = self.adapters
        return self.with_adapters([*others, replace(last, unet=strength, text=strength)])

    def _text_variant(self, uses: Sequence[AdapterUse]) -> TextEncoder | None:
        encoder = self.text_encoder
        if encoder is not None:
            changes = [(use.adapter.text, use.text) for use in uses]
            return encoder.with_model(variant(encoder.model, changes))
        for use in uses:
            if use.adapter.text and use.text:
                raise ConfigError(
                    f"LoRA {use.adapter.name} changes the text encoder and {self.name} has none: "
                    "give it the text strength 0"
                )
        return None

    @property
    def text(self) -> TextEncoder:
        """What reads prompts. Raises PromptError for a model without."""
        if self.text_encoder is None:
            raise PromptError(
                "this model reads no words: give a text embedding (ComfyUI: connect a CONDITIONING)"
            )
        return self.text_encoder

    def is_variant_of(self, other: "TranslationModel") -> bool:
        """Whether the two differ in their LoRAs alone."""
        return (self.origin or self) is (other.origin or other)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.depth_mapping.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.unet.depth_mapping.conv_in.weight.dtype

    @property
    def text_channels(self) -> int:
        """Channels of a text embedding."""
        return int(self.unet.spatial.config.cross_attention_dim)

    @property
    def size_multiple(self) -> int:
        """Width and height in pixels must be multiples of this."""
        return self.autoencoder.factor * self.unet.size_multiple

    def check_size(self, width: int, height: int) -> None:
        """Raise FrameSizeError, with the nearest size, for pixels that the network cannot take."""
        step = self.size_multiple
        if width % step or height % step or width <= 0 or height <= 0:
            near = "x".join(str(max(step, round(side / step) * step)) for side in (width, height))
            raise FrameSizeError(
                f"{self.name} takes widths and heights that are multiples of {step} pixels, "
                f"got {width}x{height}; the nearest size is {near}"
            )

    def encode(self, rgb: Tensor) -> Tensor:
        """Latents of (n, 3, h, w) in [0, 1]: (n, channels, h / f, w / f) float32."""
        return self.autoencoder.encode(rgb.to(self.dtype)).float()

    def decode(self, latent: Tensor) -> Tensor:
        """Pixels of latents, the inverse of `encode`: (n, 3, h, w) in [0, 1] float32."""
        return self.autoencoder.decode(latent.to(self.dtype)).float().clamp(0, 1)

    def depth_features(self, rgb: Tensor, depth_range: DepthRange) -> Tensor:
        """Depth prior of (n, 3, h, w) in [0, 1], as the UNet takes it: (n, c0, h / f, w / f).

        depth_range: the stream's, which a map without a range of its own is brought to [-1, 1] by.
        """
        depth = self.depth(rgb.float())
        if self.depth.relative:
            depth = depth_range.normalise(depth)
        depth = depth.to(self.dtype)
        features: Tensor = self.unet.depth_mapping(depth_latent(self.autoencoder, depth))
        return features
