"""One picture of a stream, with its place in it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture with its place in the stream.

    rgb: (3, h, w), uint8 in 0..255 or floating point in [0, 1].
    index: position in the source, from 0. timestamp: presentation time in seconds.
    """

    rgb: Tensor
    index: int
    timestamp: float


def to_unit_range(rgb: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Bring pixels to a device as floating point in [0, 1]; uint8 travels as uint8."""
    if device.type == "cuda" and rgb.device.type == "cpu":
        # A copy of its own, whatever lies behind the pixels; it waits for nothing that runs there.
        pinned = torch.empty(rgb.shape, dtype=rgb.dtype, pin_memory=True).copy_(rgb)
        moved = pinned.to(device, non_blocking=True)
    else:
        moved = rgb.to(device)
    if moved.dtype == torch.uint8:
        return moved.to(dtype) / 255
    return moved.to(dtype)


def to_bytes(rgb: Tensor) -> Tensor:
    """Round pixels in [0, 1] (clamped) to uint8 in 0..255; uint8 passes through."""
    if rgb.dtype == torch.uint8:
        return rgb
    return (rgb.float().clamp(0, 1) * 255).round().to(torch.uint8)
