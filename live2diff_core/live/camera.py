"""Cameras of this computer, read by OpenCV."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SourceError
from ..frames import Frame
from ..stream.spec import Clock
from .source import OneReading, SourceInfo
from .ticks import check_rate

# Where Linux lists cameras; other systems do not, and are asked for the first few.
DEVICES, NAMES = Path("/dev"), Path("/sys/class/video4linux")
MOST_PROBED = 8


class Capture(Protocol):
    """What is used of OpenCV's VideoCapture."""

    def isOpened(self) -> bool:
        """Whether there is a camera behind it."""

    def set(self, prop: int, value: float) -> bool:
        """Ask for a property; whether it was taken."""

    def read(self) -> tuple[bool, NDArray[Any] | None]:
        """Wait for a picture, (h, w, 3) BGR."""

    def release(self) -> None:
        """Let go of the camera."""


OpenCapture = Callable[[int], Capture]


def _open_capture(index: int) -> Capture:
    return cv2.VideoCapture(index)


class Camera(OneReading):
    """A camera, at the rate that it gives.

    device: its index, its path (/dev/video0), or its name as list_cameras() gives it. width,
    height, rate: what it is asked for; it may give another size, which `info` then has.
    Timestamps: seconds from the first frame on the clock. Raises SourceError where it cannot be
    opened, and when it gives nothing more; open it again then. One thread reads and closes.
    """

    def __init__(
        self,
        device: int | str = 0,
        width: int = 640,
        height: int = 480,
        rate: Fraction | int = 30,
        clock: Clock = time.monotonic,
        open_capture: OpenCapture = _open_capture,
    ) -> None:
        self._device = _index_of(device)
        self._name = f"camera {self._device}"
        rate = check_rate(rate)
        with _quiet():
            self._capture = open_capture(self._device)
        self._clock = clock
        try:
            self._configure(width, height, rate)
            first = self._grab()
        except SourceError:
            self.close()
            raise
        self._info = SourceInfo(first.shape[2], first.shape[1], rate)
        self._frames = self._read(first)

    def close(self) -> None:
        """Let go of the camera."""
        if not self._closed:
            self._closed = True
            self._capture.release()

    def _configure(self, width: int, height: int, rate: Fraction) -> None:
        if not self._capture.isOpened():
            raise _refused(self._device)
        # Raw pictures of more than 640x480 do not fit through USB 2 at 30 a second.
        self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._capture.set(cv2.CAP_PROP_FPS, float(rate))
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # of old pictures that wait

    def _read(self, picture: Tensor) -> Iterator[Frame]:
        start, index, timestamp = self._clock(), 0, 0.0
        while True:
            yield Frame(picture, index, timestamp)
            if self._closed:
                return
            picture = self._grab()
            index, timestamp = index + 1, self._clock() - start

    def _grab(self) -> Tensor:
        try:
            there, picture = self._capture.read()
        except cv2.error as error:
            raise self._silent(error.err) from error
        if not there or picture is None:
            raise self._silent("no picture came")
        return torch.from_numpy(np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1)))

    def _silent(self, reason: str) -> SourceError:
        return SourceError(
            f"camera {self._device}: expected a picture, got none ({reason}). Check that it is "
            "plugged in and that no other program uses it."
        )


def list_cameras(open_capture: OpenCapture = _open_capture) -> list[tuple[int, str]]:
    """Index and name of every camera. Linux lists them; elsewhere the first few are opened."""
    if platform.system() != "Linux":
        return [(index, f"camera {index}") for index in _probe(open_capture)]
    nodes = sorted(NAMES.glob("video*"), key=lambda node: int(node.name.removeprefix("video")))
    return [
        (int(node.name.removeprefix("video")), _line(node / "name"))
        for node in nodes
        # A camera's second node gives no pictures but what is known about them.
        if _line(node / "index") == "0" and (DEVICES / node.name).exists()
    ]


def _line(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").strip()


def _probe(open_capture: OpenCapture) -> Iterator[int]:
    """Indices have no gaps: the first one that does not open ends them."""
    for index in range(MOST_PROBED):
        with _quiet():
            capture = open_capture(index)
            opened = capture.isOpened()
            capture.release()
        if not opened:
            return
        yield index


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV writes to the console about cameras that are not there."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _index_of(device: int | str) -> int:
    """An index; never an address, which OpenCV would open, too. Raises SourceError."""
    if isinstance(device, int) or device.isdecimal():
        return int(device)
    node = Path(device).resolve()  # of /dev/v4l/by-id/..., which stays the same when plugged again
    number = node.name.removeprefix("video")
    if node.parent == DEVICES and number.isdecimal():
        return int(number)
    cameras = list_cameras()
    named = [index for index, name in cameras if name == device]
    if not named:
        raise SourceError(
            f"expected a camera's index, path or name, got {device!r}. {_known(cameras)}"
        )
    return named[0]


def _refused(index: int) -> SourceError:
    """Say why a camera did not open, as far as that can be seen."""
    node = DEVICES / f"video{index}"
    on_linux = platform.system() == "Linux"
    if on_linux and not node.exists():
        return SourceError(f"camera {index}: there is none. {_known(list_cameras())}")
    if on_linux and not os.access(node, os.R_OK | os.W_OK):
        return SourceError(
            f"camera {index}: expected permission to use {node}, got none. Add yourself to the "
            "group video (sudo usermod -aG video $USER) and log in again."
        )
    return SourceError(
        f"camera {index}: expected one that opens, it does not. Close other programs that use it, "
        "allow cameras in the system's privacy settings, or choose another index."
    )


def _known(cameras: list[tuple[int, str]]) -> str:
    if not cameras:
        return "No camera was found: plug one in, or use the camera of a browser."
    return f"Found: {', '.join(f'{index} ({name})' for index, name in cameras)}."
