"""What goes into a run and what it made, as pictures: (frames, h, w, 3) uint8."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from examples.comfyui_client import Client
from tests.clips import BUNNY, Make, burst, make_video
from tests.comfy.graphs import HEIGHT, WIDTH

RATE = 25  # frames a second


@dataclass(frozen=True)
class Clip:
    """A file in ComfyUI's input folder, of the shape that the graphs translate to."""

    path: Path
    frames: np.ndarray

    @property
    def name(self) -> str:
        return self.path.name


def make_clip(path: Path, count: int) -> Clip:
    """The first pictures of a real clip, small, with a tone."""
    with av.open(str(BUNNY)) as container:
        first = islice(container.decode(video=0), count)
        wide = [frame.to_ndarray(format="rgb24") for frame in first]
    margin = (720 - 1280 * HEIGHT // WIDTH) // 2
    cut = [picture[margin : 720 - margin] for picture in wide]
    small = [cv2.resize(p, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for p in cut]
    make_video(path, small, Make(rate=RATE), tone=burst(count / RATE, 0.1))
    return Clip(path, decode(path))


def decode(path: Path) -> np.ndarray:
    """A video or a picture."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


async def pictures(client: Client, outputs: dict[str, Any], folder: Path) -> np.ndarray:
    """All files of a run, one after the other."""
    return np.concatenate([decode(path) for path in await client.fetch(outputs, folder)])


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference, of 255."""
    assert first.shape == second.shape
    return float(np.abs(first.astype(float) - second.astype(float)).mean())
