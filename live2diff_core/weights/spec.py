"""What to load: names of files, and where they are looked for."""

import os
import re
from collections.abc import Iterator, Sequence
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

LORA = re.compile(r"(.+?)(?::([-+]?[\d.]+(?:e[-+]?\d+)?))?(?::([-+]?[\d.]+(?:e[-+]?\d+)?))?")
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
        match = LORA.fullmatch(text)
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
        """The file or folder that a name stands for. Raises WeightsMissingError.

        Bare names are looked for in the models folder first, paths are taken as they are.
        """
        here = [candidate for folder in FOLDERS[part] for candidate in self._in(folder, name)]
        bare = "/" not in name and "\\" not in name and not name.lower().endswith(SUFFIXES)
        given = _expanded(name)
        for candidate in [*here, given] if bare else [given, *here]:
            if name and _is_here(candidate, part):
                return candidate
        hub_id, folder = WELL_KNOWN.get(name, name), self.folder(name, part)
        if is_hub_id(hub_id):
            if not hub_id.lower().endswith(SUFFIXES):
                folder /= Path(name).name
            elif name != hub_id and Path(hub_id).stem != name:
                folder /= name  # found by the folder's name, as the file's says nothing
            patterns = PATTERNS.get(part, WHOLE)
            return hub.fetch(hub_id, patterns, download=self.download, folder=folder)
        raise WeightsMissingError(
            f"the {part} {name} is not here: put it into {folder}, or give its path or hub id"
        )

    def _in(self, folder: str, name: str) -> Iterator[Path]:
        """Where a name may lie: as it is, as the last part of a hub id, with every suffix.

        TAESD's encoder stands for its pair of files.
        """
        for own in dict.fromkeys((name, Path(name).name)):
            for end in ("", *SUFFIXES, *(f"_encoder{suffix}" for suffix in SUFFIXES)):
                yield self.models / folder / f"{own}{end}"

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


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~somebody who is not known here
        return Path(name)


def _is_here(path: Path, part: Part) -> bool:
    """A file, or a folder where the part can be one."""
    try:
        return path.is_file() or (part not in ("motion", "embedding") and path.is_dir())
    except OSError:  # a name that no file can have
        return False
