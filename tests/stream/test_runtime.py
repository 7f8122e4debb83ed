"""How a step is run: compiled or recorded, the stream stays the same; what cannot be says why."""

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial, wraps

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

from live2diff_core.cache import FLOAT8
from live2diff_core.config import CacheKind, Guidance, KernelKind, RuntimeConfig, StreamConfig
from live2diff_core.errors import ConfigError
from live2diff_core.frames import Frame
from live2diff_core.models import ring_cpp
from live2diff_core.stream import codec, pipeline, runtime
from live2diff_core.stream.interrupt import interruptible
from live2diff_core.stream.runtime import Recorded, check_runtime, make_call, make_step
from live2diff_core.stream.session import Session
from tests.stream.test_variants import at
from tests.tiny import (
    HEIGHT,
    WIDTH,
    distance,
    make_frames,
    open_session,
    same,
    steps_of,
    stream_config,
    tiny_model,
)

CPU = torch.device("cpu")
COMPILE = RuntimeConfig("compile")
FRAMES = make_frames(8 + 12)
KINDS = 4  # what is recorded: encoding, depth, the step, decoding


def stream(session: Session, frames: list[Frame] = FRAMES) -> list[Frame]:
    done = session.warmup(frames[:8])
    return [*done, *session.push(frames[8:])]


@pytest.fixture
def traced(monkeypatch) -> Iterator[Callable[[], int]]:
    """torch.compile without code generation, which takes a minute; how often it has traced."""
    compile_step = partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compile_step)
    runtime._compiled.cache_clear()
    runtime._with_constants.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    runtime._compiled.cache_clear()
    runtime._with_constants.clear()
    torch._dynamo.reset()


# ---- compile


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch in PyTorch
@pytest.mark.parametrize("fixed", [False, True])
def test_a_compiled_stream_is_the_same(fixed: bool) -> None:
    """The one test that generates code; weights that nobody changes are packed into it."""
    runtime._with_constants.clear()
    packed = counters["inductor"]["mkldnn_linear_weight_pack_matcher_count"]
    model = replace(tiny_model(), is_fixed=fixed)
    plain = open_session()
    compiled = Session(model, stream_config(runtime=COMPILE), "ink")
    assert distance(stream(plain), stream(compiled)) < 1e-5
    more = counters["inductor"]["mkldnn_linear_weight_pack_matcher_count"] - packed
    assert (more > 0) is fixed
    for session in (plain, compiled):
        session.update(prompt="neon", strength=0.4)
    assert distance(plain.push(FRAMES[:3]), compiled.push(FRAMES[:3])) < 1e-5


def test_changes_while_it_runs_compile_nothing(traced) -> None:
    plain, compiled = open_session(), open_session(stream_config(runtime=COMPILE))
    before = traced()
    assert distance(stream(plain), stream(compiled)) < 1e-5
    assert traced() == before + 1
    changes = (
        {"prompt": "neon lights"},
        {"strength": 0.4},
        {"seed": 3},
        {"model": at(1.0)},
        {"model": at(-0.5)},
    )
    for number, change in enumerate(changes):
        for session in (plain, compiled):
            session.update(**change)
        more = make_frames(3, seed=number, first=20 + 3 * number)
        assert distance(plain.push(more), compiled.push(more)) < 1e-5
    for session in (plain, compiled):
        session.steer("a neon city")
    assert distance(plain.push(FRAMES[:3]), compiled.push(FRAMES[:3])) < 1e-5
    assert traced() == before + 1


def test_a_scale_of_guidance_compiles_nothing(traced) -> None:
    config = stream_config(runtime=COMPILE, guidance=Guidance("self", 1.2))
    session = open_session(config)
    stream(session)
    before = traced()
    session.update(guidance=Guidance("self", 1.7))
    session.push(FRAMES[:2])
    assert traced() == before


def test_a_fixed_model_compiles_once_and_its_variants_as_others_do(traced) -> None:
    model = replace(tiny_model(), is_fixed=True)
    config = stream_config(runtime=COMPILE)
    plain, compiled = Session(model, stream_config(), "ink"), Session(model, config, "ink")
    before = traced()
    assert distance(stream(plain), stream(compiled)) < 1e-5
    again = Session(model, config, "ink")
    stream(again)
    assert traced() == before + 1
    variant = model.with_adapters(at(1.0).adapters)
    assert not variant.is_fixed
    for session in (plain, compiled):
        session.update(model=variant, prompt="neon")
    assert distance(plain.push(FRAMES[:3]), compiled.push(FRAMES[:3])) < 1e-5
    assert traced() == before + 2


def test_a_step_with_constants_refuses_another_network(traced) -> None:
    model = replace(tiny_model(), is_fixed=True)
    session = Session(model, stream_config(runtime=COMPILE), "ink")
    stream(session)
    running = session._pipeline
    running.plan = replace(running.plan, model=at(1.0))
    with pytest.raises(ValueError, match="compiled for another network"):
        session.push(FRAMES[:1])


