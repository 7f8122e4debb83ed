"""The command `live2diff`."""

import argparse
import logging
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import Live2DiffError
from . import bench, convert, demo, doctor, inspect, metrics, parity, plan, serve, train, translate

MODULES = (
    *(translate, serve, demo, metrics, inspect),
    *(plan, doctor, convert, parity, bench, train),
)
FAILED, INTERRUPTED = 1, 130
PACKAGE = __package__.rpartition(".")[0]


def make_parser() -> argparse.ArgumentParser:
    """The command line: one subcommand a module."""
    parser = argparse.ArgumentParser(
        prog="live2diff", description="Live video translation by diffusion."
    )
    parser.add_argument("--version", action="version", version=f"live2diff {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in MODULES:
        module.add_command(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 1 on an error, 2 on wrong usage, 130 when interrupted."""
    logging.basicConfig(level=logging.WARNING, format="live2diff: %(message)s")
    logging.getLogger(PACKAGE).setLevel(logging.INFO)  # libraries speak from warnings on
    options = make_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except Live2DiffError as error:
        print(f"live2diff: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("live2diff: interrupted", file=sys.stderr)
        return INTERRUPTED
