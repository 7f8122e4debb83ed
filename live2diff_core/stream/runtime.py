"""How a frame's networks are run: as they are written, through torch.compile, as CUDA graphs.

What they compute is the same; what a runtime needs and does not find is an error that says so.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import chain
from threading import Lock
from types import FunctionType
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from ..config import CacheKind, KernelKind, RuntimeConfig
from ..errors import ConfigError
from ..models import ring_attention, ring_cpp
from ..models.unet import StreamingUNet
from ..schedule import Schedule
from .cuda_graph import Graph, record_cuda
from .denoise import Conditioning, NewFrame, StreamState, step

Call: TypeAlias = Callable[..., Tensor]
Step: TypeAlias = Callable[[StreamingUNet, StreamState, Schedule, Conditioning, NewFrame], Tensor]
Given: TypeAlias = tuple[object, ...]
Inputs: TypeAlias = Tensor | NewFrame


# Of PyTorch's compiler: weights become constants, and products of one input are made as one.
CONSTANTS = {"freezing": True, "cpp.enable_concat_linear": True}

Record: TypeAlias = Callable[[Callable[[], Tensor], torch.device], tuple[Graph, Tensor]]


def make_step(
    config: RuntimeConfig, state: StreamState, fixed: StreamingUNet | None = None
) -> Step:
    """What runs the steps of a stream with this state. Raises ConfigError where it cannot be.

    fixed: the network that will run them, where nobody changes its weights. A step compiled for a
    CPU then has them as constants: a sixth faster, for a second copy and half a minute more at
    the start, as PyTorch keeps no such code on disk.
    """
    check_runtime(config, state.x.device, state.depth.dtype)
    run: Call = step
    if config.compiles:
        kind = state.x.shape, state.depth.dtype, len(state.rows)
        if fixed is not None and state.x.device.type == "cpu":
            run = _compiled_with(
                fixed, (*kind, state.window, state.kernel, state.layers[0].key.dtype)
            )
        else:
            run = _compiled(step, *kind)
    return Recorded(run, lambda given: given[:1]) if config.records else run


def make_call(config: RuntimeConfig, run: Call, networks: Iterable[object]) -> Call:
    """What runs a function whose last argument is a tensor, as it is or recorded.

    It is not compiled: a depth network takes minutes, and saves less than the step does. networks:
    whose weights it reads.
    """
    parts = tuple(networks)
    return Recorded(run, lambda _: parts) if config.records else run


def check_runtime(
    config: RuntimeConfig, device: torch.device, dtype: torch.dtype = torch.float32
) -> None:
    """Raise ConfigError, with the reason, for a runtime that this device cannot have with a network
    of this dtype.
    """
    if config.records and device.type != "cuda":
        raise ConfigError(
            f"runtime {config.mode} replays CUDA graphs and the model is on {device}: choose eager "
            "or compile"
        )
    if config.overlap and device.type != "cuda":
        raise ConfigError(
            f"overlap gives a GPU of NVIDIA or AMD two queues and the model is on {device}: "
            "choose a device that is one, or leave it out"
        )
    if config.attention == "triton":
        ring_attention.require(device)
    if config.attention == "cpp":
        lacking = ring_cpp.missing(device, dtype)
        if lacking is not None:
            raise ConfigError(f"attention cpp: {lacking}, or choose the attention torch")
    if config.compiles:
        reason = _lacking(device, dtype)
        if reason is not None:
            raise ConfigError(f"runtime {config.mode} cannot be used here: {reason}")


def attention_kernel(
    config: RuntimeConfig, cache: CacheKind, device: torch.device, dtype: torch.dtype
) -> KernelKind | None:
    """What runs the temporal attention's steps of a network in this dtype; None: PyTorch.

    Raises ConfigError for a cache that the chosen kernel does not read.
    """
    in_float32 = cache == "network" and dtype == torch.float32
    if config.attention == "cpp" and not in_float32:
        raise ConfigError(
            "attention cpp reads and writes float32 alone: choose cache network and float32, or "
            "attention torch"
        )
    if config.attention != "auto":
        return None if config.attention == "torch" else config.attention
    if device.type == "cuda" and ring_attention.is_available(device):
        return "triton"
    if device.type == "cpu" and in_float32 and ring_cpp.missing(device, dtype) is None:
        return "cpp"
    return None


def _lacking(device: torch.device, dtype: torch.dtype) -> str | None:
    """What torch.compile needs on this device and does not find."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "it needs Triton (on Windows: pip install triton-windows)"
    if device.type != "cpu":
        return f"it is for CUDA devices and CPUs, the model is on {device}"
    if dtype.itemsize < torch.float32.itemsize:
        # Seen with 2.13 and AVX-512: a norm behind a residual block, in code of 512 bits alone.
        return f"PyTorch's compiled code in {dtype} gives NaN on some CPUs: choose float32"
    return ring_cpp.missing_compiler()


@cache
def _compiled(run: Call, *_: object) -> Call:
    """A function compiled for one shape of state; the code for it is kept on disk by PyTorch.

    One for each shape, so that no shape drives another one out of PyTorch's small list.
    """
    return _compile(run)


