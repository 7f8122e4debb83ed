"""What to load: names of files, and where they are looked for."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..config import StepSelection
from ..errors import ConfigError, WeightsMissingError
from . import hub
from .files import SUFFIXES

BUNDLED, FROM_BASE, STRUCTURE = "bundled", "base", "structure"  # names that are no files
Part = Literal["base", "motion", "lora", "autoencoder", "depth", "text encoder", "embedding"]

# Folders below the models folder, as ComfyUI and the reference implementation name them.
FOLDERS: dict[Part, tuple[str, ...]] = {
    "base": ("checkpoints", "Model"),
    "motion": ("live2diff", ""),
    "lora": ("loras", "LoRA"),
    "autoencoder": ("vae", "vae_approx"),
    "depth": ("depth", ""),
    "text encoder": ("text_encoders", "clip"),
    "embedding": ("embeddings",),
}
TAESD_FOLDER = "vae_approx"
TOKENIZERS = ("tokenizer", "clip", "text_encoders")
# What a diffusers or transformers folder consists of; a hub holds more than that.
PATTERNS: dict[Part, tuple[str, ...]] = {
    "base": (
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/*",
    ),
    "autoencoder": ("config.json", "diffusion_pytorch_model.safetensors"),
}
# Parts under the names that people know them by, and where the hub has them.
WELL_KNOWN = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "live2diff": "Leoxing/Live2Diff/live2diff.ckpt",
    "taesd": "madebyollin/taesd",
    "dpt_hybrid_384": "Intel/dpt-hybrid-midas",
    "lcm-lora-sdv1-5": "latent-consistency/lcm-lora-sdv1-5/pytorch_lora_weights.safetensors",
}
WHOLE = ("*.json", "*.safetensors", "*.txt")

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/[\w./-]+)?")
MODELS_VARIABLE = "LIVE2DIFF_MODELS"


def models_folder() -> Path:
    """The folder that LIVE2DIFF_MODELS names, else `models` in the working directory."""
    return Path(os.environ.get(MODELS_VARIABLE, "models"))


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """A LoRA and its strengths for the UNet and the text encoder."""

    file: str
    unet: float = 1.0
    text: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "LoraSpec":
        """NAME, NAME:STRENGTH or NAME:UNET:TEXT. Raises ConfigError."""
        match = re.fullmatch(r"(.+?)(?::(-?[\d.]+))?(?::(-?[\d.]+))?", text)
        try:
            name, *strengths = match.groups() if match else ()
            unet, both = (None if strength is None else float(strength) for strength in strengths)
        except ValueError as error:
            raise ConfigError(f"a LoRA is NAME[:UNET[:TEXT]], not {text!r}") from error
        first = 1.0 if unet is None else unet
        return cls(name, first, first if both is None else both)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model by its parts; each is a path, a name in the models folder or a hub id.

    base: "bundled", or Stable Diffusion 1.5 or a finetune of it. autoencoder, text_encoder: "base"
    takes what the base brings. depth: a depth model, or "structure" for the map of the bundled
    model, which needs no file. clip_skip: 1 takes the last layer. steps: the model's default.
    width, height: default size in pixels, which memory is checked for. download: whether hub ids
    may be fetched.
    """

    base: str = BUNDLED
    motion: str = "live2diff"
    autoencoder: str = "taesd"
    depth: str = "dpt_hybrid_384"
    text_encoder: str = "base"
    loras: tuple[LoraSpec, ...] = ()
    embeddings: tuple[str, ...] = ()
    clip_skip: int = 1
    steps: StepSelection = field(default_factory=lambda: StepSelection((30, 36, 42)))
    width: int = 512
    height: int = 512
    models: Path = field(default_factory=models_folder)
    download: bool = False

    def find(self, name: str, part: Part) -> Path:
        """The file or folder that a name stands for. Raises WeightsMissingError."""
        given = Path(name).expanduser()
        if given.exists():
            return given
        places = [self.models / folder for folder in FOLDERS[part]]
        for place in places:
            for candidate in _candidates(place, name):
                if candidate.exists():
                    return candidate
        hub_id = WELL_KNOWN.get(name, name)
        if is_hub_id(hub_id):
            patterns = PATTERNS.get(part, WHOLE)
            found_here = Path(hub_id).stem == name  # a file of its own name, else a folder's
            folder = self.folder(name, part) / ("" if found_here else Path(name).name)
            return hub.fetch(hub_id, patterns, download=self.download, folder=folder)
        raise WeightsMissingError(
            f"the {part} {name} is not here: put it into {self.folder(name, part)}, or give its "
            "path or hub id"
        )

    def folder(self, name: str, part: Part) -> Path:
        """Where a part belongs."""
        return self.models / (TAESD_FOLDER if name.startswith("taesd") else FOLDERS[part][0])

    def tokenizers(self) -> Sequence[Path]:
        """Folders of the models folder that may hold CLIP's tokenizer."""
        return [self.models / folder for folder in TOKENIZERS]


def is_hub_id(name: str) -> bool:
    """Whether a name can be owner/name or owner/name/path/of/file on the hub."""
    parts = name.split("/")
    file = name.lower().endswith(SUFFIXES)
    return bool(HUB_ID.fullmatch(name)) and name[0] not in "./~" and len(parts) >= 2 + file


def _candidates(place: Path, name: str) -> list[Path]:
    """The name as it is, then with every suffix; TAESD's encoder file stands for its pair."""
    names = [name, *(name + suffix for suffix in SUFFIXES)]
    names += [f"{name}_encoder{suffix}" for suffix in SUFFIXES]
    return [place / candidate for candidate in names]
