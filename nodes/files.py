"""Motion weights and depth models in ComfyUI's model folders, and what is said of wrong ones."""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from ..live2diff_core.errors import WeightsError
from . import host

STRUCTURE = "structure"  # a depth map that needs no file
MOTION_FOLDERS, DEPTH_FOLDER = ("live2diff", "animatediff_models"), "depth"
DEPTH_PREFIX = "dpt"  # of depth models beside the motion weights, where the reference has them
CONFIG = "config.json"  # of a transformers folder
SOURCE = "huggingface.co/Leoxing/Live2Diff"

Stamp = tuple[str, int, int]


def motion_files() -> dict[str, Path]:
    """Files that may be motion weights, by their names below the folders, live2diff's first."""
    found = _below(MOTION_FOLDERS)
    return {name: path for name, path in found.items() if not _is_depth(path)}


def depth_models() -> dict[str, Path]:
    """Files and transformers folders that may be depth models, by their names."""
    beside = _below(MOTION_FOLDERS[:1])
    return {**{n: p for n, p in beside.items() if _is_depth(p)}, **_below([DEPTH_FOLDER])}


def stamp(path: Path) -> Stamp:
    """What changes when a file is replaced under its name: path, time of its change, size."""
    state = path.stat()
    return str(path), state.st_mtime_ns, state.st_size


def motion_problem(name: str) -> str | None:
    """Why a file cannot be the motion weights, from its header."""
    path = motion_files().get(name)
    if path is None:
        return (
            f"there is no motion file {name}: put live2diff.ckpt ({SOURCE}), or the safetensors "
            f"that `live2diff convert` makes of live2diff.ckpt, into {_home(MOTION_FOLDERS[0])}"
        )
    return _kind_problem(stamp(path))


def depth_problem(name: str) -> str | None:
    """Why a depth model cannot be taken."""
    if name == STRUCTURE or name in depth_models():
        return None
    return (
        f"there is no depth model {name}: put dpt_hybrid_384.pt, or a folder of DPT-hybrid or "
        f"Depth Anything V2 ({CONFIG} and weights), into {_home(DEPTH_FOLDER)}, or take {STRUCTURE}"
    )


@lru_cache(maxsize=32)
def _kind_problem(motion: Stamp) -> str | None:
    from ..live2diff_core.weights.files import open_tensors
    from ..live2diff_core.weights.inspect import Kind, require

    try:
        require(open_tensors(Path(motion[0])), Kind.LIVE2DIFF_MOTION, "the motion weights")
    except WeightsError as error:
        return str(error)
    return None


def _below(folders: Sequence[str]) -> dict[str, Path]:
    """Files and transformers folders below model folders; of equal names the first counts."""
    found: dict[str, Path] = {}
    for folder in (folder for name in folders for folder in host.model_folders(name)):
        for path in sorted(_models(folder)):
            found.setdefault(path.relative_to(folder).as_posix(), path)
    return found


def _models(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, followlinks=True):
        if CONFIG in files and Path(place) != folder:
            folders.clear()
            yield Path(place)
        else:
            paths = (Path(place, file) for file in files)
            yield from (p for p in paths if p.suffix.lower() in host.SUFFIXES and p.is_file())


def _is_depth(path: Path) -> bool:
    return path.is_dir() or path.name.startswith(DEPTH_PREFIX)


def _home(folder: str) -> Path:
    return host.model_folders(folder)[0].absolute()
