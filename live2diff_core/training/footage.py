"""Clips to train on: drawn by a program, or cut from a folder of videos.

A clip, with its timestep and noise, follows from the run's seed and the clip's number alone, so
that neither processes nor interruptions change what is trained on.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import ConfigError, SourceError
from ..frames import Frame, to_unit_range
from ..stream.fit import fit_frame
from .clips import ClipSampler
from .config import DataPart

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts"})
TRIES = 8  # videos that may break one after another


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """A clip. pictures: (t, 3, h, w) float32 in [0, 1]. prompt: what is to be seen."""

    pictures: Tensor
    prompt: str


@dataclass(frozen=True, slots=True)
class Length:
    """How long a video is: frames, an estimate, and frames a second."""

    frames: int
    rate: Fraction


class VideoReader(Protocol):
    """Reads parts of video files."""

    def length(self, path: Path) -> Length | None:
        """Of a file, None where it does not say. Raises SourceError."""
        ...

    def open(self, path: Path, start: float) -> AbstractContextManager[Iterator[Frame]]:
        """Frames from a second of the file on. Raises SourceError, also while they are read."""
        ...


class Clips(Protocol):
    """Draws clips; the same seed draws the same one."""

    def draw(self, seed: int) -> Footage:
        """One clip. Raises SourceError."""
        ...


class ProceduralClips:
    """Scenes that a program paints, as the bundled model is trained on; needs the extra `train`."""

    def __init__(self, data: DataPart) -> None:
        assert data.prompt is not None
        self._data, self._prompt = data, data.prompt

    def draw(self, seed: int) -> Footage:
        """A scene as a camera would give it."""
        data = self._data
        clip = ClipSampler(seed).sample(data.frames, data.height, data.width)
        return Footage(torch.from_numpy(clip.source.astype(np.float32, copy=False)), self._prompt)


@dataclass(frozen=True, slots=True)
class Video:
    """A file of a folder, and its caption."""

    path: Path
    length: Length
    prompt: str


class FolderClips:
    """Random parts of the videos of a folder, each as likely as another whatever its length.

    A caption is the text in a file of the same name with .txt; videos without get the prompt of the
    settings. Files that are too short or cannot be read are left out, which is logged. Raises
    ConfigError for a folder without usable videos, and for a video without any caption.
    """

    def __init__(self, data: DataPart, reader: VideoReader) -> None:
        self._data, self._reader = data, reader
        self.videos = tuple(self._scan(Path(data.source)))
        if not self.videos:
            raise ConfigError(
                f"{data.source} holds no video of at least {self._needed} frames "
                f"({', '.join(sorted(SUFFIXES))})"
            )

    def draw(self, seed: int) -> Footage:
        """A part of a video; one that breaks is logged, and another one is drawn."""
        chance = random.Random(seed)
        for _ in range(TRIES - 1):
            try:
                return self._cut(chance)
            except SourceError as error:
                logger.warning("a clip is left out: %s", error)
        return self._cut(chance)

    @property
    def _needed(self) -> int:
        return (self._data.frames - 1) * self._data.stride + 1

    def _scan(self, folder: Path) -> Iterator[Video]:
        if not folder.is_dir():
            raise ConfigError(f"data.source: there is no folder {folder}")
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                length = self._length(path)
                if length is not None:
                    yield Video(path, length, self._caption(path))

    def _length(self, path: Path) -> Length | None:
        try:
            length = self._reader.length(path)
        except SourceError as error:
            logger.warning("a video is left out: %s", error)
            return None
        if length is None or length.frames < self._needed:
            said = "an unknown number of" if length is None else length.frames
            logger.warning("%s is left out: %s frames, %d needed", path, said, self._needed)
            return None
        return length

    def _caption(self, path: Path) -> str:
        text = path.with_suffix(".txt")
        if text.is_file():
            return text.read_text(encoding="utf-8").strip()
        if self._data.prompt is None:
            raise ConfigError(f"{path} has no caption: write {text.name} beside it, or data.prompt")
        return self._data.prompt

    def _cut(self, chance: random.Random) -> Footage:
        video = chance.choice(self.videos)
        first = chance.randrange(video.length.frames - self._needed + 1)
        with self._reader.open(video.path, float(first / video.length.rate)) as frames:
            kept = list(islice(frames, 0, self._needed, self._data.stride))
        if len(kept) < self._data.frames:
            raise SourceError(
                f"{video.path}: expected {self._needed} frames from number {first} on, got fewer "
                "than that; the file ends before it says"
            )
        return Footage(torch.stack([self._fit(frame) for frame in kept]), video.prompt)

    def _fit(self, frame: Frame) -> Tensor:
        rgb = to_unit_range(frame.rgb, CPU, torch.float32)
        return fit_frame(rgb, self._data.width, self._data.height, "crop")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Clips of one pass. pictures: (clips, t, 3, h, w) float32. seeds: of their noise."""

    pictures: Tensor
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, drawn: Sequence[tuple[Footage, int]]) -> "Batch":
        """Clips and their seeds, put together."""
        footage, seeds = zip(*drawn, strict=True)
        pictures = torch.stack([one.pictures for one in footage])
        return cls(pictures, tuple(one.prompt for one in footage), tuple(seeds))


class NumberedClips(Dataset[tuple[Footage, int]]):
    """Clips of a run by their numbers, each with the seed of its noise."""

    def __init__(self, clips: Clips, seed: int) -> None:
        self._clips, self._seed = clips, seed

    def __getitem__(self, number: int) -> tuple[Footage, int]:
        """Clip of this number."""
        words = np.random.SeedSequence((self._seed, number)).generate_state(2, np.uint64)
        picture, noise = (int(word) >> 1 for word in words)
        return self._clips.draw(picture), noise
