"""A whole translation model: every network that a session needs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import NoiseMode, NoiseScheduleConfig, StepSelection
from ..errors import FrameSizeError
from .autoencoder import Autoencoder
from .depth import DepthEstimator, depth_latent
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
    """Networks on one device; holds weights, no state, and serves any number of sessions."""

    name: str
    unet: StreamingUNet
    autoencoder: Autoencoder
    depth: DepthEstimator
    text: TextEncoder
    schedule: NoiseScheduleConfig
    defaults: ModelDefaults

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

    def depth_features(self, rgb: Tensor) -> Tensor:
        """Depth prior of (n, 3, h, w) in [0, 1], as the UNet takes it: (n, c0, h / f, w / f)."""
        depth = self.depth(rgb.float()).to(self.dtype)
        features: Tensor = self.unet.depth_mapping(depth_latent(self.autoencoder, depth))
        return features
