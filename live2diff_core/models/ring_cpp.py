"""The temporal attention's step for CPUs, in C++: five times PyTorch's speed on narrow heads.

`ring_cpp.cpp` is compiled once on a machine by PyTorch's own builder, which torch.compile uses as
well and which keeps the result on disk; it takes a few seconds. Float32 alone.
"""

import ctypes
import logging
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from ..config import AttentionWindow

SOURCE = Path(__file__).with_suffix(".cpp")
NUMBERS = 10  # strides, sizes and threads at the end of the function's arguments

logger = logging.getLogger(__name__)


def missing(device: torch.device, dtype: torch.dtype) -> str | None:
    """What keeps the step from running on a device in a dtype, or None. Compiles it at first."""
    if device.type != "cpu":
        return f"it is for CPUs, not {device}"
    if dtype != torch.float32:
        return f"it computes in float32, the network is in {dtype}: choose float32"
    return _built()[1]


def launch(
    query: Tensor,
    frame: tuple[Tensor, Tensor],
    stored: tuple[Tensor, Tensor],
    tables: tuple[Tensor, Tensor],
    age: Tensor,
    window: AttentionWindow,
) -> Tensor:
    """As `ring_attention` does, which checks what is given; all float32 on a CPU."""
    library, reason = _built()
    if library is None:
        raise RuntimeError(f"the C++ step was not built: {reason}")
    inputs = [_with_pixels(part) for part in (query, *frame)]
    read = [part.contiguous() for part in (*tables, age)]  # copies live until the call is over
    out = query.new_empty(query.shape)
    rows, pixels, heads, _, channels = query.shape
    sizes = rows, pixels, heads, channels, window.sinks, window.ring, torch.get_num_threads()
    pointers = [part.data_ptr() for part in (*inputs, *stored, *read, out)]
    library.ring_step(*pointers, *map(_from_pixel_to_pixel, inputs), *sizes)
    return out


def _with_pixels(x: Tensor) -> Tensor:
    """x: (g, p, e, 1, d). The numbers of a pixel side by side, the pixels of all rows evenly apart:
    as views of (g, p, e d) have them.
    """
    rows, pixels, heads, _, channels = x.shape
    even = rows == 1 or x.stride(0) == pixels * _from_pixel_to_pixel(x)
    side_by_side = x.stride(4) == 1 and (x.stride(2) == channels or heads == 1)
    return x if even and side_by_side else x.contiguous()


def _from_pixel_to_pixel(x: Tensor) -> int:
    return x.stride(1) if x.shape[1] > 1 else x.stride(0)


def missing_compiler() -> str | None:
    """What to install where PyTorch finds no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "it needs a C++ compiler (Debian: apt install g++; Windows: Visual Studio's)"
    return None


@cache
def _built() -> tuple[ctypes.CDLL | ModuleType | None, str | None]:
    """The compiled library, or why there is none."""
    from torch._inductor.codecache import CppCodeCache
    from torch._inductor.exc import CppCompileError

    reason = missing_compiler()
    if reason is not None:
        return None, reason
    try:
        library = CppCodeCache.load(SOURCE.read_text(encoding="utf-8"))
    except (CppCompileError, OSError) as error:
        logger.info("the C++ step of the temporal attention was not built: %s", error)
        return None, f"its code does not compile here: {str(error).splitlines()[0]}"
    library.ring_step.argtypes = [ctypes.c_void_p] * 9 + [ctypes.c_int64] * NUMBERS
    library.ring_step.restype = None
    return library, None
