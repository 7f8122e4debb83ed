"""Frames as the meters take them."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import Fit
from ..frames import to_bytes, to_unit_range
from ..stream.fit import fit_frame

Image = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One frame twice: pixels (h, w, 3) uint8 RGB, and values, the same unrounded in [0, 1]."""

    pixels: Pixels
    values: Image

    @classmethod
    def of(cls, rgb: Tensor) -> "Picture":
        """rgb: (3, h, w), uint8 or floating point in [0, 1]."""
        pixels = _rows(to_bytes(rgb.detach()))
        if rgb.dtype == torch.uint8:
            return cls(pixels, pixels.astype(np.float32) / np.float32(255))
        return cls(pixels, _rows(rgb.detach().float()))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.pixels.shape[:2]
        return height, width

    @property
    def rgb(self) -> Tensor:
        """The values as (1, 3, h, w)."""
        return torch.from_numpy(self.values).permute(2, 0, 1)[None]

    def scaled(self, width: int, height: int) -> "Picture":
        """At another size, stretched bilinearly, without smoothing ahead of it."""
        if self.size == (height, width):
            return self
        pixels = cv2.resize(self.pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        values = cv2.resize(self.values, (width, height), interpolation=cv2.INTER_LINEAR)
        return Picture(np.asarray(pixels, np.uint8), np.asarray(values, np.float32))


def fitted(rgb: Tensor, size: tuple[int, int], fit: Fit) -> Tensor:
    """Bring (3, h, w) to a size (height, width); one that has it stays as it is, uint8 too.

    Raises FrameSizeError.
    """
    if tuple(rgb.shape[1:]) == size:
        return rgb
    unit = to_unit_range(rgb.detach(), torch.device("cpu"), torch.float32)
    return fit_frame(unit, size[1], size[0], fit)


def _rows(rgb: Tensor) -> NDArray[Any]:
    return np.asarray(rgb.cpu().permute(1, 2, 0).contiguous().numpy())
