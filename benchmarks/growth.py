"""Time of a frame over denoising steps, pixels and sessions: docs/growth.svg and docs/growth.json.

The bundled model, and with --full one of full size with random weights (7 GB on a CPU). From pixels
to pixels, without files; of sessions the time in which every one of them gets a frame.

    python benchmarks/growth.py [--full] [--frames 20] [--threads N] [--device D] [--output FOLDER]
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot
from matplotlib.ticker import LogLocator
from torch import Tensor

from live2diff_core.cli.bench.floor import settle
from live2diff_core.cli.bench.machine import environment
from live2diff_core.cli.options import parse_device, parse_dtype
from live2diff_core.config import StepSelection, StreamConfig
from live2diff_core.frames import Frame
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.session import Session
from live2diff_core.stream.spec import Stopwatch
from live2diff_core.weights.budget import StreamSize
from live2diff_core.weights.model import load_model
from live2diff_core.weights.random import random_model, random_text, sd15
from live2diff_core.weights.spec import ModelSpec

DOCS = Path(__file__).resolve().parent.parent / "docs"
UNCOUNTED = 2  # frames beyond those that fill the rows
RATE = 25


@dataclass(frozen=True)
class Subject:
    """A model and how far it is driven; side: of the frames while other things grow."""

    name: str
    model: TranslationModel
    prompt: str | Tensor
    side: int
    steps: Sequence[int]
    sides: Sequence[int]
    sessions: Sequence[int]


def bundled(device: torch.device, dtype: torch.dtype) -> Subject:
    """The bundled model."""
    model = load_model(ModelSpec(), device, dtype)
    prompt, sides = next(iter(model.text.styles)), (128, 192, 256, 384)
    return Subject("bundled", model, prompt, 128, range(1, 9), sides, range(1, 5))


def full(device: torch.device, dtype: torch.dtype) -> Subject:
    """Full size with random weights; on a CPU the smaller half of the bundled model's ways."""
    sides = (128, 192, 256) if device.type == "cpu" else (256, 384, 512, 768, 1024)
    steps = range(1, 5) if device.type == "cpu" else range(1, 9)
    make = partial(sd15, full_autoencoder=False, structure=False)
    largest = StreamSize(sides[-1], sides[-1], 1)
    model = random_model(make, largest, device, dtype)
    sessions = range(1, 3) if device.type == "cpu" else range(1, 5)
    return Subject("full size", model, random_text(model), sides[0], steps, sides, sessions)


def frame_time(
    subject: Subject, side: int, steps: int, sessions: int, frames: int
) -> dict[str, float]:
    """Milliseconds in which every session gets one frame, p50 and p95."""
    config = StreamConfig(side, side, StepSelection(strength=0.8, steps=steps))
    device, watch = subject.model.device, Stopwatch(time.perf_counter)
    with ExitStack() as opened:
        streams = [
            opened.enter_context(Session(subject.model, config, subject.prompt))
            for _ in range(sessions)
        ]
        pictures = moving(side)
        for stream in streams:
            stream.warmup([next(pictures) for _ in range(config.window.sinks)])
        for index in range(steps + UNCOUNTED + frames):
            frame = next(pictures)
            settle(device)
            started = watch.clock()
            for stream in streams:
                stream.push([frame])
            settle(device)
            if index >= steps + UNCOUNTED:
                watch.add("frame", watch.clock() - started)
    found = watch.percentiles("frame")
    return {"p50_ms": found.p50 or math.nan, "p95_ms": found.p95 or math.nan}


def moving(side: int) -> Iterator[Frame]:
    """A gradient that moves by a pixel a frame."""
    picture = torch.linspace(0, 1, side).expand(3, side, side)
    for index in range(sys.maxsize):
        yield Frame(picture.roll(index, -1), index, index / RATE)


def measure(subject: Subject, frames: int) -> dict[str, list[dict[str, float]]]:
    """All curves of a model, by what grows."""
    ways = {
        "steps": [(subject.side, n, 1) for n in subject.steps],
        "pixels": [(side, 1, 1) for side in subject.sides],
        "sessions": [(subject.side, 1, count) for count in subject.sessions],
    }
    curves: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for name, points in ways.items():
        for side, steps, sessions in points:
            x = {"steps": steps, "pixels": side * side, "sessions": sessions}[name]
            point = {"x": x, "side": side} | frame_time(subject, side, steps, sessions, frames)
            curves[name].append(point)
            print(f"{subject.name}, {name} {x}: {point['p50_ms']:.1f} ms", file=sys.stderr)
    return curves


def draw(curves: dict[str, dict[str, list[dict[str, float]]]], path: Path) -> None:
    """A panel for each thing that grows, a curve for each model; all axes are logarithmic."""
    titles = {
        "steps": ("Denoising steps", "steps, N"),
        "pixels": ("Pixels, N = 1", "side of a square picture, pixels"),
        "sessions": ("Sessions on one model, N = 1", "sessions, in turn"),
    }
    figure, panels = pyplot.subplots(1, len(titles), figsize=(10, 3.4), sharey=True)
    for panel, (name, (title, label)) in zip(panels, titles.items(), strict=True):
        at = "side" if name == "pixels" else "x"
        for model, grown in curves.items():
            points = [(point[at], point["p50_ms"]) for point in grown[name]]
            panel.loglog(*zip(*points, strict=True), marker="o", label=model)
        ticks = sorted({point[at] for grown in curves.values() for point in grown[name]})
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set(title=title, xlabel=label)
        panel.minorticks_off()
        panel.grid(alpha=0.4)
    panels[0].set_ylabel("ms a frame (p50)")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    """Measure, write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="a model of full size, too")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--output", type=Path, default=DOCS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    matplotlib.use("svg")  # needs no window
    device = parse_device(options.device)
    dtype = parse_dtype(options.dtype, device)
    curves = {}
    for make in (bundled, full)[: 1 + options.full]:
        subject = make(device, dtype)
        curves[subject.name] = measure(subject, options.frames)
    named = {"dtype": str(dtype).removeprefix("torch."), "frames": options.frames}
    figures = {"environment": environment(device)} | named | {"curves": curves}
    (options.output / "growth.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    draw(curves, options.output / "growth.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
