"""The Triton kernel behind `ring_attention`, which imports this when it is first run.

A program is one warp with a few pixels of a row and head. What it needs of the cache is loaded as
one block (pixels, slots, channels): a pixel's slots lie side by side in memory, so that loads take
whole cache lines, and the sums over channels and slots stay within the warp.
"""

# mypy: disable-error-code="untyped-decorator"

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..cache import FLOAT8
from ..config import AttentionWindow

# What a warp holds of the keys, and as much of the values: more would not fit into its registers.
# Measured on an H200: 61 us in place of 85 with 4096 for heads of 40 channels, but 23 in place of
# 21 for heads of 160, whose sums over channels are the longest.
BLOCK_BYTES, WIDE_BYTES = 8192, 4096
WIDE = 256  # channels of a block


@triton.jit
def from_cache(entry: tl.tensor, native: tl.constexpr) -> tl.tensor:
    """Entries of the cache as float32. uint8: the bits of a float8 e4m3.

    native: the device converts them itself.
    """
    if entry.dtype != tl.uint8:
        number = entry.to(tl.float32)
    elif native:
        number = entry.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    else:  # as a float16, whose exponent counts from 8 lower
        bits = entry.to(tl.uint16)
        half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
        number = half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return number


@triton.jit
def to_cache(number: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """Numbers as the cache keeps them. uint8: the bits of a float8 e4m3, at most +-448.

    It is one entry in many, so there is no second way for devices that can do it themselves.
    """
    if dtype != tl.uint8:
        entry = number.to(dtype)
    else:
        number = number.to(tl.float32)
        sign = (number.to(tl.uint32, bitcast=True) >> 24) & 0x80
        size = tl.minimum(tl.abs(number), 448.0)
        bits = size.to(tl.uint32, bitcast=True)
        # Rounded to 3 bits behind the point, ties to even; the exponent counts from 120 higher.
        normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - 960
        # Below 2^-6 the step is 2^-9, as that of a float32 at 2^14.
        tiny = (size + 16384.0).to(tl.uint32, bitcast=True) - 0x46800000
        entry = (sign | tl.where(size < 0.015625, tiny, normal)).to(tl.uint8)
    return entry


@triton.jit
def ring_step(  # noqa: PLR0913 - a kernel takes pointers and numbers
    query: tl.tensor,
    new_key: tl.tensor,
    new_value: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    key_table: tl.tensor,
    value_table: tl.tensor,
    ages: tl.tensor,
    out: tl.tensor,
    query_row: int,
    query_pixel: int,
    key_row: int,
    key_pixel: int,
    value_row: int,
    value_pixel: int,
    pixels: int,
    scale: float,
    heads: tl.constexpr,
    channels: tl.constexpr,
    sinks: tl.constexpr,
    ring: tl.constexpr,
    block_pixels: tl.constexpr,
    block_slots: tl.constexpr,
    block_channels: tl.constexpr,
    native: tl.constexpr,
) -> None:
    """..._row, ..._pixel: strides. scale: of the scores, which are to the base 2."""
    slots: tl.constexpr = sinks + ring
    row = tl.program_id(1).to(tl.int64)
    head = tl.program_id(0) % heads  # neighbours in memory run at the same time
    first = (tl.program_id(0) // heads).to(tl.int64) * block_pixels
    pixel = first + tl.arange(0, block_pixels)
    channel = tl.arange(0, block_channels)
    within = (channel < channels)[None]
    inside = (pixel < pixels)[:, None] & within
    place = ((row * pixels + pixel) * heads + head)[:, None]  # of a pixel's head
    cached = place * (slots * channels) + channel[None]

    part = head * channels + channel[None]
    q = tl.load(query + row * query_row + pixel[:, None] * query_pixel + part, inside, 0.0)
    own_key = tl.load(new_key + row * key_row + pixel[:, None] * key_pixel + part, inside, 0.0)
    own_value = tl.load(
        new_value + row * value_row + pixel[:, None] * value_pixel + part, inside, 0.0
    )
    q = q.to(tl.float32) * scale
    own_key = to_cache(own_key, keys.dtype.element_ty)
    own_value = to_cache(own_value, values.dtype.element_ty)

    age = tl.load(ages + row)
    newest = (tl.maximum(age, 0) % ring).to(tl.int32)
    own = sinks + newest  # the slot that this frame is written to
    last = sinks + tl.minimum(tl.maximum(age, -1), ring - 1).to(tl.int32)  # slot that is seen
    tl.store(keys + cached + own * channels, own_key, inside)
    tl.store(values + cached + own * channels, own_value, inside)

    highest = tl.full([block_pixels], float("-inf"), tl.float32)
    total = tl.zeros([block_pixels], tl.float32)
    mixed = tl.zeros([block_pixels, block_channels], tl.float32)
    for start in range(0, slots, block_slots):
        slot = start + tl.arange(0, block_slots)
        seen = slot <= last
        entry = cached[:, None, :] + (slot * channels)[None, :, None]
        # The frame's own entry comes from registers: what was just written is not read again.
        read = inside[:, None, :] & (seen & (slot != own))[None, :, None]
        key = tl.load(keys + entry, read, own_key[:, None, :], eviction_policy="evict_first")
        value = tl.load(values + entry, read, own_value[:, None, :], eviction_policy="evict_first")

        turned = sinks + (slot - sinks - newest - 1 + ring) % ring
        position = tl.where((age >= ring) & (slot >= sinks), turned, slot)
        table = ((position * heads + head) * channels)[:, None] + channel[None]
        known = seen[:, None] & within
        key_position = tl.load(key_table + table, known, 0.0).to(tl.float32)
        value_position = tl.load(value_table + table, known, 0.0).to(tl.float32)

        score = tl.sum(q[:, None, :] * (from_cache(key, native) + key_position[None]), 2)
        score = tl.where(seen[None], score, float("-inf"))
        top = tl.maximum(highest, tl.max(score, 1))
        weight, kept = tl.exp2(score - top[:, None]), tl.exp2(highest - top)
        total = total * kept + tl.sum(weight, 1)
        shown = (from_cache(value, native) + value_position[None]) * weight[:, :, None]
        mixed = mixed * kept[:, None] + tl.sum(shown, 1)
        highest = top
    result = (mixed / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + place * channels + channel[None], result, inside)


def blocks(channels: int, window: AttentionWindow, itemsize: int) -> dict[str, int]:
    """Sizes of a program's block for a cache with entries of so many bytes."""
    block_channels = triton.next_power_of_2(channels)
    limit = BLOCK_BYTES if block_channels < WIDE else WIDE_BYTES
    vectors = max(1, limit // (max(2, itemsize) * block_channels))
    block_slots = min(triton.next_power_of_2(window.slots), vectors)
    return {
        "block_pixels": vectors // block_slots,
        "block_slots": block_slots,
        "block_channels": block_channels,
    }


Pair = tuple[Tensor, Tensor]
"""Of keys and values, in this order."""


def launch(
    query: Tensor, frame: Pair, cache: Pair, tables: Pair, age: Tensor, window: AttentionWindow
) -> Tensor:
    """Write a frame into the cache and return what it sees; shapes as in `ring_attention`."""
    rows, pixels, heads, _, channels = query.shape
    inputs = [_with_rows(x) for x in (query, *frame)]
    out = query.new_empty(query.shape)
    sizes = blocks(channels, window, cache[0].itemsize)
    grid = triton.cdiv(pixels, sizes["block_pixels"]) * heads, rows
    with torch.cuda.device_of(out):  # Triton launches on the current device
        ring_step[grid](
            *inputs,
            *(x.view(torch.uint8) if x.dtype == FLOAT8 else x for x in cache),
            *(x.contiguous() for x in tables),
            age.contiguous(),
            out,
            *(x.stride(axis) for x in inputs for axis in (0, 1)),
            pixels,
            channels**-0.5 * math.log2(math.e),
            heads=heads,
            channels=channels,
            sinks=window.sinks,
            ring=window.ring,
            native=_converts_float8(out.device),
            num_warps=1,
            **sizes,
        )
    return out


def _with_rows(x: Tensor) -> Tensor:
    """x: (g, p, e, 1, d). Heads and channels side by side, as views of (g, p, e d) have them."""
    side_by_side = x.stride(4) == 1 and x.stride(2) == x.shape[4]
    return x if side_by_side else x.contiguous()


def _converts_float8(device: torch.device) -> bool:
    """Whether a GPU has instructions for float8 e4m3 (NVIDIA: Ada, Hopper and later)."""
    nvidia = device.type == "cuda" and torch.version.hip is None
    return nvidia and torch.cuda.get_device_capability(device) >= (8, 9)
