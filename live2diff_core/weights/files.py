"""Tensor files: what is in them from their headers, and their tensors."""

import hashlib
import logging
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import WeightsCodeError, WeightsFormatError, WeightsKeyError, WeightsMissingError

logger = logging.getLogger(__name__)

Container = Literal["safetensors", "pickle"]
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
LONGEST_KEY = 1000  # joined from nested dictionaries
BATCH = 2**27  # bytes of a file that are mapped at a time
PARALLEL = "module."

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

# All that torch's reader was seen to raise on damaged files; it promises no error class of its own.
DAMAGED = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    EOFError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)


CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # bytes that no text has


class _Ignored:
    """Stands for what trainers leave in a checkpoint beside its tensors; holds and does nothing."""

    def __new__(cls, *_: object) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None: ...


class _Parameters(dict[str, Any]):
    """Stands for torch's ParameterDict, in which early textual inversions keep their vectors."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.update(state["_parameters"])


# Names in published Stable Diffusion checkpoints that torch does not know to be harmless. Each is
# answered with the placeholder above: nothing with these names is ever imported or called.
IGNORED = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Int64DType",
)
PARAMETERS = "torch.nn.modules.container.ParameterDict"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, eq=False)
class TensorFile:
    """A tensor file of which only the header has been read: infos and metadata.

    Keys of nested dictionaries in a pickle are joined with dots; a `state_dict` around the tensors
    and a `module.` before every key are taken off.
    """

    path: Path
    container: Container
    infos: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    prefix: str = ""

    @property
    def parameters(self) -> int:
        """Values in all tensors."""
        return sum(prod(info.shape) for info in self.infos.values())

    def read(
        self, keys: Iterable[str] | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Tensors on the CPU, all or the named ones, floating ones in `dtype` if one is given.

        They are copies: the file may change or vanish afterwards. Little more than they is in
        memory at a time. Raises WeightsFormatError where the file is not what it was.
        """
        found: dict[str, Tensor] = {}
        for batch in self._batches(list(self.infos if keys is None else keys)):
            found |= self._read_batch(batch, dtype)
        return found

    def _batches(self, keys: list[str]) -> Iterator[list[str]]:
        """Keys in groups: the pages of a mapped file stay in memory until it is closed."""
        if self.container == "pickle" and not zipfile.is_zipfile(self.path):
            yield keys  # the old format is read whole each time
            return
        batch, size = list[str](), 0
        for key in keys:
            batch.append(key)
            size += prod(self.infos[key].shape) * self.infos[key].dtype.itemsize
            if size > BATCH:
                yield batch
                batch, size = [], 0
        yield batch

    def _read_batch(self, keys: list[str], dtype: torch.dtype | None) -> dict[str, Tensor]:
        try:
            if self.container == "pickle":
                content = _unpickled(self.path)
                held = ((key, _held(self.path, key, content[self.prefix + key])) for key in keys)
                return {key: _own(tensor, dtype) for key, tensor in held}
            with safe_open(self.path, framework="pt") as file:
                return {key: _own(file.get_tensor(self.prefix + key), dtype) for key in keys}
        except (SafetensorError, OSError, KeyError) as error:
            raise WeightsFormatError(f"{self.path} changed while it was read: {error}") from error


def open_tensors(path: Path) -> TensorFile:
    """Open a .safetensors file or a torch pickle (.ckpt, .pt, .pth, .bin) by what it contains.

    Nothing but the header is read, nothing of a pickle is executed. Raises WeightsMissingError,
    WeightsFormatError for anything that is not such a file, WeightsCodeError for a pickle that
    needs more than tensors and plain containers.
    """
    start = _start(path)
    _refuse_text(path, start)
    zipped = start[:4] == b"PK\x03\x04"
    if zipped and path.suffix == SUFFIXES[0]:  # torch goes by the name and would fail
        raise WeightsFormatError(f"{path} is a torch pickle by content: rename it to .ckpt")
    if zipped or (path.suffix.lower() in PICKLES and start[8:9] != b"{"):
        return _open_pickle(path)
    return _open_safetensors(path)


def read_safetensors(*paths: Path) -> dict[str, Tensor]:
    """All tensors of one or more safetensors files. Raises WeightsError for anything else."""
    tensors: dict[str, Tensor] = {}
    for path in paths:
        found = _open_safetensors(path).read()
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            raise WeightsKeyError(f"{path} repeats keys of an earlier file: {some(twice)}")
        tensors |= found
    return tensors


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal. Raises WeightsFormatError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        raise WeightsFormatError(f"{path} cannot be read: {error}") from error
    return digest.hexdigest()


def some(keys: Iterable[str], shown: int = 5) -> str:
    """The first few keys, and how many more there are."""
    keys = list(keys)
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more


