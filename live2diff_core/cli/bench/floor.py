"""The least time that a network's step can take on a device: its operations and the bytes it must
read, at the rates of a matrix product and of a copy that are measured there.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

REPEATS = 7
LONG_ENOUGH = 0.02  # seconds; shorter ones say more of the start than of the work
SIDES = (256, 512, 1024, 2048, 4096, 8192)
COPIED = 2**29  # bytes, more than caches hold


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations a second in a matrix product, bytes a second read and written in a copy."""

    flops: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Work:
    """Operations, and bytes that must be read or written at least once."""

    flops: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Floor:
    """Milliseconds that the operations alone and the bytes alone take.

    On the device they may overlap without a rest, so the larger one is the floor.
    """

    compute_ms: float
    memory_ms: float

    @property
    def ms(self) -> float:
        """The floor."""
        return max(self.compute_ms, self.memory_ms)


def floor(work: Work, rates: Rates) -> Floor:
    """What such work takes at these rates."""
    return Floor(1000 * work.flops / rates.flops, 1000 * work.bytes / rates.bytes)


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Rates of a device, with the threads that are set now."""
    return Rates(_product_rate(device, dtype), _copy_rate(device))


def _product_rate(device: torch.device, dtype: torch.dtype) -> float:
    rate = 0.0
    for side in SIDES:
        left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(left)
        seconds = _median(partial(torch.mm, left, right, out=out), device)
        rate = max(rate, 2 * side**3 / seconds)
        if seconds > LONG_ENOUGH:
            break
    return rate


def _copy_rate(device: torch.device) -> float:
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * COPIED / _median(partial(target.copy_, source), device)


def _median(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, the first one apart."""
    seconds = []
    for _ in range(REPEATS + 1):
        settle(device)
        start = time.perf_counter()
        call()
        settle(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def settle(device: torch.device) -> None:
    """Wait until a device has done all it was given; a CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