_with_constants: WeakKeyDictionary[StreamingUNet, dict[Given, Call]] = WeakKeyDictionary()


def _compiled_with(unet: StreamingUNet, kind: Given) -> Call:
    """`step` compiled for one kind of state and for this network alone."""
    own = _with_constants.setdefault(unet, {})
    if kind not in own:
        own[kind] = _WithConstants(unet)
    return own[kind]


class _WithConstants:
    """`step` with a network's weights as constants of its code.

    PyTorch packs them as its products want them, and looks for no change of theirs.
    """

    def __init__(self, unet: StreamingUNet) -> None:
        # PyTorch keeps what it compiled with the code that it was made of: a copy of its own keeps
        # it from other networks, and lets it go with this.
        alone = FunctionType(step.__code__.replace(), step.__globals__, step.__name__)
        unchecked = getattr(torch.compiler, "skip_guard_on_all_nn_modules_unsafe", None)  # from 2.8
        options = {} if unchecked is None else {"options": {"guard_filter_fn": unchecked}}
        self._run = _compile(alone, **options)
        self._unet, self._lock = ref(unet), Lock()
        self._made: set[str] = set()  # kinds of guidance

    def __call__(
        self,
        unet: StreamingUNet,
        state: StreamState,
        schedule: Schedule,
        condition: Conditioning,
        frame: NewFrame,
    ) -> Tensor:
        """As `step`."""
        if unet is not self._unet():
            raise ValueError("this step was compiled for another network")
        mode = condition.guidance.mode
        if mode in self._made:
            return self._run(unet, state, schedule, condition, frame)
        known = torch._inductor.config.get_config_copy().keys()
        constants = {name: value for name, value in CONSTANTS.items() if name in known}
        with self._lock, torch._inductor.config.patch(constants):  # read while it compiles
            result = self._run(unet, state, schedule, condition, frame)
        self._made.add(mode)
        return result


def _compile(run: Call, **options: object) -> Call:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    compile_call: Callable[..., Call] = torch.compile
    known = inspect.signature(compile_call).parameters
    if "isolate_recompiles" in known:
        options["isolate_recompiles"] = True
    compiled = compile_call(run, dynamic=False, fullgraph=True, **options)

    def call(*given: object) -> Tensor:
        try:
            return compiled(*given)
        except (TorchDynamoException, InductorError) as error:
            raise ConfigError(
                f"torch.compile cannot compile this network here, choose runtime eager: {error}"
            ) from error

    return call


class Recorded:
    """A function that is recorded once for what it is given, and then replayed.

    The last argument, a tensor or a NewFrame, is new in every call, the others are the same
    objects. The first call runs as it is, so that everything lazy is made; the second is recorded.
    What is given is read where it lies: other objects, and weights that were moved, are recorded
    anew. networks: whose weights are read, of what is given. record: makes a graph of what it is
    given, and its result.
    """

    def __init__(
        self,
        run: Call,
        networks: Callable[[Given], Iterable[object]],
        record: Record | None = None,
    ) -> None:
        self._run, self._networks, self._record = run, networks, record or record_cuda
        self._given: Given | None = None
        self._replayed: _Replayed | None = None
        self._weights: list[Tensor] = []
        self._places: list[int] = []

    def __call__(self, *arguments: Any) -> Tensor:  # noqa: ANN401 - of any function
        """As the function itself."""
        *given, inputs = arguments
        if self._given is None or not _same(given, self._given) or self._have_moved():
            self._given, self._replayed = tuple(given), None
            self._weights = list(chain.from_iterable(map(_tensors, self._networks(self._given))))
            self._places = _places(self._weights)
            return self._run(*given, inputs)
        if self._replayed is None:
            self._replayed = self._capture(self._given, inputs)
        return self._replayed.run(inputs)

    def _have_moved(self) -> bool:
        return _places(self._weights) != self._places

    def _capture(self, given: Given, inputs: Inputs) -> "_Replayed":
        own = _copied(inputs)
        graph, result = self._record(lambda: self._run(*given, own), _parts(own)[0].device)
        return _Replayed(graph, own, result)


@dataclass(frozen=True, slots=True, eq=False)
class _Replayed:
    """A graph with the memory that it reads its inputs from and writes a result to."""

    graph: Graph
    inputs: Inputs
    result: Tensor

    def run(self, inputs: Inputs) -> Tensor:
        for own, new in zip(_parts(self.inputs), _parts(inputs), strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.result.clone()


def _parts(inputs: Inputs) -> list[Tensor]:
    if isinstance(inputs, Tensor):
        return [inputs]
    return [getattr(inputs, field.name) for field in fields(inputs)]


def _copied(inputs: Inputs) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs.clone()
    return replace(inputs, **{f.name: getattr(inputs, f.name).clone() for f in fields(inputs)})


def _same(one: Iterable[object], other: Given) -> bool:
    return all(a is b for a, b in zip(one, other, strict=True))


def _tensors(network: object) -> Iterable[Tensor]:
    if not isinstance(network, nn.Module):
        return ()
    return chain(network.parameters(), network.buffers())


def _places(tensors: list[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