def test_a_fixed_network_goes_when_nobody_has_it(traced) -> None:
    model = replace(tiny_model(), unet=copy.deepcopy(tiny_model().unet), is_fixed=True)
    gone = weakref.ref(model.unet)
    with Session(model, stream_config(runtime=COMPILE), "ink") as session:
        stream(session)
    del model, session
    gc.collect()
    assert gone() is None


def test_sizes_live_beside_each_other(traced) -> None:
    before = traced()
    wide = StreamConfig(2 * WIDTH, HEIGHT, steps_of(2), runtime=COMPILE)
    streams = [
        (open_session(stream_config(runtime=COMPILE)), FRAMES),
        (Session(tiny_model(), wide, "ink"), make_frames(12, 2 * WIDTH)),
    ]
    for session, frames in streams:
        stream(session, frames)
    for session, frames in (*streams, *streams):
        session.push(frames[:2])
    assert traced() == before + 2


def test_what_compiling_breaks_on_is_told(traced, monkeypatch) -> None:
    monkeypatch.setattr(runtime, "step", lambda *_: torch._dynamo.graph_break())
    session = open_session(stream_config(runtime=COMPILE))
    session.warmup(FRAMES[:8])
    with pytest.raises(ConfigError, match="choose runtime eager"):
        session.push(FRAMES[8:9])


# ---- CUDA graph


class Replayed:
    """Like a CUDA graph: nothing runs while it is recorded, a replay runs it on the same memory."""

    made = 0

    def __init__(self, run: Callable[[], Tensor], result: Tensor) -> None:
        self.run, self.result = run, result
        Replayed.made += 1

    def replay(self) -> None:
        self.result.copy_(self.run())


def recording(run: Callable[..., Tensor], networks) -> Recorded:
    """`run` as a device with CUDA graphs runs it. What it gives first tells the size of a result,
    since it may not run while it is recorded.
    """
    sizes = []

    @wraps(run)
    def measured(*given: object) -> Tensor:
        result = run(*given)
        sizes.append(result.shape)
        return result

    def record(again: Callable[[], Tensor], _: torch.device) -> tuple[Replayed, Tensor]:
        result = torch.full(sizes[0], torch.nan)
        return Replayed(again, result), result

    return Recorded(measured, networks, record)


@pytest.fixture
def recorded(monkeypatch) -> Iterator[None]:
    def call(_, run, networks) -> Recorded:
        parts = tuple(networks)
        return recording(run, lambda _: parts)

    def record_step(*_: object) -> Recorded:
        return recording(runtime.step, lambda given: given[:1])

    monkeypatch.setattr(codec, "make_call", call)
    monkeypatch.setattr(pipeline, "make_step", record_step)
    Replayed.made = 0


def test_a_recorded_stream_is_the_same_to_the_bit(recorded, monkeypatch) -> None:
    graphed = open_session()
    result = stream(graphed)
    assert Replayed.made == KINDS
    graphed.update(prompt="neon", model=at(0.7))
    result += graphed.push(FRAMES[:4])
    graphed.steer("a neon city")
    result += graphed.push(FRAMES[:4])
    assert Replayed.made == KINDS + 2  # the step alone follows from prompt and LoRAs
    monkeypatch.setattr(codec, "make_call", make_call)
    monkeypatch.setattr(pipeline, "make_step", make_step)
    plain = open_session()
    expected = stream(plain)
    plain.update(prompt="neon", model=at(0.7))
    expected += plain.push(FRAMES[:4])
    plain.steer("a neon city")
    assert same(expected + plain.push(FRAMES[:4]), result)


def conv_in(model) -> Tensor:
    return model.unet.spatial.conv_in.weight


def latent_scale(model) -> Tensor:
    return model.autoencoder.scale


@pytest.mark.parametrize(("moved", "again"), [(conv_in, 1), (latent_scale, KINDS - 1)])
def test_weights_that_were_moved_are_recorded_anew(recorded, moved, again) -> None:
    session = open_session()
    stream(session)
    weight = moved(session.model)
    kept = weight.data
    try:
        weight.data = kept.clone()
        session.push(FRAMES[:3])
    finally:
        weight.data = kept
    assert Replayed.made == KINDS + again


def test_depth_that_is_recorded_keeps_the_range_of_its_stream(recorded, monkeypatch) -> None:
    """It is changed in place: each replay goes on from what the one before has left."""
    network = tiny_model()
    monkeypatch.setattr(type(network.depth), "relative", True)
    graphed = stream(open_session())
    monkeypatch.setattr(codec, "make_call", make_call)
    assert same(graphed, stream(open_session()))


# ---- what cannot be


