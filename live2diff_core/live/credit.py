"""How many frames a client may send, so that none waits long and none has to be dropped."""

from ..stream.spec import Clock
from .statistics import LiveStatistics

# What the engine has not taken in so many times what it needs for a frame, it will not take.
PATIENCE = 4.0
LEAST_PATIENCE = 0.1  # seconds
FIRST_PATIENCE = 10.0  # while nothing is known of the engine


class Credit:
    """Counts frames of one client from their sending to the engine, which takes one at a time.

    window: frames that may be on their way. With 1, a client that sends no more than `until` says
    has no frame dropped while the engine runs. Frames are not always seen to arrive: the first ones
    stay in flight, and a source that is opened again leaves some behind. They are given up.
    """

    def __init__(self, statistics: LiveStatistics, window: int, clock: Clock) -> None:
        self._window, self._clock = window, clock
        self._begun = _passed(statistics)
        self._came = self._lost = self._passed = 0
        self._changed = clock()

    @property
    def waits(self) -> bool:
        """Whether frames are on their way."""
        return self._came > self._passed

    def came(self) -> None:
        """A frame came."""
        if not self.waits:
            self._changed = self._clock()
        self._came += 1

    def lost(self, frames: int) -> None:
        """Frames that came will not reach the engine."""
        self._lost += frames

    def until(self, statistics: LiveStatistics) -> int:
        """How many frames the client may have sent by now, since it began."""
        seen, now = _passed(statistics) - self._begun, self._clock()
        self._lost = min(self._lost, self._came - seen)  # what was given up may come after all
        if now - self._changed > _patience(statistics):
            self._lost = self._came - seen
        if seen + self._lost != self._passed:
            self._passed, self._changed = seen + self._lost, now
        return self._passed + self._window


def _passed(statistics: LiveStatistics) -> int:
    """Frames that the engine has taken, or that made room for newer ones before it could."""
    waited = statistics.stages.get("wait")
    return (waited.count if waited else 0) + statistics.dropped.get("capture", 0)


def _patience(statistics: LiveStatistics) -> float:
    engine = statistics.stages.get("engine")
    return max(LEAST_PATIENCE, PATIENCE * engine.p95 / 1000) if engine else FIRST_PATIENCE
