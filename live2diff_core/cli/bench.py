"""live2diff bench: frames a second from file to file, and where the time goes."""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from ..frames import Frame
from ..live.sink import VideoFileSink
from ..live.source import VideoFile
from ..models.translator import TranslationModel
from ..stream.session import Session
from ..stream.spec import Stopwatch
from .options import (
    Commands,
    add_model_options,
    add_stream_options,
    check_memory,
    load_model,
    parse_size,
    stream_config,
)
from .progress import progress_bar

STAGES = {
    "read": "decode the file",
    "encode": "encode the latent",
    "depth": "depth input",
    "network": "network, all steps",
    "decode": "decode the latent",
    "write": "encode the file",
}


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "bench", help="measure speed", description="Measure frames a second from file to file."
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        action="append",
        help="WxH; repeatable (default: the model's size and 256x256)",
    )
    parser.add_argument("--frames", type=int, default=60, help="measured frames (default: 60)")
    parser.add_argument("--input", type=Path, help="a video (default: a moving test picture)")
    parser.add_argument("--prompt", help="style (default: the model's first)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_options(parser)
    add_stream_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure each size in turn."""
    if options.frames < 2:
        raise ConfigError(f"--frames must be at least 2, got {options.frames}")
    model = load_model(options)
    sizes = options.size or [(model.defaults.width, model.defaults.height), (256, 256)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            results.append(measure(options, model, size, Path(folder)))
            if not options.json:
                _print(results[-1])
    if options.json:
        print(json.dumps({"runs": results}, indent=2))
    return 0


def measure(
    options: argparse.Namespace, model: TranslationModel, size: tuple[int, int], folder: Path
) -> dict[str, Any]:
    """Figures of one size: the whole rate after the warm-up, p50 and p95 of every stage."""
    config = stream_config(options, model, size)
    check_memory(model, config)
    prompt = options.prompt or next(iter(model.text.styles), "")
    path = options.input or _test_video(folder, size, options.frames + config.window.sinks)
    watch = Stopwatch(time.perf_counter)
    with (
        VideoFile(path, options.frames + config.window.sinks) as source,
        Session(model, config, prompt) as session,
        VideoFileSink(folder / f"{config.size_text}.mp4", size, source.info.rate) as sink,
        progress_bar(config.size_text, options.frames, not options.json) as advance,
    ):
        frames = iter(source)
        opened = time.perf_counter()
        warm = session.warmup(list(islice(frames, config.window.sinks)))
        first_frame = time.perf_counter() - opened
        for frame in warm:
            sink.write(frame)
        start, count = time.perf_counter(), 0
        while (frame_in := _read(frames, watch)) is not None:
            _write(sink, session.push([frame_in]), watch)
            count += 1
            advance(count, f"{count / (time.perf_counter() - start):.1f} frames/s")
        if count == 0:
            raise ConfigError(
                f"{path} has no frames after the {config.window.sinks} of the warm-up"
            )
        _write(sink, session.flush(), watch)
        seconds = time.perf_counter() - start
        stages = {name: watch.percentiles(name) for name in ("read", "write")}
        stages |= session.stats.stages_ms
        return {
            "model": model.name,
            "size": config.size_text,
            "steps": len(config.steps.indices),
            "noise": config.noise,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "frames": count,
            "fps": count / seconds,
            "warmup_ms": 1000 * first_frame,
            "latency_ms": asdict(session.stats.latency_ms),
            "stages_ms": {name: asdict(value) for name, value in stages.items()},
            "state_bytes": session.spec.state_bytes,
        }


def _read(frames: Iterator[Frame], watch: Stopwatch) -> Frame | None:
    with watch.measure("read"):
        return next(frames, None)


def _write(sink: VideoFileSink, frames: Sequence[Frame], watch: Stopwatch) -> None:
    for frame in frames:
        with watch.measure("write"):
            sink.write(frame)


def _test_video(folder: Path, size: tuple[int, int], frames: int) -> Path:
    """A disc that moves over a gradient, as a file: the same work for every machine."""
    width, height = size
    path = folder / f"input_{width}x{height}.mp4"
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    with VideoFileSink(path, size, Fraction(25)) as sink:
        for index in range(frames):
            centre = 0.2 + 0.6 * index / frames
            disc = ((x - centre) ** 2 + (y - 0.5) ** 2 < 0.04).float()
            rgb = torch.stack([x, y, 1 - x]) * (1 - disc) + disc * 0.9
            sink.write(Frame(rgb, index, index / 25))
    return path


def _print(result: dict[str, Any]) -> None:
    table = Table(
        title=f"{result['size']}, {result['steps']} steps, {result['dtype']} on "
        f"{result['device']}: {result['fps']:.1f} frames/s"
    )
    table.add_column("stage")
    table.add_column("p50 ms", justify="right")
    table.add_column("p95 ms", justify="right")
    for name, label in STAGES.items():
        times = result["stages_ms"][name]
        table.add_row(label, f"{times['p50']:.1f}", f"{times['p95']:.1f}")
    latency = result["latency_ms"]
    table.add_row("latency", f"{latency['p50']:.1f}", f"{latency['p95']:.1f}")
    Console().print(table)
    print(f"warm-up {result['warmup_ms']:.0f} ms, state {result['state_bytes'] / 1e6:.1f} MB")
