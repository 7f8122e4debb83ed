"""When frames come: the ticks of a rate, on a clock that can be another one than the wall's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ..errors import ConfigError
from ..stream.spec import Clock

HIGHEST_RATE = 1000


@dataclass(frozen=True, slots=True)
class Timer:
    """What tells the time in seconds, and what lets it pass."""

    clock: Clock = time.monotonic
    sleep: Callable[[float], None] = time.sleep


WALL = Timer()


class Ticker:
    """Waits for the ticks of a rate; ticks that were missed are not made up for."""

    def __init__(self, rate: Fraction, timer: Timer = WALL) -> None:
        self._step = float(1 / rate)
        self._timer = timer
        self._start: float | None = None
        self._due = 0.0

    def wait(self) -> float:
        """Sleep until the next tick; returns the seconds since the first one."""
        now = self._timer.clock()
        if self._start is None:
            self._start = self._due = now
        if now < self._due:
            self._timer.sleep(self._due - now)
            now = self._timer.clock()
        self._due = max(self._due + self._step, now)
        return now - self._start


def check_rate(rate: Fraction | float) -> Fraction:
    """Frames a second as a fraction. Raises ConfigError."""
    if not 0 < rate <= HIGHEST_RATE:
        raise ConfigError(
            f"rate must be above 0 and at most {HIGHEST_RATE} frames a second, got {rate}."
        )
    return Fraction(rate)
