"""Sinks and ring of the temporal attention, as closed forms of a frame counter.

Letters used in shape comments, here and in the models:
n  rows of a network batch        r  denoising step of a row, 0 = noisiest
g  groups: rows that do not see each other in time      f  frames of a group in one call
p  pixels of a feature map (h w)  k  keys: cache slots or frames that are attended to
c  channels                       e  attention heads    d  channels of a head (c = e d)

Row r has seen `age` = t - r real frames before frame t. It writes slot S + age mod R, and sees the
S sinks and the last R frames with positions in order of time (Live2Diff, sec. 3.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from .config import AttentionWindow, CacheKind, KernelKind

FLOAT8 = torch.float8_e4m3fn
Place: TypeAlias = tuple[slice | Tensor, ...]  # an index of tensors


@dataclass(frozen=True, slots=True, eq=False)
class Visibility:
    """Which keys a query sees and at which positions.

    keys: (g, f, k) int64 positions of the keys as query f sees them. queries: (g, f) int64 its own
    position. visible: (g, f, k) bool.
    """

    keys: Tensor
    queries: Tensor
    visible: Tensor


def ring_slots(age: Tensor, window: AttentionWindow) -> Tensor:
    """Slot that a row of this age writes before it attends. age: (g,) int64. Returns (g,)."""
    return window.sinks + age.clamp(min=0) % window.ring


def ring_visibility(age: Tensor, window: AttentionWindow) -> Visibility:
    """What rows of these ages see after writing; age < 0 is a row without a frame of its cache.

    A row without a frame sees the sinks alone; what it writes is overwritten before it is ever
    visible.
    """
    slot = torch.arange(window.slots, device=age.device)
    age = age[:, None]  # (g, 1)
    newest = age.clamp(min=0) % window.ring
    wrapped = window.sinks + (slot - window.sinks - newest - 1) % window.ring
    turning = (age >= window.ring) & (slot >= window.sinks)
    positions = torch.where(turning, wrapped, slot)
    visible = slot <= window.sinks + age.clamp(min=-1)
    own = window.sinks + age.clamp(min=0, max=window.ring - 1)
    return Visibility(positions[:, None], own, visible[:, None])


def prefill_visibility(frames: int, groups: int, device: torch.device) -> Visibility:
    """Warm-up: every frame of a group sees all of them, positions 0..frames-1."""
    position = torch.arange(frames, device=device)
    keys = position.expand(groups, frames, frames)
    queries = position.expand(groups, frames)
    return Visibility(keys, queries, torch.ones_like(keys, dtype=torch.bool))


def clip_visibility(
    frames: int, groups: int, window: AttentionWindow, device: torch.device
) -> Visibility:
    """Warm-up and streaming of a whole clip at once, as one masked attention over all its frames.

    Key j < sinks is a warm-up frame, later keys are streamed frames. Raises ValueError for a clip
    without them.
    """
    if frames < window.sinks:
        raise ValueError(f"a clip needs at least the {window.sinks} warm-up frames, got {frames}")
    frame = torch.arange(frames, device=device)
    query, key = frame[:, None], frame[None]
    streamed = query >= window.sinks
    shift = (query - window.slots + 1).clamp(min=0)  # frames that have left the ring
    in_ring = (key >= window.sinks + shift) & (key <= query)
    visible = (key < window.sinks) | (streamed & in_ring)
    positions = torch.where(key < window.sinks, key, (key - shift).clamp(min=0))
    positions = torch.where(visible, positions, 0)
    own = frame - shift[:, 0]
    return Visibility(
        positions.expand(groups, -1, -1), own.expand(groups, -1), visible.expand(groups, -1, -1)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Projected:
    """Position tables of one temporal attention, projected as its inputs are: (positions, e, d)."""

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LayerCache:
    """Keys and values of one temporal attention without position, each (g, p, e, slots, d).

    They are of the network's dtype, or of float8, which takes what is beyond its range as its
    limit. positions: what position adds to them at use, computed once for a stream; None: at every
    call.
    """

    key: Tensor
    value: Tensor
    positions: Projected | None = None

    def write(self, place: Place, key: Tensor, value: Tensor) -> None:
        """Keep these at a place of the tensors."""
        for part, new in ((self.key, key), (self.value, value)):
            if part.dtype == new.dtype:
                part[place] = new
            else:  # bytes, as float8 takes no indices
                limit = torch.finfo(part.dtype).max
                part.view(torch.uint8)[place] = (
                    new.clamp(-limit, limit).to(part.dtype).view(torch.uint8)
                )

    def read(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """All keys and values in a dtype."""
        return self.key.to(dtype), self.value.to(dtype)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Size of one temporal attention's cache: pixels, heads, channels of a head."""

    pixels: int
    heads: int
    head_channels: int


