"""A clock, a source, a session and a sink that a test drives, without weights and without sleep.

A picture of index k is filled with k (modulo 256); its translation with 255 - k.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from queue import SimpleQueue
from threading import Condition, Event
from typing import Any

import torch

from live2diff_core.frames import Frame
from live2diff_core.live.keeper import Guards
from live2diff_core.live.source import SourceInfo
from live2diff_core.stream.session import PARAMETERS
from live2diff_core.stream.spec import Percentiles, SessionSpec, SessionStats
from tests.tiny import HEIGHT, WIDTH, stream_config

PATIENCE = 20.0  # of real time, until a test gives up
END = object()


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> Frame:
    rgb = torch.full((3, height, width), index % 256, dtype=torch.uint8)
    return Frame(rgb, index, index / 25)


def value(frame: Frame) -> int:
    """What the picture is filled with."""
    return int(frame.rgb.flatten()[0])


def translation(index: int) -> int:
    return 255 - index % 256


class FakeClock:
    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Waiting:
    """A list that a test can wait on."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._changed = Condition()

    def add(self, item: Any) -> None:
        with self._changed:
            self.items.append(item)
            self._changed.notify_all()

    def until(self, condition: Any) -> list[Any]:
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self.items), PATIENCE):
                raise AssertionError(f"waited in vain, there are {self.items}")
            return list(self.items)


class Script:
    """A source that gives what the test puts: frames, an error to raise, or END."""

    def __init__(self, *items: Any) -> None:
        self._items: SimpleQueue[Any] = SimpleQueue()
        self.closed = Event()
        self.put(*items)

    def put(self, *items: Any) -> None:
        for item in items:
            self._items.put(item)

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(WIDTH, HEIGHT, Fraction(25))

    def __iter__(self) -> Iterator[Frame]:
        while (item := self._items.get()) is not END:
            if isinstance(item, Exception):
                raise item
            yield item

    def end(self) -> None:
        self._items.put(END)

    def close(self) -> None:
        self.closed.set()


class FakeSession:
    """Translates by `255 - picture`, `latency` frames late; raises and spoils as it is told."""

    def __init__(self, latency: int = 1, first: int = 4) -> None:
        self.latency, self.first = latency, first
        self.calls: list[tuple[str, Any]] = []
        self.config = stream_config()
        self.breaks: deque[Exception] = deque()  # one for each call to come
        self.spoiled: set[int] = set()  # indices whose next result is NaN
        self.changing = self.closed = False
        self.next_index = 0
        self._in_flight: deque[Frame] = deque()

    @property
    def spec(self) -> SessionSpec:
        return SessionSpec(self.first, 1, self.latency, True, "frames", 0, PARAMETERS)

    @property
    def stats(self) -> SessionStats:
        figures = Percentiles(1.0, 2.0)
        return SessionStats(0, 0, 0, 0, figures, {"network": figures})

    def warmup(self, frames: Sequence[Frame]) -> list[Frame]:
        self._call("warmup", [frame.index for frame in frames])
        self.next_index = frames[-1].index + 1
        return [self._result(frame) for frame in frames]

    def push(self, frames: Sequence[Frame]) -> list[Frame]:
        self._call("push", [frame.index for frame in frames])
        self._in_flight.extend(frames)
        self.next_index = frames[-1].index + 1
        return self._take(self.latency)

    def flush(self) -> list[Frame]:
        self._call("flush", None)
        return self._take(0)

    def begin_update(self, **parameters: Any) -> int:
        self._call("begin_update", parameters)
        return self.next_index + 2

    def update(self, **parameters: Any) -> int:
        self._call("update", parameters)
        return self.next_index

    def reset(self) -> None:
        self._call("reset", None)
        self._in_flight.clear()

    def close(self) -> None:
        self._call("close", None)
        self.closed = True

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def of(self, name: str) -> list[Any]:
        return [given for called, given in self.calls if called == name]

    def _call(self, name: str, given: Any) -> None:
        self.calls.append((name, given))
        if self.breaks and name not in ("close", "reset"):
            raise self.breaks.popleft()

    def _take(self, keep: int) -> list[Frame]:
        return [self._result(self._in_flight.popleft()) for _ in range(len(self._in_flight) - keep)]

    def _result(self, frame: Frame) -> Frame:
        rgb = 1 - frame.rgb.float() / 255
        if frame.index in self.spoiled:
            self.spoiled.remove(frame.index)
            rgb = rgb * torch.nan
        return replace(frame, rgb=rgb)


class Collector:
    """A sink that keeps what it gets; a test can hold it up, or let it fail."""

    def __init__(self) -> None:
        self.got = Waiting()
        self.free = Event()
        self.free.set()
        self.breaks: deque[Exception] = deque()
        self.closed = 0

    def write(self, frame: Frame) -> None:
        assert self.free.wait(PATIENCE)
        if self.breaks:
            raise self.breaks.popleft()
        self.got.add(frame)

    def close(self) -> None:
        self.closed += 1

    @property
    def indices(self) -> list[int]:
        return [frame.index for frame in self.got.items]

    @property
    def values(self) -> list[int]:
        return [value(frame) for frame in self.got.items]

    def until_count(self, count: int) -> list[Frame]:
        return self.got.until(lambda items: len(items) >= count)


class FakeGuards:
    """Cuts, still pictures, drift and finite results, as the test says; by index of the picture."""

    def __init__(self) -> None:
        self.cuts: set[int] = set()
        self.stills: set[int] = set()
        self.drifts: set[int] = set()
        self.thresholds: list[float] = []
        self.looks = self.forgotten = 0

    def is_cut(self, rgb: torch.Tensor) -> bool:
        return int(rgb.flatten()[0]) in self.cuts

    def is_still(self, rgb: torch.Tensor) -> bool:
        return int(rgb.flatten()[0]) in self.stills

    def forget(self) -> None:
        self.forgotten += 1

    def is_drifting(self, rgb: torch.Tensor) -> bool:
        return 255 - int((rgb * 255).round().flatten()[0]) in self.drifts

    def anchor(self) -> None:
        self.looks += 1

    def make_still(self, threshold: float) -> "FakeGuards":
        self.thresholds.append(threshold)
        return self

    @property
    def guards(self) -> Guards:
        return Guards(self, self, self.make_still, lambda rgb: bool(rgb.isfinite().all()))
