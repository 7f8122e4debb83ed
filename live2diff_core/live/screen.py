"""The screen of this computer as a source."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import SourceError
from ..frames import Frame
from .source import OneReading, SourceInfo
from .ticks import WALL, Ticker, Timer, check_rate


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the desktop in pixels; 0, 0 is the upper left corner of the main monitor."""

    left: int
    top: int
    width: int
    height: int


class Grabber(Protocol):
    """What takes pictures of the screen."""

    @property
    def monitors(self) -> list[Region]:
        """The whole desktop, then each monitor."""

    def grab(self, region: Region) -> Tensor:
        """A picture, (3, h, w) uint8. Raises SourceError."""

    def close(self) -> None:
        """Let go of the screen."""


class Screen(OneReading):
    """What a monitor shows, at a rate.

    area: 1 for the first monitor and so on, 0 for all of them, or a region of the desktop. A
    screen of high density gives more pixels than the region has. Open, read and close it on one
    thread. Raises SourceError where there is no such monitor, or no screen that may be read.
    """

    def __init__(
        self,
        area: int | Region = 1,
        rate: Fraction | int = 30,
        timer: Timer = WALL,
        open_grabber: Callable[[], Grabber] | None = None,
    ) -> None:
        rate = check_rate(rate)
        self._name, self._ticker = "the screen", Ticker(rate, timer)
        self._grabber = (open_grabber or _MssGrabber)()
        try:
            self._region = _region(area, self._grabber.monitors)
            _, height, width = self._grabber.grab(self._region).shape
        except SourceError:
            self._grabber.close()
            raise
        self._info = SourceInfo(width, height, rate)
        self._frames = self._read()

    def close(self) -> None:
        """Let go of the screen."""
        if not self._closed:
            self._closed = True
            self._grabber.close()

    def _read(self) -> Iterator[Frame]:
        index = 0
        while True:
            timestamp = self._ticker.wait()
            if self._closed:
                return
            yield Frame(self._grabber.grab(self._region), index, timestamp)
            index += 1


def _region(area: int | Region, monitors: list[Region]) -> Region:
    if isinstance(area, Region):
        if area.width < 1 or area.height < 1:
            raise SourceError(f"expected a region of at least 1x1 pixels, got {area}.")
        return area
    if not 0 <= area < len(monitors):
        raise SourceError(
            f"expected monitor 0 (all) to {len(monitors) - 1}, got {area}; choose one of these."
        )
    return monitors[area]


class _MssGrabber:
    """Pictures by the package mss."""

    def __init__(self) -> None:
        mss = _import_mss()
        self._failure: type[Exception] = mss.exception.ScreenShotError
        try:
            self._mss = mss.MSS()
            found = self._mss.monitors
        except self._failure as error:
            raise self._refused(error) from error
        self.monitors = [Region(m["left"], m["top"], m["width"], m["height"]) for m in found]

    def grab(self, region: Region) -> Tensor:
        try:
            shot = self._mss.grab(
                {
                    "left": region.left,
                    "top": region.top,
                    "width": region.width,
                    "height": region.height,
                }
            )
        except self._failure as error:
            raise self._refused(error) from error
        bgra = np.frombuffer(shot.bgra, np.uint8).reshape(shot.height, shot.width, 4)
        return torch.from_numpy(np.ascontiguousarray(bgra[..., 2::-1].transpose(2, 0, 1)))

    def close(self) -> None:
        self._mss.close()

    def _refused(self, error: Exception) -> SourceError:
        return SourceError(
            f"expected a screen that can be read, got: {error}. A server without a display has "
            "none; Wayland needs an X11 session; macOS asks for the permission to record it."
        )


def _import_mss() -> Any:  # noqa: ANN401 - a module that may be missing
    try:
        return importlib.import_module("mss")
    except ImportError as error:
        raise SourceError(
            "the screen is read by the package mss, which is not installed: pip install mss"
        ) from error
