"""What the tests of help, translations and workflows look at."""

import json
from pathlib import Path

from tests.pack import ROOT, load_pack

PACK = load_pack()
CLASSES = PACK.NODE_CLASS_MAPPINGS
# Combos of what the user has: files, folders, cameras. "none" is there for everybody.
FILES, NONE = {"motion_weights", "device", "folder", "lora"}, "none"


def specs(cls) -> dict[str, tuple]:
    """Visible inputs of a node class: name -> (type, options)."""
    types = cls.INPUT_TYPES()
    return {**types.get("required", {}), **types.get("optional", {})}


def fixed_options(name: str, kind) -> list[str]:
    """Options of a combo that everybody has; those of any other type are none."""
    options = kind if isinstance(kind, list) else []
    return [option for option in options if name not in FILES or option == NONE]


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def flat(value, path: str = "") -> dict[str, str]:
    """The texts of a JSON object by their paths."""
    if isinstance(value, str):
        return {path: value}
    return {k: v for key, inner in value.items() for k, v in flat(inner, f"{path}/{key}").items()}


def texts(language: str, file: str) -> dict[str, str]:
    return flat(read(ROOT / "locales" / language / f"{file}.json"))


def extension() -> str:
    """All scripts of the pack in ComfyUI's page."""
    files = sorted((ROOT / "web").rglob("*.js"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
