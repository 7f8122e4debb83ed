"""A source that another thread fills: the camera of a browser, a socket."""

import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from ..errors import FrameSizeError, SourceError
from ..frames import Frame
from ..stream.spec import Clock
from .latest import Latest
from .source import Source, SourceInfo
from .ticks import check_rate


class Inbox(Source):
    """Holds the newest frames that were put into it, until they are taken.

    width, height, rate: what the sender announced. size: frames that may wait; another one takes
    the place of the oldest. Any thread puts and ends, one thread iterates. Raises ConfigError.
    """

    def __init__(
        self,
        width: int,
        height: int,
        rate: Fraction | int = 30,
        size: int = 2,
        clock: Clock = time.monotonic,
    ) -> None:
        self._info = SourceInfo(width, height, check_rate(rate))
        self._waiting: Latest[Frame] = Latest(size)
        self._clock = clock
        self._last_put = clock()
        self._count = 0
        self._closed = False
        self._frames = self._read()

    @property
    def info(self) -> SourceInfo:
        """What was announced; once there was a frame, with the size of the first one."""
        return self._info

    @property
    def dropped(self) -> int:
        """Frames that nobody took in time, and those that came after the end."""
        return self._waiting.dropped

    @property
    def silence(self) -> float:
        """Seconds since the last frame came, or since the inbox was opened."""
        return self._clock() - self._last_put

    def put(self, rgb: Tensor, timestamp: float, index: int | None = None) -> int:
        """Add a frame without waiting; returns how many were dropped so far.

        rgb: (3, h, w) uint8, of any size: a phone may be turned while it films. timestamp: seconds
        on the sender's clock. index: the sender's number, else they are counted here. One thread
        puts at a time. Raises FrameSizeError for what is no picture.
        """
        if rgb.dtype != torch.uint8 or rgb.ndim != 3 or rgb.shape[0] != 3 or rgb.numel() == 0:
            raise FrameSizeError(
                "an inbox takes pictures of shape (3, height, width) in uint8, got "
                f"{tuple(rgb.shape)} in {rgb.dtype}."
            )
        if self._count == 0:
            self._info = replace(self._info, width=rgb.shape[2], height=rgb.shape[1])
        frame = Frame(rgb, self._count if index is None else index, timestamp)
        self._count += 1
        self._last_put = self._clock()
        self._waiting.put(frame)
        return self._waiting.dropped

    def end(self) -> None:
        """Nothing more will come: the iteration ends after the frames that wait."""
        self._waiting.close()

    def __iter__(self) -> Iterator[Frame]:
        """Give the frames, waiting for each. Raises SourceError once it is closed."""
        if self._closed:
            raise SourceError("expected an open inbox, got a closed one; open another.")
        return self._frames

    def close(self) -> None:
        """End the iteration at once, from any thread; frames that wait are left."""
        self._closed = True
        self._waiting.close()

    def _read(self) -> Iterator[Frame]:
        while (frame := self._waiting.take()) is not None and not self._closed:
            yield frame
