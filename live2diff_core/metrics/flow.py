"""Optical flow between neighbouring frames, and which pixels both of them show."""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .picture import Image, Picture, Pixels

# Ruder et al., "Artistic Style Transfer for Videos" (2016), eq. 5, after Sundaram et al. (2010):
# a pixel is hidden where |forward + backward|^2 > 0.01 (|forward|^2 + |backward|^2) + 0.5.
RELATIVE_TOLERANCE = 0.01
ABSOLUTE_TOLERANCE = 0.5
# With less in common than this, two frames are a cut, not a movement.
LEAST_VISIBLE = 0.2


class Flow(Protocol):
    """Estimates optical flow."""

    name: str

    def __call__(self, first: Pixels, second: Pixels) -> Image:
        """Where each pixel of the first picture is in the second one, as a step (x, y) in pixels.

        first, second: (h, w, 3) RGB. Returns (h, w, 2).
        """
        ...


class DisFlow:
    """OpenCV's DIS flow of luminance, preset medium. Kroeger et al. (2016); needs no weights."""

    name = "dis"

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, first: Pixels, second: Pixels) -> Image:
        """Flow from the first picture to the second one, (h, w, 2)."""
        at_rest: Image = np.zeros((*first.shape[:2], 2), dtype=np.float32)
        flow = self._flow.calc(_grey(first), _grey(second), at_rest)
        return np.asarray(flow, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What moved between two frames of one video.

    forward: flow from the earlier to the later frame, (h, w, 2). backward: the other way. origin:
    where each pixel of the later frame was, (h, w, 2). seen: whether it is in the earlier one.
    """

    forward: Image
    backward: Image
    origin: Image
    seen: NDArray[np.bool_]

    @classmethod
    def between(cls, flow: Flow, before: Pixels, now: Pixels) -> "Motion":
        """Estimate both flows and check one against the other."""
        backward, forward = flow(now, before), flow(before, now)
        origin = _grid(backward.shape[:2]) + backward
        return cls(forward, backward, origin, visible(backward, forward))

    @property
    def share(self) -> float:
        """Share of the later frame's pixels that are in the earlier one."""
        return float(self.seen.mean())

    @property
    def is_cut(self) -> bool:
        """Whether so little is in both frames that they are two scenes."""
        return self.share < LEAST_VISIBLE

    def change(self, before: Image, now: Image) -> float:
        """Mean squared difference between a frame and the one before it, warped, where seen.

        nan where nothing is seen. before, now: (h, w, c) of the video or of one that moves with it.
        """
        count = int(np.count_nonzero(self.seen)) * now.shape[2]
        if count == 0:
            return float("nan")
        difference = warp(before, self.origin) - now
        difference[~self.seen] = 0
        return float(np.square(difference, dtype=np.float64).sum() / count)


class MotionTracker:
    """Gives the motion of a video frame by frame."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._before: Pixels | None = None

    def update(self, picture: Picture) -> Motion | None:
        """Motion since the frame before; None for the first one."""
        before, self._before = self._before, picture.pixels
        return None if before is None else Motion.between(self._flow, before, picture.pixels)


def visible(backward: Image, forward: Image) -> NDArray[np.bool_]:
    """Tell which pixels of the current frame are in the previous one, too.

    backward, forward: flow from the current frame to the previous one and the reverse, (h, w, 2)
    in pixels. Returns (h, w). Ruder et al. 2016, eq. 5, and nothing from beyond the border.
    """
    height, width = backward.shape[:2]
    origin = _grid((height, width)) + backward
    returning = warp(forward, origin)
    x, y = origin[..., 0], origin[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    mismatch = _squared(returning + backward)
    allowed = RELATIVE_TOLERANCE * (_squared(returning) + _squared(backward)) + ABSOLUTE_TOLERANCE
    return np.asarray(inside & (mismatch <= allowed), dtype=np.bool_)


def warp(image: Image, origin: Image) -> Image:
    """Fetch each pixel from where it was. image: (h, w, c). origin: (h, w, 2), as (x, y)."""
    x, y = origin[..., 0], origin[..., 1]
    fetched = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(fetched, dtype=np.float32)


def length(flow: Image) -> Image:
    """Pixels that each pixel moves, (h, w)."""
    return np.sqrt(_squared(flow))


def _squared(flow: Image) -> Image:
    x, y = flow[..., 0], flow[..., 1]
    return x * x + y * y


def _grid(shape: tuple[int, ...]) -> Image:
    height, width = shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack((x, y), axis=2).astype(np.float32)


def _grey(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
