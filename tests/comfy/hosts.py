"""Run the tests of tests/comfy in each ComfyUI, front-end and renderer that the pack promises.

`make hosts` runs this file; it takes minutes for each row. A row whose ComfyUI is not there says
how to have it. The last lines are a table of what each row came to.
"""

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.comfy.install import ROOT

NEWEST_FRONT_END = "1.58.1"
OLDEST = "0.3.64"
FOLDER = ROOT / "runs" / "hosts"
COMFY = Path.home() / "comfy"
SUMMARY = re.compile(r"(?:\d+ \w+, )*\d+ (?:passed|failed|error\w*|skipped).* in .*")


@dataclass(frozen=True)
class Row:
    """What is started. flags: of ComfyUI. tests: all of tests/comfy unless given."""

    name: str
    folder: Path = COMFY / "ComfyUI"
    renderer: str = "litegraph"
    flags: tuple[str, ...] = ()
    tests: tuple[str, ...] = field(default=("tests/comfy",))

    def variables(self) -> dict[str, str]:
        return {
            "COMFYUI_PATH": str(self.folder),
            "COMFYUI_RENDERER": self.renderer,
            "COMFYUI_FLAGS": " ".join(self.flags),
            "OMP_NUM_THREADS": "1",
        }


def newest_front_end() -> tuple[str, str]:
    """The flag for it; it is fetched from PyPI once."""
    folder = FOLDER / f"front-end-{NEWEST_FRONT_END}"
    if not folder.is_dir():
        package = f"comfyui-frontend-package=={NEWEST_FRONT_END}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--dest", FOLDER, package], check=True)
        (wheel,) = FOLDER.glob(f"comfyui_frontend_package-{NEWEST_FRONT_END}-*.whl")
        zipfile.ZipFile(wheel).extractall(folder)
    return "--front-end-root", str(folder / "comfyui_frontend_package" / "static")


def rows() -> list[Row]:
    newest = newest_front_end()
    pages = ("tests/comfy/test_frontend.py", "tests/comfy/test_live_page.py")
    return [
        Row("its own front-end, LiteGraph"),
        Row("its own front-end, Nodes 2.0", renderer="nodes2", tests=pages),
        Row(f"front-end {NEWEST_FRONT_END}, LiteGraph", flags=newest, tests=pages),
        Row(f"front-end {NEWEST_FRONT_END}, Nodes 2.0", renderer="nodes2", flags=newest),
        Row("--cache-ram 1 1", flags=("--cache-ram", "1", "1")),
        Row(f"ComfyUI {OLDEST}", COMFY / f"ComfyUI-{OLDEST}"),
    ]


def run(row: Row) -> str:
    """What pytest closes with."""
    if not (row.folder / "main.py").is_file():
        reference = f" COMFYUI_REF=v{OLDEST}" if OLDEST in row.folder.name else ""
        return f"not there: make comfyui COMFYUI_PATH={row.folder}{reference}"
    command = [sys.executable, "-m", "pytest", "-n", "logical", "-q", *row.tests]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **row.variables()}, stdout=subprocess.PIPE, text=True
    )
    closing = ""
    for line in process.stdout or ():
        sys.stdout.write(line)
        closing = line if SUMMARY.match(line) else closing
    process.wait()
    return closing.strip() or f"pytest ended with {process.returncode}"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    chosen = [row for row in rows() if all(word in row.name for word in sys.argv[1:])]
    found = []
    for row in chosen:
        sys.stdout.write(f"\n==== {row.name}\n")
        found.append((row.name, run(row)))
    sys.stdout.write("\n" + "".join(f"{name:32} {closing}\n" for name, closing in found))
    sys.exit(any(re.search("failed|error|ended", closing) is not None for _, closing in found))


if __name__ == "__main__":
    main()
