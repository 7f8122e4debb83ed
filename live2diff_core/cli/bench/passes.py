"""A session's way through a video, from file to file, with what it took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ...errors import ConfigError
from ...frames import Frame
from ...live.sink import VideoFileSink
from ...live.source import VideoFile
from ...stream.overlap import Landing
from ...stream.session import Session
from ...stream.spec import Percentiles, SessionStats, Stopwatch
from ..progress import Advance
from .job import DeviceClock, Job
from .peak import PeakMemory

READ, WRITE, FRAME = "read", "write", "frame"


@dataclass(frozen=True, slots=True)
class Pass:
    """One way through the video, in seconds. warmup, first: of the warm-up and of the first push.

    counted: of each counted frame. watch: of the same frames, and of reading and writing.
    """

    warmup: float
    first: float
    counted: Sequence[float]
    watch: Stopwatch
    stats: SessionStats

    @property
    def start(self) -> float:
        """Seconds until the stream runs."""
        return self.warmup + self.first

    @property
    def rate(self) -> float:
        """Counted frames a second."""
        return len(self.counted) / sum(self.counted)

    @property
    def stages(self) -> dict[str, Percentiles]:
        """Milliseconds of every stage."""
        files = {name: self.watch.percentiles(name) for name in (READ, WRITE)}
        return files | dict(self.stats.stages_ms)


@dataclass(frozen=True, slots=True)
class Streamed:
    """A session from its opening on: a cold pass, the one that is counted, one that waits for the
    device after every stage (on a CPU the one that is counted), and a change of the prompt.
    """

    opening: float
    cold: Pass
    counted: Pass
    staged: Pass
    reprime: float
    memory: Mapping[str, Any]

    @property
    def first_frame(self) -> float:
        """Seconds until the first frames, which come together."""
        return self.opening + self.cold.warmup

    @property
    def cold_start(self) -> float:
        """Seconds that opening and starting took beyond a second start of the same session."""
        return max(0.0, self.opening + self.cold.start - self.counted.start)


def stream(job: Job, advance: Advance) -> Streamed:
    """Translate the video. Raises ConfigError where it is too short."""
    clock, peak = DeviceClock(job.device), PeakMemory(job.device)
    begun = clock.settled()
    with Session(job.model, job.config, job.prompt, clock) as session:
        opening = clock.settled() - begun
        cold = run_pass(session, job, job.uncounted, clock)
        session.reset()
        staged = counted = run_pass(session, job, job.lead + job.frames, clock, advance)
        if not counted.counted:
            before = job.config.window.sinks + job.lead
            raise ConfigError(f"{job.video} has no frames after the first {before}, which it needs")
        memory = {"kind": peak.kind, "peak": peak.read(), "state": session.spec.state_bytes}
        begun = clock.settled()
        session.update(prompt=job.prompt)
        reprime = clock.settled() - begun
        memory["peak_with_reprime"] = peak.read()
        if job.device.type != "cpu":
            clock.waiting = True
            session.reset()
            staged = run_pass(session, job, job.lead + job.frames, clock)
    return Streamed(opening, cold, counted, staged, reprime, memory)


def run_pass(
    session: Session, job: Job, frames: int, clock: DeviceClock, advance: Advance | None = None
) -> Pass:
    """Warm the session up and push so many frames, or as many as the video has."""
    sinks, size = job.config.window.sinks, (job.config.width, job.config.height)
    watch, seconds, first = Stopwatch(clock), list[float](), 0.0
    with (
        VideoFile(job.video, sinks + frames) as source,
        VideoFileSink(job.folder / "output.mp4", size, source.info.rate) as sink,
    ):
        coming = iter(source)
        opening = list(islice(coming, sinks))
        begun = clock.settled()
        done = session.warmup(opening)
        warmup = clock.settled() - begun
        _write(done, sink, watch)
        begun = clock.settled()
        for taken in _push_all(session, coming, sink, watch):
            first = first or clock.settled() - begun
            seconds.append(taken)
            if advance is not None:
                advance(max(0, len(seconds) - job.lead), f"{1 / taken:.1f} frames/s")
    counted = seconds[job.lead :]
    for taken in counted:
        watch.add(FRAME, taken)
    return Pass(warmup, first, counted, watch, session.stats)


def _push_all(
    session: Session, coming: Iterator[Frame], sink: VideoFileSink, watch: Stopwatch
) -> Iterator[float]:
    """Seconds of each frame: reading it, translating one, writing one."""
    landing = Landing()
    while True:
        begun = watch.clock()
        with watch.measure(READ):
            frame = next(coming, None)
        if frame is None:
            _write(landing.rest(), sink, watch)
            return
        _write(landing.take(session.push([frame])), sink, watch)
        yield watch.clock() - begun


def _write(frames: Sequence[Frame], sink: VideoFileSink, watch: Stopwatch) -> None:
    for frame in frames:
        with watch.measure(WRITE):
            sink.write(frame)
