"""Set up a ComfyUI for the tests: its source and its own virtual environment.

`make comfyui` runs this file. What is there already stays; a set-up that broke off is completed.

COMFYUI_PATH: where to, ~/comfy/ComfyUI unless given.
COMFYUI_SOURCE: a git URL or a folder to clone from, GitHub unless given.
COMFYUI_REF: tag, branch or commit; unless given v0.33.0 of GitHub, else what the source has now.
"""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

# As a program this file has its own folder on the path and not the repository.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.comfy.install import (
    ROOT,
    add_requirements,
    named_folder,
    own_python,
    read_requirements,
)

logger = logging.getLogger("comfyui")

GITHUB = "https://github.com/Comfy-Org/ComfyUI"
RELEASE = "v0.33.0"
CONSTRAINTS = ROOT / "constraints.txt"
# The builds that belong to the torch of constraints.txt. pip gets them without what they depend on,
# for that would be another torch.
COMPILED = {"torchvision": "0.28.0", "torchaudio": "2.11.0", "spandrel": "0.4.2"}

# Beside a torch without CUDA the compiled part of torchvision does not load: its import stops at
# two operators that nobody declared. Nothing that the tests run calls them.
STAND_IN = '''"""Declares the operators that torchvision lacks without its compiled part."""

import sys
from importlib.abc import MetaPathFinder

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class BeforeTorchvision(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in SCHEMAS:
                self.library.define(schema)
            sys.torchvision_operators = self.library
        return None


sys.meta_path.insert(0, BeforeTorchvision())
'''


def clone(source: str, ref: str | None, folder: Path) -> None:
    """A shallow copy would lack the commit that a user names, so all of the history comes."""
    run("git", "clone", "--quiet", "--no-checkout", source, folder)
    run("git", "-C", folder, "reset", "--quiet", "--mixed", ref or "HEAD")
    # Unlike `git checkout` this goes on past a file that a mirror left out for its size.
    subprocess.run(["git", "-C", folder, "checkout-index", "--all", "--force", "--quiet"])
    absent = run("git", "-C", folder, "ls-files", "--deleted")
    if absent:
        logger.warning("the source lacks these files:\n%s", absent)


def run(*words: str | Path) -> str:
    """What a command printed; raises CalledProcessError."""
    return subprocess.run(
        [*map(str, words)], check=True, text=True, stdout=subprocess.PIPE
    ).stdout.strip()


def install(folder: Path) -> Path:
    """Give ComfyUI its own environment with all that it imports."""
    python = own_python(folder)
    if python is None:
        run(sys.executable, "-m", "venv", folder / ".venv")
        python = folder / ".venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    requirements = folder / ".venv" / "requirements.txt"
    wanted = read_requirements(folder / "requirements.txt")
    kept = [str(line) for line in wanted if line.name not in COMPILED]
    requirements.write_text("\n".join(["requests", *kept]) + "\n", encoding="utf-8")
    run(*pip, "--constraint", CONSTRAINTS, "--requirement", requirements)
    run(*pip, "--no-deps", *(f"{name}=={version}" for name, version in COMPILED.items()))
    return python


def make_importable(python: Path) -> None:
    """Take the compiled parts out that do not load beside this torch."""
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    if not imports(python, "torchaudio"):  # it looks whether the file is there
        shutil.rmtree(packages / "torchaudio" / "lib")
    if not imports(python, "torchvision"):
        (packages / "torchvision_operators.py").write_text(STAND_IN, encoding="utf-8")
        (packages / "torchvision_operators.pth").write_text("import torchvision_operators\n")
    for module in ("torch", "torchvision", "torchaudio"):
        run(python, "-c", f"import {module}")


def imports(python: Path, module: str) -> bool:
    return not subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = named_folder()
    source = os.environ.get("COMFYUI_SOURCE", GITHUB)
    if not (folder / "main.py").is_file():
        ref = os.environ.get("COMFYUI_REF", RELEASE if source == GITHUB else None)
        logger.info("ComfyUI %s from %s into %s", ref or "", source, folder)
        clone(source, ref, folder)
    logger.info("its own environment: %s", folder / ".venv")
    python = install(folder)
    make_importable(python)
    add_requirements(folder)
    logger.info("ready: `make test` finds it in %s", folder)


if __name__ == "__main__":
    main()
