"""Compares our networks with ComfyUI's own; run by ComfyUI's Python, writes what it found as JSON.

PYTHONPATH=<repository> python program.py <ComfyUI's folder> <scratch folder>
"""

import json
from pathlib import Path

import torch

from tests.comfy.interop.common import CHECKS, SCRATCH  # first: it makes ComfyUI importable

# isort: split
from tests.comfy.interop import depth, dynamic, models, quantised, streams, vaes  # noqa: F401


def main() -> None:
    with torch.inference_mode():  # as ComfyUI runs its nodes
        found = {name: run_check() for name, run_check in CHECKS.items()}
    (Path(SCRATCH) / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
