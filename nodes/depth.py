"""ComfyUI's Depth Anything 3 as what tells near from far in a stream."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..live2diff_core.errors import WeightsKindError
from ..live2diff_core.models.depth import IMAGENET
from . import host

NETWORK = "DepthAnything3Net"  # ComfyUI's class
LONGER, PATCH = 504, 14  # pixels: the longer side of what the network sees, in whole patches
NEAREST = 1e-3  # of depths, in the network's unit

COPIES = host.Copies()


class HostDepth(nn.Module):
    """A copy of a DA3_MODEL's weights that ComfyUI keeps whole on the device, for inverse depth.

    A frame is seen at 504 pixels by its longer side, bicubically, with ImageNet's mean and
    deviation; ComfyUI's own node resizes on the processor, which a stream cannot wait for.
    """

    relative = True
    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype
        mean, deviation = IMAGENET
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> inverse depth (n, 1, h, w), 0 and above; sky is 0."""
        sides = rgb.shape[-2:]
        scale = LONGER / max(sides)
        seen = tuple(max(1, round(side * scale / PATCH)) * PATCH for side in sides)
        if seen != tuple(sides):
            rgb = functional.interpolate(
                rgb, seen, mode="bicubic", align_corners=False, antialias=True
            ).clamp(0, 1)
        found = self.network(((rgb - self.mean) / self.deviation).to(self.dtype))
        near = found["depth"].float().clamp(min=NEAREST).reciprocal()
        if "sky" in found:
            near = near * (1 - found["sky"].float().clamp(0, 1))
        sized = functional.interpolate(near[:, None], sides, mode="bilinear", align_corners=False)
        return sized.to(rgb.dtype)


def depth_of(model: Any, dtype: torch.dtype) -> host.Resident:  # noqa: ANN401 - ComfyUI's DA3_MODEL
    """The estimator of a DA3_MODEL; the same while nothing changed. Raises WeightsKindError."""
    name = type(model.model.diffusion_model).__name__
    if name != NETWORK:
        raise WeightsKindError(
            f"expected Depth Anything 3 as the depth, got {name}: connect Load Depth Anything 3, "
            "or choose a file in depth_model"
        )

    def make() -> host.Resident:
        network = host.plain_copy(model, dtype)
        estimator = HostDepth(network, dtype).eval().requires_grad_(False)
        return host.Resident(estimator)

    return COPIES.of(model.model, _source(model, dtype), make)


def _source(model: Any, dtype: torch.dtype) -> Hashable:  # noqa: ANN401 - ComfyUI's DA3_MODEL
    return model.patches_uuid, host.network_device(), dtype
