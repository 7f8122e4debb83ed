"""Small videos of which the figures can be worked out by hand."""

import cv2
import numpy as np
import torch
from torch import Tensor

from live2diff_core.live.source import VideoFile

HEIGHT, WIDTH = 96, 128
MARGIN = 40


def texture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth noise that a flow can follow, (height, width, 3) in [0, 1]."""
    noise = np.random.default_rng(seed).uniform(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return (smooth - smooth.min()) / np.ptp(smooth)


def tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)


def still(seed: int = 0) -> Tensor:
    """One picture, (3, HEIGHT, WIDTH)."""
    return tensor(texture(seed))


def wide(seed: int) -> np.ndarray:
    return texture(seed, HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)


def window(scene: np.ndarray, right: int, down: int) -> Tensor:
    """A camera's view of a wide picture, moved by whole pixels."""
    y, x = MARGIN + down, MARGIN + right
    return tensor(scene[y : y + HEIGHT, x : x + WIDTH])


def noisy(frame: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    return frame + sigma * torch.randn(frame.shape, generator=generator)


def clip_frames(path: object, count: int) -> list[Tensor]:
    with VideoFile(str(path), max_frames=count) as source:
        return [frame.rgb for frame in source]