def allocate(
    shapes: Sequence[LayerShape], rows: int, window: AttentionWindow, like: Tensor
) -> list[LayerCache]:
    """Empty caches for `rows` rows on the device and in the dtype of `like`; FLOAT8 is one."""
    layers = []
    for shape in shapes:
        size = (rows, shape.pixels, shape.heads, window.slots, shape.head_channels)
        layers.append(LayerCache(like.new_zeros(size), like.new_zeros(size)))
    return layers


def cache_dtype(kind: CacheKind, network: torch.dtype) -> torch.dtype:
    """What a cache of this kind is kept in beside a network of this dtype."""
    return FLOAT8 if kind == "float8" else network


def cache_bytes(
    shapes: Sequence[LayerShape], rows: int, window: AttentionWindow, dtype: torch.dtype
) -> int:
    """Bytes that `allocate` takes."""
    values = sum(shape.pixels * shape.heads * shape.head_channels for shape in shapes)
    return 2 * rows * window.slots * values * dtype.itemsize


@dataclass(frozen=True, slots=True)
class FrameShape:
    """Size of what a stream keeps of a frame: its latents, and the features of its depth."""

    pixels: int
    latent_channels: int
    depth_channels: int

    def nbytes(self, latents: int, dtype: torch.dtype) -> int:
        """Bytes of so many float32 latents, and depth features in the network's dtype."""
        latent = latents * self.latent_channels * torch.float32.itemsize
        return self.pixels * (latent + self.depth_channels * dtype.itemsize)


class Prefill:
    """Warm-up frames at one denoising step: they see each other and become its rows' sinks.

    rows: the cache rows of the step, one for each group (guidance branch).
    """

    def __init__(self, layers: Sequence[LayerCache], rows: slice, frames: int, groups: int) -> None:
        self.layers, self.rows, self.frames = layers, rows, frames
        self.visibility = prefill_visibility(frames, groups, layers[0].key.device)

    def exchange(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store (g, p, e, f, d) keys and values as sinks; return what is attended to."""
        all_of = slice(None)
        self.layers[layer].write((self.rows, all_of, all_of, slice(self.frames)), key, value)
        return key, value

    def positions(self, layer: int) -> Projected | None:
        """Projected positions, if the caches hold them."""
        return self.layers[layer].positions


class RingStep:
    """One streamed frame a row: write the ring, then attend to the whole cache.

    age: (g,) int64 on the device, t - r of every row (see `ring_visibility`). kernel: what
    does both instead of `exchange` and what attends to its result; None: PyTorch.
    """

    def __init__(
        self,
        layers: Sequence[LayerCache],
        age: Tensor,
        window: AttentionWindow,
        kernel: KernelKind | None = None,
    ) -> None:
        self.layers, self.frames = layers, 1
        self.age, self.window, self.kernel = age, window, kernel
        self.visibility = ring_visibility(age, window)
        self.slots = ring_slots(age, window)
        self.rows = torch.arange(len(age), device=age.device)

    def exchange(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write (g, p, e, 1, d) keys and values into each row's slot; return the whole cache."""
        cache, all_of = self.layers[layer], slice(None)
        place = self.rows, all_of, all_of, self.slots
        cache.write(place, key[:, :, :, 0], value[:, :, :, 0])
        return cache.read(key.dtype)

    def positions(self, layer: int) -> Projected | None:
        """Projected positions, if the caches hold them."""
        return self.layers[layer].positions


class WholeClip:
    """Clips in one pass without a cache: what training runs, equal to prefill and streaming."""

    def __init__(
        self, frames: int, groups: int, window: AttentionWindow, device: torch.device
    ) -> None:
        self.frames = frames
        self.visibility = clip_visibility(frames, groups, window, device)

    def exchange(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the call itself."""
        return key, value

    def positions(self, layer: int) -> Projected | None:
        """None: training changes them with every step."""
        return None


TemporalState = Prefill | RingStep | WholeClip
