"""The archive that the Comfy registry makes of the pack: all files but those of .comfyignore."""

import subprocess
import zipfile
from pathlib import Path

import pathspec

ROOT = Path(__file__).resolve().parent.parent


def release_files(root: Path = ROOT) -> list[str]:
    """Paths below the repository, with slashes; what is new and not yet tracked is among them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (root / ".comfyignore").read_text(encoding="utf-8").splitlines()
    left_out = pathspec.GitIgnoreSpec.from_lines(lines)
    files = [line for line in listed.stdout.splitlines() if (root / line).is_file()]
    return sorted(file for file in files if not left_out.match_file(file))


def write_release(path: Path, root: Path = ROOT) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in release_files(root):
            archive.write(root / file, file)
    return path
