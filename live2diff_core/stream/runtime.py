"""How a step is run: as it is written, through torch.compile, or replayed as a CUDA graph.

All three are `denoise.step`; what a runtime needs and does not find is an error that says so.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from ..config import RuntimeConfig
from ..errors import ConfigError
from ..models import ring_attention
from ..models.unet import StreamingUNet
from ..schedule import Schedule
from .denoise import Conditioning, NewFrame, StreamState, step

Step: TypeAlias = Callable[[StreamingUNet, StreamState, Schedule, Conditioning, NewFrame], Tensor]


class Graph(Protocol):
    """A recorded sequence of kernels."""

    def replay(self) -> None:
        """Run it again on the same memory."""


Given: TypeAlias = tuple[StreamingUNet, StreamState, Schedule, Conditioning]
Record: TypeAlias = Callable[[Callable[[], Tensor]], tuple[Graph, Tensor]]


def make_step(config: RuntimeConfig, state: StreamState) -> Step:
    """What runs the steps of a stream with this state. Raises ConfigError where it cannot be."""
    check_runtime(config, state.x.device)
    if config.mode == "eager":
        return step
    compiled = _compiled(state.x.shape, state.depth.dtype, len(state.rows))
    return compiled if config.mode == "compile" else GraphStep(compiled, record_cuda)


def check_runtime(config: RuntimeConfig, device: torch.device) -> None:
    """Raise ConfigError, with the reason, for a runtime that this device cannot have."""
    if config.mode == "graph" and device.type != "cuda":
        raise ConfigError(
            f"runtime graph replays CUDA graphs and the model is on {device}: choose eager or "
            "compile"
        )
    if config.attention == "triton":
        ring_attention.require(device)
    if config.mode != "eager":
        reason = _lacking(device)
        if reason is not None:
            raise ConfigError(f"runtime {config.mode} cannot be used here: {reason}")


def uses_kernel(config: RuntimeConfig, device: torch.device) -> bool:
    """Whether the temporal attention's steps run as a Triton kernel."""
    if config.attention == "auto":
        return device.type == "cuda" and ring_attention.is_available(device)
    return config.attention == "triton"


def _lacking(device: torch.device) -> str | None:
    """What torch.compile needs on this device and does not find."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "it needs Triton (on Windows: pip install triton-windows)"
    if device.type != "cpu":
        return f"it is for CUDA devices and CPUs, the model is on {device}"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "it needs a C++ compiler (Debian: apt install g++; Windows: Visual Studio's)"
    return None


@cache
def _compiled(*_: object) -> Step:
    """`step` compiled for one shape of state; the code for it is kept on disk by PyTorch.

    One for each shape, so that no shape drives another one out of PyTorch's small list.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    compile_step: Callable[..., Step] = torch.compile
    known = inspect.signature(compile_step).parameters
    alone = {"isolate_recompiles": True} if "isolate_recompiles" in known else {}
    compiled = compile_step(step, dynamic=False, fullgraph=True, **alone)

    def run(
        unet: StreamingUNet,
        state: StreamState,
        schedule: Schedule,
        condition: Conditioning,
        frame: NewFrame,
    ) -> Tensor:
        try:
            return compiled(unet, state, schedule, condition, frame)
        except (TorchDynamoException, InductorError) as error:
            raise ConfigError(
                f"torch.compile cannot compile this network here, choose runtime eager: {error}"
            ) from error

    return run


class GraphStep:
    """A step that is recorded once for a stream's state, and then replayed.

    The first frame under given inputs runs as it is, so that everything lazy is made; the second
    is recorded. Weights, schedule and conditioning are read where they lie: others, and weights
    that were moved, are recorded anew. record: makes a graph of what it is given, and its result.
    """

    def __init__(self, run: Step, record: Record) -> None:
        self._run, self._record = run, record
        self._given: Given | None = None
        self._recorded: _Recorded | None = None
        self._weights: list[Tensor] = []
        self._places: list[int] = []

    def __call__(
        self,
        unet: StreamingUNet,
        state: StreamState,
        schedule: Schedule,
        condition: Conditioning,
        frame: NewFrame,
    ) -> Tensor:
        """As `denoise.step`."""
        given = (unet, state, schedule, condition)
        if self._given is None or not _same(given, self._given) or self._have_moved():
            self._given, self._recorded = given, None
            self._weights = list(unet.parameters())
            self._places = _places(self._weights)
            return self._run(*given, frame)
        if self._recorded is None:
            self._recorded = self._capture(given, frame)
        return self._recorded.run(frame)

    def _have_moved(self) -> bool:
        return _places(self._weights) != self._places

    def _capture(self, given: Given, frame: NewFrame) -> "_Recorded":
        inputs = NewFrame(*(getattr(frame, field.name).clone() for field in fields(frame)))
        graph, result = self._record(lambda: self._run(*given, inputs))
        return _Recorded(graph, inputs, result)


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    """A graph with the memory that it reads a frame from and writes a result to."""

    graph: Graph
    inputs: NewFrame
    result: Tensor

    def run(self, frame: NewFrame) -> Tensor:
        for field in fields(frame):
            getattr(self.inputs, field.name).copy_(getattr(frame, field.name))
        self.graph.replay()
        return self.result.clone()


def record_cuda(run: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
    """Record on the current CUDA device; nothing is computed until the replay."""
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result


def _same(one: Given, other: Given) -> bool:
    return all(a is b for a, b in zip(one, other, strict=True))


def _places(tensors: list[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
