"""A whole live stream on its threads, of parts that a test scripts."""

from collections.abc import Callable
from itertools import pairwise
from threading import Event

from live2diff_core.frames import Frame
from live2diff_core.live.runner import Runner
from live2diff_core.live.settings import LiveConfig
from tests.live.fakes import (
    END,
    PATIENCE,
    Collector,
    FakeClock,
    FakeSession,
    Script,
    Waiting,
    picture,
)

GUARDS_OFF = {"scene_cuts": False, "drift": False}


def counted(function: Callable, calls: Waiting) -> Callable:
    def wrapped(*arguments):
        result = function(*arguments)
        calls.add(arguments)
        return result

    return wrapped


class Stage:
    """A running stream of scripted parts; sources and sessions in the order of their opening."""

    def __init__(
        self,
        *sessions: FakeSession | Exception,
        sources: list[Script | Exception] | None = None,
        sinks: list | None = None,
        **settings,
    ) -> None:
        self.clock, self.sink, self.events = FakeClock(), Collector(), Waiting()
        self._sessions = list(sessions or [FakeSession(latency=0)])
        self._sources = sources or [Script()]
        self.session, self.source = self._sessions[0], self._sources[0]
        self.took, self.written = Waiting(), Waiting()
        self.runner = Runner(
            lambda: self.next_of(self._sources),
            lambda: self.next_of(self._sessions),
            [self.sink] if sinks is None else sinks,
            LiveConfig(**{**GUARDS_OFF, "start": "wait", **settings}),
            self.clock,
            self.events.add,
        )
        self.runner._ledger.showed = counted(self.runner._ledger.showed, self.written)
        self._watch_engine()

    @staticmethod
    def next_of(parts: list):
        part = parts.pop(0)
        if isinstance(part, Exception):
            raise part
        return part

    def _watch_engine(self) -> None:
        """Note of each frame that the engine took how many it left to the output."""
        through, show = self.runner._through, self.runner._show
        real = Waiting()

        def watched(came):
            shown = through(came)
            real.add(len(shown))
            return shown

        def showing(shown) -> None:
            show(shown)
            if len(real.items) > len(self.took.items):
                self.took.add(real.items[-1])

        self.runner._through, self.runner._show = watched, showing

    def __enter__(self) -> "Stage":
        self.runner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.sink.free.set()
        self.runner.stop(PATIENCE)
        check_counts(self)

    def give(self, *frames: Frame | int, source: Script | None = None) -> None:
        """Frames one by one, each when the engine is done with the one before, and the output, too,
        unless the sink is held up.
        """
        for frame in frames:
            took = len(self.took.items)
            (source or self.source).put(picture(frame) if isinstance(frame, int) else frame)
            self.took.until(lambda items, took=took: len(items) > took)
            if self.sink.free.is_set():
                shown = sum(self.took.items)
                self.written.until(lambda items, shown=shown: len(items) >= shown)

    def end(self) -> None:
        self.source.put(END)
        assert self.runner.wait(PATIENCE)

    def until_event(self, kind: str) -> None:
        self.events.until(lambda events: kind in [event.kind for event in events])

    def pass_time(self, until: Callable[[], bool], step: float = 0.05) -> None:
        """Let the clock go on until something is so."""
        pause = Event()
        for _ in range(20_000):
            if until():
                return
            self.clock.advance(step)
            pause.wait(0.001)  # lets the threads of the stream look at the clock
        raise AssertionError("waited in vain")

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events.items]


def check_counts(stage: Stage) -> None:
    """What must hold once a stream has ended, whatever happened to it."""
    live = stage.runner.statistics()
    assert live.in_flight == 0
    assert live.frames_in == live.frames_out + live.dropped_total
    assert stage.kinds[-1] == "stopped"
    indices = [frame.index for frame in stage.sink.got.items]
    assert indices == sorted(indices)
    times = [frame.timestamp for frame in stage.sink.got.items]
    assert all(a < b for a, b in pairwise(times))
    assert all(not thread.is_alive() for thread in stage.runner._threads)
    assert stage.runner.state == "stopped"
    assert stage.sink.closed <= 1