def _start(path: Path) -> bytes:
    try:
        if not path.exists():
            raise WeightsMissingError(f"there is no file {path}")
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise WeightsFormatError(f"{path} is {kind}, expected a file ({', '.join(SUFFIXES)})")
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise WeightsFormatError(f"{path} cannot be read: {error}") from error


def _refuse_text(path: Path, start: bytes) -> None:
    """Web pages, pointers and other text that was saved under a model's name, and GGUF."""
    if not start:
        raise WeightsFormatError(f"{path} is empty: download it again")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsFormatError(
            f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"
        )
    if start.lstrip()[:1] == b"<" and b"html" in start.lower():
        raise WeightsFormatError(
            f"{path} is a web page, not weights: download the file itself (a page often comes "
            "instead when a licence must be accepted or a login is needed)"
        )
    if start.startswith(b"GGUF"):
        raise WeightsFormatError(
            f"{path} is a GGUF file, which is not supported: take a .safetensors version of it"
        )
    if path.suffix.lower() not in PICKLES and not CONTROL.search(start):
        raise WeightsFormatError(f"{path} is a text file, not weights: download the file itself")


def _open_safetensors(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            infos = {key: _info(path, s.get_dtype(), s.get_shape()) for key, s in slices.items()}
            prefix, infos = _without_module(infos)
            return TensorFile(path, "safetensors", infos, file.metadata() or {}, prefix)
    except (SafetensorError, OSError) as error:
        raise WeightsFormatError(
            f"{path} cannot be read as safetensors ({error}): it is cut off, damaged or something "
            "else; download it again"
        ) from error


def _info(path: Path, dtype: str, shape: Iterable[int]) -> TensorInfo:
    if dtype not in DTYPES:
        raise WeightsFormatError(f"{path} holds numbers of type {dtype}, which is not supported")
    return TensorInfo(tuple(shape), DTYPES[dtype])


def _without_module(infos: dict[str, TensorInfo]) -> tuple[str, dict[str, TensorInfo]]:
    """Take off what torch's data parallel training puts before every key."""
    if not infos or not all(key.startswith(PARALLEL) for key in infos):
        return "", infos
    return PARALLEL, {key.removeprefix(PARALLEL): info for key, info in infos.items()}


def _own(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.to(wanted, copy=True).contiguous()


def _open_pickle(path: Path) -> TensorFile:
    tensors = _unpickled(path)
    infos = {key: TensorInfo(tuple(t.shape), t.dtype) for key, t in tensors.items()}
    prefix, infos = _without_module(infos)
    return TensorFile(path, "pickle", infos, {}, prefix)


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Tensors that are mapped where the format allows it."""
    harmless: list[Any] = [(_Parameters, PARAMETERS), *((_Ignored, name) for name in IGNORED)]
    try:
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # pickle protocols, beta tensor layouts
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except DAMAGED as error:
        needs = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and needs:
            raise WeightsCodeError(
                f"{path} is a pickle that needs {needs[1]}, which could run any code: it was not "
                "loaded. Ask for a .safetensors version of it"
            ) from error
        raise WeightsFormatError(
            f"{path} cannot be read as a torch file ({type(error).__name__}): it is cut off, "
            "damaged or something else, of which nothing was run; download it again"
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsFormatError(f"{path} holds {type(content).__name__}, expected named tensors")
    inner = content.get("state_dict")
    return _flatten(path, inner if isinstance(inner, Mapping) else content)


def _flatten(path: Path, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Tensors of nested dictionaries. Raises WeightsFormatError where names are not their own."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    waiting = [("", content)]
    while waiting:
        prefix, level = waiting.pop()
        if id(level) in seen:
            raise WeightsFormatError(f"{path} holds the dictionary {prefix!r} in two places")
        seen.add(id(level))
        for key, value in level.items():
            if not isinstance(value, Tensor | Mapping):
                continue
            if not isinstance(key, str | int) or len(name := f"{prefix}{key}") > LONGEST_KEY:
                raise WeightsFormatError(f"{path} holds tensors under keys that are no names")
            if isinstance(value, Mapping):
                waiting.append((f"{name}.", value))
            elif name in found:
                raise WeightsFormatError(f"{path} holds the key {name} twice")
            else:
                found[name] = _plain(path, name, value)
    return found


def _plain(path: Path, key: str, tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise WeightsFormatError(
            f"{path} holds {key} as a sparse, quantized or empty tensor, expected plain numbers"
        )
    return tensor.detach()


def _held(path: Path, key: str, tensor: Tensor) -> Tensor:
    """A tensor whose values are all there: a small file can claim terabytes by repeating one."""
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise WeightsFormatError(f"{path} holds {key} as a view that is larger than its values")
    return tensor
