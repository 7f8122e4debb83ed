"""What is measured, the clock that it is measured with, and the video that goes in."""

import time
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from ...config import StreamConfig
from ...frames import Frame
from ...live.sink import VideoFileSink
from ...live.source import VideoFile
from ...models.translator import TranslationModel
from .floor import settle

RATE = 25


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One combination: frames of a video through a stream into a file in a folder.

    uncounted: frames that go before those that are measured.
    """

    model: TranslationModel
    config: StreamConfig
    prompt: str | Tensor
    video: Path
    folder: Path
    frames: int
    uncounted: int = 3

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.model.device

    @property
    def lead(self) -> int:
        """Frames that are not counted: until every push gives one back, or more."""
        return max(self.uncounted, len(self.config.steps.indices))

    @property
    def needed(self) -> int:
        """Frames of the video."""
        return self.config.window.sinks + self.lead + self.frames


@dataclass(slots=True)
class DeviceClock:
    """Seconds. waiting: only when the device has done all that it was given."""

    device: torch.device
    waiting: bool = False

    def __call__(self) -> float:
        return self.settled() if self.waiting else time.perf_counter()

    def settled(self) -> float:
        """The time when the device is done."""
        settle(self.device)
        return time.perf_counter()


def read_clip(path: Path, count: int) -> list[Frame]:
    """The first frames of a video, from the beginning again where it has fewer."""
    with VideoFile(path, count) as source:
        return list(islice(cycle(source), count))


def moving_disc(folder: Path, size: tuple[int, int], frames: int) -> Path:
    """A disc that moves over a gradient, as a file: the same work for every machine."""
    width, height = size
    path = folder / f"input_{width}x{height}_{frames}.mp4"
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    with VideoFileSink(path, size, Fraction(RATE)) as sink:
        for index in range(frames):
            centre = 0.2 + 0.6 * index / frames
            disc = ((x - centre) ** 2 + (y - 0.5) ** 2 < 0.04).float()
            rgb = torch.stack([x, y, 1 - x]) * (1 - disc) + disc * 0.9
            sink.write(Frame(rgb, index, index / RATE))
    return path
