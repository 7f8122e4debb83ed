"""live2diff plan: the memory that a model and a stream take, and whether a device has it."""

import argparse
import json
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..config import RUNTIMES, RuntimeConfig
from ..errors import ConfigError
from ..stream.runtime import check_runtime
from ..weights.budget import (
    AUTOENCODERS,
    Footprint,
    StreamSize,
    in_gb,
    model_footprint,
    sd15_footprint,
)
from ..weights.bundled import load_bundled
from ..weights.plan import PARTS, figures, heading, make_plan, verdict
from ..weights.spec import LoraSpec, ModelSpec
from .options import DTYPES, Commands, parse_device, parse_dtype, parse_size

TOO_LARGE = 1


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "plan",
        help="tell how much memory a stream needs",
        description="Tell how much memory a model and a stream need and whether they fit, without "
        "loading anything.",
    )
    parser.add_argument(
        "--model",
        choices=("sd15", "bundled"),
        default="sd15",
        help="Stable Diffusion 1.5 with Live2Diff's motion weights (default), or the bundled model",
    )
    parser.add_argument("--size", type=parse_size, help="WxH (default: the model's)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
    parser.add_argument(
        "--guidance", choices=("none", "self", "full"), default="none", help="full doubles the rows"
    )
    parser.add_argument(
        "--cache", choices=("network", "float8"), default="network", help="float8 halves it or more"
    )
    parser.add_argument(
        "--runtime", choices=RUNTIMES, default="eager", help="how the networks are run"
    )
    parser.add_argument("--vae", choices=AUTOENCODERS, help="autoencoder (default: taesd)")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="FILE", help="a LoRA; repeatable"
    )
    parser.add_argument("--device", help="torch device (default: an accelerator, else the CPU)")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="precision (default: float32 on a CPU, else float16)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the plan; 1 if it does not fit."""
    device = parse_device(options.device)
    dtype = parse_dtype(options.dtype, device)
    check_runtime(RuntimeConfig(options.runtime), device, dtype)
    model, stream = _asked(options, dtype)
    plan = make_plan(model, stream, device)
    if options.json:
        print(json.dumps(plan, indent=2))
    else:
        _print(plan)
    return 0 if plan["fits"] else TOO_LARGE


def _asked(options: argparse.Namespace, dtype: torch.dtype) -> tuple[Footprint, StreamSize]:
    if options.model == "bundled":
        if options.vae or options.lora:
            raise ConfigError("--vae and --lora are for sd15: leave them out with --model bundled")
        loaded = load_bundled(dtype=dtype)
        model, default = model_footprint(loaded), loaded.defaults
        size, steps = (default.width, default.height), default.steps
    else:
        spec = ModelSpec()
        loras = [spec.find(LoraSpec.parse(name).file, "lora") for name in options.lora]
        model = sd15_footprint(dtype, options.vae or spec.autoencoder, loras)
        size, steps = (spec.width, spec.height), spec.steps
    width, height = options.size or size
    count = len(steps.indices) if options.steps is None else options.steps
    branches = 2 if options.guidance == "full" else 1
    runtime = RuntimeConfig(options.runtime)
    return model, StreamSize(width, height, count, branches, cache=options.cache, runtime=runtime)


def _print(plan: dict[str, Any]) -> None:
    table = Table(title=heading(plan))
    table.add_column("memory")
    table.add_column("", justify="right")
    for label, count in figures(plan):
        table.add_row(label, in_gb(count), end_section=label == PARTS["runtime"])
    Console().print(table)
    print("\n".join(verdict(plan)))
