"""The attention's kernel against the plain path, over streams that fill their ring and turn.

On a GPU if there is one. Else Triton interprets the kernel, which it does for a whole process or
not at all, from its import on: the checks of tests/ring.py run in a process of their own.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch

from live2diff_core.cache import FLOAT8, LayerCache, Projected
from live2diff_core.config import AttentionWindow
from live2diff_core.errors import ConfigError
from live2diff_core.models.ring_attention import is_available, require, ring_attention
from tests import ring
from tests.ring import Case

CPU = torch.device("cpu")
HALVES = torch.float16, torch.bfloat16
HAS_GPU = torch.cuda.is_available()
WINDOW = AttentionWindow(2, 3)
Run = Callable[..., None]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a check where Triton runs."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if HAS_GPU:
        yield lambda check, *args: check(*args)
        return
    with (
        pytest.MonkeyPatch.context() as patch,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        patch.setenv("TRITON_INTERPRET", "1")
        process.submit(ring.check_interpreted).result(timeout=120)
        patch.undo()
        yield lambda check, *args: process.submit(check, *args).result(timeout=120)


@pytest.fixture(scope="module", params=["triton", "cpp"])
def both(request) -> Run:
    """Runs a check of a case with each kernel where it runs."""
    if request.param == "triton":
        return request.getfixturevalue("run")
    return lambda check, case: check(replace(case, kernel="cpp"))


@pytest.mark.parametrize("window", [(8, 8), (3, 9), (4, 6), (1, 1), (2, 1), (1, 4)], ids=str)
def test_a_stream_through_the_kernel_is_the_plain_one(both, window):
    both(ring.check, Case(window, rows=2, pixels=2, heads=1, channels=8))


@pytest.mark.parametrize("channels", [12, 16, 40, 80, 160, 7, 1])
def test_heads_of_any_width(both, channels):
    both(ring.check, Case(channels=channels, pixels=1))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_adds_up_in_full(run, dtype):
    run(ring.check, Case(dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_a_cache_of_eight_bits(run, dtype):
    run(ring.check, Case(dtype=dtype, cache=FLOAT8))


def test_a_cache_of_eight_bits_on_a_gpu_that_converts_them(run):
    run(ring.check_native_float8, Case(dtype=torch.float16, cache=FLOAT8))


def test_eight_bits_are_rounded_as_torch_rounds_and_end_at_the_largest(run):
    run(ring.check_float8_rounding)


def test_more_rows_than_the_ring_has_slots(both):
    both(ring.check, Case((1, 2), rows=4, heads=1))


def test_pixels_that_fill_no_block(both):
    both(ring.check, Case(pixels=19, heads=1))


def test_a_window_of_more_slots_than_a_block(both):
    both(ring.check, Case((11, 6), channels=160, heads=1, pixels=1))


@pytest.mark.parametrize("lie", ["fused", "cut", "heads first"])
def test_views_are_taken_as_they_lie(both, lie):
    both(ring.check, Case(rows=2, heads=2, lie=lie))


def test_ages_need_not_lie_side_by_side(both):
    both(ring.check_ages_apart, Case(rows=2))


def test_slots_that_are_not_seen_have_no_part(both):
    both(ring.check_hidden_slots, Case((2, 3), rows=2))


@pytest.mark.parametrize("case", [Case(), Case(rows=2, lie="fused")], ids=["one", "fused"])
def test_it_runs_in_a_compiled_graph_without_a_break(both, case):
    both(ring.check_compiled, case)


def test_the_operator_says_what_it_changes(both):
    both(ring.check_operator, Case())


@pytest.mark.skipif(not HAS_GPU, reason="CUDA graphs need a GPU")
def test_a_captured_launch_goes_on_with_the_stream():
    ring.check_captured(replays=9)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("channels", [40, 160])
@pytest.mark.parametrize("cache", ["fp16", "u8"])
def test_it_compiles_for_gpus_with_loads_of_whole_vectors(
    monkeypatch, tmp_path, capability, channels, cache
):
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    stages = ring.compiled_for(capability, channels, "fp16", cache, native=capability >= 89)
    assembly = stages["ptx"]
    loads = re.findall(r"ld\.global\.L1::evict_first\S*\.v(\d)\.b32", assembly)
    every = re.findall(r"ld\.global\.L1::evict_first", assembly)
    assert len(loads) == len(every) > 0
    # 40 bytes are no multiple of 16.
    assert set(loads) == {"2" if (cache, channels) == ("u8", 40) else "4"}


@pytest.mark.parametrize("gpu", [70, 75, 86, 89, 120, "gfx90a", "gfx942", "gfx1100"])
@pytest.mark.parametrize(
    ("dtype", "cache"), [("fp16", "fp16"), ("bf16", "u8"), ("fp32", "fp32"), ("fp32", "u8")]
)
def test_it_compiles_to_machine_code_of_all_kinds(monkeypatch, tmp_path, gpu, dtype, cache):
    """From Volta to Blackwell, CDNA and RDNA."""
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    native = isinstance(gpu, int) and gpu >= 89
    stages = ring.compiled_for(gpu, 40, dtype, cache, native)
    assert len(stages["cubin" if isinstance(gpu, int) else "hsaco"]) > 1000


def tensors() -> dict[str, torch.Tensor]:
    """What belongs together: 2 rows, 3 pixels, 2 heads of 4 channels."""
    frame = dict.fromkeys(("query", "key", "value"), torch.zeros(2, 3, 2, 1, 4))
    cache = dict.fromkeys(("keys", "values"), torch.zeros(2, 3, 2, WINDOW.slots, 4))
    tables = dict.fromkeys(("key_table", "value_table"), torch.zeros(WINDOW.slots, 2, 4))
    return frame | cache | tables | {"age": torch.zeros(2, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("query", torch.zeros(2, 3, 2, 2, 4), "alike"),
        ("key", torch.zeros(2, 3, 2, 1, 5), "alike"),
        ("value", torch.zeros(2, 3, 2, 1, 4, dtype=torch.float16), "one dtype"),
        ("keys", torch.zeros(2, 3, 2, 6, 4), "without gaps"),
        ("values", torch.zeros(2, 3, 2, 4, 5).transpose(3, 4), "without gaps"),
        ("keys", torch.zeros(2, 3, 2, 5, 4, dtype=torch.float16), "as the query is"),
        ("values", torch.zeros(2, 3, 2, 5, 4, dtype=FLOAT8), "as the query is"),
        ("key_table", torch.zeros(4, 2, 4), "at least 5 positions of 2 x 4"),
        ("value_table", torch.zeros(9, 4, 2), "at least 5 positions of 2 x 4"),
        ("age", torch.zeros(2), "int64"),
        ("age", torch.zeros(3, dtype=torch.int64), r"\(2,\)"),
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(name, wrong, message):
    t = tensors() | {name: wrong}
    positions = Projected(t["key_table"], t["key_table"], t["value_table"])
    cache = LayerCache(t["keys"], t["values"], positions)
    frame = t["query"], t["key"], t["value"]
    with pytest.raises(ValueError, match=message):
        ring_attention("triton", frame, cache, t["age"], WINDOW)


def test_a_cache_without_positions_is_refused():
    t = tensors()
    cache = LayerCache(t["keys"], t["values"])
    frame = t["query"], t["key"], t["value"]
    with pytest.raises(ValueError, match="no projected positions"):
        ring_attention("triton", frame, cache, t["age"], WINDOW)


def test_a_device_that_is_no_gpu_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not is_available(CPU)
    with pytest.raises(ConfigError, match="GPU of NVIDIA or AMD, not cpu"):
        require(CPU)


def test_the_interpreter_is_a_way_to_run_it(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert is_available(CPU)
    require(CPU)


@pytest.fixture
def good_gpu(monkeypatch, tmp_path) -> torch.device:
    """A device that lacks nothing."""
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(shutil, "which", {"clang": "/usr/bin/clang"}.get)
    headers = tmp_path / "include"
    headers.mkdir()
    (headers / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(headers))
    return torch.device("cuda")


def test_a_gpu_with_all_tools_lacks_nothing(good_gpu):
    assert is_available(good_gpu)
    require(good_gpu)


@pytest.mark.parametrize(
    ("capability", "hip", "fits"),
    [((6, 1), None, False), ((7, 0), None, True), ((9, 0), None, True), ((6, 1), "6.4", True)],
)
def test_a_gpu_is_taken_if_triton_compiles_for_it(monkeypatch, good_gpu, capability, hip, fits):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GeForce GTX 1080")
    assert is_available(good_gpu) == fits
    if not fits:
        with pytest.raises(ConfigError, match="GeForce GTX 1080 is older"):
            require(good_gpu)


def test_without_triton_it_says_what_to_install(monkeypatch, good_gpu):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not is_available(good_gpu)
    with pytest.raises(ConfigError, match="pip install triton-windows"):
        require(good_gpu)


def test_without_a_compiler_it_says_what_to_install(monkeypatch, good_gpu):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not is_available(good_gpu)
    with pytest.raises(ConfigError, match="install gcc"):
        require(good_gpu)
    monkeypatch.setenv("CC", "cc")
    assert is_available(good_gpu)


def test_without_headers_it_says_what_to_install(monkeypatch, good_gpu, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    with pytest.raises(ConfigError, match="install python3-dev"):
        require(good_gpu)
    monkeypatch.setattr(sys, "platform", "win32")
    assert is_available(good_gpu)


def test_the_engine_is_imported_without_triton():
    program = (
        "import sys; sys.modules['triton'] = None; "
        "import live2diff_core, live2diff_core.models.ring_attention"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=120)
