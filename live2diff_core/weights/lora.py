"""LoRA files of every trainer to adapters, strictly: all of a file or an error."""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from ..errors import WeightsFormatError, WeightsKeyError, WeightsKindError, WeightsMissingError
from ..models.adapters import Adapter, LowRank
from .files import DTYPES, TensorFile, open_tensors, some
from .identity import identify
from .kinds import LYCORIS
from .load import check_finite
from .lora_names import Part, flat, layer_table
from .lora_scaling import CONFIG_FILE, PEFT_FILES, Scaling, read_scaling
from .text import empty_clip

logger = logging.getLogger(__name__)

DIFFUSERS_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
COMMON_FILES = (*PEFT_FILES, *DIFFUSERS_FILES)
EMBEDDING = "bundle_emb."
WRAPPER = "base_model.model."

# How trainers name a layer's factors: {0} is down or up, {1} is A or B.
FACTOR = r"(.+)\.(?:lora_{0}|lora\.{0}|lora_linear_layer\.{0}|(?<=_lora\.){0}|lora_{1}(?:\.[^.]+)?)"
ROLES = {
    "down": re.compile(FACTOR.format("down", "A") + r"\.weight"),
    "up": re.compile(FACTOR.format("up", "B") + r"\.weight"),
    "alpha": re.compile(r"(.+)\.alpha"),
}

Shape = tuple[int, ...]
Layer = Mapping[str, str]  # role -> key


def load_lora(path: Path, unet: nn.Module, text: nn.Module) -> Adapter:
    """Load a LoRA for a spatial UNet and a text model; the modules are only looked at.

    Takes the files of kohya's trainers (layers in diffusers' or the original names), of diffusers
    old and new, of peft (a folder, too), with linear and convolution layers (LoCon); LCM-LoRA is
    one of them. Alpha is the rank where nothing states it. Textual inversions that are bundled with
    the LoRA are left out, which is logged. Raises WeightsKindError for a LoRA of another base, for
    LyCORIS other than LoRA and LoCon, and for a file without a LoRA; WeightsKeyError for factors
    that do not belong together and unknown keys; WeightsValueError for NaN and infinity; what
    `open_tensors` raises.
    """
    file = open_tensors(_file_in(path) if path.is_dir() else path)
    scalings = read_scaling(file)
    layers = _gather(file)
    targets = _resolve(file, layers, {"unet": _shapes(unet), "text": _shapes(text)})
    state = file.read(key for layer in layers.values() for key in layer.values())
    check_finite(state, str(file.path))
    changes: dict[Part, dict[str, LowRank]] = {"unet": {}, "text": {}}
    for name, (part, target) in targets.items():
        change = _low_rank(name, layers[name], state, scalings.get(part))
        changes[part][f"{target}.weight"] = change
    return Adapter(_name(file.path), changes["unet"], changes["text"])


def load_unet_lora(path: Path, unet: nn.Module) -> Adapter:
    """The part of a LoRA for a spatial UNet of Stable Diffusion 1.5.

    What it changes in the text model is left out, which is logged. Raises what `load_lora` does.
    """
    adapter = load_lora(path, unet, empty_clip())
    if adapter.text:
        logger.warning(
            "%s: what it changes in the text model is left out; for that, put Load LoRA before the "
            "text encoder",
            path,
        )
    return replace(adapter, text={})


def _file_in(folder: Path) -> Path:
    for name in COMMON_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsMissingError(
        f"{folder} holds no LoRA: expected {PEFT_FILES[0]} with {CONFIG_FILE} (peft) or "
        f"{DIFFUSERS_FILES[0]} (diffusers)"
    )


def _name(path: Path) -> str:
    """What to call the LoRA: its file, or the folder where all files have the same name."""
    path = path.absolute()
    return path.parent.name if path.name in COMMON_FILES else path.stem


def _shapes(module: nn.Module) -> dict[str, Shape]:
    """Weights that a LoRA may change: those of linear and convolution layers."""
    return {
        name: tuple(child.weight.shape)
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear | nn.Conv2d)
    }


def _gather(file: TensorFile) -> dict[str, Layer]:
    """Keys by layer, as the file names it. Raises WeightsError unless all keys are LoRA."""
    _refuse_kin(file)
    layers: defaultdict[str, dict[str, str]] = defaultdict(dict)
    others = []
    for key in file.infos:
        role, name = _role(key)
        if role is None:
            others.append(key)
        elif role in layers[name]:
            raise WeightsKeyError(f"{file.path} holds {layers[name][role]} again as {key}")
        else:
            layers[name][role] = key
    if not any("down" in layer for layer in layers.values()):
        raise WeightsKindError(
            f"{file.path} holds no LoRA but {identify(file).title}: expected pairs of factors "
            f"(lora_down and lora_up, or lora_A and lora_B), got {some(file.infos, 3) or 'no keys'}"
        )
    _note_embeddings(file, others)
    strange = [key for key in others if not key.startswith(EMBEDDING)]
    if strange:
        raise WeightsKeyError(
            f"{file.path} ({identify(file).title}) holds {len(strange)} keys beside its LoRA that "
            f"are not known ({some(strange, 3)}): take a file of another trainer"
        )
    return dict(layers)


