"""ComfyUI's IMAGE, (n, h, w, channels) float in [0, 1], and frames."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..live2diff_core.config import StreamConfig
from ..live2diff_core.errors import FrameSizeError
from ..live2diff_core.frames import Frame


def to_frames(images: Tensor, first: int = 0) -> list[Frame]:
    """Frames of an IMAGE, counted from `first`; a frame's time is its number, alpha is left out.

    Raises FrameSizeError for what is no batch of RGB pictures.
    """
    if images.ndim != 4 or images.shape[3] < 3:
        raise FrameSizeError(f"images are (n, height, width, 3), got {tuple(images.shape)}")
    rgb = images[..., :3].movedim(-1, 1)  # (n, 3, h, w)
    return [Frame(one, first + place, float(first + place)) for place, one in enumerate(rgb)]


def to_images(frames: Sequence[Frame]) -> Tensor:
    """An IMAGE of frames of one size, on the CPU. frames: one or more."""
    return torch.stack([frame.rgb.float().cpu() for frame in frames]).movedim(1, -1)


class ImageBatch:
    """An IMAGE on the CPU that grows to a number of frames, each taken off the device at once."""

    def __init__(self, most: int, config: StreamConfig) -> None:
        self._pixels = torch.empty(most, config.height, config.width, 3)
        self.count = 0

    def add(self, frame: Frame) -> None:
        """Take a frame of the stream's size."""
        self._pixels[self.count] = frame.rgb.movedim(0, -1)
        self.count += 1

    @property
    def images(self) -> Tensor:
        """The frames so far, (n, h, w, 3)."""
        return self._pixels[: self.count]
