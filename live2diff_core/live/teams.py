"""Threads that OpenMP keeps: on a CPU, the engine is to have the only team.

Each thread that has computed in parallel keeps a team of threads for the next time. GNU's OpenMP
counts all of them, and where there are more than cores, no team waits for work awake any longer:
an engine beside an idle team is half as fast. Other OpenMPs, of other systems, are left alone.
"""

import ctypes
import logging
from functools import cache
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

MAPS = Path("/proc/self/maps")  # of Linux: the libraries that are loaded
LIBRARY = "libgomp"
SOFT = 1  # omp_pause_soft: all else that OpenMP knows stays


def release_team() -> None:
    """Let go of the calling thread's team, which comes back when it computes again."""
    library = _openmp()
    if library is not None and library.omp_pause_resource_all(SOFT) != 0:
        logger.debug("OpenMP keeps the threads of this thread")


def compute_alone() -> None:
    """Have the calling thread compute without a team from now on."""
    library = _openmp()
    if library is not None:
        torch.get_num_threads()  # PyTorch sets the number itself when a thread first asks
        library.omp_set_num_threads(1)


@cache
def _openmp() -> ctypes.CDLL | None:
    if not MAPS.exists():
        return None
    loaded = {line.split()[-1] for line in MAPS.read_text(encoding="utf-8").splitlines() if line}
    paths = [path for path in loaded if LIBRARY in Path(path).name]
    library = ctypes.CDLL(paths[0]) if paths else None
    return library if hasattr(library, "omp_pause_resource_all") else None
