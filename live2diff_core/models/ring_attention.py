"""One streamed frame of a temporal attention in one pass over its cache, as a kernel: in Triton for
GPUs, in C++ for CPUs.

It computes what `RingStep.exchange` and `temporal.attend` compute together, and adds up in float32.
Each cached key and value is read once, one of each is written, and nothing else of the cache's size
is touched. Triton is imported, and the C++ compiled, when a kernel is first run.
"""

import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from ..cache import FLOAT8, LayerCache, Projected
from ..config import AttentionWindow, KernelKind
from ..errors import ConfigError
from . import ring_cpp

Launch: TypeAlias = Callable[..., Tensor]
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
OLDEST_NVIDIA = 7, 0  # compute capability that Triton still compiles for: Volta

# An operator's name is taken once in a process, and ComfyUI's pack and the installed package may
# both be in it: under another name each.
NAMESPACE = re.sub(r"\W", "_", __name__)


def is_available(device: torch.device) -> bool:
    """Whether the kernel runs on a device: Triton, its tools and a GPU that it knows are there.

    Triton's interpreter (TRITON_INTERPRET=1) runs it on every device, very slowly.
    """
    return _missing(device) is None


def require(device: torch.device) -> None:
    """Raise ConfigError that says what the kernel lacks on a device and what to do."""
    missing = _missing(device)
    if missing is not None:
        raise ConfigError(f"attention triton: {missing}, or choose the attention torch")


def _missing(device: torch.device) -> str | None:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        return f"it needs a GPU of NVIDIA or AMD, not {device}: choose a device that is one"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton (on Windows pip install triton-windows)"
    if interpreted:
        return None
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < OLDEST_NVIDIA:
        name = torch.cuda.get_device_name(device)
        return f"{name} is older than what Triton compiles for (Volta): choose another GPU"
    return _missing_tools()


def _missing_tools() -> str | None:
    """What Triton needs to make its launcher; on Windows it brings that along."""
    if sys.platform == "win32":
        return None
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton finds no C compiler: install gcc"
    headers = sysconfig.get_path("include", "posix_prefix")
    if not Path(headers, "Python.h").exists():
        return f"Triton needs Python's headers in {headers}: install python3-dev (python3-devel)"
    return None


def ring_attention(
    kernel: KernelKind,
    frame: tuple[Tensor, Tensor, Tensor],
    cache: LayerCache,
    age: Tensor,
    window: AttentionWindow,
) -> Tensor:
    """Write a frame's keys and values into each row's slot and attend to the whole cache.

    frame: query with position, key and value without, (g, p, e, 1, d) each. cache: with projected
    positions; a cache in float8 e4m3 takes numbers to +-448, larger ones become these. age: (g,)
    int64 as in `ring_visibility`. Returns (g, p, e, 1, d) in the query's dtype, contiguous. Raises
    ValueError for tensors that do not belong together.
    """
    query, key, value = frame
    tables = _check(query, key, value, cache, window)
    if age.dtype != torch.int64 or age.shape != query.shape[:1]:
        raise ValueError(f"age must be ({len(query)},) int64, got {tuple(age.shape)} {age.dtype}")
    return _operator(
        kernel,
        query,
        key,
        value,
        cache.key,
        cache.value,
        tables.key,
        tables.value,
        age,
        window.sinks,
        window.ring,
    )


def _check(
    query: Tensor, key: Tensor, value: Tensor, cache: LayerCache, window: AttentionWindow
) -> Projected:
    """The position tables of the cache."""
    if query.ndim != 5 or query.shape[3] != 1 or not query.shape == key.shape == value.shape:
        shapes = [tuple(x.shape) for x in (query, key, value)]
        raise ValueError(f"query, key and value must be (g, p, e, 1, d) alike, got {shapes}")
    expected = (*query.shape[:3], window.slots, query.shape[4])
    for part in (cache.key, cache.value):
        if part.shape != expected or not part.is_contiguous():
            got = f"{tuple(part.shape)} with strides {part.stride()}"
            raise ValueError(f"the cache must be {expected} without gaps, got {got}")
    _check_dtypes((query, key, value), (cache.key, cache.value))
    tables = cache.positions
    if tables is None:
        raise ValueError("the cache has no projected positions: project them when it is made")
    for table in (tables.key, tables.value):
        if table.shape[0] < window.slots or table.shape[1:] != (query.shape[2], query.shape[4]):
            wanted = f"at least {window.slots} positions of {query.shape[2]} x {query.shape[4]}"
            raise ValueError(f"position tables must be {wanted}, got {tuple(table.shape)}")
    return tables


def _check_dtypes(frame: tuple[Tensor, ...], cache: tuple[Tensor, Tensor]) -> None:
    dtype, kept = frame[0].dtype, cache[0].dtype
    if dtype not in DTYPES or any(x.dtype != dtype for x in frame):
        dtypes = [x.dtype for x in frame]
        raise ValueError(f"query, key and value must be of one dtype of {DTYPES}, got {dtypes}")
    if kept not in (dtype, FLOAT8) or cache[1].dtype != kept:
        got = f"{kept} and {cache[1].dtype}"
        raise ValueError(f"the cache must be of {dtype} as the query is or {FLOAT8}, got {got}")


def _run(  # noqa: PLR0913 - an operator takes tensors, numbers and words alone
    kernel: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    key_table: Tensor,
    value_table: Tensor,
    age: Tensor,
    sinks: int,
    ring: int,
) -> Tensor:
    launch, window = _launcher(kernel), AttentionWindow(sinks, ring)
    return launch(query, (key, value), (keys, values), (key_table, value_table), age, window)


def _launcher(kernel: str) -> Launch:
    if kernel == "cpp":
        return ring_cpp.launch
    from .ring_kernel import launch

    return launch


def _result(kernel: str, query: Tensor, *_: Tensor | int) -> Tensor:
    del kernel
    return query.new_empty(query.shape)


# An operator that torch.compile leaves whole. `torch.library.custom_op` would do, but what it adds
# for gradients takes 50 us a call on a CPU, as long as an attention of few pixels.
_library = torch.library.Library(NAMESPACE, "DEF")
_library.define(
    "step(str kernel, Tensor query, Tensor key, Tensor value, Tensor(a!) keys, Tensor(b!) values, "
    "Tensor key_table, Tensor value_table, Tensor age, int sinks, int ring) -> Tensor"
)
_library.impl("step", _run, "CompositeExplicitAutograd")
torch.library.register_fake(f"{NAMESPACE}::step", _result)
_operator = getattr(torch.ops, NAMESPACE).step.default
