"""Two queues of a GPU: what waits for what, and that a stream stays the same."""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from live2diff_core.config import RuntimeConfig, RuntimeMode
from live2diff_core.errors import ConfigError, SourceError
from live2diff_core.frames import Frame, to_bytes, to_unit_range
from live2diff_core.models.depth import StructureMap
from live2diff_core.stream import overlap, session
from live2diff_core.stream.overlap import CudaLane, Landing, landed
from live2diff_core.stream.pipeline import NetworkInput, Pipeline
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.bundled import assemble
from tests.stream.cuda import Current
from tests.tiny import (
    make_frames,
    make_parts,
    open_session,
    same,
    stream_config,
    tiny_config,
)

CPU, DEVICE = torch.device("cpu"), torch.device("cuda")
FRAMES = make_frames(8 + 12)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="two queues need a GPU")


# ---- the lane


class Queue:
    """A stand-in for a CUDA stream: how far in each queue it waits for (a vector clock)."""

    def __init__(self, name: str) -> None:
        self.name, self.known = name, {name: 0}

    def wait_stream(self, other: "Queue") -> None:
        for name, time in other.known.items():
            self.known[name] = max(self.known.get(name, 0), time)

    def work(self) -> int:
        self.known[self.name] += 1
        return self.known[self.name]


class Pixels:
    """A stand-in for a tensor on the device: which queues hold it back from being freed."""

    def __init__(self, is_cuda: bool = True) -> None:
        self.is_cuda, self.held = is_cuda, list[str]()

    def record_stream(self, queue: Queue) -> None:
        self.held.append(queue.name)


class Gpu(Current):
    """A stand-in for torch.cuda with the caller's queue, which is busy, and those that are made."""

    def __init__(self) -> None:
        self.caller = Queue("caller")
        super().__init__(self.caller)
        self.recorder = Queue("recorder")
        self.made: list[Queue] = []
        self.caller.work()

    def Stream(self, _: torch.device) -> Queue:
        self.made.append(Queue(f"lane {len(self.made)}"))
        return self.made[-1]

    def current_stream(self, _: torch.device) -> Queue:
        return self.current


