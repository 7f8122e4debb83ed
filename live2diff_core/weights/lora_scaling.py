"""How strongly a LoRA's factors count: settings that peft and diffusers write beside them."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsFormatError, WeightsKindError, WeightsMissingError
from .files import TensorFile
from .lora_names import Part

CONFIG_FILE = "adapter_config.json"
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
METADATA = "lora_adapter_metadata"  # where diffusers keeps them in a safetensors file
METADATA_PREFIXES: dict[Part, str] = {"unet": "unet.", "text": "text_encoder."}

# Ways to begin a training that leave the base's weights as they are.
SOUND_STARTS = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, slots=True)
class Scaling:
    """alpha of all layers but those that a pattern of `patterns` names, as peft understands it.

    rooted: the scale is alpha / sqrt(rank). Kalajdzievski 2023 (rsLoRA).
    """

    alpha: float
    patterns: Mapping[str, float]
    rooted: bool

    def scale(self, layer: str, rank: int, own_alpha: float | None) -> float:
        """The scale of a layer; an alpha of its own comes first."""
        named = (a for key, a in self.patterns.items() if re.match(rf"(.*\.)?({key})$", layer))
        alpha = next(named, self.alpha) if own_alpha is None else own_alpha
        return alpha / (math.sqrt(rank) if self.rooted else rank)


def read_scaling(file: TensorFile) -> dict[Part, Scaling]:
    """Settings of the parts that have any: a peft file's beside it, diffusers' inside.

    Raises WeightsMissingError for a peft file without its settings, WeightsFormatError for damaged
    ones, WeightsKindError where they tell of something else than a plain LoRA.
    """
    if file.path.name in PEFT_FILES:
        path = file.path.with_name(CONFIG_FILE)
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise WeightsMissingError(f"{file.path} needs {path} beside it: {error}") from error
        scaling = _scaling(_parse(content, path), path)
        return {"unet": scaling, "text": scaling}
    settings = _parse(file.metadata.get(METADATA) or "{}", file.path)
    return {
        part: _scaling(_below(settings, prefix), file.path)
        for part, prefix in METADATA_PREFIXES.items()
        if _below(settings, prefix)
    }


def _parse(content: str, path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WeightsFormatError(
            f"the LoRA settings in {path} are damaged ({error}); download it again"
        ) from error
    if not isinstance(settings, dict):
        raise WeightsFormatError(
            f"the LoRA settings in {path} are a {type(settings).__name__}, expected a JSON object"
        )
    return settings


def _below(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}


def _scaling(settings: Mapping[str, Any], path: Path) -> Scaling:
    kind, start = settings.get("peft_type") or "LORA", settings.get("init_lora_weights", True)
    if kind != "LORA" or settings.get("use_dora"):
        found = kind if kind != "LORA" else "a DoRA"
        raise WeightsKindError(
            f"{path} describes {found}, expected a plain LoRA: ask its author for one"
        )
    if start not in SOUND_STARTS:
        raise WeightsKindError(
            f"{path} describes a LoRA that belongs to a changed base (init_lora_weights is "
            f"{start}): convert it to a plain LoRA with peft"
        )
    patterns = settings.get("alpha_pattern") or {}
    try:
        scaling = Scaling(
            float(settings["lora_alpha"]),
            {re.compile(key).pattern: float(alpha) for key, alpha in patterns.items()},
            bool(settings.get("use_rslora")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, re.error) as error:
        raise WeightsFormatError(
            f"the LoRA settings in {path} are damaged, lora_alpha or alpha_pattern is missing or "
            f"no number ({error!r}); download it again"
        ) from error
    if not all(map(math.isfinite, (scaling.alpha, *scaling.patterns.values()))):
        raise WeightsFormatError(f"the LoRA settings in {path} state an alpha that is not finite")
    return scaling
