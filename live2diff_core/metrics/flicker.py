"""Flicker as warping error: what changes between frames that the input's motion does not explain.

The measure is that of Lai et al., "Learning Blind Video Temporal Consistency" (ECCV 2018), sec. 5:
the previous output, warped by the optical flow of the input, against the current one, over the
pixels that the flow sees in both.
"""

from dataclasses import dataclass

from torch import Tensor

from ..errors import FrameSizeError
from .figures import LeftOut, Mean
from .flow import DisFlow, Flow, Motion, MotionTracker
from .picture import Image, Picture, fitted

TOO_SHORT = "fewer than two frames that show the same scene"


class WarpErrorMeter:
    """Warp error of one video under a motion that is given, which may be another video's.

    Per pair of frames: mean over visible pixels and channels of (warped previous - current)^2, for
    values in [0, 1]. The figure is the mean over pairs; a pair that is a cut is left out.
    """

    def __init__(self) -> None:
        self._before: Image | None = None
        self._error = Mean()

    def update(self, picture: Picture, motion: Motion | None) -> float | None:
        """Add the next frame; gives the pair's error, None for the first frame and at a cut."""
        before, self._before = self._before, picture.values
        if before is None or motion is None or motion.is_cut:
            return None
        error = motion.change(before, picture.values)
        self._error.add(error)
        return error

    def value(self) -> float | LeftOut:
        """The mean so far, of values in [0, 1] squared."""
        return self._error.value(TOO_SHORT)


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
    """Warp error alone, of any number of outputs against one input; memory does not grow."""

    def __init__(self, flow: Flow | None = None) -> None:
        self._motion = MotionTracker(flow or DisFlow())
        self._meters: list[WarpErrorMeter] = []
        self._sizes: list[tuple[int, int]] = []
        self._visible = Mean()
        self._cuts = 0

    def update(self, source: Tensor, *outputs: Tensor) -> None:
        """Add the next frame: (3, h, w), uint8 or floating point in [0, 1].

        The source may be of another size than the outputs, it is scaled to theirs; it shows the
        same part of the scene. Raises FrameSizeError when sizes or the number of outputs change.
        """
        own = fitted(source, _common_size(source, outputs), "stretch")
        pictures = [Picture.of(rgb) for rgb in (own, *outputs)]
        self._check_alike([picture.size for picture in pictures])
        motion = self._motion.update(pictures[0])
        if motion is not None and motion.is_cut:
            self._cuts += 1
        elif motion is not None:
            self._visible.add(motion.share)
        for meter, picture in zip(self._meters, pictures, strict=True):
            meter.update(picture, motion)

    def report(self) -> Flicker:
        """Give the means so far."""
        source, *outputs = [_or_nan(meter.value()) for meter in self._meters] or [float("nan")]
        seen = _or_nan(self._visible.value(TOO_SHORT))
        return Flicker(source, tuple(outputs), self._visible.count, self._cuts, seen)

    def _check_alike(self, sizes: list[tuple[int, int]]) -> None:
        if not self._sizes:
            self._sizes, self._meters = sizes, [WarpErrorMeter() for _ in sizes]
        if sizes != self._sizes:
            raise FrameSizeError(
                f"expected heights and widths {self._sizes} as before (source first), got {sizes}. "
                "Use one meter for each stream, and one size in it."
            )


def _or_nan(value: float | LeftOut) -> float:
    return float("nan") if isinstance(value, LeftOut) else value


def _common_size(source: Tensor, outputs: tuple[Tensor, ...]) -> tuple[int, int]:
    """Height and width that all outputs share; those of the source where there are none."""
    sizes = {(output.shape[1], output.shape[2]) for output in outputs or (source,)}
    if len(sizes) > 1:
        raise FrameSizeError(
            f"expected outputs of one size, got {sorted(sizes)} (height, width). Scale them alike."
        )
    return sizes.pop()