@pytest.mark.parametrize("mode", ["graph", "compile", "compile-graph"])
def test_a_device_without_the_runtime_is_refused_when_the_session_opens(mode) -> None:
    with pytest.raises(ConfigError, match=f"runtime {mode} "):
        check_runtime(RuntimeConfig(mode), torch.device("meta"))
    if "graph" in mode:
        with pytest.raises(ConfigError, match="choose eager or compile"):
            open_session(stream_config(runtime=RuntimeConfig(mode)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_compiling_in_16_bits_is_refused_on_a_cpu(dtype) -> None:
    check_runtime(RuntimeConfig(), CPU, dtype)
    check_runtime(COMPILE, CPU, torch.float32)
    with pytest.raises(ConfigError, match=f"compiled code in {dtype} gives NaN on some CPUs"):
        check_runtime(COMPILE, CPU, dtype)


def test_a_missing_compiler_is_named(monkeypatch) -> None:
    def missing() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        check_runtime(COMPILE, CPU)


def test_without_a_gpu_triton_is_not_chosen_and_refused_where_asked_for(monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert kernel_of(RuntimeConfig()) != "triton"
    with pytest.raises(ConfigError, match="attention triton"):
        open_session(stream_config(runtime=RuntimeConfig(attention="triton")))


def kernel_of(
    config: RuntimeConfig, cache: CacheKind = "network", dtype: torch.dtype = torch.float32
) -> KernelKind | None:
    return runtime.attention_kernel(config, cache, CPU, dtype)


def test_on_a_cpu_the_kernel_in_cpp_is_chosen_for_float32_alone() -> None:
    assert kernel_of(RuntimeConfig()) == "cpp"
    assert kernel_of(RuntimeConfig(attention="torch")) is None
    assert kernel_of(RuntimeConfig(), dtype=torch.bfloat16) is None
    assert kernel_of(RuntimeConfig(), cache="float8") is None


def test_the_kernel_in_cpp_says_what_it_cannot_do() -> None:
    cpp = RuntimeConfig(attention="cpp")
    with pytest.raises(ConfigError, match="float32 alone"):
        kernel_of(cpp, cache="float8")
    with pytest.raises(ConfigError, match=r"attention cpp: it computes in float32, .*bfloat16"):
        check_runtime(cpp, CPU, torch.bfloat16)
    with pytest.raises(ConfigError, match="attention cpp: it is for CPUs, not meta"):
        check_runtime(cpp, torch.device("meta"))


def test_without_a_compiler_pytorch_takes_its_place_and_asking_for_it_is_refused(
    monkeypatch,
) -> None:
    def missing() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    ring_cpp._built.cache_clear()
    try:
        assert kernel_of(RuntimeConfig()) is None
        with pytest.raises(ConfigError, match=r"attention cpp: it needs a C\+\+ compiler"):
            check_runtime(RuntimeConfig(attention="cpp"), CPU)
    finally:
        ring_cpp._built.cache_clear()


def test_code_that_does_not_compile_is_said_and_pytorch_takes_its_place(
    monkeypatch, tmp_path, caplog
) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("this is no C++", encoding="utf-8")
    monkeypatch.setattr(ring_cpp, "SOURCE", broken)
    ring_cpp._built.cache_clear()
    try:
        with caplog.at_level("INFO", logger=ring_cpp.logger.name):
            assert kernel_of(RuntimeConfig()) is None
        assert "was not built" in caplog.text
        with pytest.raises(ConfigError, match="attention cpp: its code does not compile here"):
            check_runtime(RuntimeConfig(attention="cpp"), CPU)
    finally:
        ring_cpp._built.cache_clear()


def test_a_stream_through_the_kernel_in_cpp_is_the_plain_one() -> None:
    ours, plain = (
        stream(open_session(stream_config(runtime=RuntimeConfig(attention=kind))))
        for kind in ("cpp", "torch")
    )
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one.rgb, other.rgb, rtol=1e-4, atol=1e-4)


# ---- interrupts


def test_an_interrupt_is_heard_before_every_call_of_the_network() -> None:
    session, calls = open_session(), []
    with interruptible(lambda: calls.append(1)):
        stream(session)
    assert len(calls) == 2 + 12
    session.push(FRAMES[:2])
    assert len(calls) == 2 + 12


def test_a_device_without_8_bit_numbers_is_refused(monkeypatch) -> None:
    empty = torch.empty

    def without(*size: int, dtype: torch.dtype | None = None, **given: object) -> Tensor:
        if dtype == FLOAT8:
            raise TypeError("no such dtype here")
        return empty(*size, dtype=dtype, **given)

    monkeypatch.setattr(torch, "empty", without)
    with pytest.raises(ConfigError, match="cache float8 cannot be had on cpu: no such dtype"):
        open_session(stream_config(cache="float8"))
