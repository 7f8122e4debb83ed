"""A moving picture without a camera, whose frames carry their number for people and for machines.

The lower part holds 32 bits in rows of eight. A bit is a cell with one black block on white, in its
left half for 1 and in its right half for 0: it is read by which half varies more. A style may make
the block white, coloured, or draw its outline alone; something is there, and beside it nothing.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from ..frames import Frame, to_bytes
from .source import OneReading, SourceInfo
from .ticks import WALL, Ticker, Timer, check_rate

COLUMNS, ROWS = 8, 4
COUNTER_BITS, CHECK_BITS = 20, 12
STRIP = 0.4  # of the height, for the bits
MARGIN = 0.2  # of a half cell, on each side of its block
WHITE, BLACK = 225, 0
SMALLEST = (64, 48)  # read back as it is; through a translation by a model 192x160 and more
FRAMES_AROUND = 60  # in which the disc goes round once
DIGITS = 6
DIGITS_TOP, DIGITS_HIGH = 0.04, 0.2  # of the height
# Segments of a digit, by their usual letters, as (x0, y0, x1, y1) on a grid of 4 by 7.
_SEGMENTS = {
    "a": (0, 0, 4, 1),
    "b": (3, 0, 4, 4),
    "c": (3, 3, 4, 7),
    "d": (0, 6, 4, 7),
    "e": (0, 3, 1, 7),
    "f": (0, 0, 1, 4),
    "g": (0, 3, 4, 4),
}
_LIT = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")

Picture = NDArray[np.uint8]  # (h, w, 3)


class TestPattern(OneReading):
    """Shapes that move over a field of colours, and the index of each frame.

    width, height: pixels, at least 64x48. frames: end after so many. paced: frames come at the
    rate, stamped when they came; else as they are asked for, a frame's length apart. The same
    index gives the same picture. Raises ConfigError.
    """

    __test__ = False  # pytest takes a class of this name for tests

    def __init__(
        self,
        width: int,
        height: int,
        rate: Fraction | int = 30,
        frames: int | None = None,
        paced: bool = False,
        timer: Timer = WALL,
    ) -> None:
        if width < SMALLEST[0] or height < SMALLEST[1]:
            raise ConfigError(
                f"a test pattern is at least {SMALLEST[0]}x{SMALLEST[1]}, so that its counter can "
                f"be read, got {width}x{height}."
            )
        if frames is not None and frames < 1:
            raise ConfigError(f"frames must be at least 1 or None, got {frames}.")
        self._name = "the test pattern"
        self._info = SourceInfo(width, height, check_rate(rate), frames)
        self._ticker = Ticker(self._info.rate, timer) if paced else None
        self._field = _colour_field(width, height)
        self._frames = self._read()

    def _read(self) -> Iterator[Frame]:
        index = 0
        while not self._closed and index != self._info.frames:
            timestamp = self._ticker.wait() if self._ticker else float(index / self._info.rate)
            yield Frame(self._paint(index), index, timestamp)
            index += 1

    def _paint(self, index: int) -> Tensor:
        picture = self._field.copy()
        _draw_shapes(picture, index)
        _draw_digits(picture, index)
        _draw_bits(picture, index)
        return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def read_counter(rgb: Tensor) -> int | None:
    """The index that a test pattern's picture carries, modulo 2^20; None where it is unreadable.

    rgb: (3, h, w), uint8 or floating point in [0, 1], the whole picture at any size and in any
    style. One picture in 4096 without a counter passes for one with it.
    """
    picture = to_bytes(rgb).permute(1, 2, 0).cpu().numpy()
    word = 0
    for cell in _cells(picture.shape[1], picture.shape[0]):
        word = word << 1 | (_variation(picture, cell.left) > _variation(picture, cell.right))
    number = word >> CHECK_BITS
    return number if _word(number) == word else None


def _word(number: int) -> int:
    """A number and its checksum; a picture with nothing in it reads as 0, which is none."""
    return number << CHECK_BITS | zlib.crc32(number.to_bytes(4, "big")) >> (32 - CHECK_BITS)


@dataclass(frozen=True, slots=True)
class _Box:
    """A part of a picture, in pixels and fractions of them."""

    x0: float
    y0: float
    x1: float
    y1: float

    def inner(self) -> "_Box":
        """The block inside a half cell."""
        dx, dy = MARGIN * (self.x1 - self.x0), MARGIN * (self.y1 - self.y0)
        return _Box(self.x0 + dx, self.y0 + dy, self.x1 - dx, self.y1 - dy)

    def of(self, picture: Picture) -> Picture:
        """The pixels."""
        return picture[round(self.y0) : round(self.y1), round(self.x0) : round(self.x1)]


@dataclass(frozen=True, slots=True)
class _Cell:
    """The place of one bit."""

    left: _Box
    right: _Box


def _cells(width: int, height: int) -> Iterator[_Cell]:
    """Where the bits are in a picture of this size, the highest bit first."""
    top, wide, high = (1 - STRIP) * height, width / COLUMNS, STRIP * height / ROWS
    for place in range(COLUMNS * ROWS):
        row, column = divmod(place, COLUMNS)
        x0, y0 = column * wide, top + row * high
        middle = x0 + wide / 2
        yield _Cell(_Box(x0, y0, middle, y0 + high), _Box(middle, y0, x0 + wide, y0 + high))


def _variation(picture: Picture, box: _Box) -> float:
    """How much the pixels of a part differ, over all colours."""
    return float(box.of(picture).astype(np.float32).std((0, 1)).sum())


def _colour_field(width: int, height: int) -> Picture:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width, y / height
    return np.stack((80 + 120 * x, 60 + 130 * y, 200 - 120 * x), -1).astype(np.uint8)


def _draw_shapes(picture: Picture, index: int) -> None:
    """A disc that goes round and a bar that sweeps to the right."""
    height, width = picture.shape[:2]
    floor = (1 - STRIP) * height
    bar = index * width // FRAMES_AROUND % width
    picture[: round(floor), bar : bar + max(2, width // 40)] = (40, 200, 90)
    angle = 2 * np.pi * index / FRAMES_AROUND
    centre = (width * (0.5 + 0.4 * np.cos(angle)), floor * (0.72 + 0.1 * np.sin(angle)))
    cv2.circle(
        picture,
        (round(centre[0]), round(centre[1])),
        round(0.16 * floor),
        color=(230, 60, 40),
        thickness=-1,
    )


def _draw_digits(picture: Picture, index: int) -> None:
    height, width = picture.shape[:2]
    wide = 0.92 * width / DIGITS
    x, y = 0.7 * wide / 4, DIGITS_HIGH * height / 7  # of the grid of a digit
    for place, digit in enumerate(f"{index:0{DIGITS}d}"[-DIGITS:]):
        x0, y0 = 0.05 * width + place * wide, DIGITS_TOP * height
        for segment in _LIT[int(digit)]:
            left, top, right, bottom = _SEGMENTS[segment]
            box = _Box(x0 + left * x, y0 + top * y, x0 + right * x, y0 + bottom * y)
            box.of(picture)[:] = 255


def _draw_bits(picture: Picture, index: int) -> None:
    height, width = picture.shape[:2]
    picture[round((1 - STRIP) * height) :] = WHITE
    word = _word(index % (1 << COUNTER_BITS))
    bits = f"{word:0{COLUMNS * ROWS}b}"
    for bit, cell in zip(bits, _cells(width, height), strict=True):
        half = cell.left if bit == "1" else cell.right
        half.inner().of(picture)[:] = BLACK
