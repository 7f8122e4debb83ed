"""Pictures of a folder as a stream, and streams that begin again when they end."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import SourceError
from ..frames import Frame, to_bytes, to_unit_range
from ..stream.fit import fit_frame
from .picture import DAMAGE
from .source import OneReading, Source, SourceInfo
from .ticks import WALL, Timer, check_rate

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
MAX_PIXELS = 64_000_000  # 192 MB of memory


class ImageFolder(OneReading):
    """The pictures of a folder, each a frame, in the order that people give them (2 before 10).

    path: a folder with .png, .jpg, .webp or .bmp files; what lies in folders below is left out.
    All frames have the size of the first one: another size is scaled and cut evenly. Pictures
    stand upright as EXIF says; transparency is dropped; of an animation the first picture counts.
    Raises SourceError for a folder without pictures, and at a picture that cannot be read.
    """

    def __init__(self, path: str | PathLike[str], rate: Fraction | int = 25) -> None:
        self._name, self._pictures = str(path), _pictures_of(Path(path))
        _, height, width = _read_picture(self._pictures[0]).shape
        self._info = SourceInfo(width, height, check_rate(rate), len(self._pictures))
        self._frames = self._read()

    def _read(self) -> Iterator[Frame]:
        for index, path in enumerate(self._pictures):
            if self._closed:
                return
            picture = self._sized(_read_picture(path))
            yield Frame(picture, index, float(index / self._info.rate))

    def _sized(self, rgb: Tensor) -> Tensor:
        size = self._info.width, self._info.height
        if rgb.shape[1:] == size[::-1]:
            return rgb
        unit = to_unit_range(rgb, torch.device("cpu"), torch.float32)
        return to_bytes(fit_frame(unit, *size, "crop"))


class Loop(OneReading):
    """A source again and again; index and timestamp go on rising.

    open_source: opens it, once for each round. It has no sound, and ends when it is closed. Raises
    SourceError for a source without frames, and where the source breaks.
    """

    def __init__(self, open_source: Callable[[], Source]) -> None:
        self._name, self._open = "the loop", open_source
        self._source = open_source()
        self._info = replace(self._source.info, frames=None, has_audio=False)
        self._frames = self._read()

    def close(self) -> None:
        """End the stream and close the source of this round."""
        self._closed = True
        self._source.close()

    def _read(self) -> Iterator[Frame]:
        index, start = 0, 0.0
        while True:
            begin, last = index, start
            for frame in self._source:
                last = start + frame.timestamp
                yield Frame(frame.rgb, index, last)
                if self._closed:
                    return
                index += 1
            if index == begin:
                raise SourceError("expected a source with frames to repeat, got one without any.")
            start = last + float(1 / self._info.rate)
            self._source.close()
            self._source = self._open()


class Paced(Source):
    """A source whose frames come when their time has come, as those of a camera do.

    A frame that is asked for too late comes at once, and those after it follow at their distance.
    """

    def __init__(self, source: Source, timer: Timer = WALL) -> None:
        self._source, self._timer = source, timer
        self._frames = self._read()

    @property
    def info(self) -> SourceInfo:
        """What the source says."""
        return self._source.info

    def __iter__(self) -> Iterator[Frame]:
        """Give the frames that are left. Raises SourceError where the source breaks."""
        return self._frames

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _read(self) -> Iterator[Frame]:
        start: float | None = None  # of the stream's time on the clock
        for frame in self._source:
            now = self._timer.clock()
            if start is None or now > start + frame.timestamp:
                start = now - frame.timestamp
            elif now < start + frame.timestamp:
                self._timer.sleep(start + frame.timestamp - now)
            yield frame


def _pictures_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise SourceError(f"{folder}: expected a folder of pictures, got {found}; check the path.")
    pictures = [p for p in folder.iterdir() if p.suffix.lower() in FORMATS and p.is_file()]
    if not pictures:
        raise SourceError(
            f"{folder}: expected pictures ({', '.join(FORMATS)}), the folder has none; choose "
            "another one."
        )
    return sorted(pictures, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    parts: list[str] = re.findall(r"\d+|\D+", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _read_picture(path: Path) -> Tensor:
    """Read a picture: (3, h, w) uint8. Raises SourceError."""
    try:
        with Image.open(path, formats=[FORMATS[path.suffix.lower()]]) as picture:
            _check_size(path, picture)
            pixels = np.array(_eight_bits(ImageOps.exif_transpose(picture)).convert("RGB"))
    except DAMAGE as error:
        raise SourceError(
            f"{path}: expected a whole picture, it cannot be read ({error}). Replace it, or take "
            "it out of the folder."
        ) from error
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _check_size(path: Path, picture: Image.Image) -> None:
    """Refuse a picture that would fill the memory, before it is decoded."""
    if picture.width * picture.height > MAX_PIXELS:
        raise SourceError(
            f"{path}: expected at most {MAX_PIXELS} pixels, got {picture.width}x{picture.height}. "
            "Scale it down."
        )


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Bring 16-bit grey to 8 bits, which convert() would clip instead."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))
