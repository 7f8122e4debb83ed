"""What is said where other programs use the processor that a stream runs on.

Threads of one computation wait for each other at every layer: where one of them waits for its turn
on a core, all wait. On two cores with two other programs at work a clip took 100 s with one thread
and 11 minutes with two. It is said and not mended here: another number of threads gives other last
bits, and a seed would give another stream from run to run.
"""

import logging
import time
from functools import cache

import psutil
import torch

from . import host

logger = logging.getLogger(__name__)

LOOK = 0.1  # seconds that the load is measured for, at least
SAID_EVERY = 60.0  # seconds
IDLE = ("idle", "iowait", "guest", "guest_nice")  # what Linux counts besides, or twice


class Load:
    """What other programs take of the processor, between two looks."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._seen = self._now()
        self._others = 0.0
        self.said = -SAID_EVERY

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


def tell_of_load() -> None:
    """Say, in the log and on the page, when threads would wait for cores that others use."""
    threads = torch.get_num_threads()
    if host.network_device().type != "cpu" or threads == 1:
        return
    cores, others = psutil.cpu_count() or threads, load().others()
    free = max(1, round(cores - others))
    if free >= threads or time.monotonic() - load().said < SAID_EVERY:
        return
    load().said = time.monotonic()
    logger.warning(
        "other programs use %.1f of %d cores, and %d threads of this run will wait for each other: "
        "close them, or start ComfyUI with OMP_NUM_THREADS=%d in the environment",
        others,
        cores,
        threads,
        free,
    )
    host.tell(host.client_id(), host.NOTICE, {"node": None, "notice": "busy"})
