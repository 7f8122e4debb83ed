"""A live stream for hours, or under more input than the engine can take: what grows, what lags.

python benchmarks/soak.py [--minutes 30 | --frames 20000] [--tiny]   memory, threads, descriptors
python benchmarks/soak.py --load 5 [--seconds 60] [--tiny]           latency under 5 times the input
python benchmarks/soak.py --load 0.8                                 time of each stage, unhurried

Exit status 1 where memory grows by more than 1 %, threads or descriptors leak, latency exceeds 3
frame times of the engine, or a frame is not accounted for.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import psutil
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from live2diff_core.cli.options import parse_device  # noqa: E402
from live2diff_core.config import RUNTIMES, RuntimeConfig, StreamConfig  # noqa: E402
from live2diff_core.frames import Frame  # noqa: E402
from live2diff_core.live.relay import Relay  # noqa: E402
from live2diff_core.live.runner import Event, Runner  # noqa: E402
from live2diff_core.live.settings import LiveConfig  # noqa: E402
from live2diff_core.live.source import Source, SourceInfo  # noqa: E402
from live2diff_core.live.statistics import LiveStatistics  # noqa: E402
from live2diff_core.live.ticks import Ticker  # noqa: E402
from live2diff_core.models.translator import TranslationModel  # noqa: E402
from live2diff_core.stream.session import Session  # noqa: E402
from live2diff_core.weights.model import load_model  # noqa: E402
from live2diff_core.weights.spec import ModelSpec  # noqa: E402
from tests.tiny import tiny_model  # noqa: E402

ALLOWED_GROWTH = 0.01
ALLOWED_FRAME_TIMES = 3.0
CALIBRATION_SECONDS = 10.0
ENDING_SECONDS = 1.0  # until the system has ended threads that Python has: those of OpenMP's teams
CALIBRATION_RATE = 500
PICTURES = 48  # of the pattern, shown over and over
# Shares of a run whose memory is compared: caches and pools are filled before the first one.
EARLY, LATE = (0.2, 0.3), (0.9, 1.0)


class Pattern(Source):
    """A disc that goes round on a gradient, at a rate, without an end."""

    def __init__(self, width: int, height: int, rate: Fraction) -> None:
        self._info = SourceInfo(width, height, rate)
        self._pictures = [_picture(width, height, k / PICTURES) for k in range(PICTURES)]
        self._ended = False

    @property
    def info(self) -> SourceInfo:
        return self._info

    def __iter__(self) -> Iterator[Frame]:
        ticker, index = Ticker(self._info.rate), 0
        while not self._ended:
            yield Frame(self._pictures[index % PICTURES], index, ticker.wait())
            index += 1

    def close(self) -> None:
        self._ended = True


def _picture(width: int, height: int, turn: float) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    cx, cy = (0.5 + 0.3 * f(2 * math.pi * turn) for f in (math.cos, math.sin))
    disc = ((x - cx) ** 2 + (y - cy) ** 2 < 0.03).float()
    rgb = torch.stack([x, y, 1 - x]) * (1 - disc) + 0.9 * disc
    return (255 * rgb).to(torch.uint8)


@dataclass(frozen=True, slots=True)
class Sample:
    """The process at one moment."""

    seconds: float
    frames: int
    rss_bytes: int
    threads: int
    descriptors: int


def sample(process: psutil.Process, began: float, frames: int) -> Sample:
    return Sample(
        time.monotonic() - began,
        frames,
        process.memory_info().rss,
        process.num_threads(),
        process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and how its networks are run."""

    model: TranslationModel
    runtime: RuntimeConfig

    @property
    def styles(self) -> list[str]:
        """Prompts that it knows."""
        return list(self.model.text.styles)


