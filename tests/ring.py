"""Streams through the attention's kernel beside the plain PyTorch ones, for test_ring_attention.

Without a GPU these functions run in a process whose Triton interprets the kernel.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from live2diff_core.cache import FLOAT8, LayerCache, Projected, RingStep
from live2diff_core.config import AttentionWindow, KernelKind
from live2diff_core.models import ring_attention as module
from live2diff_core.models.ring_attention import require, ring_attention
from live2diff_core.models.temporal import attend

BYTES = {"u8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Frame = tuple[Tensor, Tensor, Tensor]
Lie = Literal["alone", "fused", "cut", "heads first"]


@dataclass(frozen=True)
class Case:
    """A stream: its sizes, its dtype and that of its cache (None: the same)."""

    window: tuple[int, int] = (2, 3)
    rows: int = 1
    pixels: int = 3
    heads: int = 2
    channels: int = 12
    dtype: torch.dtype = torch.float32
    cache: torch.dtype | None = None
    lie: Lie = "alone"  # how query, key and value lie in memory
    frames: int = 20
    kernel: KernelKind = "triton"

    def ages(self) -> list[Tensor]:
        """A row is a frame behind the one before it; the first rows fill up, turn and go on."""
        count = max(self.frames, 2 * self.window[1] + self.rows + 2)
        rows = torch.arange(self.rows, device=DEVICE)
        return [t - rows for t in range(count)]


class Stream:
    """Equal caches with random sinks, and frames for them."""

    def __init__(self, case: Case) -> None:
        self.case, self.window = case, AttentionWindow(*case.window)
        self.generator = torch.Generator().manual_seed(0)
        size = case.rows, case.pixels, case.heads, self.window.slots, case.channels
        tables = (
            self.random(self.window.slots + 1, case.heads, case.channels).to(case.dtype)
            for _ in range(3)
        )
        self.positions = Projected(*tables)
        sinks = torch.arange(self.window.slots, device=DEVICE) < self.window.sinks
        first = [self.random(*size) * sinks[:, None] for _ in range(2)]
        self.ours, self.plain = (
            LayerCache(*(x.to(case.cache or case.dtype) for x in first), self.positions)
            for _ in range(2)
        )

    def random(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.generator).to(DEVICE)

    def frame(self) -> Frame:
        """Query, key and value, (g, p, e, 1, d) each: views of something as `lie` says."""
        case = self.case
        rows, pixels, heads, channels = case.rows, case.pixels, case.heads, case.channels
        width = heads * channels
        if case.lie == "fused":
            parts = list(self.random(rows, pixels, 3 * width).chunk(3, -1))
        elif case.lie == "cut":
            parts = [self.random(rows, pixels + 1 + i, width)[:, i : i + pixels] for i in range(3)]
        elif case.lie == "heads first":
            separate = [self.random(rows, heads, pixels, channels) for _ in range(3)]
            query, key, value = (x.to(case.dtype).transpose(1, 2).unsqueeze(3) for x in separate)
            return query, key, value
        else:
            parts = [self.random(rows, pixels, width) for _ in range(3)]
        query, key, value = (x.unflatten(-1, (heads, 1, channels)).to(case.dtype) for x in parts)
        return query, key, value

    def expected(self, frame: Frame, age: Tensor) -> Tensor:
        """The plain path, with all that is attended to in float32."""
        query, *new = frame
        state = RingStep([self.plain], age, self.window)
        key, value = state.exchange(0, *new)
        tables = (t.float() for t in (self.positions.query, self.positions.key))
        exact = Projected(*tables, self.positions.value.float())
        return attend(query.float(), key.float(), value.float(), exact, state.visibility)


def attention(stream: Stream, frame: Frame, age: Tensor) -> Tensor:
    """The next frame of a stream through its kernel."""
    return ring_attention(stream.case.kernel, frame, stream.ours, age, stream.window)


def check(case: Case) -> None:
    """The kernel gives what the plain path gives, and leaves the same cache."""
    stream = Stream(case)
    close = {"rtol": torch.finfo(case.dtype).eps, "atol": 4e-6}  # one step of the result
    for age in case.ages():
        frame = stream.frame()
        ours = attention(stream, frame, age)
        expected = stream.expected(frame, age)
        assert ours.dtype == case.dtype and ours.is_contiguous()
        torch.testing.assert_close(ours.float(), expected, **close, msg=lambda m: f"{case}\n{m}")
        assert_same(stream.ours, stream.plain)


def assert_same(ours: LayerCache, plain: LayerCache) -> None:
    for mine, other in ((ours.key, plain.key), (ours.value, plain.value)):
        assert torch.equal(mine.view(torch.uint8), other.view(torch.uint8))


def check_interpreted() -> None:
    """This process interprets."""
    require(DEVICE)


def check_native_float8(case: Case) -> None:
    """As on a GPU that converts float8 itself."""
    from live2diff_core.models import ring_kernel

    kept = ring_kernel._converts_float8
    ring_kernel._converts_float8 = lambda device: True
    try:
        check(case)
    finally:
        ring_kernel._converts_float8 = kept


def check_float8_rounding() -> None:
    """Every float8, what lies between two of them, and what lies outside of all."""
    codes = torch.arange(127, dtype=torch.uint8).view(FLOAT8).float()
    middle = (codes[1:] + codes[:-1]) / 2
    beside = [middle * (1 + 2**-20), middle * (1 - 2**-20)]
    outside = torch.tensor([460.0, 500.0, 1e9, torch.inf, 1e-9, 2**-10, 3e-39])
    numbers = torch.cat([codes, middle, *beside, outside])
    numbers = torch.cat([numbers, -numbers]).to(DEVICE)
    shape = 1, len(numbers) // 2, 1, 1, 2
    stream = Stream(Case((1, 1), pixels=shape[1], heads=1, channels=2, cache=FLOAT8))
    age = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    key = numbers.view(shape)
    attention(stream, (torch.zeros_like(key), key, -key), age)
    expected = key.clamp(-448, 448)
    for ours, wanted in ((stream.ours.key, expected), (stream.ours.value, -expected)):
        torch.testing.assert_close(
            ours[:, :, :, 1:].float(), wanted.to(ours.dtype).float(), rtol=0, atol=0
        )


def check_ages_apart(case: Case) -> None:
    """Ages that do not lie side by side in memory; of two rows."""
    stream, apart = Stream(case), torch.zeros(2, 64, dtype=torch.int64, device=DEVICE)
    for age in case.ages():
        frame = stream.frame()
        apart[:, 0] = age
        ours = attention(stream, frame, apart[:, 0])
        torch.testing.assert_close(ours, stream.expected(frame, age), rtol=1e-5, atol=1e-5)


def check_hidden_slots(case: Case) -> None:
    """What lies in slots that a row does not see has no part in its result; of two rows."""
    stream = Stream(case)
    for cache in (stream.ours.key, stream.ours.value):
        cache[:, :, :, 3:] = torch.nan
    age = torch.tensor([0, -1], device=DEVICE)
    ours = attention(stream, stream.frame(), age)
    assert ours.isfinite().all()


def check_compiled(case: Case) -> None:
    """Under torch.compile in one graph, and without gradients as a session runs it."""
    stream = Stream(case)

    def step(query: Tensor, key: Tensor, value: Tensor, age: Tensor) -> Tensor:
        return attention(stream, (query + 1.0, key, value), age) * 2.0

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        for age in case.ages()[:4]:
            query, key, value = stream.frame()
            expected = stream.expected((query + 1.0, key, value), age) * 2.0
            torch.testing.assert_close(
                compiled(query, key, value, age), expected, rtol=1e-5, atol=1e-5
            )
            assert_same(stream.ours, stream.plain)


def check_operator(case: Case) -> None:
    """What it says of itself to torch.compile is so: what it changes, what it gives."""
    stream = Stream(case)
    age = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    cache, tables = stream.ours, stream.positions
    torch.library.opcheck(
        module._operator,
        (
            case.kernel,
            *stream.frame(),
            cache.key,
            cache.value,
            tables.key,
            tables.value,
            age,
            *stream.case.window,
        ),
        test_utils=("test_schema", "test_faketensor"),
    )


def compiled_for(
    gpu: int | str, channels: int, dtype: str, cache: str, native: bool = False
) -> dict[str, str]:
    """The kernel in the default window for a GPU that need not be here, in all its stages. gpu: the
    capability of one of NVIDIA, the architecture of one of AMD.
    """
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from live2diff_core.models.ring_kernel import blocks, ring_step

    window, heads = AttentionWindow(), 8
    constants = {
        "heads": heads,
        "channels": channels,
        "sinks": window.sinks,
        "ring": window.ring,
        "native": native,
        **blocks(channels, window, BYTES[cache]),
    }
    types = {"keys": f"*{cache}", "values": f"*{cache}", "ages": "*i64", "scale": "fp32"}
    types |= dict.fromkeys(("query", "new_key", "new_value", "out"), f"*{dtype}")
    types |= dict.fromkeys(("key_table", "value_table"), f"*{dtype}")
    types |= dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "i32") for name in ring_step.arg_names}
    # As at a launch: addresses and strides of these widths are multiples of 16.
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, type_ in enumerate(signature.values())
        if type_.startswith("*") or type_ == "i32"
    }
    source = ASTSource(ring_step, signature, constants, aligned)
    if isinstance(gpu, int):
        target = GPUTarget("cuda", gpu, 32)
    else:
        target = GPUTarget("hip", gpu, 64 if gpu.startswith("gfx9") else 32)
    stages: dict[str, str] = compile_kernel(source, target=target, options={"num_warps": 1}).asm
    return stages


def check_captured(replays: int) -> None:
    """A captured launch, replayed with new frames and ages in the same places."""
    stream = Stream(Case(rows=2))
    frame, age = stream.frame(), torch.zeros(2, dtype=torch.int64, device=DEVICE)
    first = [x.clone() for x in (stream.ours.key, stream.ours.value)]
    attention(stream, frame, age)  # compiles it
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attention(stream, frame, age)
    stream.ours.key.copy_(first[0])
    stream.ours.value.copy_(first[1])
    for t in range(replays):
        age.copy_(torch.tensor([t, t - 1]))
        for held, new in zip(frame, stream.frame(), strict=True):
            held.copy_(new)
        graph.replay()
        torch.testing.assert_close(out, stream.expected(frame, age), rtol=1e-5, atol=1e-5)
        assert_same(stream.ours, stream.plain)
