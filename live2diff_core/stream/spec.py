"""What every streaming session tells about itself, whatever engine is behind it."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ..frames import Frame

Effect = Literal["now", "next chunk", "re-prime", "reopen"]
Clock = Callable[[], float]
REMEMBERED = 1024  # latest durations that percentiles are taken over


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """Shape of a session.

    first_frames: frames that warmup() takes; chunk_frames: frames that push() takes best at a time.
    latency_frames: frames that stay in flight between push() and their result. warmup: what the
    first frames are for. state_bytes: of its cache and rows, from warm-up to close. parameters:
    when each takes effect.
    """

    first_frames: int
    chunk_frames: int
    latency_frames: int
    needs_input: bool
    warmup: Literal["none", "frames"]
    state_bytes: int
    parameters: Mapping[str, Effect]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Median and 95th percentile of the latest durations in milliseconds; None without any."""

    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class SessionStats:
    """Counts since opening or reset. latency: from push() of a frame to its result."""

    frames_in: int
    frames_out: int
    dropped: int
    reprimes: int
    latency_ms: Percentiles
    stages_ms: Mapping[str, Percentiles]


class StreamSession(Protocol):
    """The one abstraction that sources, sinks, nodes and servers meet."""

    @property
    def spec(self) -> SessionSpec:
        """Shape of the session."""

    @property
    def stats(self) -> SessionStats:
        """Counts and durations."""

    def warmup(self, frames: Sequence[Frame]) -> list[Frame]:
        """Take the first frames; returns their translations."""

    def push(self, frames: Sequence[Frame]) -> list[Frame]:
        """Take frames in order; returns those that are finished, perhaps none."""

    def flush(self) -> list[Frame]:
        """Finish the frames that are in flight."""

    def update(self, **parameters: object) -> int:
        """Change parameters; returns the index of the first frame that is affected."""

    def reset(self) -> None:
        """Forget everything but the parameters."""

    def close(self) -> None:
        """Free the state; the session cannot be used again."""


@dataclass(slots=True)
class Stopwatch:
    """Durations by name in seconds, the latest `REMEMBERED` of each."""

    clock: Clock
    durations: dict[str, deque[float]] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time a block. On an asynchronous device this is the time to queue its work."""
        start = self.clock()
        yield
        self.add(name, self.clock() - start)

    def add(self, name: str, seconds: float) -> None:
        """Note a duration."""
        self.durations.setdefault(name, deque(maxlen=REMEMBERED)).append(seconds)

    def percentiles(self, name: str) -> Percentiles:
        """Median and 95th percentile (nearest rank) of a name."""
        ordered = sorted(self.durations.get(name, ()))
        if not ordered:
            return Percentiles(None, None)
        last = len(ordered) - 1
        return Percentiles(*(1000 * ordered[round(share * last)] for share in (0.5, 0.95)))
