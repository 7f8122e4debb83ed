"""Training batches of the bundled model: sources, what they should become, and the prompts that ask
for it.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..models.text import StyleTextEncoder, blend
from .clips import ClipSampler
from .prompts import draw_prompt
from .styles import STYLES, Style, paint_clip

NO_EFFECT, FULL_EFFECT = 100, 450  # first timesteps at which a style has no and its full effect
EMPTY_PROMPT_SHARE, BLEND_SHARE = 0.05, 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What is asked of one clip: a style (None: none), perhaps blended with a second one."""

    first: Style | None
    second: Style | None
    weight: float
    prompts: tuple[str, str]

    def encode(self, text: StyleTextEncoder) -> Tensor:
        """Its text embedding, (1, tokens, dim)."""
        first = text.encode(self.prompts[0])
        return blend(first, text.encode(self.prompts[1]), self.weight) if self.second else first

    def paint(self, clean: np.ndarray) -> np.ndarray:
        """What the style's teacher makes of a clip, (t, 3, h, w) to the same."""
        first = paint_clip(self.first, clean) if self.first else clean
        if self.second is None:
            return first
        return (1 - self.weight) * first + self.weight * paint_clip(self.second, clean)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """clips x frames pictures, frames of a clip in order; all (clips, frames, 3, h, w) float32 in
    [0, 1].

    source: what the camera gives. clean: the same without its noise. painted: the teacher's
    picture.
    """

    source: Tensor
    clean: Tensor
    painted: Tensor
    requests: list[Request]

    def target(self, first_timestep: Tensor) -> Tensor:
        """What denoising from first_timestep (clips,) should give: strength fades the style in."""
        span = FULL_EFFECT - NO_EFFECT
        effect = ((first_timestep - NO_EFFECT) / span).clamp(0, 1).view(-1, 1, 1, 1, 1)
        return torch.lerp(self.clean, self.painted, effect)


class BatchSampler:
    """Draws batches without end; the same seed draws the same ones."""

    def __init__(self, seed: int) -> None:
        self._clips, self._random = ClipSampler(seed), random.Random(seed)

    def sample(self, clips: int, frames: int, height: int, width: int) -> Batch:
        """Draw `clips` clips of `frames` pictures of height x width pixels, each with a request."""
        drawn = [self._clips.sample(frames, height, width) for _ in range(clips)]
        requests = [self._request() for _ in range(clips)]
        painted = [r.paint(clip.clean) for r, clip in zip(requests, drawn, strict=True)]

        def stack(arrays: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(arrays).astype(np.float32, copy=False))

        return Batch(
            stack([clip.source for clip in drawn]),
            stack([clip.clean for clip in drawn]),
            stack(painted),
            requests,
        )

    def _request(self) -> Request:
        rng, styles = self._random, list(STYLES.values())
        if rng.random() < EMPTY_PROMPT_SHARE:
            return Request(None, None, 0.0, ("", ""))
        first, second = rng.sample(styles, 2)
        prompts = draw_prompt(first, rng), draw_prompt(second, rng)
        blended = rng.random() < BLEND_SHARE
        return Request(first, second if blended else None, rng.random(), prompts)
