"""Closed forms against a ring that is played through slot by slot."""

import pytest
import torch

from live2diff_core.cache import (
    FLOAT8,
    LayerCache,
    LayerShape,
    Prefill,
    RingStep,
    allocate,
    cache_bytes,
    clip_visibility,
    prefill_visibility,
    ring_slots,
    ring_visibility,
)
from live2diff_core.config import AttentionWindow

WINDOWS = [AttentionWindow(*w) for w in ((8, 8), (4, 6), (1, 1), (3, 9), (9, 3), (2, 1), (1, 2))]
CPU = torch.device("cpu")


class PlainRing:
    """Slots that hold names of frames in time: -sinks..-1 the warm-up, 0.. the streamed ones."""

    def __init__(self, window: AttentionWindow) -> None:
        self.sinks: list[int | None] = [i - window.sinks for i in range(window.sinks)]
        self.ring: list[int | None] = [None] * window.ring

    def push(self, frame: int) -> int:
        """Store in the first free slot, else over the oldest; returns the slot."""
        if None in self.ring:
            place = self.ring.index(None)
        else:
            place = self.ring.index(min(f for f in self.ring if f is not None))
        self.ring[place] = frame
        return len(self.sinks) + place

    @property
    def slots(self) -> list[int | None]:
        return self.sinks + self.ring

    def positions(self) -> list[int | None]:
        """Rank in time of each slot's frame, None where there is none."""
        in_time = sorted(frame for frame in self.slots if frame is not None)
        return [None if frame is None else in_time.index(frame) for frame in self.slots]


def seen_positions(keys: torch.Tensor, visible: torch.Tensor) -> list[int | None]:
    return [k if v else None for k, v in zip(keys.tolist(), visible.tolist(), strict=True)]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_closed_forms_equal_a_ring_of_slots_over_500_frames(window):
    ring, ages = PlainRing(window), torch.arange(500)
    slots, view = ring_slots(ages, window), ring_visibility(ages, window)
    for age in range(500):
        assert ring.push(age) == slots[age]
        expected = ring.positions()
        assert seen_positions(view.keys[age, 0], view.visible[age, 0]) == expected
        assert view.queries[age, 0] == expected[slots[age]]


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_what_a_row_without_a_frame_writes_is_never_seen(window, steps):
    rows = torch.arange(steps)
    rings = [PlainRing(window) for _ in range(steps)]
    content: list[list[object]] = [list(ring.slots) for ring in rings]
    for clock in range(3 * window.ring + steps):
        age = clock - rows
        slots, view = ring_slots(age, window), ring_visibility(age, window)
        for row in range(steps):
            holds_frame = clock >= row
            assert window.sinks <= slots[row] < window.slots  # no row ever writes a sink
            content[row][slots[row]] = clock - row if holds_frame else "junk"
            seen = [
                c for c, v in zip(content[row], view.visible[row, 0].tolist(), strict=True) if v
            ]
            if holds_frame:
                rings[row].push(clock - row)
            assert seen == [frame for frame in rings[row].slots if frame is not None]


def test_a_row_without_a_frame_sees_the_sinks_alone():
    window = AttentionWindow(3, 4)
    view = ring_visibility(torch.tensor([-1, -2, -9]), window)
    assert view.visible[:, 0].tolist() == [[True] * 3 + [False] * 4] * 3
    assert view.keys[:, 0, :3].tolist() == [[0, 1, 2]] * 3


def test_positions_stay_inside_the_window():
    window = AttentionWindow(3, 9)
    view = ring_visibility(torch.arange(-8, 100), window)
    for positions in (view.keys, view.queries):
        assert positions.min() >= 0
        assert positions.max() < window.slots


def clip_expected(frames: int, window: AttentionWindow) -> list[tuple[dict[int, int], int]]:
    """For each frame of a clip: positions of the frames it sees, and its own."""
    sinks = window.sinks
    warm = {j: j for j in range(sinks)}
    expected = [(warm, j) for j in range(sinks)]
    ring = PlainRing(window)
    for age in range(frames - sinks):
        own = ring.push(age)
        places = zip(ring.slots, ring.positions(), strict=True)
        seen = {f + sinks: p for f, p in places if f is not None and p is not None}
        expected.append((seen, ring.positions()[own] or 0))
    return expected


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("extra", [0, 1, 7, 40])
def test_a_clip_in_one_pass_sees_what_the_ring_sees(window, extra):
    frames = window.sinks + extra
    view = clip_visibility(frames, 2, window, CPU)
    for frame, (seen, own) in enumerate(clip_expected(frames, window)):
        for group in range(2):
            shown = view.visible[group, frame].nonzero()[:, 0].tolist()
            positions = view.keys[group, frame][shown].tolist()
            assert dict(zip(shown, positions, strict=True)) == seen
            assert view.queries[group, frame] == own


