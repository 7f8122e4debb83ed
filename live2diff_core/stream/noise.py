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
        self._steps, self._like = steps, latent
        self._fixed = self._draw_frame() if mode == "fixed" else None

    def warmup(self, frames: int) -> tuple[Tensor, Tensor]:
        """Noise (f, c, h, w) of the warm-up frames and renoise (N - 1, f, c, h, w) between their
        steps.
        """
        if self._fixed is not None:
            noise, renoise = self._fixed
            size = (frames, *noise.shape)
            return noise.expand(size), renoise[:, None].expand(-1, *size)
        shape = self._like.shape[-3:]
        return self._draw(frames, *shape), self._draw(self._steps - 1, frames, *shape)

    def frame(self) -> tuple[Tensor, Tensor]:
        """Noise (c, h, w) of a new frame and renoise (N - 1, c, h, w) between the rows."""
        return self._draw_frame() if self._fixed is None else self._fixed

    def _draw_frame(self) -> tuple[Tensor, Tensor]:
        shape = self._like.shape[-3:]
        return self._draw(*shape), self._draw(self._steps - 1, *shape)

    def _draw(self, *shape: int) -> Tensor:
        drawn = torch.randn(
            shape, generator=self._generator, device=self._like.device, dtype=torch.float32
        )
        return drawn.to(self._like.dtype)
