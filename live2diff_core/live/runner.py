"""A live stream: capture, engine and output on threads of their own, the newest frame first."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event as Flag
from threading import Lock, Thread
from typing import Literal, Protocol, runtime_checkable

from ..errors import SourceError, StreamClosed
from ..frames import Frame
from ..memory import give_back
from ..stream.session import Session
from ..stream.spec import Clock
from .controls import Answer
from .engine import Engine, Timed
from .failover import Backoff, caught, describe
from .guards import Drift, SceneCut, Similarity, is_finite
from .keeper import Guards, Keeper
from .latest import Latest
from .settings import LiveConfig
from .sink import Sink
from .source import Source
from .statistics import Ledger, LiveStatistics
from .teams import compute_alone, release_team
from .timing import Steady

State = Literal["starting", "running", "paused", "failing", "stopped"]

# Results that wait for the sinks: what one push gave, at most so often.
OUTPUT_SIZE = 2
# Of real time, in seconds: how often a thread looks up that waits for the stream's clock.
LOOK_UP, LOOK_UP_LOST = 0.1, 0.01


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a stream.

    kind: "source lost", "source back", "source ended", "engine failed", "engine back", "change
    failed", "changed", "scene cut", "drift", "reset", "sink failed", "crashed", "stopped". time: in
    seconds since the runner was made. frame: index of the frame that it concerns.
    """

    kind: str
    text: str
    time: float
    error: Exception | None = None
    frame: int | None = None


@runtime_checkable
class Endable(Protocol):
    """A source whose iteration another thread may end."""

    def end(self) -> None:
        """Nothing more will come."""
        ...


def ignore(_: Event) -> None:
    """Events that nobody waits for."""


