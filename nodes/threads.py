"""How many threads compute on a processor that others use, too.

Threads of one computation wait for each other at every layer: where one of them waits for its turn
on a core, all wait. On two cores with two other programs at work a clip took 100 s with one thread
and 11 minutes with two.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import psutil
import torch

logger = logging.getLogger(__name__)

LOOK = 0.1  # seconds that the load is measured for, at least
IDLE = ("idle", "iowait", "guest", "guest_nice")  # what Linux counts besides, or twice


class Load:
    """What other programs take of the processor, between two looks."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._seen = self._now()
        self._others = 0.0

    def others(self) -> float:
        """Cores that others use: since the last look, or then if that was just now."""
        before, now = self._seen, self._now()
        seconds = now[0] - before[0]
        if seconds >= LOOK:
            self._others = max(0.0, (now[1] - before[1] - (now[2] - before[2])) / seconds)
            self._seen = now
        return self._others

    def _now(self) -> tuple[float, float, float]:
        """The time, and seconds of work of all programs and of this one."""
        times, own = psutil.cpu_times(), self._process.cpu_times()
        idle = sum(getattr(times, name, 0.0) for name in IDLE)
        return time.monotonic(), sum(times) - idle, own.user + own.system


@cache
def load() -> Load:
    """That of this program's life; it has something to compare with after a moment."""
    made = Load()
    time.sleep(LOOK)
    return made


@contextmanager
def free_threads() -> Iterator[None]:
    """Compute with as many threads as cores are free, on this thread and on new ones."""
    usual = torch.get_num_threads()
    cores = psutil.cpu_count() or usual
    free = cores - load().others()
    chosen = min(usual, max(1, round(free)))
    if chosen == usual:
        yield
        return
    logger.info(
        "of %d cores %.1f are free: computing with %d threads in place of %d until the run ends",
        cores,
        free,
        chosen,
        usual,
    )
    torch.set_num_threads(chosen)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
