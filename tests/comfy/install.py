"""The ComfyUI and the browser that the tests run in, and what ComfyUI's Python needs for the pack.

`make test` runs this file: what is missing is installed into ComfyUI's own virtual environment,
and nothing that is there is moved to another version.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
NOT_FOUND = "no ComfyUI was found: `make comfyui` sets one up, COMFYUI_PATH names another"
NO_CHROMIUM = "no Chromium was found: install one, or set CHROMIUM to its program"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Several packages give cv2, and two of them in one environment overwrite each other's files.
CV2 = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
ASK = "import json, platform, sys; print(json.dumps([sys.path[1:], platform.python_version()]))"


def named_folder() -> Path:
    """COMFYUI_PATH, else ~/comfy/ComfyUI."""
    named = os.environ.get("COMFYUI_PATH")
    return Path(named).expanduser() if named else Path.home() / "comfy" / "ComfyUI"


def comfyui_folder() -> Path | None:
    """The ComfyUI in `named_folder`, else the one that the pack is installed in."""
    candidates = [named_folder()]
    is_named = "COMFYUI_PATH" in os.environ
    if ROOT.parent.name == "custom_nodes" and not is_named:
        candidates.append(ROOT.parent.parent)
    for folder in candidates:
        if (folder / "main.py").is_file() and (folder / "comfy").is_dir():
            return folder
    if is_named:
        raise FileNotFoundError(f"COMFYUI_PATH={candidates[0]}: there is no ComfyUI (no main.py)")
    return None


def own_python(folder: Path) -> Path | None:
    """The interpreter of a ComfyUI's own virtual environment."""
    found = (folder / venv / "bin" / "python" for venv in (".venv", "venv"))
    return next((python for python in found if python.is_file()), None)


def python_of(folder: Path) -> Path:
    return own_python(folder) or Path(sys.executable)


def find_chromium() -> Path | None:
    """The program named by CHROMIUM, else one on PATH."""
    named = os.environ.get("CHROMIUM")
    found = named or next((path for path in map(shutil.which, CHROMIUM) if path), None)
    return Path(found) if found else None


def read_requirements(path: Path) -> list[Requirement]:
    """What a requirements file lists."""
    lines = path.read_text(encoding="utf-8").splitlines()
    texts = [line.partition("#")[0].strip() for line in lines]
    return [Requirement(text) for text in texts if text]


@dataclass(frozen=True)
class Environment:
    """What is installed for an interpreter."""

    python: Path
    version: str
    installed: dict[str, str]

    @classmethod
    def of(cls, python: Path) -> "Environment":
        answer = subprocess.run(
            [python, "-c", ASK], capture_output=True, text=True, check=True, cwd="/"
        )
        path, version = json.loads(answer.stdout)
        found = {canonicalize_name(d.name): d.version for d in distributions(path=path)}
        return cls(python, version, found)

    def missing(self) -> list[Requirement]:
        """The pack's requirements that are not installed, or not in a version that it can use."""
        return [wanted for wanted in self._wanted() if not self._has(wanted)]

    def install_command(self, missing: list[Requirement]) -> list[str]:
        # pip is told which Python, for an environment may have none of its own.
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install"]
        return [*pip, *map(str, missing)]

    def install(self, missing: list[Requirement]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
            pins.writelines(f"{name}=={version}\n" for name, version in self.installed.items())
            pins.flush()
            command = self.install_command(missing)
            subprocess.run([*command, "--quiet", "--constraint", pins.name], check=True)

    def _wanted(self) -> Iterator[Requirement]:
        minor = ".".join(self.version.split(".")[:2])
        here = {"python_version": minor, "python_full_version": self.version}
        for wanted in read_requirements(REQUIREMENTS):
            if wanted.marker is None or wanted.marker.evaluate(here):
                yield wanted

    def _has(self, wanted: Requirement) -> bool:
        name = canonicalize_name(wanted.name)
        if name == "opencv-python-headless" and any(other in self.installed for other in CV2):
            return True
        return name in self.installed and wanted.specifier.contains(
            self.installed[name], prereleases=True
        )


def add_requirements(folder: Path) -> None:
    """Install what the pack needs and ComfyUI's own environment lacks."""
    environment = Environment.of(python_of(folder))
    missing = environment.missing()
    if missing:
        environment.install(missing)


def main() -> None:
    try:
        folder = comfyui_folder()
    except FileNotFoundError as error:
        sys.exit(str(error))
    if folder is None:
        sys.stderr.write(f"{NOT_FOUND}. The tests in tests/comfy are skipped without it.\n")
    elif own_python(folder):
        add_requirements(folder)


if __name__ == "__main__":
    main()
