"""live2diff inspect: what weights files are and what they can be used for."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import WeightsError
from ..weights.inspect import Identity, inspect
from .options import Commands

UNREADABLE = 1


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "inspect",
        help="tell what weights files are",
        description="Tell what weights files or folders are and what they can be used for. Only "
        "their headers are read.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a file or a folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Inspect each; 1 if one of them cannot be read."""
    found = [describe(path) for path in options.files]
    if options.json:
        print(json.dumps({"files": found}, indent=2))
    else:
        console = Console()
        for facts in found:
            console.print(_text(facts["path"]), soft_wrap=True)
            console.print(_table(facts))
    return UNREADABLE if any("error" in facts for facts in found) else 0


def describe(path: Path) -> dict[str, Any]:
    """Facts of one file, or under `error` and `message` why there are none."""
    try:
        identity = inspect(path)
    except WeightsError as error:
        return {"path": str(path), "error": type(error).__name__, "message": str(error)}
    return _facts(path, identity)


def _facts(path: Path, identity: Identity) -> dict[str, Any]:
    return {
        "path": str(path),
        "kind": identity.kind.value,
        "title": identity.title,
        "use": identity.use,
        "container": identity.container,
        "bytes": disk_size(path),
        "parameters": identity.parameters,
        "dtypes": dict(identity.dtypes),
        "details": list(identity.details),
    }


def disk_size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _table(facts: Mapping[str, Any]) -> Table:
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(facts):
        table.add_row(name, _text(value))
    return table


def _text(value: str) -> Text:
    """Names and keys come from anywhere: no markup in them, nothing that a terminal obeys."""
    return Text("".join(char if char.isprintable() else "?" for char in value))


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "error" in facts:
        return [(facts["error"], facts["message"])]
    return [
        ("what", f"{facts['title']} ({facts['kind']})"),
        ("use", facts["use"]),
        ("parameters", f"{facts['parameters']:,}"),
        ("precision", _shares(facts["dtypes"])),
        ("size", f"{facts['bytes'] / 1e6:,.1f} MB, {facts['container']}"),
        *(("", detail) for detail in facts["details"]),
    ]


def _shares(dtypes: Mapping[str, int]) -> str:
    total = max(1, sum(dtypes.values()))
    return ", ".join(f"{name} {100 * count / total:.3g} %" for name, count in dtypes.items())
