"""live2diff convert: motion weights as safetensors."""

import argparse
from pathlib import Path

from ..errors import ConfigError
from ..weights.motion import convert_motion
from .options import Commands


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "convert",
        help="write motion weights as safetensors",
        description="Convert Live2Diff's motion weights (live2diff.ckpt) to safetensors: checked "
        "key by key, loaded without a copy, free of code.",
    )
    parser.add_argument("input", type=Path, help="live2diff.ckpt")
    parser.add_argument("output", type=Path, help="FILE.safetensors")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert one file."""
    if options.output.exists() and not options.overwrite:
        raise ConfigError(f"{options.output} exists: choose another name, or add --overwrite")
    keys = convert_motion(options.input, options.output)
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {keys} keys, {size:.0f} MB")
    return 0
