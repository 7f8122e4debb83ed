"""live2diff metrics: how good translations are, from their files and the input's."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..errors import ConfigError, SinkError
from ..live.source import VideoFile
from ..metrics.charts import Charts, check_charts
from ..metrics.clip import Clip, load_clip_model
from ..metrics.figures import Figures, LeftOut, Report
from ..metrics.flow import DisFlow, Flow
from ..metrics.meter import Meter, MeterConfig, side_by_side
from ..metrics.raft import load_raft
from ..metrics.structure import DepthMaps
from ..metrics.table import HEAD, left_out, markdown, rows
from ..models.depth import StructureMap
from ..weights.depth import load_depth
from ..weights.spec import STRUCTURE, ModelSpec
from .options import Commands, parse_device
from .pictures import save_png
from .progress import progress_bar
from .report import make_folder, write_json

INPUT = "input"


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "metrics",
        help="measure flicker, drift and structure of translated videos",
        description="Measure translated videos against their input; see docs/metrics.md.",
    )
    parser.add_argument("video", type=Path, nargs="?", metavar="OUTPUT", help="a translated video")
    parser.add_argument(
        "--source", type=Path, required=True, metavar="INPUT", help="the video it was made of"
    )
    parser.add_argument(
        "--compare", type=Path, nargs="+", metavar="OUTPUT", help="several outputs side by side"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="write table, JSON and pictures there"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--frames", type=int, help="measure so many frames from the beginning")
    parser.add_argument(
        "--fit",
        choices=("crop", "stretch", "refuse"),
        default="crop",
        help="what happens to videos of another size than the first output's (default: crop)",
    )
    parser.add_argument(
        "--column", type=int, help="column of pixels that the X-t slice shows (default: middle)"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.json", help="of the translation, for its latency"
    )
    _add_models(parser)
    parser.set_defaults(run=run)


def _add_models(parser: argparse.ArgumentParser) -> None:
    models = parser.add_argument_group("models", "none is needed; files as for translate")
    models.add_argument(
        "--flow", choices=("dis", "raft"), default="dis", help="optical flow (default: dis)"
    )
    models.add_argument(
        "--depth", default=STRUCTURE, help="depth model (default: structure, which needs no file)"
    )
    models.add_argument("--clip", type=Path, metavar="FOLDER", help="a CLIPModel of transformers")
    models.add_argument("--prompt", help="what the video was to show, for the CLIP score")
    models.add_argument("--models", type=Path, help="models folder (default: models)")
    models.add_argument(
        "--download", action="store_true", help="fetch from the net what is missing"
    )
    models.add_argument("--device", help="torch device (default: an accelerator, else the CPU)")


def run(options: argparse.Namespace) -> int:
    """Measure; nothing is written before all is measured."""
    _check(options)
    outputs = _named(options.compare or [options.video])
    charts = Charts((INPUT, *outputs), options.column) if options.output else None
    with _torch_threads(options):
        reports = _measure(options, outputs, charts)
    if options.report is not None:
        latency = read_latency(options.report)
        reports = {name: report.with_figures(latency) for name, report in reports.items()}
    figures = _as_json(options, outputs, reports)
    if options.json:
        print(json.dumps(figures, indent=2, allow_nan=False))
    else:
        _show(reports)
    if options.output is not None and charts is not None:
        for path in _write(options.output, figures, reports, charts):
            if not options.json:
                print(path)
    return 0


def _check(options: argparse.Namespace) -> None:
    if (options.video is None) == (options.compare is None):
        raise ConfigError("name one output, or several after --compare")
    if options.report is not None and options.compare and len(options.compare) > 1:
        raise ConfigError("a --report belongs to one translation: leave it out of a comparison")
    if options.prompt is not None and options.clip is None:
        raise ConfigError("a --prompt is compared by CLIP: give --clip, too, or leave it out")
    if options.column is not None and options.output is None:
        raise ConfigError("--column chooses what a picture shows: give --output, too")
    if options.output is not None:
        check_charts()
        make_folder(options.output)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Outputs by the names of their files, or by their paths where those are not enough."""
    if len(set(paths)) < len(paths):
        raise ConfigError("an output is named twice after --compare")
    stems = [path.stem for path in paths]
    unique = len({*stems, INPUT}) == len(stems) + 1
    return {stem if unique else str(path): path for stem, path in zip(stems, paths, strict=True)}


