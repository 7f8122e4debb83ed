"""Work of a CUDA device, recorded once and replayed without Python."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import ConfigError

_recording = Lock()


class Graph(Protocol):
    """A recorded sequence of kernels."""

    def replay(self) -> None:
        """Run it again on the same memory."""


def record_cuda(run: Callable[[], Tensor], device: torch.device) -> tuple[Graph, Tensor]:
    """Record on a CUDA device; nothing is computed until the replay. Raises ConfigError for what
    cannot be recorded.
    """
    graph: Any = torch.cuda.CUDAGraph()
    stream = recording_stream(device)
    try:
        with (
            _recording,
            torch.cuda.stream(stream),  # which PyTorch would not leave if the recording failed
            own_workspace(),
            # Other threads, with streams of their own, go on meanwhile.
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            result = run()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ConfigError(
            "this network cannot be recorded as a CUDA graph here, choose runtime eager or "
            f"compile: {error}"
        ) from error
    return graph, result


@cache
def recording_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of a CUDA device that graphs are recorded on, one at a time."""
    return torch.cuda.Stream(device)


@contextmanager
def own_workspace() -> Iterator[None]:
    """What is recorded meanwhile gets a workspace of cuBLAS in the graph's own memory.

    PyTorch keeps one for each stream, so graphs of one stream would share it, of which two may be
    replayed at a time, and it would go with the graph that it was made for.
    """
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()
