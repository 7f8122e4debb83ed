"""The folder of one network, as diffusers and transformers write it: settings and weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from diffusers import ModelMixin
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from ..errors import WeightsFormatError, WeightsMissingError
from .files import SUFFIXES, TensorFile, open_tensors, some
from .load import load_strict

CONFIG = "config.json"
# All that diffusers and transformers were seen to raise for settings that describe no network.
BAD_SETTINGS = (
    StrictDataclassError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
)
STEMS = (
    "diffusion_pytorch_model",
    "model",
    "pytorch_model",
    "pytorch_lora_weights",
    "adapter_model",
)
VARIANTS = ("", ".fp16")

Network = TypeVar("Network", bound=ModelMixin)


def component(folder: Path) -> TensorFile:
    """The weights file of such a folder. Raises WeightsMissingError, or what `open_tensors` raises;
    WeightsFormatError for a network in several files, which none of those used here is.
    """
    files = component_files(folder)
    if not files:
        raise WeightsMissingError(
            f"{folder} holds no weights: expected {STEMS[0]}.safetensors (diffusers) or "
            f"{STEMS[1]}.safetensors (transformers)"
        )
    if len(files) > 1:
        raise WeightsFormatError(f"{folder} holds its weights in {len(files)} files, expected one")
    return open_tensors(files[0])


def component_files(folder: Path) -> tuple[Path, ...]:
    """The weights of a component: one file or its shards; empty if there are none.

    Full precision comes before fp16, safetensors before pickles. Raises WeightsMissingError where
    an index names a shard that is not there.
    """
    for variant in VARIANTS:
        for suffix in SUFFIXES:
            for stem in STEMS:
                path = folder / f"{stem}{variant}{suffix}"
                if path.is_file():
                    return (path,)
                index = folder / f"{stem}{suffix}.index{variant}.json"
                if index.is_file():
                    return _shards(index)
    return ()


def read_config(folder: Path) -> dict[str, Any]:
    """Settings of the network in a folder. Raises WeightsMissingError, WeightsFormatError."""
    path = folder / CONFIG
    if not path.is_file():
        raise WeightsMissingError(
            f"{folder} holds no {CONFIG}: download the whole folder of the model"
        )
    return read_object(path)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises WeightsFormatError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsFormatError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsFormatError(f"{path} holds {type(content).__name__}, expected a JSON object")
    return content


def empty(network: type[Network], settings: Mapping[str, Any], what: str) -> Network:
    """A diffusers network on the meta device. Raises WeightsFormatError."""
    try:
        with init_empty_weights():
            made: Network = network.from_config(dict(settings))
    except BAD_SETTINGS as error:
        raise WeightsFormatError(f"{what}: its settings describe no network: {error}") from error
    return made


def fill(
    made: Network,
    state: Mapping[str, Tensor],
    what: str,
    device: torch.device,
    dtype: torch.dtype,
) -> Network:
    """Put tensors into an empty network; they are not copied if they are of the device and dtype.

    Raises what `load_strict` raises.
    """
    nn.Module.to(made, dtype)  # diffusers' own warns of precision for every network
    load_strict(made, state, what, device)
    return made


def network_name(settings: Mapping[str, Any]) -> str:
    """What the library that wrote the settings calls the network."""
    return str(settings.get("_class_name") or settings.get("model_type") or "a nameless network")


def _shards(index: Path) -> tuple[Path, ...]:
    files = read_object(index).get("weight_map")
    names = set(files.values()) if isinstance(files, Mapping) else {None}
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise WeightsFormatError(f"{index} names no files: expected an object weight_map")
    paths = tuple(sorted(index.parent / str(name) for name in names))
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise WeightsMissingError(
            f"{index.parent} lacks {len(missing)} of {len(paths)} files ({some(missing)}): "
            "download it again"
        )
    return paths