@pytest.fixture
def gpu(monkeypatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr(overlap, "torch", SimpleNamespace(cuda=made, device=torch.device))
    monkeypatch.setattr(overlap, "recording_stream", lambda _: made.recorder)
    return made


def encoder(gpu: Gpu, entry: Any, times: list[int]) -> Callable[[Frame], Any]:
    def encode(_: Frame) -> Any:
        assert gpu.current is gpu.made[0]
        times.append(gpu.current.work())
        return entry

    return encode


def test_the_lane_begins_when_the_caller_has_made_what_it_reads(gpu) -> None:
    CudaLane(DEVICE)
    assert gpu.made[0].known["caller"] == 1


def test_the_caller_waits_for_the_lane_and_the_lane_for_nobody(gpu) -> None:
    lane = CudaLane(DEVICE)
    for number in range(1, 4):
        network = gpu.caller.work()  # of the frame before
        entry, times = NetworkInput(Pixels(), Pixels()), list[int]()
        frame = Frame(Pixels(is_cuda=False), number, 0.0)
        assert lane.run(encoder(gpu, entry, times), frame) is entry
        assert gpu.made[0].known["caller"] < network
        assert gpu.caller.known["lane 0"] == times[0] == number
        assert entry.latent.held == entry.depth.held == ["caller"]
        assert gpu.current is gpu.caller


def test_pixels_that_are_on_the_device_are_waited_for_and_held(gpu) -> None:
    lane = CudaLane(DEVICE)
    made = gpu.caller.work()
    frame = Frame(Pixels(), 0, 0.0)
    lane.run(encoder(gpu, NetworkInput(Pixels(), Pixels()), []), frame)
    assert gpu.made[0].known["caller"] == made
    assert frame.rgb.held == ["lane 0"]


def test_what_fails_on_the_lane_is_waited_for(gpu) -> None:
    lane = CudaLane(DEVICE)

    def fail(_: Frame) -> NetworkInput:
        gpu.current.work()
        raise ConfigError("too wide")

    with pytest.raises(ConfigError, match="too wide"):
        lane.run(fail, Frame(Pixels(is_cuda=False), 0, 0.0))
    assert gpu.caller.known["lane 0"] == 1
    assert gpu.current is gpu.caller


def test_the_lane_is_not_the_one_that_graphs_are_recorded_on(gpu, monkeypatch) -> None:
    another = Queue("another")
    pool = iter([gpu.recorder, another])
    monkeypatch.setattr(gpu, "Stream", lambda _: next(pool))
    lane = CudaLane(DEVICE)
    assert lane._stream is another
    assert another.known["caller"] == 1


class Handing:
    """A lane whose results are good only as it hands them over."""

    def run(self, encode: Callable[[Frame], NetworkInput], frame: Frame) -> NetworkInput:
        entry = encode(frame)
        handed = NetworkInput(entry.latent.clone(), entry.depth.clone())
        for tensor in (entry.latent, entry.depth):
            tensor.fill_(torch.nan)
        return handed


def test_a_stream_takes_what_the_lane_hands_over(monkeypatch) -> None:
    def play() -> list[Frame]:
        with open_session() as opened:
            done = list(translate(opened, FRAMES))
            opened.update(prompt="neon")
            return [*done, *opened.push(FRAMES[:4])]

    plain = play()
    monkeypatch.setattr(session, "make_lane", lambda *_: Handing())
    assert same(play(), plain)


def test_other_devices_refuse_it() -> None:
    with pytest.raises(
        ConfigError, match=r"overlap gives a GPU of NVIDIA or AMD two queues .* cpu"
    ):
        open_session(stream_config(runtime=RuntimeConfig(overlap=True)))


# ---- pictures on their way to the host


class Travelling:
    """Stands in for the way from a device: which pictures were started, and waited for."""

    def __init__(self) -> None:
        self.started, self.waited = list[int](), list[int]()

    def start(self, frame: Frame) -> overlap._Coming:
        self.started.append(frame.index)
        done = SimpleNamespace(synchronize=lambda: self.waited.append(frame.index))
        return overlap._Coming(frame, done)


@pytest.fixture
def travelling(monkeypatch) -> Travelling:
    way = Travelling()
    monkeypatch.setattr(overlap, "_start", way.start)
    return way


def indices(frames: Sequence[Frame]) -> list[int]:
    return [frame.index for frame in frames]


def test_a_picture_is_waited_for_when_the_next_one_is_on_its_way(travelling) -> None:
    landing = Landing()
    assert landing.take(FRAMES[:2]) == []
    assert travelling.waited == []
    assert indices(landing.take(FRAMES[2:3])) == [0, 1]
    assert (travelling.started, travelling.waited) == ([0, 1, 2], [0, 1])
    assert indices(landing.take([])) == [2]  # nothing is behind it
    assert landing.rest() == []
    landing.take(FRAMES[3:4])
    assert indices(landing.rest()) == [3]


def test_all_pictures_come_before_what_ends_the_stream(travelling) -> None:
    def breaking() -> Iterator[Frame]:
        yield from FRAMES[:3]
        raise SourceError("over")

    shown = []
    with pytest.raises(SourceError, match="over"):
        shown.extend(landed(breaking()))
    assert indices(shown) == [0, 1, 2]
    assert indices(list(landed(FRAMES[:3]))) == [0, 1, 2]


def test_pictures_on_the_host_come_at_once_as_bytes() -> None:
    landing = Landing()
    half = Frame(torch.full((3, 2, 2), 0.5), 7, 0.25)
    (shown,) = landing.take([half])
    assert (shown.index, shown.timestamp) == (7, 0.25)
    assert torch.equal(shown.rgb, to_bytes(half.rgb))
    assert shown.rgb.dtype == torch.uint8
    assert landing.rest() == []


# ---- on a GPU


LONG = 50_000_000  # of the device's clock: some 30 ms


class SlowLane(CudaLane):
    """A lane whose results would be late for who does not wait for them."""

    def run(self, encode: Callable[[Frame], NetworkInput], frame: Frame) -> NetworkInput:
        def late(frame: Frame) -> NetworkInput:
            torch.cuda._sleep(LONG)
            return encode(frame)

        return super().run(late, frame)


def play(mode: RuntimeMode, two: bool, on_device: bool) -> list[Frame]:
    """A stream with depth in relative units, of frames that are overwritten when they are pushed,
    changed often enough for PyTorch to begin anew with its streams.
    """
    parts = make_parts(tiny_config())
    parts.modules().to(DEVICE)
    model = assemble(parts, tiny_config())
    config = stream_config(runtime=RuntimeConfig(mode, overlap=two), depth_every=2)
    landing, shown = Landing(), list[Frame]()
    with Session(model, config, "ink") as opened:
        opened.warmup(FRAMES[:8])
        for frame in make_frames(80, first=8):
            rgb = frame.rgb.to(DEVICE) if on_device else frame.rgb.clone()
            shown += landing.take(opened.push([Frame(rgb, frame.index, frame.timestamp)]))
            rgb.zero_()
            if frame.index % 2:
                opened.reprime()
        shown += landing.take(opened.flush())
    return shown + landing.rest()


@needs_gpu
@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("slow", ["lane", "network"])
def test_a_stream_on_two_queues_is_the_same(monkeypatch, mode, on_device, slow) -> None:
    monkeypatch.setattr(StructureMap, "relative", True)
    plain = play(mode, False, on_device)
    if slow == "lane":
        monkeypatch.setattr(session, "make_lane", lambda _, device: SlowLane(device))
    else:
        step = Pipeline.step

        def late(pipeline: Pipeline, entry: NetworkInput) -> torch.Tensor | None:
            torch.cuda._sleep(LONG)
            return step(pipeline, entry)

        monkeypatch.setattr(Pipeline, "step", late)
    assert same(play(mode, True, on_device), plain)


@needs_gpu
@pytest.mark.parametrize("lie", ["alone", "expanded", "cut", "turned"])
def test_pixels_travel_as_bytes_and_come_back(lie: str) -> None:
    rgb = to_bytes(make_frames(1, 1024, 1024)[0].rgb)
    if lie == "expanded":
        rgb = rgb[:1].expand(3, -1, -1)
    elif lie == "cut":
        rgb = torch.cat([rgb, rgb])[1:4]
    elif lie == "turned":
        rgb = rgb.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    there = to_unit_range(rgb, DEVICE, torch.float32)
    torch.cuda._sleep(LONG)
    landing = Landing()
    assert landing.take([Frame(there, 0, 0.0)]) == []
    assert not landing._coming[0].done.query()
    (back,) = landing.rest()
    assert back.rgb.is_pinned()
    assert torch.equal(back.rgb, rgb)
