"""The part of a stream that goes under one plan: frames in flight and what they attend to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoise import CacheUse, NewFrame, Prefilling, StreamState, WarmupFrames, make_state
from .interrupt import hear
from .noise import StreamNoise
from .plan import Plan
from .runtime import Step, attention_kernel, make_step


@dataclass(frozen=True, slots=True, eq=False)
class NetworkInput:
    """A real input of the network: latent (c, h, w), depth features (c0, h, w)."""

    latent: Tensor
    depth: Tensor


@dataclass(frozen=True, slots=True)
class InFlight:
    """Where a frame that is not finished belongs, and when it came."""

    index: int
    timestamp: float
    arrived: float


@dataclass(slots=True, eq=False)
class Pipeline:
    """A cache with the rows and the noise that go with it.

    run: what runs the steps. calls: of the network since the prefill, as if every row had been
    filled by one. drained: rows were emptied by calls without a frame of their own.
    """

    plan: Plan
    state: StreamState
    noise: StreamNoise
    run: Step
    calls: int = 0
    drained: bool = False

    def step(self, entry: NetworkInput) -> Tensor | None:
        """One network call; x0 (c, h, w) of the frame that leaves the last row, if there is one."""
        hear()
        plan = self.plan
        frame = NewFrame(entry.latent, entry.depth, *self.noise.frame())
        x0 = self.run(plan.model.unet, self.state, plan.schedule, plan.condition, frame)
        self.calls += 1
        return None if self.calls < plan.schedule.steps else x0

    def seat(self, inputs: Sequence[NetworkInput], trail: Tensor) -> None:
        """Put the last of the warm-up frames into the rows, each where the prefill had it on its
        way: trail (N + 1, f, c, h, w).
        """
        for row, entry in enumerate(reversed(inputs), start=1):
            self.state.x[row] = trail[row][-row]
            self.state.source[row], self.state.depth[row] = entry.latent, entry.depth
        self.calls = len(inputs)

    def noise_for(self, plan: Plan) -> StreamNoise | None:
        """What a stream goes on with under another plan; None where seed or steps differ."""
        kept = self.plan.config.seed == plan.config.seed
        return self.noise if kept and self.plan.schedule.steps == plan.schedule.steps else None


def begin_pipeline(
    plan: Plan, inputs: Sequence[NetworkInput], noise: StreamNoise | None = None
) -> tuple[Pipeline, Prefilling]:
    """An empty pipeline, and the prefill that makes the inputs its sinks.

    noise: what the stream goes on with; None begins it from the plan's seed.
    """
    latents = torch.stack([entry.latent for entry in inputs])
    depth = torch.stack([entry.depth for entry in inputs])
    config, steps = plan.config, plan.schedule.steps
    if noise is None:
        noise = StreamNoise(config.seed, config.noise, steps, latents)
    branches = plan.condition.branches
    kernel = attention_kernel(config.runtime, config.cache, latents.device, depth.dtype)
    use = CacheUse(config.cache, kernel)
    state = make_state(plan.model.unet, latents, steps, branches, config.window, use)
    frames = WarmupFrames(latents, depth, *noise.warmup(len(latents)))
    fixed = plan.model.unet if plan.model.is_fixed else None
    run = make_step(config.runtime, state, fixed)
    return Pipeline(plan, state, noise, run), Prefilling(state, plan.schedule, frames)
