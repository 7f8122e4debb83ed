"""Denoising on the cache: prefill of the sinks and one pipelined step for all frames in flight."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cache import LayerCache, Prefill, RingStep, allocate, cache_dtype
from ..config import AttentionWindow, CacheKind, Guidance, KernelKind
from ..models.cross_attention import TextKeys
from ..models.unet import StreamingUNet
from ..schedule import Schedule
from .interrupt import hear


@dataclass(frozen=True, slots=True, eq=False)
class Guides:
    """What the network makes of texts and timesteps, computed once: embeddings (branches, N, c) and
    the cross-attention's keys. scale: of the guidance, a float32 scalar on the device.
    """

    embeddings: Tensor
    keys: TextKeys
    scale: Tensor

    def rows(self, step: int | slice, count: int) -> Tensor:
        """Embeddings of `count` rows of each branch at these steps: (n, c)."""
        chosen = self.embeddings[:, step]
        if isinstance(step, int):
            chosen = chosen[:, None].expand(-1, count, -1)
        return chosen.flatten(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """What guides the rows; text and negative (full guidance only): (1, tokens, dim).

    guides: what the network makes of it at a schedule's steps, once for all frames; None: at every
    call.
    """

    text: Tensor
    guidance: Guidance
    negative: Tensor | None = None
    guides: Guides | None = None

    def guided(self, unet: StreamingUNet, schedule: Schedule) -> Guides:
        """Those that are there, or what this network makes of it now."""
        if self.guides is not None:
            return self.guides
        texts = self.text if self.negative is None else torch.cat([self.text, self.negative])
        timesteps = schedule.timesteps.repeat(self.branches)
        embeddings = unet.embed(timesteps, texts.repeat_interleave(schedule.steps, 0))
        scale = torch.tensor(self.guidance.scale, device=texts.device)
        return Guides(embeddings.unflatten(0, (self.branches, -1)), unet.text_keys(texts), scale)

    @property
    def branches(self) -> int:
        """Network rows for each denoising step: 2 with full guidance, else 1."""
        return 1 if self.negative is None else 2


@dataclass(frozen=True, slots=True, eq=False)
class StreamState:
    """All that a stream carries from frame to frame; allocated once, written in place.

    Row r holds the frame that was pushed r calls ago: x (N, c, h, w) its noisy latent, source (N,
    c, h, w) its clean input latent, depth (N, c0, h, w) its depth features. clock: int64 scalar,
    frames pushed since the prefill. Latents are float32, all else is in the network's dtype, only
    the cache may be in float8. kernel: what attends over time in the steps; None: PyTorch.
    """

    x: Tensor
    source: Tensor
    depth: Tensor
    clock: Tensor
    rows: Tensor
    layers: list[LayerCache]
    window: AttentionWindow
    kernel: KernelKind | None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        tensors = [self.x, self.source, self.depth]
        for layer in self.layers:
            tensors += [layer.key, layer.value]
        return sum(tensor.nbytes for tensor in tensors)


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How the cache is kept, in the network's dtype or in float8, and by what it is attended to."""

    kind: CacheKind = "network"
    kernel: KernelKind | None = None


def make_state(
    unet: StreamingUNet,
    latent: Tensor,
    steps: int,
    branches: int,
    window: AttentionWindow,
    use: CacheUse | None = None,
) -> StreamState:
    """Empty state for latents like `latent` (..., c, h, w)."""
    channels, height, width = latent.shape[-3:]
    like = unet.depth_mapping.conv_out.weight
    first = unet.depth_mapping.conv_out.out_channels
    use = use or CacheUse()
    kept = like.new_empty(0, dtype=cache_dtype(use.kind, like.dtype))
    empty = allocate(unet.cache_shapes(height, width), steps * branches, window, kept)
    layers = [
        replace(cache, positions=attention.project_positions(window.slots))
        for cache, attention in zip(empty, unet.attentions(), strict=True)
    ]
    return StreamState(
        x=latent.new_zeros(steps, channels, height, width),
        source=latent.new_zeros(steps, channels, height, width),
        depth=like.new_zeros(steps, first, height, width),
        clock=torch.zeros((), dtype=torch.int64, device=latent.device),
        rows=torch.arange(steps, device=latent.device).repeat(branches),
        layers=layers,
        window=window,
        kernel=use.kernel,
    )


@dataclass(frozen=True, slots=True, eq=False)
class WarmupFrames:
    """Inputs of a prefill: latents (f, c, h, w), depth features (f, c0, h, w), noise (f, c, h, w),
    renoise (N - 1, f, c, h, w).
    """

    latents: Tensor
    depth: Tensor
    noise: Tensor
    renoise: Tensor


