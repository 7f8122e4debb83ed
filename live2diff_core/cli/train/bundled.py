"""Training of the bundled model from nothing."""

import json
from pathlib import Path

from ...training.bundled import STAGES, Recipe, Trainer
from ..options import parse_device
from ..progress import progress_bar
from ..report import make_folder


def train_bundled(directory: Path, output: Path | None, device: str) -> int:
    """Train all stages, going on from the directory's checkpoint if there is one.

    output: where the model goes, None for a folder of the directory.
    """
    trainer = Trainer(directory, Recipe(), parse_device(device))
    make_folder(directory)
    log = directory / "log.jsonl"
    for stage in STAGES:
        with progress_bar(stage, trainer.plan(stage).steps) as advance, log.open("a") as lines:
            for step, loss in trainer.run(stage):
                advance(step + 1, f"loss {loss:.4f}")
                lines.write(json.dumps({"stage": stage, "step": step, "loss": loss}) + "\n")
    output = output or directory / "model"
    trainer.export(output)
    print(f"written to {output}")
    return 0
