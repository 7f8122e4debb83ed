"""What a live stream counts: frames, failures, durations; for JSON and for Prometheus."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from threading import Lock

from ..stream.spec import REMEMBERED, Clock, Percentiles

# Frames a second are counted over this long, in seconds.
WINDOW = 2.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of a stage: how many there were, and of the latest ones the median, the 95th
    percentile (nearest rank) and the longest, in milliseconds.
    """

    count: int
    p50: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True)
class LiveStatistics:
    """A stream at one moment: frames_in = frames_out + all dropped + in_flight, always.

    dropped: by where: "capture" (a newer one came before the engine had time), "rate", "pause",
    "bypass" (in flight when something else was to be shown), "engine" (lost with a failure),
    "output" (sinks too slow), "stop". repeated: shown without the network as the picture stood
    still. stood_in: pictures shown that no frame of the source stands behind. resets: the result
    was not finite. stages: wait (capture to engine), engine, output, and total, from capture to
    written. session_stages: what the session itself measures.
    """

    state: str
    error: str | None
    frames_in: int
    frames_out: int
    in_flight: int
    dropped: Mapping[str, int]
    repeated: int
    stood_in: int
    scene_cuts: int
    drifts: int
    reprimes: int
    resets: int
    failures: int
    reconnects: int
    sinks_failed: int
    fps_in: float
    fps_out: float
    stages: Mapping[str, Timing]
    session_stages: Mapping[str, Percentiles]

    @property
    def dropped_total(self) -> int:
        """Frames that came in and were never shown."""
        return sum(self.dropped.values())

    def as_dict(self) -> dict[str, object]:
        """All of it, for JSON."""
        return asdict(self) | {"dropped_total": self.dropped_total}


class Ledger:
    """Collects from all threads of a stream what `LiveStatistics` shows."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, Lock()
        self._began = clock()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._times: dict[str, deque[float]] = {}
        self._timed: Counter[str] = Counter()
        self._moments = {name: deque[float](maxlen=REMEMBERED) for name in ("in", "out")}
        self._session: Mapping[str, Percentiles] = {}

    def came(self) -> None:
        """A frame came in."""
        with self._lock:
            self._counts["frames_in"] += 1
            self._moments["in"].append(self._clock())

    def dropped(self, where: str, frames: int = 1) -> None:
        """Frames that came in will not be shown."""
        with self._lock:
            self._dropped[where] += frames

    def showed(self, arrived: float) -> None:
        """A frame that came at this time has been written."""
        with self._lock:
            now = self._clock()
            self._counts["frames_out"] += 1
            self._moments["out"].append(now)
            self._time("total", now - arrived)

    def count(self, name: str) -> None:
        """One more of what `LiveStatistics` counts under this name."""
        with self._lock:
            self._counts[name] += 1

    def took(self, stage: str, seconds: float) -> None:
        """A stage took so long."""
        with self._lock:
            self._time(stage, seconds)

    def session_took(self, stages: Mapping[str, Percentiles]) -> None:
        """What the session measures by now."""
        self._session = stages

    def snapshot(self, state: str, error: str | None) -> LiveStatistics:
        """How things stand."""
        with self._lock:
            counts, now = self._counts, self._clock()
            gone = counts["frames_out"] + self._dropped.total()
            return LiveStatistics(
                state=state,
                error=error,
                frames_in=counts["frames_in"],
                frames_out=counts["frames_out"],
                in_flight=counts["frames_in"] - gone,
                dropped=dict(self._dropped),
                repeated=counts["repeated"],
                stood_in=counts["stood_in"],
                scene_cuts=counts["scene_cuts"],
                drifts=counts["drifts"],
                reprimes=counts["reprimes"],
                resets=counts["resets"],
                failures=counts["failures"],
                reconnects=counts["reconnects"],
                sinks_failed=counts["sinks_failed"],
                fps_in=self._rate("in", now),
                fps_out=self._rate("out", now),
                stages={name: self._timing(name) for name in self._times},
                session_stages=self._session,
            )

    def _time(self, stage: str, seconds: float) -> None:
        self._times.setdefault(stage, deque(maxlen=REMEMBERED)).append(seconds)
        self._timed[stage] += 1

    def _timing(self, stage: str) -> Timing:
        ordered = sorted(self._times[stage])
        last = len(ordered) - 1
        p50, p95, longest = (1000 * ordered[round(share * last)] for share in (0.5, 0.95, 1))
        return Timing(self._timed[stage], p50, p95, longest)

    def _rate(self, name: str, now: float) -> float:
        moments = self._moments[name]
        recent = [moment for moment in moments if moment > now - WINDOW]
        full = len(recent) == moments.maxlen
        seconds = now - recent[0] if full else min(WINDOW, now - self._began)
        return len(recent) / seconds if seconds > 0 else 0.0


Samples = Iterable[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class _Metric:
    """One family of samples. read: labels beside the stream's, as `a="b"`, and values."""

    name: str
    kind: str
    help: str
    read: Callable[[LiveStatistics], Samples]


