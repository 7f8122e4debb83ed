"""Memory of the machine that was freed: it is to go back to the system, not only to be free here.

GNU's allocator keeps what is freed below something that is still in use, in each thread's own heap.
A stream frees its cache in a thread that ends, so every stream would leave hundreds of megabytes
that no other one finds. What is free at the very end of such a heap, 64 MB at most, stays until
something beside it is freed. Other allocators, of other systems, are left alone.
"""

import ctypes
from functools import cache


def give_back() -> None:
    """Give free memory back to the system."""
    library = _gnu()
    if library is not None:
        library.malloc_trim(0)


@cache
def _gnu() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return library if hasattr(library, "malloc_trim") else None
