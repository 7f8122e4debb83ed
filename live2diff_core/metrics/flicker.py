"""Flicker as warping error: what changes between frames that the input's motion does not explain.

The measure is that of Lai et al., "Learning Blind Video Temporal Consistency" (ECCV 2018), sec. 5:
the previous output, warped by the optical flow of the input, against the current one, over the
pixels that the flow sees in both.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import FrameSizeError
from ..frames import to_bytes, to_unit_range

Image = NDArray[np.float32]
Gray = NDArray[np.uint8]

# Ruder et al., "Artistic Style Transfer for Videos" (2016), eq. 5, after Sundaram et al. (2010):
# a pixel is hidden where |forward + backward|^2 > 0.01 (|forward|^2 + |backward|^2) + 0.5.
RELATIVE_TOLERANCE = 0.01
ABSOLUTE_TOLERANCE = 0.5
# With less in common than this, two frames are a cut, not a movement.
LEAST_VISIBLE = 0.2


@dataclass(frozen=True, slots=True)
class Flicker:
    """Mean squared warping error over pairs of frames, for values in [0, 1]; nan without pairs.

    source: of the input itself, the floor that motion and noise set. outputs: in the order given.
    pairs: measured. cuts: left out, too little in common. visible: mean share of pixels compared.
    """

    source: float
    outputs: tuple[float, ...]
    pairs: int
    cuts: int
    visible: float


class FlickerMeter:
    """Measures any number of outputs against one input, frame by frame; memory does not grow."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._gray: Gray | None = None
        self._images: list[Image] = []
        self._sums: NDArray[np.float64] = np.zeros(0)
        self._visible = 0.0
        self._pairs = 0
        self._cuts = 0

    def update(self, source: Tensor, *outputs: Tensor) -> None:
        """Add the next frame: (3, h, w), uint8 or floating point in [0, 1].

        The source may be of another size than the outputs, it is scaled to theirs; it shows the
        same part of the scene. Raises FrameSizeError when sizes or the number of outputs change.
        """
        size = _common_size(source, outputs)
        scaled = _scale(_bytes(source), size)
        gray = np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        own: Image = scaled.astype(np.float32) / np.float32(255)
        images = [own, *(_image(output) for output in outputs)]
        if self._gray is None:
            self._sums = np.zeros(len(images))
        else:
            self._check_alike(images)
            self._measure(self._gray, gray, images)
        self._gray, self._images = gray, images

    def report(self) -> Flicker:
        """Give the means so far."""
        means = self._sums / self._pairs if self._pairs else np.full_like(self._sums, np.nan)
        seen = self._visible / self._pairs if self._pairs else float("nan")
        source, *outputs = means.tolist() or [float("nan")]
        return Flicker(source, tuple(outputs), self._pairs, self._cuts, seen)

    def _measure(self, before: Gray, now: Gray, images: list[Image]) -> None:
        # Where each pixel of now was before, and the other way round: (h, w, 2) as (x, y).
        backward = self._flow_between(now, before)
        forward = self._flow_between(before, now)
        origin = _grid(backward.shape[:2]) + backward
        seen = visible(backward, forward)
        share = float(seen.mean())
        if share < LEAST_VISIBLE:
            self._cuts += 1
            return
        errors = [
            _error(warp(a, origin), b, seen) for a, b in zip(self._images, images, strict=True)
        ]
        self._sums += errors
        self._visible += share
        self._pairs += 1

    def _flow_between(self, there: Gray, here: Gray) -> Image:
        at_rest: Image = np.zeros((*there.shape, 2), dtype=np.float32)
        return np.asarray(self._flow.calc(there, here, at_rest), dtype=np.float32)

    def _check_alike(self, images: list[Image]) -> None:
        expected = [image.shape[:2] for image in self._images]
        got = [image.shape[:2] for image in images]
        if got != expected:
            raise FrameSizeError(
                f"expected heights and widths {expected} as before (source first), got {got}. "
                "Use one meter for each stream, and one size in it."
            )


def visible(backward: Image, forward: Image) -> NDArray[np.bool_]:
    """Tell which pixels of the current frame are in the previous one, too.

    backward, forward: flow from the current frame to the previous one and the reverse, (h, w, 2)
    in pixels. Returns (h, w). Ruder et al. 2016, eq. 5, and nothing from beyond the border.
    """
    height, width = backward.shape[:2]
    origin = _grid((height, width)) + backward
    returning = warp(forward, origin)
    inside = np.all((origin >= 0) & (origin <= (width - 1, height - 1)), axis=2)
    mismatch = _squared(returning + backward)
    allowed = RELATIVE_TOLERANCE * (_squared(returning) + _squared(backward)) + ABSOLUTE_TOLERANCE
    return np.asarray(inside & (mismatch <= allowed), dtype=np.bool_)


def warp(image: Image, origin: Image) -> Image:
    """Fetch each pixel from where it was. image: (h, w, c). origin: (h, w, 2), as (x, y)."""
    x, y = origin[..., 0], origin[..., 1]
    fetched = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(fetched, dtype=np.float32)


def _error(warped: Image, image: Image, seen: NDArray[np.bool_]) -> float:
    return float(np.square(warped - image)[seen].mean())


def _squared(flow: Image) -> Image:
    return np.asarray(np.square(flow).sum(axis=2), dtype=np.float32)


def _grid(shape: tuple[int, ...]) -> Image:
    height, width = shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack((x, y), axis=2).astype(np.float32)


def _image(rgb: Tensor) -> Image:
    unit = to_unit_range(rgb.detach(), torch.device("cpu"), torch.float32)
    return np.asarray(unit.permute(1, 2, 0).contiguous().numpy())


def _bytes(rgb: Tensor) -> NDArray[np.uint8]:
    return np.asarray(to_bytes(rgb.detach()).cpu().permute(1, 2, 0).contiguous().numpy())


def _scale(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    shrinks = height < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


def _common_size(source: Tensor, outputs: tuple[Tensor, ...]) -> tuple[int, int]:
    """Height and width that all outputs share; those of the source where there are none."""
    sizes = {(output.shape[1], output.shape[2]) for output in outputs or (source,)}
    if len(sizes) > 1:
        raise FrameSizeError(
            f"expected outputs of one size, got {sorted(sizes)} (height, width). Scale them alike."
        )
    return sizes.pop()