def _counter(name: str, text: str, read: Callable[[LiveStatistics], float]) -> _Metric:
    return _Metric(f"{name}_total", "counter", text, lambda live: [("", read(live))])


def _gauge(name: str, text: str, read: Callable[[LiveStatistics], float]) -> _Metric:
    return _Metric(name, "gauge", text, lambda live: [("", read(live))])


def _dropped(live: LiveStatistics) -> Samples:
    return [(f'where="{where}"', count) for where, count in sorted(live.dropped.items())]


def _stages(live: LiveStatistics) -> Samples:
    for stage, timing in live.stages.items():
        for quantile, value in (("0.5", timing.p50), ("0.95", timing.p95), ("1", timing.max)):
            yield f'stage="{stage}",quantile="{quantile}"', value / 1000


_METRICS = (
    _counter("frames_in", "Frames that came from the source.", lambda live: live.frames_in),
    _counter("frames_out", "Frames that were written to the sinks.", lambda live: live.frames_out),
    _Metric("frames_dropped_total", "counter", "Frames that were never shown.", _dropped),
    _counter("frames_repeated", "Frames of a still picture.", lambda live: live.repeated),
    _counter("stood_in", "Pictures shown without a frame of the source.", lambda s: s.stood_in),
    _counter("scene_cuts", "Scene cuts seen.", lambda live: live.scene_cuts),
    _counter("drifts", "Times that the look drifted.", lambda live: live.drifts),
    _counter("reprimes", "Times that the stream was anchored anew.", lambda live: live.reprimes),
    _counter("resets", "Resets after a result that was not finite.", lambda live: live.resets),
    _counter("failures", "Failures of source or engine.", lambda live: live.failures),
    _counter("reconnects", "Times that source or engine came back.", lambda s: s.reconnects),
    _counter("sinks_failed", "Sinks that were given up.", lambda live: live.sinks_failed),
    _gauge("frames_in_flight", "Frames that are on their way.", lambda live: live.in_flight),
    _gauge("input_frames_per_second", "Rate of the source.", lambda live: live.fps_in),
    _gauge("output_frames_per_second", "Rate of the output.", lambda live: live.fps_out),
    _gauge("failing", "1 while a part has failed.", lambda live: live.state == "failing"),
    _Metric("stage_seconds", "gauge", "Latest durations by stage, 1 is the longest.", _stages),
)


def prometheus(streams: Mapping[str, LiveStatistics]) -> str:
    """All streams by name, in Prometheus' text format (version 0.0.4)."""
    lines = []
    for metric in _METRICS:
        name = f"live2diff_{metric.name}"
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for stream, live in streams.items():
            own = f'stream="{_escape(stream)}"'
            for labels, value in metric.read(live):
                lines.append(f"{name}{{{','.join(filter(None, (own, labels)))}}} {value:.10g}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
