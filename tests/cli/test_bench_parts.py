"""What bench measures with: floors, counts of operations, passes on a clock, memory."""

from dataclasses import dataclass
from itertools import count
from mmap import mmap
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from live2diff_core.cli.bench import floor, machine, peak
from live2diff_core.cli.bench.floor import Rates, Work, measure_rates
from live2diff_core.cli.bench.job import DeviceClock, Job, moving_disc, read_clip
from live2diff_core.cli.bench.passes import Pass, Streamed, run_pass
from live2diff_core.cli.bench.peak import PeakMemory
from live2diff_core.cli.bench.split import FUSED, measure_split, metered
from live2diff_core.live.source import VideoFile
from live2diff_core.stream.session import Session
from live2diff_core.stream.spec import Stopwatch
from tests.tiny import HEIGHT, WIDTH, make_frames, open_session, stream_config, tiny_model

CPU = torch.device("cpu")
MIB = 2**20


def job(folder: Path, steps: int = 2, frames: int = 4, uncounted: int = 3) -> Job:
    made = Job(tiny_model(), stream_config(steps), "ink", folder, folder, frames, uncounted)
    video = moving_disc(folder, (WIDTH, HEIGHT), made.needed)
    return Job(made.model, made.config, "ink", video, folder, frames, uncounted)


# ---- floors


@pytest.mark.parametrize(
    ("work", "compute", "memory", "least"),
    [
        (Work(4 * 10**12, 10**9), 2000, 500, 2000),
        (Work(10**9, 3 * 10**9), 0.5, 1500, 1500),
    ],
)
def test_a_floor_is_the_longer_of_computing_and_moving(work, compute, memory, least):
    found = floor.floor(work, Rates(2e12, 2e9))
    assert (found.compute_ms, found.memory_ms, found.ms) == (compute, memory, least)


