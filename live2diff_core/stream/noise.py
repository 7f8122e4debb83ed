"""All noise of a stream, from one seeded generator."""

import torch
from torch import Tensor

from ..config import NoiseMode


class StreamNoise:
    """Draws what a stream of N steps needs, in a fixed order; a seed reproduces it to the bit on
    one device.

    mode "fresh": new fields for every frame. "fixed": the same fields for all frames of the stream.
    """

    def __init__(self, seed: int, mode: NoiseMode, steps: int, latent: Tensor) -> None:
        self._generator = torch.Generator(latent.device).manual_seed(seed)
        self._steps, self._shape = steps, latent.shape[-3:]
        self._fixed = self._draw_frame() if mode == "fixed" else None

    def warmup(self, frames: int) -> tuple[Tensor, Tensor]:
        """Noise (f, c, h, w) of the warm-up frames and renoise (N - 1, f, c, h, w) between their
        steps.
        """
        if self._fixed is not None:
            noise, renoise = self._fixed
            size = (frames, *noise.shape)
            return noise.expand(size), renoise[:, None].expand(-1, *size)
        return self._draw(frames), self._draw(self._steps - 1, frames)

    def frame(self) -> tuple[Tensor, Tensor]:
        """Noise (c, h, w) of a new frame and renoise (N - 1, c, h, w) between the rows."""
        return self._draw_frame() if self._fixed is None else self._fixed

    def _draw_frame(self) -> tuple[Tensor, Tensor]:
        return self._draw(), self._draw(self._steps - 1)

    def _draw(self, *counts: int) -> Tensor:
        size = (*counts, *self._shape)
        return torch.randn(size, generator=self._generator, device=self._generator.device)
