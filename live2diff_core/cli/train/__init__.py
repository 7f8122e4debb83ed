"""live2diff train: temporal layers and depth mapping by a file of settings, or the bundled model
from nothing.
"""

import argparse
from pathlib import Path

from ...errors import ConfigError
from ..options import Commands, parse_device

BUNDLED, SUFFIX = "bundled", ".toml"


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "train",
        help="train motion weights",
        description="Train temporal layers and depth mapping on videos, as a file of settings says "
        "(examples/train_motion.toml, docs/training.md), or the bundled model from nothing. A run "
        "that was stopped goes on from its last checkpoint.",
    )
    parser.add_argument("what", type=_what, metavar="CONFIG.toml|bundled", help="what to train")
    parser.add_argument(
        "--directory",
        type=Path,
        help="holds checkpoints and log (default: the settings' own, or runs/bundled)",
    )
    parser.add_argument(
        "--output", type=Path, help="where the bundled model goes (default: DIRECTORY/model)"
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FOLDER",
        help="a finished bundled model to start from: the last stage alone is trained",
    )
    parser.add_argument(
        "--frame-by-frame",
        action="store_true",
        help="the last stage of the bundled model on single pictures alone: a network to compare "
        "with, as docs/evaluation.md does",
    )
    parser.add_argument(
        "--device",
        help="torch device of the bundled model (default: cpu); with settings accelerate chooses, "
        "and only cpu can be asked for",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train until the last step, or until it is interrupted."""
    if options.what == BUNDLED:
        from ...training.bundled import Recipe, Trainer  # needs the extra `train`
        from .bundled import train_bundled

        folder = options.directory or Path("runs/bundled")
        recipe = Recipe(frame_by_frame=options.frame_by_frame)
        device = parse_device(options.device or "cpu")
        return train_bundled(Trainer(folder, recipe, device), options.start, options.output)
    for name in ("output", "start", "frame_by_frame"):
        if getattr(options, name):
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is the bundled model's; leave it out with settings")
    if options.device not in (None, "cpu"):
        raise ConfigError(
            f"accelerate chooses the device, {options.device!r} cannot be asked for: leave "
            "--device out, or start the command by `accelerate launch`"
        )
    from .motion import train_motion

    return train_motion(Path(options.what), options.directory, options.device == "cpu")


def _what(text: str) -> str:
    if text != BUNDLED and not text.endswith(SUFFIX):
        raise argparse.ArgumentTypeError(
            f"invalid choice: {text!r} (choose {BUNDLED!r} or a {SUFFIX} file of settings)"
        )
    return text