@dataclass
class Ticking:
    """A clock that moves by a second whenever it is read; waiting for the device takes none."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now

    perf_counter = settled = __call__


def test_rates_are_of_a_product_and_of_bytes_read_and_written(monkeypatch):
    monkeypatch.setattr(floor, "SIDES", (4, 8))
    monkeypatch.setattr(floor, "COPIED", 1000)
    monkeypatch.setattr(floor, "time", Ticking())
    monkeypatch.setattr(floor, "LONG_ENOUGH", 2)
    assert measure_rates(CPU, torch.float32) == Rates(2 * 8**3, 2000)
    monkeypatch.setattr(floor, "LONG_ENOUGH", 0.5)
    assert measure_rates(CPU, torch.bfloat16) == Rates(2 * 4**3, 2000)


# ---- operations and shares


def test_attention_over_pixels_is_counted():
    query = torch.rand(2, 3, 5, 8)
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter, torch.inference_mode():
        functional.scaled_dot_product_attention(query, query, query)
    assert counter.get_total_flops() == 2 * (2 * 2 * 3 * 5 * 5 * 8)


def test_a_meter_sees_each_part_begin_and_end():
    model, reading = tiny_model(), count()
    session = open_session()
    session.warmup(make_frames(8))
    with metered(model, lambda: next(reading)) as sums:
        session.push(make_frames(1))
    transformers, attentions = list(model.unet.transformers()), list(model.unet.attentions())
    assert sums["attention"] == len(attentions)  # nothing is read between begin and end
    assert sums["temporal"] == 2 * len(attentions) + len(transformers)
    assert sums["network"] == 2 * (len(attentions) + len(transformers)) + 1


def test_no_hook_is_left():
    model = tiny_model()
    with metered(model, lambda: 0.0):
        assert any(module._forward_hooks for module in model.unet.modules())
    for module in model.unet.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory):
    """What is counted in a step of one row, and of three."""
    folder = tmp_path_factory.mktemp("split")
    return [measure_split(job(folder, steps), make_frames(10)) for steps in (1, 3)]


def test_operations_grow_with_the_rows_and_weights_do_not(splits):
    one, three = splits
    for part in ("network", "temporal", "attention"):
        assert three.flops[part] == pytest.approx(3 * one.flops[part], rel=0.05)
    assert one.weights == three.weights


def test_the_operations_of_attention_are_those_of_its_matrices(splits):
    one, _ = splits
    unet, window = tiny_model().unet, stream_config().window
    shapes = unet.cache_shapes(HEIGHT // 4, WIDTH // 4)
    least = 0
    for shape in shapes:
        width = shape.heads * shape.head_channels
        projections, attended = 4 * width**2, 2 * window.slots * width
        least += 2 * shape.pixels * (projections + attended)
    assert least <= one.flops["attention"] < 2 * least  # positions at use are on top


def test_weights_that_a_step_does_not_read_are_left_out(splits):
    one, _ = splits
    unet = tiny_model().unet
    own = {
        "attention": sum(p.nbytes for a in unet.attentions() for p in a.parameters()),
        "temporal": sum(p.nbytes for t in unet.transformers() for p in t.parameters()),
    }
    assert {part: one.weights[part] for part in own} == own
    whole = sum(p.nbytes for p in unet.parameters())
    depth = sum(p.nbytes for p in unet.depth_mapping.parameters())
    assert own["temporal"] < one.weights["network"] <= whole - depth


# ---- passes


def test_frames_are_counted_from_the_first_that_gives_one_back(tmp_path):
    work = job(tmp_path, steps=2, frames=4, uncounted=3)
    with Session(work.model, work.config, "ink") as session:
        found = run_pass(session, work, work.lead + work.frames, Ticking())
    assert found.counted == [5] * 4  # begin, two around reading, two around writing; then the end
    assert found.rate == 1 / 5
    assert found.warmup == 1
    assert found.stages["read"].p50 == found.stages["write"].p95 == 1000
    with VideoFile(tmp_path / "output.mp4") as output:
        assert sum(1 for _ in output) == 8 + 7 - 1  # one is in flight


@pytest.mark.parametrize(("steps", "uncounted", "lead"), [(1, 3, 3), (5, 3, 5)])
def test_no_frame_is_counted_before_the_rows_are_full(tmp_path, steps, uncounted, lead):
    assert job(tmp_path, steps, 4, uncounted).lead == lead


def made_pass(warmup: float, first: float) -> Pass:
    stats = open_session().stats
    return Pass(warmup, first, [0.1], Stopwatch(Ticking()), stats)


@pytest.mark.parametrize(("first", "expected"), [(9.0, 8.5), (0.1, 0.0)])
def test_compilation_is_what_a_cold_start_takes_beyond_a_warm_one(first, expected):
    warm = made_pass(2.0, 1.0)
    streamed = Streamed(0.5, made_pass(2.0, first), warm, warm, 1.0, {})
    assert streamed.cold_start == expected
    assert streamed.first_frame == 2.5


def test_a_clip_that_is_too_short_is_read_again(tmp_path):
    path = moving_disc(tmp_path, (WIDTH, HEIGHT), 3)
    assert [frame.index for frame in read_clip(path, 7)] == [0, 1, 2, 0, 1, 2, 0]


def test_a_clock_waits_for_the_device_where_it_is_told_to(monkeypatch):
    settled = []
    monkeypatch.setattr(torch.accelerator, "synchronize", settled.append)
    device = torch.device("meta")
    clock = DeviceClock(device)
    assert clock() <= clock()
    assert settled == []
    clock.waiting = True
    clock()
    clock.settled()
    assert settled == [device, device]


# ---- memory and machine


@pytest.mark.skipif(not peak.CLEAR.exists(), reason="this system keeps no peak that can be reset")
def test_a_peak_is_remembered_until_the_next_measurement():
    first = PeakMemory(CPU)
    before = first.read()
    with mmap(-1, 64 * MIB) as pages:  # the allocator may keep what it frees
        pages.write(bytes(64 * MIB))
    high = first.read()
    assert high - before > 60 * MIB
    assert first.kind == "resident peak"
    assert PeakMemory(CPU).read() < high - 30 * MIB


def test_a_peak_does_not_fall_where_the_system_shows_less_than_before(monkeypatch, tmp_path):
    monkeypatch.setattr(peak, "CLEAR", tmp_path / "clear_refs")
    monkeypatch.setattr(peak, "STATUS", tmp_path / "status")
    peak.STATUS.write_text("VmHWM:\t  866536 kB\n", encoding="utf-8")
    found = PeakMemory(CPU)
    assert found.read() == 866536 * 1024
    peak.STATUS.write_text("VmHWM:\t  866384 kB\n", encoding="utf-8")
    assert found.read() == 866536 * 1024
    peak.STATUS.write_text("VmHWM:\t  900000 kB\n", encoding="utf-8")
    assert found.read() == 900000 * 1024


def test_without_a_peak_the_memory_in_use_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(peak, "CLEAR", tmp_path / "missing" / "clear_refs")
    found = PeakMemory(CPU)
    assert found.kind == "resident"
    assert found.read() > MIB


def test_the_processor_is_named_as_the_system_names_it(monkeypatch, tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Fast 9000\nmodel name\t: Other\n")
    monkeypatch.setattr(machine, "PROCESSORS", path)
    assert machine.device_name(CPU) == "Fast 9000"