class Runner:
    """Runs a source through a session into sinks until the source ends or stop() is called.

    open_source, open_session: called at the start and again after a failure; a source that ends by
    itself ends the stream. sinks: closed at the end; one that fails is closed and left out.
    on_event: called on the stream's threads; it must be quick and must not call back. Every other
    method may be called from any thread.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        open_session: Callable[[], Session],
        sinks: Sequence[Sink],
        config: LiveConfig,
        clock: Clock = time.monotonic,
        on_event: Callable[[Event], None] = ignore,
    ) -> None:
        self._open_source, self._sinks, self._config = open_source, list(sinks), config
        self._clock, self._on_event = Steady(clock), on_event
        self._ledger = Ledger(self._clock)
        guards = Guards(
            cut=SceneCut() if config.scene_cuts else None,
            drift=Drift() if config.drift else None,
            still=Similarity,
            is_finite=is_finite,
        )
        self._keeper = Keeper(open_session, config, guards, self._ledger, self._report)
        self._engine = Engine(self._keeper, config, guards, self._ledger)
        self._inbox: Latest[Timed] = Latest(1)
        self._outbox: Latest[list[Timed]] = Latest(OUTPUT_SIZE)
        self._requests: deque[tuple[Mapping[str, object], Future[Answer]]] = deque()
        self._door, self._open = Lock(), False  # for requests
        self._source: Source | None = None
        self._retries = Backoff(config.first_retry, config.longest_retry)
        self._lost: Exception | None = None
        self._crash: Exception | None = None
        self._heard = 0.0  # when the last frame came
        self._stopping, self._shown, self._over = Flag(), Flag(), Flag()
        self._threads = [
            Thread(target=self._run, args=(work, end), name=f"live2diff {name}", daemon=True)
            for name, work, end in (
                ("capture", self._capture, self._inbox.close),
                ("engine", self._translate, self._end_engine),
                ("output", self._output, self._end_output),
            )
        ]

    # ---- from outside

    def start(self) -> None:
        """Begin. Raises RuntimeError the second time."""
        release_team()  # the engine has a thread of its own
        self._open, self._heard = True, self._clock()
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End, and wait for the end, for so many seconds of real time at most.

        Frames in flight are dropped, those that are finished are written. Source, session and sinks
        are closed. Raises StreamClosed where a source, engine or sink keeps its thread for longer.
        """
        self._stopping.set()
        self._inbox.close()
        source = self._source
        if isinstance(source, Endable):
            source.end()
        if self._threads[0].ident is None:
            self._close_sinks()
            self._over.set()
            return
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        busy = ", ".join(thread.name for thread in self._threads if thread.is_alive())
        if busy:
            raise StreamClosed(f"the stream is stopped, but after {timeout:g} s {busy} is busy")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the stream, seconds of real time; whether it has come."""
        return self._over.wait(timeout)

    def control(self, changes: Mapping[str, object]) -> Answer:
        """Change parameters between two frames, and wait for it. Raises StreamClosed."""
        answer: Future[Answer] = Future()
        with self._door:
            if not self._open:
                raise StreamClosed("this stream does not run: start another")
            self._requests.append((dict(changes), answer))
        self._inbox.poke()
        return answer.result()

    def statistics(self) -> LiveStatistics:
        """How the stream does."""
        error = self.error
        return self._ledger.snapshot(self.state, None if error is None else describe(error))

    @property
    def state(self) -> State:
        """What the stream does."""
        if self._over.is_set():
            return "stopped"
        if self.error is not None:
            return "failing"
        if self._keeper.live.pause:
            return "paused"
        return "running" if self._shown.is_set() else "starting"

    @property
    def error(self) -> Exception | None:
        """Why the stream fails now, or why it ended before its time."""
        return self._crash or self._lost or self._keeper.error

    # ---- the way of a frame: capture, engine, output

    def _capture(self) -> None:
        """The source, opened again whenever it fails, until it ends."""
        compute_alone()
        while not self._stopping.is_set():
            errors: list[Exception] = []
            with caught(errors):
                self._read()
            self._close_source()
            if not errors:
                break
            self._lose(errors[0])
            self._wait_until(self._clock() + self._retries.next())
        if not self._stopping.is_set():
            self._report("source ended", "the source has ended")

    def _read(self) -> None:
        self._source = self._open_source()
        if self._stopping.is_set():
            return
        for frame in self._source:
            self._admit(frame)
            if self._stopping.is_set():
                return

    def _admit(self, frame: Frame) -> None:
        """A frame comes in; one that waits for the engine makes way for it."""
        if frame.rgb.ndim != 3 or frame.rgb.shape[0] != 3:
            raise SourceError(f"expected frames (3, h, w) of a source, got {frame.rgb.shape}")
        self._heard = self._clock()
        self._ledger.came()
        if self._inbox.put(Timed(frame, self._heard)) is not None:
            self._ledger.dropped("capture")
        if self._lost is not None:
            self._find()

    def _translate(self) -> None:
        """The newest frame through the engine; between two frames, what was asked for."""
        self._keeper.ready(self._clock())
        while not (self._inbox.finished or self._stopping.is_set()):
            came = self._inbox.take(LOOK_UP if self._lost is None else LOOK_UP_LOST)
            self._answer()
            self._show(self._fill() if came is None else self._through(came))
        if not self._stopping.is_set():
            self._show(self._engine.drain(self._clock()))

    def _through(self, came: Timed) -> list[Timed]:
        now = self._clock()
        if came.arrived is not None:
            self._ledger.took("wait", now - came.arrived)
        shown = self._engine.take(came, now)
        if shown and came.arrived is not None:
            self._ledger.took("engine", self._clock() - now)
        return shown

    def _show(self, shown: list[Timed]) -> None:
        """Leave pictures to the output; where it is too slow, those that wait longest go."""
        gone = self._outbox.put(shown) if shown else None
        frames = sum(timed.arrived is not None for timed in gone or ())
        if frames:
            self._ledger.dropped("output", frames)

    def _output(self) -> None:
        """Every picture to every sink."""
        compute_alone()
        while not self._outbox.finished:
            for timed in self._outbox.take() or ():
                self._write(timed)

    def _write(self, timed: Timed) -> None:
        began = self._clock()
        for sink in tuple(self._sinks):
            errors: list[Exception] = []
            with caught(errors):
                sink.write(timed.frame)
            if errors:
                self._give_up(sink, errors[0])
        self._ledger.took("output", self._clock() - began)
        if timed.arrived is not None:
            self._ledger.showed(timed.arrived)
        self._shown.set()

    # ---- a source that is lost

    def _fill(self) -> list[Timed]:
        """What is shown while no frame comes."""
        now = self._clock()
        if self._lost is None and now - self._heard > self._config.silence:
            self._lose(
                SourceError(
                    f"expected frames from the source, none came for {self._config.silence:g} s: "
                    "check that it sends"
                )
            )
        if self._lost is None:
            return self._engine.fill(None, now)
        return self._engine.drain(now) or self._engine.fill(self._lost, now)

    def _lose(self, error: Exception) -> None:
        if self._lost is None:
            self._ledger.count("failures")
            self._report("source lost", describe(error), error)
        self._lost = error

    def _find(self) -> None:
        self._lost = None
        self._retries.reset()
        self._ledger.count("reconnects")
        self._report("source back", "frames come again")

    def _wait_until(self, due: float) -> None:
        while self._clock() < due and not self._stopping.wait(LOOK_UP_LOST):
            pass

    def _close_source(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            with caught([]):
                source.close()

    # ---- sinks that fail

    def _give_up(self, sink: Sink, error: Exception) -> None:
        """Close a sink and go on without it."""
        self._sinks.remove(sink)
        self._ledger.count("sinks_failed")
        self._report("sink failed", describe(error), error)
        with caught([]):
            sink.close()

    def _close_sinks(self) -> None:
        for sink in self._sinks:
            errors: list[Exception] = []
            with caught(errors):
                sink.close()
            if errors:
                self._ledger.count("sinks_failed")
                self._report("sink failed", describe(errors[0]), errors[0])
        self._sinks.clear()

    # ---- requests and ends

    def _answer(self) -> None:
        while self._requests:
            changes, answer = self._requests[0]
            answer.set_result(self._engine.control(changes, self._clock()))
            self._requests.popleft()

    def _run(self, work: Callable[[], None], end: Callable[[], None]) -> None:
        """A thread. What our own code raises ends the stream, and is told."""
        errors: list[Exception] = []
        with caught(errors):
            work()
        if errors:
            self._crash = errors[0]
            self._stopping.set()
            self._report("crashed", describe(errors[0]), errors[0])
        end()

    def _end_engine(self) -> None:
        """Nothing more comes, goes out or is answered."""
        with self._door:
            self._open = False
        for _, answer in self._requests:
            if not answer.done():
                answer.set_exception(StreamClosed("the stream ended before the change"))
        self._inbox.close()
        while self._inbox.take(0) is not None:
            self._ledger.dropped("stop")
        self._engine.close()
        self._outbox.close()

    def _end_output(self) -> None:
        self._stopping.set()
        self._close_sinks()
        give_back()  # pictures and encoders were freed after the session
        self._report("stopped", "the stream has ended")
        self._over.set()

    def _report(
        self, kind: str, text: str, error: Exception | None = None, frame: int | None = None
    ) -> None:
        with caught([]):
            self._on_event(Event(kind, text, self._clock(), error, frame))
