"""live2diff bench: frames a second from file to file, where the time goes, and how far it is from
what the device could do.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...config import RUNTIMES
from ...errors import Live2DiffError
from ..options import (
    DTYPES,
    Commands,
    add_model_options,
    add_overlap_option,
    add_stream_options,
    check_memory,
    parse_device,
    parse_size,
    stream_config,
)
from .choices import RANDOM, Shelf, check_options, combinations, prompt_for
from .figures import measure
from .job import Job, moving_disc
from .machine import environment
from .reference import compare
from .tables import STAGES, show_environment, show_run, show_summary

__all__ = ["STAGES", "add_command", "run"]

REFUSED = 1
# What a combination fails with: ours, and torch's for memory, compilers and kernels.
FAILURES = (Live2DiffError, RuntimeError, MemoryError, ImportError, OSError)


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "bench",
        help="measure speed",
        description="Measure frames a second from file to file, stage by stage. Options that can "
        "be repeated are combined; each combination is measured.",
        conflict_handler="resolve",  # some options of a stream can be repeated here
    )
    add_model_options(parser)
    add_stream_options(parser)
    add_overlap_option(parser)
    _add_varied(parser)
    parser.add_argument("--frames", type=int, default=60, help="measured frames (default: 60)")
    parser.add_argument(
        "--uncounted", type=int, default=3, help="frames before the measured ones (default: 3)"
    )
    parser.add_argument("--input", type=Path, help="a video (default: a moving test picture)")
    parser.add_argument("--prompt", help="style (default: the model's first)")
    parser.add_argument(
        "--weights",
        choices=("files", RANDOM),
        default="files",
        help="random: Stable Diffusion 1.5 and Live2Diff at full size without their files",
    )
    parser.add_argument("--threads", type=int, help="threads on a CPU (default: torch's)")
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="run a checkout of open-mmlab/Live2Diff beside"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _add_varied(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        type=parse_size,
        action="append",
        help="WxH; repeatable (default: the model's size and 256x256)",
    )
    parser.add_argument(
        "--steps", "--n", type=int, action="append", help="denoising steps, 1 to 8; repeatable"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        action="append",
        help="precision; repeatable (default: float32 on a CPU, else float16)",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        action="append",
        help="how the network's step is run; repeatable (default: eager)",
    )


def run(options: argparse.Namespace) -> int:
    """Measure each combination in turn; 1 if one could not run."""
    check_options(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    console, shelf = Console(), Shelf()
    found = environment(parse_device(options.device))
    if not options.json:
        show_environment(found)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for choice in combinations(options):
            runs.append(attempt(choice, shelf, Path(folder)))
            if not options.json and "refused" not in runs[-1]:
                show_run(runs[-1], console)
    if options.json:
        print(json.dumps({"environment": found, "runs": runs}, indent=2))
    elif len(runs) > 1:
        show_summary(runs, console)
    return REFUSED if any("refused" in run for run in runs) else 0


def attempt(choice: argparse.Namespace, shelf: Shelf, folder: Path) -> dict[str, Any]:
    """Figures of a combination, or why it cannot run, which is said on standard error, too."""
    try:
        return one(choice, shelf, folder)
    except FAILURES as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        refused = f"{type(error).__name__}: {reason}"
        print(f"live2diff: {refused}", file=sys.stderr)
        return asked(choice) | {"refused": refused}


def one(choice: argparse.Namespace, shelf: Shelf, folder: Path) -> dict[str, Any]:
    """Figures of a combination. Raises whatever cannot run raises."""
    model, rates = shelf.take(choice)
    size = choice.size or (model.defaults.width, model.defaults.height)
    config = stream_config(choice, model, size)
    check_memory(model, config)
    job = Job(
        model=model,
        config=config,
        prompt=prompt_for(choice, model),
        video=choice.input,
        folder=folder,
        frames=choice.frames,
        uncounted=choice.uncounted,
    )
    if choice.input is None:
        job = replace(job, video=moving_disc(folder, size, job.needed))
    beside = {}
    if choice.against is not None:  # first, as it may refuse the model
        beside["against"] = compare(job, choice.against)
    figures = measure(job, rates, not choice.json)
    return described(job) | {"weights": choice.weights} | figures | beside


def asked(choice: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, where nothing could be measured."""
    return {
        "size": "x".join(map(str, choice.size)) if choice.size else "the model's size",
        "steps": choice.steps or "the model's",
        "dtype": choice.dtype or "usual precision",
        "device": choice.device or "usual device",
        "runtime": choice.runtime,
    }


def described(job: Job) -> dict[str, Any]:
    """What is measured."""
    config = job.config
    return {
        "model": job.model.name,
        "size": config.size_text,
        "steps": len(config.steps.indices),
        "noise": config.noise,
        "device": str(job.device),
        "dtype": str(job.model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "runtime": config.runtime.mode,
        "attention": config.runtime.attention,
        "overlap": config.runtime.overlap,
        "cache": config.cache,
        "depth_every": config.depth_every,
    }
