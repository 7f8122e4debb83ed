"""Styles: a base, LoRAs, a prompt template and steps under one name, as TOML files."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...config import StepSelection
from ...errors import ConfigError, WeightsMissingError
from ..spec import FROM_BASE, STRUCTURE, WELL_KNOWN, LoraSpec, ModelSpec, Part

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DIRECTORY = Path(__file__).parent
LCM_LORA = "lcm-lora-sdv1-5"
HOLE = "{}"
ENTRIES = {"title", "base", "prompt", "clip_skip", "steps", "loras", "sources"}
EXPECTED = f"expected title, base, prompt, [steps] and perhaps others, as the files in {DIRECTORY}"


@dataclass(frozen=True, slots=True)
class Style:
    """How a style is made. template: a prompt with {} where the words for the scene go.

    sources: file name -> page that it can be had from.
    """

    name: str
    title: str
    base: str
    template: str
    steps: StepSelection
    loras: tuple[LoraSpec, ...]
    clip_skip: int
    sources: dict[str, str]

    def prompt(self, words: str) -> str:
        """The template with these words in it."""
        return self.template.replace(HOLE, words)

    def spec(self, spec: ModelSpec) -> ModelSpec:
        """A specification with this style's base, LoRAs, clip skip and steps; the LCM-LoRA comes
        first, LoRAs that the specification names stay.
        """
        return replace(
            spec,
            base=self.base,
            loras=(LoraSpec(LCM_LORA, 1.0, 0.0), *self.loras, *spec.loras),
            clip_skip=self.clip_skip,
            steps=self.steps,
        )


def load_styles(directory: Path = DIRECTORY) -> dict[str, Style]:
    """Every style of a folder, by name. Raises ConfigError for a file that is none."""
    return {path.stem: read_style(path) for path in sorted(directory.glob("*.toml"))}


def find_style(name: str) -> Style:
    """A style by its name, or by the path of a TOML file. Raises ConfigError with the names."""
    if name.endswith(".toml"):
        return read_style(Path(name))
    styles = load_styles()
    if name not in styles:
        raise ConfigError(f"no such style: {name}; there are {', '.join(styles)}, or give a .toml")
    return styles[name]


def read_style(path: Path) -> Style:
    """Read one style. Raises ConfigError, naming the file and the entry."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a style: {error}") from error
    unknown = sorted(data.keys() - ENTRIES)
    if unknown:
        raise ConfigError(f"{path} has unknown entries: {', '.join(unknown)}; {EXPECTED}")
    try:
        style = _style(path.stem, data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is no style ({error!r}); {EXPECTED}") from error
    if HOLE not in style.template:
        raise ConfigError(f"{path}: its prompt has no {HOLE} for the words of the scene")
    return style


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that is not here: where it belongs, and where it can be had from if that is known."""

    part: Part
    name: str
    folder: Path
    source: str | None

    def __str__(self) -> str:
        origin = f" (from {self.source})" if self.source else ""
        return f"{self.part} {self.name}{origin} into {self.folder}"


def missing(style: Style, spec: ModelSpec) -> list[Missing]:
    """What a specification with this style names and this computer lacks; nothing is downloaded."""
    spec = replace(spec, download=False)
    wanted: list[tuple[Part, str]] = [("base", spec.base), ("motion", spec.motion)]
    if spec.autoencoder != FROM_BASE:
        wanted.append(("autoencoder", spec.autoencoder))
    if spec.depth != STRUCTURE:
        wanted.append(("depth", spec.depth))
    wanted += [("lora", lora.file) for lora in spec.loras]
    sources = {**SOURCES, **style.sources}
    absent: list[Missing] = []
    for part, name in wanted:
        try:
            spec.find(name, part)
        except WeightsMissingError:
            absent.append(Missing(part, name, spec.folder(name, part), sources.get(name)))
    return absent


# Where the parts come from that every style shares.
SOURCES = {
    **{name: f"https://huggingface.co/{hub_id}" for name, hub_id in WELL_KNOWN.items()},
    "dpt_hybrid_384": "https://github.com/isl-org/MiDaS/releases/download/v3/dpt_hybrid_384.pt",
}


def _style(name: str, data: dict[str, Any]) -> Style:
    steps = dict(data["steps"])
    if "t_index" in steps:
        steps["t_index"] = tuple(steps["t_index"])
    words = [data[entry] for entry in ("title", "base", "prompt")]
    if not all(isinstance(text, str) for text in words):
        raise TypeError("title, base and prompt are text")
    return Style(
        name=name,
        title=data["title"],
        base=data["base"],
        template=data["prompt"],
        steps=StepSelection(**steps),
        loras=tuple(_lora(**lora) for lora in data.get("loras", ())),
        clip_skip=int(data.get("clip_skip", 1)),
        sources=dict(data.get("sources", {})),
    )


def _lora(file: str, unet: float = 1.0, text: float = 1.0) -> LoraSpec:
    return LoraSpec(str(file), float(unet), float(text))
