"""live2diff train: temporal layers and depth mapping by a file of settings, or the bundled model
from nothing.
"""

import argparse
from pathlib import Path

from ...errors import ConfigError
from ..options import Commands

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
        "--device",
        help="torch device of the bundled model (default: cpu); with settings accelerate chooses, "
        "and only cpu can be asked for",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train until the last step, or until it is interrupted."""
    if options.what == BUNDLED:
        from .bundled import train_bundled  # needs the extra `train`

        directory = options.directory or Path("runs/bundled")
        return train_bundled(directory, options.output, options.device or "cpu")
    if options.output is not None:
        raise ConfigError("--output is the bundled model's; checkpoints lie in the directory")
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
