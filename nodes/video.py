"""ComfyUI's VIDEO as a source of frames, and files for translated ones."""

import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..live2diff_core.errors import SourceError
from ..live2diff_core.frames import Frame
from ..live2diff_core.live.source import Source, SourceInfo, VideoFile
from . import host
from .images import to_frames

LOUDEST = 32767  # of 16 bits


@contextmanager
def open_video(video: Any) -> Iterator[Source]:  # noqa: ANN401 - ComfyUI's VIDEO
    """The frames of a VIDEO: of its file where it has one, else of its pictures in memory.

    Raises SourceError.
    """
    origin = host.video_origin(video)
    if origin is None:
        with _images_of(video) as images:
            yield images
    elif isinstance(origin, Path):
        with opened_file(origin, *host.trim_window(video)) as file:
            yield file
    else:
        with _scratch_file("") as copy:
            copy.write_bytes(origin.getbuffer())
            with opened_file(copy, *host.trim_window(video)) as file:
                yield file


def opened_file(path: Path, start: float, duration: float) -> Source:
    """A video file, or a part of it. Raises SourceError."""
    if start <= 0 and duration <= 0:
        return VideoFile(path)
    from ..live2diff_core.live.trim import TrimmedVideo

    return TrimmedVideo(path, start, duration)


class ImageSource(Source):
    """Pictures in memory, (n, h, w, 3) in [0, 1], at a rate; sound: a file that has theirs."""

    def __init__(self, images: Tensor, rate: Fraction, sound: Path | None = None) -> None:
        if len(images) == 0:
            raise SourceError("this VIDEO has no frames")
        self._images, self._seconds = images, float(1 / rate)
        height, width = images.shape[1:3]
        self._info = SourceInfo(width, height, rate, len(images), sound is not None, sound)

    @property
    def info(self) -> SourceInfo:
        """Size, rate, length and sound."""
        return self._info

    def __iter__(self) -> Iterator[Frame]:
        """Give the pictures in order."""
        for place in range(len(self._images)):
            (frame,) = to_frames(self._images[place : place + 1])
            yield Frame(frame.rgb, place, place * self._seconds)

    def close(self) -> None:
        """Nothing is held open."""


@contextmanager
def _images_of(video: Any) -> Iterator[ImageSource]:  # noqa: ANN401 - ComfyUI's VIDEO
    parts = video.get_components()
    rate = Fraction(parts.frame_rate)
    if parts.audio is None:
        yield ImageSource(parts.images, rate)
        return
    with _scratch_file(".wav") as sound:
        write_sound(parts.audio, sound)
        yield ImageSource(parts.images, rate, sound)


def write_sound(audio: Mapping[str, Any], path: Path) -> None:
    """Write ComfyUI's AUDIO, waveform (1, channels, samples) in [-1, 1], as a WAV of 16 bits."""
    samples = (audio["waveform"][0].float().clamp(-1, 1) * LOUDEST).round().to(torch.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(int(audio["sample_rate"]))
        file.writeframes(samples.T.contiguous().cpu().numpy().tobytes())


@contextmanager
def _scratch_file(suffix: str) -> Iterator[Path]:
    path = host.temporary_path(suffix)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def new_file(suffix: str) -> Iterator[Path]:
    """A temporary file that stays if the block ends well, or where the source breaks."""
    path, is_kept = host.temporary_path(suffix), False
    try:
        yield path
        is_kept = True
    except SourceError as error:
        is_kept = True
        raise SourceError(f"{error} What was translated up to there is in {path}.") from error
    finally:
        if not is_kept:
            path.unlink(missing_ok=True)
