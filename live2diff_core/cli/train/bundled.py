"""Training of the bundled model, from nothing or from a finished one."""

import json
from pathlib import Path

from ...training.bundled import STAGES, Trainer
from ..progress import progress_bar
from ..report import make_folder


def train_bundled(trainer: Trainer, start: Path | None, output: Path | None) -> int:
    """Train all stages, going on from the directory's checkpoint if there is one.

    start: a finished model, whose last stage is trained alone. output: where the model goes, None
    for a folder of the trainer's directory.
    """
    make_folder(trainer.directory)
    if start is not None:
        trainer.start_from(start)
    log = trainer.directory / "log.jsonl"
    for stage in STAGES if start is None else STAGES[-1:]:
        with progress_bar(stage, trainer.plan(stage).steps) as advance, log.open("a") as lines:
            for step, loss in trainer.run(stage):
                advance(step + 1, f"loss {loss:.4f}")
                lines.write(json.dumps({"stage": stage, "step": step, "loss": loss}) + "\n")
    output = output or trainer.directory / "model"
    trainer.export(output)
    print(f"written to {output}")
    return 0
