"""live2diff translate: a video file to a video file, frame by frame."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError, SinkError
from ..live.sink import VideoFileSink
from ..live.source import VideoFile
from ..models.text import blend
from ..models.translator import TranslationModel
from ..stream.overlap import landed
from ..stream.session import Session
from ..stream.timeline import EncodedTimeline, Travel, encode_timeline, parse_timeline
from ..stream.translate import translate
from ..weights.styles import find_style
from .options import (
    Commands,
    add_model_options,
    add_overlap_option,
    add_stream_options,
    check_memory,
    load_model,
    parse_size,
    size_for,
    stream_config,
)
from .progress import progress_bar
from .report import write_json


@dataclass(slots=True)
class Run:
    """What a translation did."""

    session: Session
    travel: Travel | None = None
    frames_out: int = 0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames a second, decoding and encoding of the files included."""
        return self.frames_out / self.seconds if self.seconds else 0.0


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "translate", help="translate a video file", description="Translate a video file."
    )
    parser.add_argument("input", type=Path, help="any video that FFmpeg reads")
    parser.add_argument("output", type=Path, help=".mp4, .mkv or .webm")
    parser.add_argument("--prompt", help="what to see; names the style of the bundled model")
    parser.add_argument("--blend", metavar="PROMPT", help="a second prompt to blend with")
    parser.add_argument(
        "--blend-weight", type=float, default=0.5, help="0 is the prompt, 1 the second one"
    )
    parser.add_argument(
        "--timeline",
        metavar="TEXT",
        help="prompts over time, in frames or seconds: '0s: ink; 4s: neon'",
    )
    parser.add_argument(
        "--size", type=parse_size, help="WxH of the output (default: near the model's)"
    )
    parser.add_argument("--frames", type=int, help="stop after this many frames")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="write figures there")
    parser.add_argument("--no-audio", action="store_true", help="leave the sound out")
    add_model_options(parser)
    add_stream_options(parser)
    add_overlap_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Translate one file; a report is written even if the run breaks off."""
    if options.report is not None and not options.report.parent.is_dir():
        raise SinkError(f"the folder {options.report.parent} of the report does not exist")
    template = _template(options)
    model = load_model(options)
    with VideoFile(options.input, options.frames) as source:
        size = options.size or size_for(source.info.width, source.info.height, model)
        config = stream_config(options, model, size)
        check_memory(model, config)
        timeline = _timeline(options, model, template)
        prompt = timeline.at(0, 0.0) if timeline else _prompt(options, model, template)
        with Session(model, config, prompt) as session:
            result = Run(session, Travel(session, timeline) if timeline else None)
            try:
                _translate(options, source, result)
            finally:
                if options.report is not None:
                    write_json(options.report, report(options, model, result))
    print(f"{options.output}: {result.frames_out} frames, {result.fps:.1f} frames/s")
    return 0


def _translate(options: argparse.Namespace, source: VideoFile, result: Run) -> None:
    config = result.session.config
    before = result.travel.before if result.travel else None
    sink = VideoFileSink(
        options.output,
        (config.width, config.height),
        source.info.rate,
        source.info,
        audio=not options.no_audio,
    )
    start = time.perf_counter()
    with sink, progress_bar(options.input.name, source.info.frames) as advance:
        for frame in landed(translate(result.session, source, before)):
            sink.write(frame)
            result.frames_out += 1
            result.seconds = time.perf_counter() - start
            advance(result.frames_out, _note(result))


def _note(result: Run) -> str:
    latency = result.session.stats.latency_ms.p50 or 0
    return f"{result.fps:.1f} frames/s, latency {latency:.0f} ms"


def _template(options: argparse.Namespace) -> Callable[[str], str]:
    """What makes a prompt of words. Raises ConfigError where no words were given."""
    given = [options.prompt, options.timeline]
    if options.style is None and given == [None, None]:
        raise ConfigError("say what to see: --prompt, or --timeline, or a --style")
    if None not in given:
        raise ConfigError("a --timeline names all prompts itself: leave --prompt out")
    if options.timeline is not None and options.blend is not None:
        raise ConfigError("a --timeline names all prompts itself: leave --blend out")
    return str if options.style is None else find_style(options.style).prompt


def _timeline(
    options: argparse.Namespace, model: TranslationModel, template: Callable[[str], str]
) -> EncodedTimeline | None:
    if options.timeline is None:
        return None
    timeline = parse_timeline(options.timeline)
    keys = tuple((time, template(words)) for time, words in timeline.keys)
    return encode_timeline(model.text, replace(timeline, keys=keys))


def _prompt(
    options: argparse.Namespace, model: TranslationModel, template: Callable[[str], str]
) -> str | Tensor:
    prompt = template(options.prompt or "")
    if options.blend is None:
        return prompt
    first, second = model.text.align(
        *(model.text.encode(p) for p in (prompt, template(options.blend)))
    )
    return blend(first, second, options.blend_weight)


def report(options: argparse.Namespace, model: TranslationModel, result: Run) -> dict[str, Any]:
    """Figures of a run, for JSON."""
    config, stats = result.session.config, result.session.stats
    return {
        "frames_in": stats.frames_in,
        "frames_out": result.frames_out,
        "fps": result.fps,
        "latency_ms": {"p50": stats.latency_ms.p50, "p95": stats.latency_ms.p95},
        "steps": len(config.steps.indices),
        "t_index": list(config.steps.indices),
        "size": config.size_text,
        "seed": config.seed,
        "noise": config.noise,
        "model": model.name,
        "prompt": options.prompt,
        "blend": options.blend,
        "timeline": options.timeline,
        "style": options.style,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "padded": max(0, config.window.sinks - stats.frames_in) if stats.frames_in else 0,
    }
