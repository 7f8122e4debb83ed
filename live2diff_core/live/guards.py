"""What keeps a stream right for hours: cuts, pictures that hardly change, spoiled ones, drift.

Every guard looks at a thumbnail, which costs well under a millisecond, and depends on the pictures
alone: the same stream gets the same answers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ConfigError
from ..frames import to_bytes, to_unit_range

SAMPLED = 128, 96  # about so many pixels of a picture are looked at, across and down
CELLS = 16, 12
BINS = 8  # of each channel's range
LUMA = 0.299, 0.587, 0.114  # ITU-R BT.601


class SceneCut:
    """Finds hard cuts in the input; `threshold` is of a distance of pictures in 0..1.5.

    The distance is the mean difference of 16 x 12 cells plus half of what the colour histograms do
    not share: cells large enough that a shaken camera changes them little, and content, not
    brightness alone, as PySceneDetect's content detector has it. That package itself reads files,
    not frames as they come. Real cuts measure 0.31 and more, a fast pan 0.13, quiet scenes 0.03.

    flash: a change that is over after so many frames is none, so a cut is told so many frames late.
    spacing: frames between two cuts at least; cuts within it are told as one, at its end. Fades are
    not found. Raises ConfigError.
    """

    def __init__(self, threshold: float = 0.2, flash: int = 2, spacing: int = 16) -> None:
        if not 0 < threshold < 1.5 or flash < 0 or spacing < 1:
            raise ConfigError(
                "a scene cut has a threshold between 0 and 1.5, flash of 0 and spacing of 1 frames "
                f"or more, got {threshold}, {flash} and {spacing}"
            )
        self._threshold, self._flash, self._spacing = threshold, flash, spacing
        self._last: _Look | None = None
        self._before: _Look | None = None  # the picture before a change that may be a flash
        self._changed, self._since, self._due = 0, spacing, False

    def is_cut(self, rgb: Tensor) -> bool:
        """Take the next picture, (3, h, w) uint8 on the host; whether a cut is to be told now."""
        look = _look(rgb)
        origin = self._before or self._last
        if origin is None or origin.distance(look) <= self._threshold:
            self._before, self._changed = None, 0
        else:
            self._before, self._changed = origin, self._changed + 1
        if self._changed > self._flash:
            self._before, self._changed, self._due = None, 0, True
        self._last = look
        self._since += 1
        if not self._due or self._since < self._spacing:
            return False
        self._due, self._since = False, 0
        return True


class Similarity:
    """Tells pictures that hardly differ from the last one that was not skipped.

    After StreamDiffusion's similar image filter (arXiv 2312.12491, sec. 3.6), without its chance,
    and compared with what was last translated, so that slow changes add up and show. Similarity is
    1 less the largest change of any of 16 x 12 cells, so that a small thing that moves counts.

    threshold: similarity from which a picture is skipped; 1 skips what is equal. longest: skips in
    a row at most. saved: pictures skipped so far. Raises ConfigError.
    """

    def __init__(self, threshold: float = 0.98, longest: int = 24) -> None:
        if not 0 < threshold <= 1 or longest < 1:
            raise ConfigError(
                "a similarity filter has a threshold above 0 and at most 1 and skips 1 picture or "
                f"more in a row, got {threshold} and {longest}"
            )
        self._threshold, self._longest = threshold, longest
        self._kept: Tensor | None = None
        self._row = 0
        self.saved = 0

    def is_still(self, rgb: Tensor) -> bool:
        """Take the next picture, (3, h, w) uint8 on the host; whether to skip it."""
        cells = _cells(_sampled(rgb))
        if self._kept is not None and self._row < self._longest:
            change = (cells - self._kept).abs().mean(dim=0).max().item()
            if 1 - change >= self._threshold:
                self._row += 1
                self.saved += 1
                return True
        self._kept, self._row = cells, 0
        return False

    def forget(self) -> None:
        """The next picture is not skipped, as after a change of what is made of it."""
        self._kept = None


def is_finite(rgb: Tensor) -> bool:
    """Whether a finished picture, (3, h, w) floating point, holds no NaN and no infinity.

    One sum of all pixels, which either of them spoils. The answer waits for the picture: on an
    accelerator ask where it is copied to the host, which waits anyway, and before it is rounded to
    uint8, which hides them.
    """
    return bool(rgb.sum(dtype=torch.float32).isfinite())


class Drift:
    """Tells when translated pictures have left the look that they had after the last anchor.

    Followed are mean and contrast (standard deviation) of luminance and mean saturation (largest
    less smallest channel), each in 0..1 and smoothed with `half_life` frames; the look is what they
    are when `settle` frames have passed. limit: how far one of the three may go; sound streams of
    the bundled model go 0.02 within a scene and 0.06 over five cuts. Raises ConfigError.
    """

    def __init__(self, limit: float = 0.1, half_life: int = 16, settle: int = 32) -> None:
        if not 0 < limit < 1 or half_life < 1 or settle < 1:
            raise ConfigError(
                "drift has a limit between 0 and 1, a half-life and a settling of 1 frame or more, "
                f"got {limit}, {half_life} and {settle}"
            )
        self._limit, self._settle = limit, settle
        self._weight = 1 - 0.5 ** (1 / half_life)
        self.anchor()

    def anchor(self) -> None:
        """The stream is anchored: what follows is its look."""
        self._frames = 0
        self._now = torch.zeros(3)
        self._look = torch.zeros(3)

    def is_drifting(self, rgb: Tensor) -> bool:
        """Take the next translated picture, (3, h, w), uint8 or in [0, 1], on the host; whether to
        anchor anew.
        """
        self._frames += 1
        self._now = self._now.lerp(_statistics(rgb), max(1 / self._frames, self._weight))
        if self._frames <= self._settle:
            self._look = self._now
        return bool((self._now - self._look).abs().max() > self._limit)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What two pictures are compared by: cells (3, 12, 16) in [0, 1], shares of colours (512,)."""

    cells: Tensor
    colours: Tensor

    def distance(self, other: "_Look") -> float:
        moved = (self.cells - other.cells).abs().mean()
        unshared = 1 - torch.minimum(self.colours, other.colours).sum()
        return (moved + unshared / 2).item()


def _look(rgb: Tensor) -> _Look:
    sampled = to_bytes(_sampled(rgb))
    red, green, blue = sampled.int() // (256 // BINS)
    counts = torch.bincount(((red * BINS + green) * BINS + blue).flatten(), minlength=BINS**3)
    return _Look(_cells(sampled), counts / counts.sum())


def _sampled(rgb: Tensor) -> Tensor:
    """Every n-th pixel of (3, h, w)."""
    height, width = rgb.shape[1:]
    return rgb[:, :: max(1, height // SAMPLED[1]), :: max(1, width // SAMPLED[0])]


def _cells(sampled: Tensor) -> Tensor:
    """Means of the cells, (3, 12, 16) in [0, 1]."""
    unit = to_unit_range(sampled, sampled.device, torch.float32)
    return functional.interpolate(unit[None], CELLS[::-1], mode="area")[0]


def _statistics(rgb: Tensor) -> Tensor:
    """Mean and contrast of luminance, mean saturation: (3,)."""
    unit = to_unit_range(_sampled(rgb), torch.device("cpu"), torch.float32)
    luma = torch.tensordot(torch.tensor(LUMA), unit, 1)
    saturation = unit.amax(dim=0) - unit.amin(dim=0)
    return torch.stack([luma.mean(), luma.std(), saturation.mean()])
