"""What tensors are together, told from their keys, shapes and precisions."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from .files import TensorFile, TensorInfo
from .kinds import ABOUT, Kind
from .signatures import DETAILS, SIGNATURES, Clue, Detail, Shape, Signature

LONGEST_KEY = 500  # longer ones are nobody's names
SHOWN = 100  # characters of a metadata value

# What trainers and mergers write into a safetensors header, as far as a user chooses by it.
METADATA = (
    "modelspec.title",
    "modelspec.architecture",
    "modelspec.prediction_type",
    "modelspec.trigger_phrase",
    "ss_base_model_version",
    "ss_sd_model_name",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_v2",
    "format",
    "source_sha256",
)

# The end of a LoRA key whose second axis is the layer's input; LoKr has it as a product of two.
_INPUT = re.compile(
    r"(.+?)[._](?:lora_down\.weight|lora\.down\.weight|lora_A(?:\.\w+)?|lora_linear_layer\.down"
    r"\.weight|hada_w1_b|diff|oft_blocks|oft_diag)"
)
_NAMED = re.compile(r"((?:lora|lycoris)_[^.]+)\..+")  # a layer of any other form
_PRODUCT = re.compile(r"(.+)\.lokr_w1(?:_b)?")
_FACTORS = (".lokr_w2", ".lokr_w2_b")

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file or a folder is.

    title: in words. use: what it is for here, or what to take instead. container: how it is
    stored. parameters: values in all tensors. dtypes: how many of them in each precision, by name.
    """

    path: Path
    kind: Kind
    title: str
    use: str
    container: str
    parameters: int
    dtypes: Mapping[str, int]
    details: tuple[str, ...]


def identify(file: TensorFile) -> Identity:
    """What an open file is, from its keys, shapes and metadata."""
    details = [f"{key}: {_shown(file.metadata[key])}" for key in METADATA if key in file.metadata]
    return recognise(file.path, file.infos, file.container, details)


def recognise(
    path: Path,
    infos: Mapping[str, TensorInfo],
    container: str,
    details: Iterable[str] = (),
) -> Identity:
    """What tensors are together, with what is known of their file."""
    shapes = _comparable(infos)
    signature = next((s for s in SIGNATURES if _fits(s, shapes)), Signature(Kind.UNKNOWN, ()))
    about = ABOUT[signature.kind]
    dtypes: Counter[str] = Counter()
    for info in infos.values():
        dtypes[str(info.dtype).removeprefix("torch.")] += prod(info.shape)
    told = (_tell(detail, shapes) for detail in DETAILS if detail.kind in (None, signature.kind))
    return Identity(
        path,
        signature.kind,
        signature.name or about.name,
        about.use,
        container,
        dtypes.total(),
        dict(dtypes.most_common()),
        tuple(dict.fromkeys((*filter(None, told), *details))),
    )


def _comparable(infos: Mapping[str, TensorInfo]) -> Shapes:
    """Shapes by key without a trainer's wrappers, and the layers that a LoRA changes."""
    plain = {
        key.replace("module.", ""): info.shape
        for key, info in infos.items()
        if len(key) <= LONGEST_KEY
    }
    named: Shapes = {f"lora:{match[1]}": () for key in plain if (match := _NAMED.fullmatch(key))}
    return {**plain, **named, **{f"lora:{n}": shape for n, shape in _lora_inputs(plain)}}


def _lora_inputs(shapes: Shapes) -> Iterator[tuple[str, tuple[int, ...]]]:
    for key, shape in shapes.items():
        if match := _INPUT.fullmatch(key):
            yield match[1].replace(".", "_"), shape[1:]
        elif match := _PRODUCT.fullmatch(key):
            factors = [shapes[match[1] + end] for end in _FACTORS if match[1] + end in shapes]
            inputs = [factor[1] for factor in (shape, *factors) if len(factor) > 1]
            yield match[1].replace(".", "_"), (prod(inputs),)


def _fits(signature: Signature, shapes: Shapes) -> bool:
    if signature.most is not None and len(shapes) > signature.most:
        return False
    return all(_holds(clue, shapes) for clue in signature.clues)


def _holds(clue: Clue, shapes: Shapes) -> bool:
    pattern = re.compile(clue.key)
    return any(
        _matches(shape, clue.shape) for key, shape in shapes.items() if pattern.fullmatch(key)
    )


def _matches(shape: tuple[int, ...], wanted: Shape | None) -> bool:
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(
        size in (None, got) for got, size in zip(shape, wanted, strict=True)
    )


def _tell(detail: Detail, shapes: Shapes) -> str:
    pattern = re.compile(detail.key)
    found = [shape for key, shape in shapes.items() if pattern.fullmatch(key)]
    if not found:
        return detail.otherwise
    sizes = sorted({shape[detail.axis] for shape in found if len(shape) > detail.axis})
    listed = ", ".join(map(str, sizes)) if len(sizes) < 5 else f"{sizes[0]} to {sizes[-1]}"
    return detail.text.format(count=len(found), sizes=listed)


def _shown(value: str) -> str:
    """One line of a value that anybody may have written."""
    line = "".join(char if char.isprintable() else " " for char in value)
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
