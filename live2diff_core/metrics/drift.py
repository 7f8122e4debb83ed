"""Drift: how far colour and contrast of a video wander from its beginning."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .figures import LeftOut, Mean
from .picture import Picture

Statistics = NDArray[np.float64]


class DriftMeter:
    """Distance of each stretch of a video from its first one.

    A frame's statistics are the mean and the standard deviation of red, green and blue over its
    pixels, six numbers of values in [0, 1]. A stretch is `seconds` long, has the mean of its
    frames' statistics, and counts when it is whole. Drift is the mean over all stretches but the
    first of the root mean square, over the six, of their difference from the first stretch.
    """

    def __init__(self, rate: float, seconds: float) -> None:
        """rate: frames a second. Raises ConfigError for one that is not positive."""
        if rate <= 0 or seconds <= 0:
            raise ConfigError(
                f"drift needs a positive frame rate and stretch, got {rate:g} frames/s and "
                f"{seconds:g} s"
            )
        self._frames = max(1, round(rate * seconds))
        self._sum: Statistics = np.zeros(6)
        self._count = 0
        self._first: Statistics | None = None
        self._distance = Mean()

    def update(self, picture: Picture) -> None:
        """Add the next frame."""
        self._sum = self._sum + statistics(picture)
        self._count += 1
        if self._count == self._frames:
            self._finish(self._sum / self._count)
            self._sum, self._count = np.zeros(6), 0

    def value(self) -> float | LeftOut:
        """Drift so far, in [0, 1]."""
        return self._distance.value(f"shorter than two stretches of {self._frames} frames")

    def _finish(self, stretch: Statistics) -> None:
        if self._first is None:
            self._first = stretch
        else:
            self._distance.add(float(np.sqrt(np.square(stretch - self._first).mean())))


def statistics(picture: Picture) -> Statistics:
    """Means, then standard deviations, of red, green and blue: (6,)."""
    mean, deviation = cv2.meanStdDev(picture.values)
    return np.concatenate([mean[:, 0], deviation[:, 0]])
