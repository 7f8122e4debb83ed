"""Folders and JSON files that a command leaves behind."""

import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import SinkError


def write_json(path: Path, figures: Mapping[str, object]) -> None:
    """Write figures. Raises SinkError where the file cannot be written."""
    try:
        path.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise SinkError(f"the report {path} cannot be written: {error}") from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises SinkError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"the folder {folder} cannot be made: {error}") from error