def test_positions_of_hidden_keys_of_a_clip_can_be_looked_up():
    window = AttentionWindow(4, 6)
    keys = clip_visibility(60, 1, window, CPU).keys
    assert keys.min() >= 0
    assert keys.max() < window.slots


def test_a_clip_without_its_warmup_frames_is_refused():
    with pytest.raises(ValueError, match="at least the 8 warm-up frames, got 7"):
        clip_visibility(7, 1, AttentionWindow(8, 8), CPU)


def test_warmup_frames_all_see_each_other():
    view = prefill_visibility(5, 2, CPU)
    assert view.visible.all()
    assert view.visible.shape == (2, 5, 5)
    assert view.keys[1, 3].tolist() == view.queries[1].tolist() == [0, 1, 2, 3, 4]


# ---- the caches


def numbered_layers(window: AttentionWindow, rows: int = 3) -> list[LayerCache]:
    shapes = [LayerShape(pixels=4, heads=2, head_channels=3)]
    layers = allocate(shapes, rows, window, torch.zeros((), dtype=torch.float32))
    for layer in layers:
        layer.key.fill_(-1)
        layer.value.fill_(-1)
    return layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_allocation_takes_the_bytes_that_were_announced(dtype):
    shapes = [LayerShape(12, 4, 8), LayerShape(6, 2, 5)]
    window = AttentionWindow(3, 2)
    layers = allocate(shapes, 4, window, torch.zeros((), dtype=dtype))
    held = sum(t.nbytes for layer in layers for t in (layer.key, layer.value))
    assert held == cache_bytes(shapes, 4, window, dtype)
    assert layers[0].key.shape == (4, 12, 4, 5, 8)
    assert {t.dtype for layer in layers for t in (layer.key, layer.value)} == {dtype}


def test_prefill_fills_the_sinks_of_its_rows_and_nothing_else():
    window = AttentionWindow(2, 3)
    layers = numbered_layers(window)
    key, value = torch.rand(1, 4, 2, 2, 3), torch.rand(1, 4, 2, 2, 3)
    seen = Prefill(layers, slice(1, None, 3), 2, 1).exchange(0, key, value)
    assert all(torch.equal(a, b) for a, b in zip(seen, (key, value), strict=True))
    for cache, new in ((layers[0].key, key), (layers[0].value, value)):
        assert torch.equal(cache[1:2, :, :, :2], new)
        assert (cache[[0, 2]] == -1).all()
        assert (cache[1, :, :, 2:] == -1).all()


def test_prefill_reaches_the_rows_of_both_guidance_branches():
    layers = numbered_layers(AttentionWindow(2, 3), rows=6)  # 3 steps, 2 branches
    key = torch.rand(2, 4, 2, 2, 3)
    Prefill(layers, slice(1, None, 3), 2, 2).exchange(0, key, key)
    assert torch.equal(layers[0].key[[1, 4], :, :, :2], key)
    assert (layers[0].key[[0, 2, 3, 5]] == -1).all()


def test_a_ring_step_writes_one_slot_of_each_row_in_place():
    window = AttentionWindow(2, 3)
    layers = numbered_layers(window)
    age = torch.tensor([4, 3, 1])
    key, value = torch.rand(3, 4, 2, 1, 3), torch.rand(3, 4, 2, 1, 3)
    pointers = layers[0].key.data_ptr(), layers[0].value.data_ptr()
    keys, values = RingStep(layers, age, window).exchange(0, key, value)
    assert (keys.data_ptr(), values.data_ptr()) == pointers
    for row, slot in enumerate((3, 2, 3)):
        for cache, new in ((keys, key), (values, value)):
            assert torch.equal(cache[row, :, :, slot], new[row, :, :, 0])
            others = [s for s in range(5) if s != slot]
            assert (cache[row][:, :, others] == -1).all()


def test_a_cache_of_8_bits_keeps_what_they_can_hold():
    window = AttentionWindow(2, 3)
    (layer,) = allocate([LayerShape(4, 2, 3)], 3, window, torch.zeros((), dtype=FLOAT8))
    key, value = torch.rand(3, 4, 2, 1, 3), torch.full((3, 4, 2, 1, 3), 1000.0)
    sinks = torch.rand(1, 4, 2, 2, 3)
    Prefill([layer], slice(1, None, 3), 2, 1).exchange(0, sinks, -1000 * torch.ones_like(sinks))
    keys, values = RingStep([layer], torch.tensor([4, 3, 1]), window).exchange(0, key, value)
    assert keys.dtype == torch.float32
    for row, slot in enumerate((3, 2, 3)):
        assert torch.equal(keys[row, :, :, slot], key[row, :, :, 0].to(FLOAT8).float())
        assert (values[row, :, :, slot] == 448).all()
    assert torch.equal(keys[1:2, :, :, :2], sinks.to(FLOAT8).float())
    assert (values[1, :, :, :2] == -448).all()
    assert layer.key.nbytes == 3 * 4 * 2 * 5 * 3