def open_runner(subject: Subject, rate: float) -> Runner:
    """A stream of the model's own size and defaults into JPEG pictures."""
    model, styles, defaults = subject.model, subject.styles, subject.model.defaults
    config = StreamConfig(
        defaults.width, defaults.height, defaults.steps, defaults.noise, runtime=subject.runtime
    )
    fraction = Fraction(rate).limit_denominator(1000)
    return Runner(
        lambda: Pattern(defaults.width, defaults.height, fraction),
        lambda: Session(model, config, styles[0]),
        [Relay()],
        LiveConfig(),
        on_event=_tell,
    )


def _tell(event: Event) -> None:
    if event.kind in ("engine failed", "source lost", "sink failed", "crashed"):
        print(f"{event.kind}: {event.text}", file=sys.stderr)


def run(
    subject: Subject,
    rate: float,
    over: Callable[[float, int], float],
    interval: float,
    change: bool,
) -> tuple[LiveStatistics, list[Sample]]:
    """A stream at an input rate, looked at every `interval` seconds.

    over: how much of the run is done, from 0 to 1, after so many seconds and frames. change: switch
    the prompt at every look.
    """
    process, styles = psutil.Process(), subject.styles
    runner = open_runner(subject, rate)
    runner.start()
    samples, began = [], time.monotonic()
    while True:
        ended = runner.wait(interval)
        live = runner.statistics()
        samples.append(sample(process, began, live.frames_out))
        if ended or over(samples[-1].seconds, live.frames_out) >= 1:
            break
        if change:
            runner.control({"prompt": styles[len(samples) % len(styles)]})
    runner.stop()
    return runner.statistics(), samples


def growth(samples: list[Sample], done: Callable[[float, int], float]) -> float:
    """Mean memory late in the run against that early in it."""
    early, late = (
        [s.rss_bytes for s in samples if low <= min(done(s.seconds, s.frames), 1) <= high]
        for low, high in (EARLY, LATE)
    )
    if not early or not late:
        raise SystemExit("the run was too short to compare memory")
    return sum(late) / len(late) / (sum(early) / len(early)) - 1


