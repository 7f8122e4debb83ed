"""live2diff parity: the recorded streams of the reference implementation, replayed."""

import argparse
import json
from pathlib import Path

from ..config import RuntimeConfig
from ..metrics.parity import Recording, replay
from .options import DTYPES, Commands, add_speed_options, parse_device

DIFFERENT = 1


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "parity",
        help="compare with recordings of the reference implementation",
        description="Replay recorded streams and print the largest differences.",
    )
    parser.add_argument("directory", type=Path, help="holds golden.json and its tensor files")
    parser.add_argument("--case", action="append", default=[], help="only this one; repeatable")
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, help="largest error that passes (default: 1e-3)"
    )
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default: float32")
    add_speed_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Replay; 1 if a case is beyond the tolerance or a table differs."""
    recording = Recording(options.directory, parse_device(options.device))
    unet = recording.network().to(DTYPES[options.dtype])
    runtime = RuntimeConfig(options.runtime, options.attention)
    results = []
    for case in recording.cases(options.case):
        result = replay(case, unet, runtime, options.cache)
        results.append(result)
        if not options.json:
            verdict = "ok" if result.within(options.tolerance) else "DIFFERENT"
            print(
                f"{result.name}: {verdict}; steps {result.steps}, frames {result.frames}, "
                f"warm-up {result.warmup_max_abs_error:.1e}, stream {result.max_abs_error:.1e}, "
                f"cache {_shown(result.cache_max_abs_error)}, "
                f"tables {'equal' if result.tables_equal else 'differ'}"
            )
    if options.json:
        print(json.dumps({"cases": [result.as_dict() for result in results]}, indent=2))
    return 0 if all(result.within(options.tolerance) for result in results) else DIFFERENT


def _shown(error: float | None) -> str:
    return "not recorded" if error is None else f"{error:.1e}"