def _refuse_kin(file: TensorFile) -> None:
    for kind, pattern in LYCORIS.items():
        found = [key for key in file.infos if re.fullmatch(pattern, key)]
        if found:
            raise WeightsKindError(
                f"{file.path} is of the type {kind} ({some(found, 1)}), which cannot be used here: "
                "take a version of it that is a plain LoRA or LoCon"
            )


def _role(key: str) -> tuple[str | None, str]:
    for role, pattern in ROLES.items():
        if match := pattern.fullmatch(key):
            return role, match[1].removeprefix(WRAPPER)
    return None, key


def _note_embeddings(file: TensorFile, keys: Iterable[str]) -> None:
    names = sorted({key.split(".")[1] for key in keys if key.startswith(EMBEDDING)})
    if names:
        logger.warning(
            "%s brings textual inversions (%s), which are not loaded from a LoRA: save them to "
            "files of their own if prompts use them",
            file.path,
            some(names),
        )


def _resolve(
    file: TensorFile, layers: Mapping[str, Layer], shapes: Mapping[Part, Mapping[str, Shape]]
) -> dict[str, tuple[Part, str]]:
    """Layers of the modules by name in the file. Raises WeightsError if any does not fit."""
    table = layer_table(shapes["unet"], shapes["text"])
    targets: dict[str, tuple[Part, str]] = {}
    strangers = []
    for name, layer in layers.items():
        _check_pair(file, name, layer)
        target = table.get(flat(name))
        if target is None or not _fits(file, layer, shapes[target[0]][target[1]]):
            strangers.append(name)
        else:
            targets[name] = target
    if strangers:
        raise WeightsKindError(
            f"{file.path} ({identify(file).title}) does not fit this model: {len(strangers)} of "
            f"its {len(layers)} layers are missing here or have another size "
            f"({some(strangers, 2)}); take a LoRA that was trained for the same base"
        )
    if len(set(targets.values())) < len(targets):
        raise WeightsKeyError(f"{file.path} holds layers twice, under two names: {some(targets)}")
    return targets


def _check_pair(file: TensorFile, name: str, layer: Layer) -> None:
    """Raise WeightsError unless a layer has two factors of one rank, and one alpha at most."""
    for role in ("down", "up"):
        if role not in layer:
            raise WeightsKeyError(
                f"{file.path} is incomplete: {name} has no {role} factor; download it again"
            )
    down, up = file.infos[layer["down"]], file.infos[layer["up"]]
    sizes = {len(down.shape), len(up.shape)} <= {2, 4}
    if not sizes or down.shape[0] != up.shape[1] or down.shape[0] == 0:
        raise WeightsKeyError(
            f"{file.path}: the factors of {name} do not belong together, down is {down.shape} and "
            f"up is {up.shape}; download it again"
        )
    if not (down.dtype.is_floating_point and up.dtype.is_floating_point):
        raise WeightsFormatError(
            f"{file.path}: the factors of {name} are {down.dtype} and {up.dtype}, expected "
            "floating-point numbers"
        )
    alpha = file.infos[layer["alpha"]] if "alpha" in layer else None
    if alpha and (math.prod(alpha.shape) != 1 or alpha.dtype not in DTYPES.values()):
        raise WeightsFormatError(
            f"{file.path}: {layer['alpha']} is {alpha.dtype} {alpha.shape}, expected one number"
        )


def _fits(file: TensorFile, layer: Layer, weight: Shape) -> bool:
    down, up = (file.infos[layer[role]].shape for role in ("down", "up"))
    rank = down[0]
    expected = (rank, *weight[1:]), (weight[0], rank)
    return (_matrix(down), _matrix(up)) == (_matrix(expected[0]), expected[1])


def _matrix(shape: Shape) -> Shape:
    """A convolution of one pixel is a linear layer."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _low_rank(
    name: str, layer: Layer, state: Mapping[str, Tensor], scaling: Scaling | None
) -> LowRank:
    up, down = (state[layer[role]] for role in ("up", "down"))
    alpha = float(state[layer["alpha"]].item()) if "alpha" in layer else None
    rank = down.shape[0]
    if scaling is None:
        return LowRank(up, down, 1.0 if alpha is None else alpha / rank)
    bare = name.removeprefix("unet.").removeprefix("text_encoder.")
    return LowRank(up, down, scaling.scale(bare, rank, alpha))
