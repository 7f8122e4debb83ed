"""Recording for a CUDA device: one at a time, a workspace for each, and left when it fails."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from live2diff_core.errors import ConfigError
from live2diff_core.stream import cuda_graph
from live2diff_core.stream.cuda_graph import record_cuda, recording_stream
from tests.stream.cuda import Current

DEVICE = torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


class Cuda(Current):
    """A stand-in for torch.cuda that notes what is done."""

    OutOfMemoryError = torch.OutOfMemoryError

    def __init__(self) -> None:
        super().__init__("caller")
        self.done: list[str] = []

    def CUDAGraph(self) -> object:
        return object()

    def Stream(self, _: torch.device) -> str:
        return "recorder"

    @contextmanager
    def graph(self, _: object, stream: str, capture_error_mode: str) -> Iterator[None]:
        assert (self.current, capture_error_mode) == (stream, "thread_local")
        assert cuda_graph._recording.locked()
        self.done.append("begin")
        yield  # a recording that fails is not ended: PyTorch raises at its end
        self.done.append("end")

    def clear(self) -> None:
        self.done.append("clear")


@pytest.fixture
def cuda(monkeypatch) -> Iterator[Cuda]:
    fake = Cuda()
    inside = SimpleNamespace(_cuda_clearCublasWorkspaces=fake.clear)
    known = {"OutOfMemoryError": torch.OutOfMemoryError, "device": torch.device}
    monkeypatch.setattr(cuda_graph, "torch", SimpleNamespace(cuda=fake, _C=inside, **known))
    recording_stream.cache_clear()
    yield fake
    recording_stream.cache_clear()


def test_what_is_recorded_has_a_workspace_of_its_own(cuda) -> None:
    result = torch.ones(1)
    graph, given = record_cuda(lambda: cuda.done.append("work") or result, DEVICE)
    assert given is result
    assert graph is not None
    assert cuda.done == ["clear", "begin", "work", "end", "clear"]


def failing(error: Exception) -> Callable[[], Any]:
    def run() -> torch.Tensor:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("operation not permitted"), ConfigError),
        (torch.OutOfMemoryError("full"), torch.OutOfMemoryError),
    ],
    ids=["refused", "full"],
)
def test_a_recording_that_fails_is_left(cuda, error, raised) -> None:
    with pytest.raises(raised, match=str(error)):
        record_cuda(failing(error), DEVICE)
    assert cuda.current == "caller"
    assert cuda.done[-1] == "clear"
    assert not cuda_graph._recording.locked()
    record_cuda(lambda: torch.ones(1), DEVICE)


def test_every_graph_of_a_device_is_recorded_on_one_stream(cuda) -> None:
    assert recording_stream(DEVICE) is recording_stream(DEVICE)


@needs_gpu
def test_graphs_that_are_replayed_at_a_time_do_not_meet() -> None:
    """Products whose sums are split between blocks, which meet in the workspace."""
    sizes = (64, 2**16), (2**16, 64)
    pairs = [[torch.randn(*size, device=DEVICE) for size in sizes] for _ in range(2)]
    made = [record_cuda(lambda a=a, b=b: a @ b, DEVICE) for a, b in pairs]
    streams = [torch.cuda.Stream(DEVICE) for _ in made]
    expected = [a @ b for a, b in pairs]
    torch.cuda.synchronize(DEVICE)
    for _ in range(50):
        for (graph, _), stream in zip(made, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize(DEVICE)
    for (_, result), product in zip(made, expected, strict=True):
        torch.testing.assert_close(result, product, rtol=1e-4, atol=1e-2)


@needs_gpu
def test_after_a_recording_that_fails_the_next_one_goes_well() -> None:
    x = torch.ones(4, device=DEVICE)
    with pytest.raises(ConfigError, match="cannot be recorded"):
        record_cuda(lambda: x * x.sum().item(), DEVICE)
    assert torch.cuda.current_stream(DEVICE) == torch.cuda.default_stream(DEVICE)
    graph, result = record_cuda(lambda: x * 2, DEVICE)
    graph.replay()
    torch.cuda.synchronize(DEVICE)
    assert torch.equal(result, 2 * x)
