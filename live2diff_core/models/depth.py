"""What goes into the depth input: a map of the frame's structure in [-1, 1]."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from .autoencoder import Autoencoder


class DepthEstimator(Protocol):
    """Gives the structure prior of a frame."""

    def __call__(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, 1, h, w) in [-1, 1]."""


def depth_latent(autoencoder: Autoencoder, depth: Tensor) -> Tensor:
    """Encode a (n, 1, h, w) map in [-1, 1] as a grey picture, (n, channels, h / f, w / f)."""
    return autoencoder.encode((depth / 2 + 0.5).expand(-1, 3, -1, -1))


class StructureMap(nn.Module):
    """Luminance with its local contrast normalised. No depth is estimated.

    detail and surround: standard deviations in pixels of what is smoothed away and of what is
    called local, the latter as a part of the picture's shorter side. floor: contrast (0..1) below
    which nothing is amplified.
    """

    def __init__(self, detail: float = 1.0, surround: float = 0.08, floor: float = 0.03) -> None:
        super().__init__()
        self.detail, self.surround, self.floor = detail, surround, floor

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, 1, h, w) in (-1, 1)."""
        red, green, blue = rgb.split(1, dim=1)
        luminance = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
        wide = self.surround * min(rgb.shape[-2:])
        fine = blur(luminance, self.detail)
        mean = blur(luminance, wide)
        spread = (blur(luminance**2, wide) - mean**2).clamp(min=0)
        return torch.tanh((fine - mean) / (spread + self.floor**2).sqrt())


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (n, 1, h, w) with edges repeated; sigma in pixels."""
    radius = max(1, round(2.5 * sigma))
    offset = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(x.dtype)
    x = functional.pad(x, (radius, radius, radius, radius), mode="replicate")
    x = functional.conv2d(x, kernel.view(1, 1, 1, -1))
    return functional.conv2d(x, kernel.view(1, 1, -1, 1))