def leaks(samples: list[Sample], idle: Sample, after: Sample) -> list[str]:
    """What the stream holds more of than at its beginning, and what is left when it has ended."""
    middle, found = samples[len(samples) // 4], []
    for name in ("threads", "descriptors"):
        if getattr(samples[-1], name) > getattr(middle, name):
            found.append(
                f"{name} grew from {getattr(middle, name)} to {getattr(samples[-1], name)}"
            )
        if getattr(after, name) > getattr(idle, name):
            found.append(f"{getattr(after, name) - getattr(idle, name)} {name} are left at the end")
    return found


def check_counts(live: LiveStatistics) -> list[str]:
    if live.frames_in == live.frames_out + live.dropped_total and live.in_flight == 0:
        return []
    return [f"{live.frames_in} in, {live.frames_out} out, {live.dropped_total} dropped"]


def calibrate(subject: Subject) -> float:
    """Frames a second that the engine can do, with more input than it takes."""
    _, samples = run(
        subject, CALIBRATION_RATE, lambda s, _: s / CALIBRATION_SECONDS, 1.0, change=False
    )
    settled = samples[1:]
    frames = settled[-1].frames - settled[0].frames
    print(f"the engine does {frames / (settled[-1].seconds - settled[0].seconds):.1f} frames/s")
    return frames / (settled[-1].seconds - settled[0].seconds)


def soak(options: argparse.Namespace, subject: Subject) -> dict[str, object]:
    """Memory, threads and descriptors over time."""
    fastest = calibrate(subject)
    process = psutil.Process()
    time.sleep(ENDING_SECONDS)
    idle = sample(process, time.monotonic(), 0)

    def done(seconds: float, frames: int) -> float:
        return frames / options.frames if options.frames else seconds / 60 / options.minutes

    live, samples = run(subject, 1.5 * fastest, done, options.interval, change=True)
    time.sleep(ENDING_SECONDS)
    after = sample(process, time.monotonic(), live.frames_out)
    for s in samples[:: max(1, len(samples) // 20)]:
        print(
            f"{s.seconds:7.0f} s {s.frames:7d} frames {s.rss_bytes / 1e6:8.1f} MB "
            f"{s.threads:3d} threads {s.descriptors:3d} descriptors"
        )
    grown = growth(samples, done)
    problems = leaks(samples, idle, after) + check_counts(live)
    if grown > ALLOWED_GROWTH:
        problems.append(f"memory grew by {100 * grown:.2f} %")
    print(
        f"{live.frames_out} frames, {live.reprimes} anchors, {live.scene_cuts} cuts, "
        f"{live.drifts} drifts, {live.resets} resets, {live.failures} failures; memory "
        f"{100 * grown:+.2f} % (allowed: {100 * ALLOWED_GROWTH:.0f} %)"
    )
    print_stages(live)
    return {
        "growth": grown,
        "problems": problems,
        "samples": [asdict(s) for s in samples],
        "statistics": live.as_dict(),
    }


def print_stages(live: LiveStatistics) -> None:
    """Milliseconds by stage, as a table; those of the session are parts of the engine."""
    print("| stage | p50 ms | p95 ms | longest ms |\n| --- | --- | --- | --- |")
    for name, timing in live.stages.items():
        print(f"| {name} | {timing.p50:.1f} | {timing.p95:.1f} | {timing.max:.1f} |")
        if name == "engine":
            for part, figures in live.session_stages.items():
                print(f"| - {part} | {figures.p50:.1f} | {figures.p95:.1f} | |")


def load(options: argparse.Namespace, subject: Subject) -> dict[str, object]:
    """Latency with several times the input that the engine can take."""
    fastest = calibrate(subject)

    def done(seconds: float, _: int) -> float:
        return seconds / options.seconds

    live, samples = run(subject, options.load * fastest, done, options.seconds / 60, change=False)
    rate = live.frames_out / samples[-1].seconds
    total, engine = live.stages["total"], live.stages["engine"]
    frame_times = total.p95 * rate / 1000
    grown = growth(samples, done)
    problems = check_counts(live)
    if options.load > 1 and frame_times > ALLOWED_FRAME_TIMES:
        problems.append(f"latency p95 is {frame_times:.2f} frame times")
    if grown > ALLOWED_GROWTH:
        problems.append(f"memory grew by {100 * grown:.2f} %")
    print(
        f"{live.frames_in / samples[-1].seconds:.1f} frames/s in, {rate:.1f} out: "
        f"{live.frames_in} in = {live.frames_out} out + {live.dropped_total} dropped"
    )
    print_stages(live)
    print(
        f"latency p95 is {frame_times:.2f} frame times of {1000 / rate:.1f} ms (engine p50 "
        f"{engine.p50:.1f} ms; allowed: {ALLOWED_FRAME_TIMES:g}); memory {100 * grown:+.2f} %"
    )
    return {
        "frame_times": frame_times,
        "growth": grown,
        "problems": problems,
        "statistics": live.as_dict(),
    }


def main() -> int:
    """Print figures; 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--frames", type=int, help="end after so many frames instead")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two looks")
    parser.add_argument("--load", type=float, help="input, in multiples of what the engine can do")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of --load")
    parser.add_argument("--tiny", action="store_true", help="the tests' tiny model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--device", help="an accelerator, if there is one, else the CPU")
    parser.add_argument("--runtime", choices=RUNTIMES, default="eager")
    options = parser.parse_args()
    device = parse_device(options.device)
    model = tiny_model() if options.tiny else load_model(ModelSpec(), device)
    subject = Subject(model, RuntimeConfig(options.runtime))
    result = load(options, subject) if options.load else soak(options, subject)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for problem in result["problems"]:
        print(f"NOT AS IT MUST BE: {problem}")
    return int(bool(result["problems"]))


if __name__ == "__main__":
    sys.exit(main())
