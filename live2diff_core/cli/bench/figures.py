"""Figures of one combination, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ...stream.spec import Percentiles
from ..progress import progress_bar
from .floor import Rates, Work, floor
from .job import Job, read_clip
from .passes import FRAME, Streamed, stream
from .split import Split, measure_split

SPLIT_FRAMES = 6  # of the pass with hooks
Figures = dict[str, Any]


def measure(job: Job, rates: Rates, show: bool) -> Figures:
    """All figures: times in milliseconds, memory in bytes. show: a progress bar."""
    with progress_bar(job.config.size_text, job.frames, show) as advance:
        streamed = stream(job, advance)
    split = measure_split(job, read_clip(job.video, job.config.window.sinks + SPLIT_FRAMES))
    eager = job.config.runtime.mode == "eager"
    return {
        "frames": len(streamed.counted.counted),
        "fps": streamed.counted.rate,
        "frame_ms": asdict(streamed.counted.watch.percentiles(FRAME)),
        "latency_ms": asdict(streamed.staged.stats.latency_ms),
        "stages_ms": stages(streamed.staged.stages, split.temporal_share),
        "eager_pass": {"ms": dict(split.ms), "flops": dict(split.flops)},
        "floor": floors(job, streamed, split, rates),
        "memory": dict(streamed.memory),
        "first_frame_ms": 1000 * streamed.first_frame,
        "compile_ms": None if eager else 1000 * streamed.cold_start,
        "reprime_ms": 1000 * streamed.reprime,
    }


def stages(measured: Mapping[str, Percentiles], temporal_share: float) -> Figures:
    """p50 and p95 of every stage; the network's parts are its own times by the share."""
    found = {name: asdict(times) for name, times in measured.items()}
    network = found["network"]
    for part, share in (("spatial", 1 - temporal_share), ("temporal", temporal_share)):
        found[part] = {name: share * value for name, value in network.items()}
    return found


def floors(job: Job, streamed: Streamed, split: Split, rates: Rates) -> Figures:
    """The least time of the network and of its temporal attention, and what they take."""
    state = streamed.memory["state"]
    moved = state + state // job.config.window.slots  # read once, and one slot of it written
    taken = {
        "network": streamed.staged.stages["network"].p50,
        "attention": split.ms["attention"],
    }
    found: Figures = {"matmul_tflops": rates.flops / 1e12, "copy_gb_s": rates.bytes / 1e9}
    for part, milliseconds in taken.items():
        assert milliseconds is not None
        found[part] = _row(
            Work(split.flops[part], split.weights[part] + moved), rates, milliseconds
        )
    return found


def _row(work: Work, rates: Rates, taken: float) -> Figures:
    least = floor(work, rates)
    compared = {"ms": least.ms, "taken_ms": taken, "ratio": taken / least.ms}
    return asdict(work) | asdict(least) | compared
