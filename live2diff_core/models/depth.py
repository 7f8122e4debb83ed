"""What goes into the depth input: a map of the frame's structure or depth, in [-1, 1]."""

from dataclasses import InitVar, dataclass, field
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DepthAnythingForDepthEstimation, DPTForDepthEstimation

from ..config import DepthRule
from .autoencoder import Autoencoder

HALF_LIFE = 8  # frames

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean, standard deviation
AROUND_ZERO = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class DepthEstimator(Protocol):
    """Gives the structure prior of a frame.

    relative: the map has a range and an offset of its own; `DepthRange` brings it to [-1, 1].
    """

    relative: bool

    def __call__(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, 1, h, w), in [-1, 1] unless relative."""


def depth_latent(autoencoder: Autoencoder, depth: Tensor) -> Tensor:
    """Encode a (n, 1, h, w) map in [-1, 1] as a grey picture, (n, channels, h / f, w / f)."""
    return autoencoder.encode((depth / 2 + 0.5).expand(-1, 3, -1, -1))


class DepthNetwork(nn.Module):
    """Inverse depth by DPT-hybrid (MiDaS 3) or Depth Anything.

    DPT-hybrid gets the frame squeezed into a square, bilinearly, in [-1, 1]: as the reference of
    Live2Diff does it. Depth Anything gets it at the size that it was trained on, by the shorter
    side, in multiples of its patches, bicubically, with ImageNet's mean and deviation.
    """

    relative = True
    mean: Tensor
    deviation: Tensor

    def __init__(self, model: DPTForDepthEstimation | DepthAnythingForDepthEstimation) -> None:
        super().__init__()
        self.model = model
        self.square = isinstance(model, DPTForDepthEstimation)
        config: Any = model.config if self.square else model.config.backbone_config
        self.side, self.patch = config.image_size, config.patch_size
        mean, deviation = AROUND_ZERO if self.square else IMAGENET
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which the network sees a frame of this size."""
        if self.square:
            return self.side, self.side
        scale = self.side / min(height, width)
        rows, columns = (round(length * scale / self.patch) for length in (height, width))
        return rows * self.patch, columns * self.patch

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> inverse depth (n, 1, h, w), 0 and above, in rgb's dtype.

        Larger is nearer; range and offset are arbitrary.
        """
        height, width = rgb.shape[-2:]
        seen = functional.interpolate(
            rgb,
            self.input_size(height, width),
            mode="bilinear" if self.square else "bicubic",
            align_corners=False,
            antialias=not self.square,
        )
        pixels = ((seen - self.mean) / self.deviation).to(self.model.dtype)
        depth = self.model(pixel_values=pixels).predicted_depth[:, None].to(rgb.dtype)
        return functional.interpolate(depth, (height, width), mode="bilinear", align_corners=False)


@dataclass(slots=True, eq=False)
class DepthRange:
    """The range of depth in one stream; maps are normalised by it. Belongs to the session.

    rule "running": the bounds follow the extremes of the frames exponentially, half_life in frames;
    the first frames weigh alike, so that none decides alone. rule "frame": each frame has its own
    range, as in the reference of Live2Diff, where one extreme that jumps moves the whole map.
    bounds: lowest and highest so far, (2,) float32. frames: how many, float32. Both are on the
    device and changed in place, so that a recorded frame goes on with them.
    """

    rule: DepthRule = "running"
    half_life: float = HALF_LIFE
    device: InitVar[torch.device | str] = "cpu"
    bounds: Tensor = field(init=False)
    frames: Tensor = field(init=False)

    def __post_init__(self, device: torch.device | str) -> None:
        self.bounds = torch.zeros(2, device=device)
        self.frames = torch.zeros((), device=device)

    def normalise(self, depth: Tensor) -> Tensor:
        """Bring the stream's next maps to [-1, 1]: (n, 1, h, w), in order, each counted once.

        What lies outside the range is clamped; a map without any range becomes 0.
        """
        return torch.stack([self._normalise_one(one) for one in depth.float()]).to(depth.dtype)

    def _normalise_one(self, depth: Tensor) -> Tensor:
        low, high = self._follow(torch.stack(torch.aminmax(depth)))
        depth = depth.nan_to_num(nan=0.0)
        return ((2 * depth - low - high) / (high - low).clamp(min=1e-6)).clamp(-1, 1)

    def _follow(self, extremes: Tensor) -> Tensor:
        extremes = torch.where(extremes.isfinite(), extremes, self.bounds)  # of half precision
        self.frames.add_(1)
        if self.rule == "frame":
            return self.bounds.copy_(extremes)
        weight = self.frames.reciprocal().clamp(min=1 - 0.5 ** (1 / self.half_life))
        return self.bounds.lerp_(extremes, weight)


class StructureMap(nn.Module):
    """Luminance with its local contrast normalised. No depth is estimated.

    detail and surround: standard deviations in pixels of what is smoothed away and of what is
    called local, the latter as a part of the picture's shorter side. floor: contrast (0..1) below
    which nothing is amplified.
    """

    relative = False

    def __init__(self, detail: float = 1.0, surround: float = 0.08, floor: float = 0.03) -> None:
        super().__init__()
        self.detail, self.surround, self.floor = detail, surround, floor

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, 1, h, w) in (-1, 1)."""
        red, green, blue = rgb.split(1, dim=1)
        luminance = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
        wide = self.surround * min(rgb.shape[-2:])
        fine = blur(luminance, self.detail)
        mean, square = blur(torch.cat([luminance, luminance**2], 1), wide).split(1, dim=1)
        spread = (square - mean**2).clamp(min=0)
        return torch.tanh((fine - mean) / (spread + self.floor**2).sqrt())


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (n, c, h, w) with edges repeated; sigma in pixels.

    Two matrix products: a ninth of the time of convolutions with so few channels and so many taps.
    """
    rows, columns = (_smoother(side, sigma, x.device, x.dtype) for side in x.shape[-2:])
    return rows @ x @ columns.T


@cache
@torch.inference_mode(False)  # kept for all uses, in training too
def _smoother(length: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The blur of one axis, (length, length): row i holds the weights of what lies around i."""
    radius = max(1, round(2.5 * sigma))
    offset = torch.arange(-radius, radius + 1, device=device)
    weights = torch.exp(-0.5 * (offset / sigma) ** 2)
    weights = (weights / weights.sum()).to(dtype)
    sources = (torch.arange(length, device=device)[:, None] + offset).clamp(0, length - 1)
    empty = weights.new_zeros(length, length)
    smoother = empty.scatter_add(1, sources, weights.expand(length, -1))
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # other queues read it, too
    return smoother