def _measure(
    options: argparse.Namespace, outputs: Mapping[str, Path], charts: Charts | None
) -> dict[str, Report]:
    paths = (options.source, *outputs.values())
    with ExitStack() as opened:
        videos = [opened.enter_context(VideoFile(path, options.frames)) for path in paths]
        info = videos[0].info
        meter = _meter(options, float(info.rate))
        advance = opened.enter_context(progress_bar("metrics", info.frames))
        pixels, names = [_pixels(video) for video in videos], [str(path) for path in paths]
        for done, frames in enumerate(side_by_side(pixels, names), 1):
            moment = meter.update(*frames)
            if charts is not None:
                charts.add(moment)
            advance(done, "")
    return dict(zip(outputs, meter.reports(), strict=True))


@contextmanager
def _torch_threads(options: argparse.Namespace) -> Iterator[None]:
    """One where no network runs: small maps lose more by waiting for a second than they gain, and
    the flow has OpenCV's own.
    """
    threads = torch.get_num_threads()
    if (options.flow, options.depth, options.clip) == (DisFlow.name, STRUCTURE, None):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _pixels(video: VideoFile) -> Iterator[Tensor]:
    return (frame.rgb for frame in video)


def _meter(options: argparse.Namespace, rate: float) -> Meter:
    device = parse_device(options.device)
    spec = ModelSpec(download=options.download)
    if options.models is not None:
        spec = ModelSpec(download=options.download, models=options.models)
    config = MeterConfig(rate=rate, fit=options.fit, prompt=options.prompt)
    clip: Clip | None = load_clip_model(options.clip, device) if options.clip else None
    return Meter(config, _flow(options, spec, device), _depth(options, spec, device), clip)


def _flow(options: argparse.Namespace, spec: ModelSpec, device: torch.device) -> Flow:
    if options.flow == DisFlow.name:
        return DisFlow()
    return load_raft(spec.models, device, spec.download)


def _depth(options: argparse.Namespace, spec: ModelSpec, device: torch.device) -> DepthMaps:
    if options.depth == STRUCTURE:
        return DepthMaps(StructureMap(), torch.device("cpu"))
    network = load_depth(spec.find(options.depth, "depth"), device, torch.float32)
    return DepthMaps(network, device)


def read_latency(path: Path) -> Figures:
    """Latency from what `translate --report` wrote. Raises ConfigError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["latency_ms"]
        times = {name: found[name] for name in ("p50", "p95")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no report of a translation ({error!r}): expected the file that "
            "`live2diff translate --report` writes"
        ) from error
    unknown = LeftOut(f"{path} holds no latency: nothing was translated")
    return {
        f"latency_{name}_ms": unknown if time is None else float(time)
        for name, time in times.items()
    }


def _as_json(
    options: argparse.Namespace, outputs: Mapping[str, Path], reports: Mapping[str, Report]
) -> dict[str, Any]:
    """One output flat, several below `outputs` by their names."""
    how = {"source": str(options.source), "flow": options.flow, "depth": options.depth}
    each = {n: {"output": str(outputs[n]), **report.as_dict()} for n, report in reports.items()}
    return {**how, "outputs": each} if options.compare else {**how, **next(iter(each.values()))}


def _show(reports: Mapping[str, Report]) -> None:
    head, *body = rows(reports)
    table = Table(*head[: len(HEAD)])
    for name in head[len(HEAD) :]:
        table.add_column(name, justify="right", overflow="fold")
    for row in body:
        table.add_row(*row)
    Console(markup=False).print(table)
    for name, report in reports.items():
        print(f"{name}: {report.frames} frames, {report.pairs} pairs, {report.cuts} cuts")
    for line in left_out(reports):
        print(f"left out: {line}")


def _write(
    folder: Path, figures: Mapping[str, object], reports: Mapping[str, Report], charts: Charts
) -> Iterator[Path]:
    """Write all files; gives the path of each."""
    write_json(folder / "metrics.json", figures)
    yield folder / "metrics.json"
    table = folder / "metrics.md"
    try:
        table.write_text(markdown(reports), encoding="utf-8")
    except OSError as error:
        raise SinkError(f"the table {table} cannot be written: {error}") from error
    yield table
    save_png(folder / "xt.png", charts.draw_slices())
    yield folder / "xt.png"
    save_png(folder / "warp_error.png", charts.draw_errors())
    yield folder / "warp_error.png"
