"""Flicker of still regions: how the output trembles where the input does not change."""

import numpy as np
from numpy.typing import NDArray

from .figures import Figures, LeftOut
from .flow import Motion, length
from .picture import Image, Picture

STILL = 0.25  # pixels a frame that do not count as movement
ALIKE = 8 / 255  # a change of the input that is its noise
NOTHING_STILL = "no pixel of the input is still from one frame to the next"

Lengths = NDArray[np.int32]


class StillRegions:
    """Tells how long each pixel of the input has been still.

    It is as long as it moves by no more than 0.25 pixels from frame to frame, is seen in both, and
    differs in no channel by more than 8/255 from what it was when this rest began.
    """

    def __init__(self) -> None:
        self._began: Image | None = None
        self._lengths: Lengths | None = None

    def update(self, picture: Picture, motion: Motion | None) -> Lengths:
        """Add the next frame of the input; frames of each pixel's rest, this one counted: (h, w).

        The result is changed by the next call.
        """
        now = picture.values
        if self._began is None or self._lengths is None or motion is None:
            self._began, self._lengths = now.copy(), np.ones(picture.size, np.int32)
            return self._lengths
        red, green, blue = (np.abs(now - self._began) <= ALIKE).transpose(2, 0, 1)
        alike = red & green & blue
        still = alike & motion.seen & (length(motion.backward) <= STILL)
        self._lengths += 1
        self._lengths[~still] = 1
        self._began[~still] = now[~still]
        return self._lengths


class StillFlickerMeter:
    """Standard deviation over time of an output where its input is still, for values in [0, 1].

    Deviations are from a pixel's mean over one rest of the input, in each channel; their squares
    are pooled over all pixels and rests of two frames and more, with a degree of freedom less for
    each rest: independent noise of deviation s gives s. By Welford's recurrence (1962), so that
    one mean a pixel is kept. still_share: of all pixels from the second frame on, those whose rest
    has begun before.
    """

    def __init__(self) -> None:
        self._mean: Image | None = None
        self._squares = 0.0
        self._still = 0  # pixels, beyond the first of their rest
        self._pixels = 0

    def update(self, picture: Picture, rest: Lengths) -> None:
        """Add the next frame. rest: what StillRegions gives of the input."""
        now = picture.values
        if self._mean is None:
            self._mean = now.copy()
            return
        off = now - self._mean
        self._mean += off / rest[..., None]
        self._squares += float((off * (now - self._mean)).sum(dtype=np.float64))
        self._still += int(np.count_nonzero(rest > 1))
        self._pixels += rest.size

    def figures(self) -> Figures:
        """Deviation and share so far."""
        share = self._still / self._pixels if self._pixels else LeftOut(NOTHING_STILL)
        if self._still == 0 or self._mean is None:
            return {"still_flicker": LeftOut(NOTHING_STILL), "still_share": share}
        channels = self._mean.shape[2]
        deviation = float(np.sqrt(max(self._squares, 0.0) / (self._still * channels)))
        return {"still_flicker": deviation, "still_share": share}
