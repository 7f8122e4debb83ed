"""live2diff train: train the bundled model from nothing."""

import argparse
import json
from pathlib import Path

from .options import Commands, parse_device
from .progress import progress_bar
from .report import make_folder


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser("train", help="train a model", description="Train a model.")
    parser.add_argument("recipe", choices=("bundled",), help="what to train")
    parser.add_argument(
        "--directory", type=Path, default=Path("runs/bundled"), help="holds checkpoint and log"
    )
    parser.add_argument(
        "--output", type=Path, help="where the model goes (default: DIRECTORY/model)"
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train all stages, going on from the directory's checkpoint if there is one."""
    from ..training.bundled import STAGES, Recipe, Trainer  # needs the extra `train`

    trainer = Trainer(options.directory, Recipe(), parse_device(options.device))
    make_folder(options.directory)
    log = options.directory / "log.jsonl"
    for stage in STAGES:
        with progress_bar(stage, trainer.plan(stage).steps) as advance, log.open("a") as lines:
            for step, loss in trainer.run(stage):
                advance(step + 1, f"loss {loss:.4f}")
                lines.write(json.dumps({"stage": stage, "step": step, "loss": loss}) + "\n")
    output = options.output or options.directory / "model"
    trainer.export(output)
    print(f"written to {output}")
    return 0
