"""Time of a live stream: a clock that never goes back, a pace, frames that follow each other."""

from dataclasses import dataclass, replace
from threading import Lock

from torch import Tensor

from ..frames import Frame
from ..stream.spec import Clock

# A source's own clock may be ahead of what has passed here by so many seconds; more is a jump.
MAX_AHEAD = 10.0
# Between two frames at least: what the coarsest video file tells apart (Matroska).
MIN_STEP = 0.001


class Steady:
    """A clock, in seconds from 0, that stands where the one below it jumps back. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, Lock()
        self._last, self._time = clock(), 0.0

    def __call__(self) -> float:
        with self._lock:
            now = self._clock()
            self._time += max(0.0, now - self._last)
            self._last = now
            return self._time


class Pace:
    """Lets at most `rate` frames a second through; None lets all through.

    A frame may be early by half a period, so that a source that is as fast as the pace passes
    whole; the mean holds. What a gap left out is not made up for.
    """

    def __init__(self, rate: float | None) -> None:
        self._period = 0.0 if rate is None else 1 / rate
        self._due = 0.0

    def admits(self, now: float) -> bool:
        """Whether the frame of this moment goes through."""
        if now < self._due - self._period / 2:
            return False
        self._due = max(self._due, now - self._period / 2) + self._period
        return True


@dataclass(slots=True)
class Continuity:
    """Numbers frames so that index and timestamp always rise, whatever becomes of the source.

    Frames of a source keep their own. One that begins again, or whose clock jumps, is moved as a
    whole: to the next index, and to the time that has passed here.
    """

    index: int = -1
    timestamp: float = 0.0
    _now: float | None = None
    _index_shift: int = 0
    _time_shift: float = 0.0

    def place(self, frame: Frame, now: float) -> Frame:
        """The frame at its place after those before. now: in seconds, when it came."""
        index, timestamp = frame.index + self._index_shift, frame.timestamp + self._time_shift
        if index <= self.index:
            self._index_shift += self.index + 1 - index
            index = self.index + 1
        if self._now is not None:
            expected = self._expected(now)
            if not self.timestamp < timestamp <= expected + MAX_AHEAD:
                self._time_shift += expected - timestamp
                timestamp = expected
        self.index, self.timestamp, self._now = index, timestamp, now
        return replace(frame, index=index, timestamp=timestamp)

    def again(self, rgb: Tensor, now: float) -> Frame:
        """A picture that no frame of the source stands behind: it has the last one's index."""
        self.timestamp, self._now = self._expected(now), now
        return Frame(rgb, max(self.index, 0), self.timestamp)

    def _expected(self, now: float) -> float:
        if self._now is None:
            return self.timestamp
        return self.timestamp + max(MIN_STEP, now - self._now)