class Prefilling:
    """A prefill that is under way: takes the warm-up frames through one step at a time.

    trail: noisy latents that entered each step so far and, last, the result; (f, c, h, w) each.
    Frames f = window.sinks. Live2Diff, sec. 3.3.
    """

    def __init__(self, state: StreamState, schedule: Schedule, frames: WarmupFrames) -> None:
        self._state, self._schedule, self._frames = state, schedule, frames
        self.trail = [schedule.add_noise(frames.latents, frames.noise, 0)]

    @property
    def done(self) -> bool:
        """Whether the keys and values of all steps are sinks."""
        return len(self.trail) > self._schedule.steps

    def advance(self, unet: StreamingUNet, condition: Conditioning) -> None:
        """The next step: one network call. What raises leaves the step to be done again."""
        hear()
        schedule, frames = self._schedule, self._frames
        step = len(self.trail) - 1
        row = slice(step, None, schedule.steps)
        temporal = Prefill(self._state.layers, row, len(frames.latents), condition.branches)
        inputs = self.trail[-1], frames.latents, frames.depth
        x = _denoise(unet, schedule, condition, inputs, step, temporal)
        if step + 1 < schedule.steps:
            x = schedule.add_noise(x, frames.renoise[step], step + 1)
        self.trail.append(x)

    def finish(self, unet: StreamingUNet, condition: Conditioning) -> Tensor:
        """All steps that are left. Returns the trail, (N + 1, f, c, h, w)."""
        while not self.done:
            self.advance(unet, condition)
        return torch.stack(self.trail)


def prefill(
    unet: StreamingUNet,
    state: StreamState,
    schedule: Schedule,
    condition: Conditioning,
    frames: WarmupFrames,
) -> Tensor:
    """Take the warm-up frames through all steps; their keys and values become the sinks.

    Returns the noisy latents that entered each step and, last, the result: (N + 1, f, c, h, w).
    """
    return Prefilling(state, schedule, frames).finish(unet, condition)


@dataclass(frozen=True, slots=True, eq=False)
class NewFrame:
    """Inputs of a step.

    latent, noise: (c, h, w). depth: features (c0, h, w). renoise: (N - 1, c, h, w).
    """

    latent: Tensor
    depth: Tensor
    noise: Tensor
    renoise: Tensor


def step(
    unet: StreamingUNet,
    state: StreamState,
    schedule: Schedule,
    condition: Conditioning,
    frame: NewFrame,
) -> Tensor:
    """Push one frame: one network call for all rows. Returns x0 of the last row, (c, h, w).

    That row holds a real frame only from the N-th call on. Live2Diff, sec. 3.3.
    """
    state.x[0] = schedule.add_noise(frame.latent, frame.noise, slice(0, 1))[0]
    state.source[0], state.depth[0] = frame.latent, frame.depth
    temporal = RingStep(state.layers, state.clock - state.rows, state.window, state.kernel)
    rows = slice(None)
    inputs = state.x, state.source, state.depth
    x0 = _denoise(unet, schedule, condition, inputs, rows, temporal)
    state.x[1:] = schedule.add_noise(x0[:-1], frame.renoise, slice(1, None))
    state.source[1:], state.depth[1:] = state.source[:-1].clone(), state.depth[:-1].clone()
    state.clock.add_(1)
    return x0[-1]


def _denoise(
    unet: StreamingUNet,
    schedule: Schedule,
    condition: Conditioning,
    inputs: tuple[Tensor, Tensor, Tensor],
    step: int | slice,
    temporal: Prefill | RingStep,
) -> Tensor:
    """x0 of every row after guidance and consistency boundary. inputs: x, source, depth, each (n,
    ...).
    """
    x, source, depth = inputs
    guides = condition.guided(unet, schedule)
    repeat = (condition.branches, 1, 1, 1)
    output = unet.walk(
        x.to(depth.dtype).repeat(repeat),
        guides.rows(step, len(x)),
        guides.keys,
        depth.repeat(repeat),
        temporal,
    ).float()
    x0 = schedule.predict_x0(x, output[: len(x)], step)
    scale, mode = guides.scale, condition.guidance.mode
    if mode == "self":
        x0 = source + scale * (x0 - source)
    elif mode == "full":
        base = schedule.predict_x0(x, output[len(x) :], step)
        x0 = base + scale * (x0 - base)
    return schedule.consistency(x, x0, step)
