"""A whole live stream on its threads: order, counts, changes, and every part that can fail."""

import json
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import pytest
import torch

from live2diff_core.errors import SinkError, SourceError, StreamClosed
from live2diff_core.frames import Frame, to_bytes
from live2diff_core.live.failover import card
from live2diff_core.live.recorder import Recorder
from live2diff_core.live.runner import Runner
from live2diff_core.live.settings import LiveConfig
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile
from live2diff_core.stream.translate import translate
from tests.live.fakes import (
    END,
    PATIENCE,
    Collector,
    FakeClock,
    FakeSession,
    Script,
    Waiting,
    picture,
    translation,
    value,
)
from tests.tiny import HEIGHT, WIDTH, make_frames, open_session

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


# ---- the way of a frame


def test_every_frame_comes_out_once_in_order_with_its_index_and_time():
    with Stage() as stage:
        stage.give(*range(4, 30))
        stage.end()
    assert stage.sink.indices == list(range(4, 30))
    assert stage.sink.values[3:] == [translation(index) for index in range(7, 30)]
    assert [f.timestamp for f in stage.sink.got.items] == [index / 25 for index in range(4, 30)]
    live = stage.runner.statistics()
    assert (live.frames_in, live.frames_out, live.dropped) == (26, 26, {})
    assert stage.kinds == ["source ended", "stopped"]
    assert stage.source.closed.is_set()
    assert stage.session.closed
    assert stage.sink.closed == 1


def test_the_end_of_the_source_brings_out_what_is_in_flight():
    with Stage(FakeSession(latency=3)) as stage:
        stage.give(*range(10))
        stage.end()
    assert stage.sink.indices == list(range(10))
    assert stage.sink.values[4:] == [translation(index) for index in range(4, 10)]


def test_a_real_session_gives_what_it_gives_offline():
    frames = make_frames(14)
    frames = [Frame(to_bytes(f.rgb), f.index, f.timestamp) for f in frames]
    expected = list(translate(open_session(), frames))
    with Stage(open_session()) as stage:
        stage.give(*frames)
        stage.end()
    out = stage.sink.got.items
    assert [frame.index for frame in out] == list(range(14))
    for ours, theirs in zip(out[7:], expected[7:], strict=True):
        assert torch.equal(ours.rgb, to_bytes(theirs.rgb))


class Gate(FakeSession):
    """A session that waits in every call until it may go on."""

    def __init__(self) -> None:
        super().__init__(latency=0, first=1)
        self.busy, self.go = Waiting(), Event()

    def _call(self, name, given) -> None:
        super()._call(name, given)
        if name in ("warmup", "push"):
            self.busy.add(given)
            assert self.go.wait(PATIENCE)


def test_a_slow_engine_gets_the_newest_frame_and_the_rest_is_dropped():
    session, source = Gate(), Script(picture(0))
    with Stage(session, sources=[source]) as stage:
        session.busy.until(lambda calls: calls == [[0]])
        came = Waiting()
        stage.runner._ledger.came = counted(stage.runner._ledger.came, came)
        source.put(*(picture(index) for index in range(1, 21)))
        came.until(lambda items: len(items) == 20)
        source.put(picture(21))
        came.until(lambda items: len(items) == 21)
        live = stage.runner.statistics()
        # One in the engine, one that waits; the last may be on its way into the queue.
        assert (live.frames_in, live.frames_out) == (22, 0)
        assert live.in_flight in (2, 3)
        session.go.set()
        stage.end()
    assert stage.sink.indices == [0, 21]
    assert stage.runner.statistics().dropped == {"capture": 20}


def test_a_slow_sink_never_holds_the_engine_up():
    with Stage() as stage:
        stage.sink.free.clear()
        stage.give(*range(20))
        assert len(stage.session.of("push")) == 16
        stage.sink.free.set()
        stage.end()
    assert stage.sink.indices[-2:] == [18, 19]
    dropped = stage.runner.statistics().dropped
    assert dropped == {"output": 20 - len(stage.sink.indices)}
    assert len(stage.sink.indices) <= 4


def test_latency_is_from_capture_to_written():
    with Stage() as stage:
        stage.give(*range(4))
        stage.sink.until_count(4)
        stage.sink.free.clear()
        stage.give(4)
        stage.clock.advance(0.25)
        stage.sink.free.set()
        stage.end()
    total = stage.runner.statistics().stages["total"]
    assert (total.count, total.p50, total.max) == (5, 0, pytest.approx(250))


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_stalls_nothing(jump):
    with Stage(rate=25) as stage:
        for index in range(30):
            if index == 15:
                stage.clock.advance(jump)
            stage.give(index)
            stage.clock.advance(0.04)
        stage.end()
    lost = set(range(30)) - set(stage.sink.indices)
    assert lost <= {15}  # it is at no time after the one before
    assert all(timing.p50 >= 0 for timing in stage.runner.statistics().stages.values())


def test_stop_ends_a_stream_that_waits_for_its_source():
    with Stage() as stage:
        stage.give(*range(6))
    assert stage.source.closed.is_set()
    assert stage.session.closed
    assert stage.sink.closed == 1


def test_a_stream_that_was_stopped_before_it_began():
    stage = Stage()
    stage.runner.stop()
    assert stage.runner.state == "stopped"
    assert stage.sink.closed == 1
    stage.runner.stop()


def test_stop_says_who_does_not_end():
    session = Gate()
    stage = Stage(session, sources=[Script(picture(0))])
    stage.runner.start()
    session.busy.until(lambda calls: len(calls) == 1)
    with pytest.raises(StreamClosed, match="live2diff engine"):
        stage.runner.stop(timeout=0)
    session.go.set()
    stage.runner.stop(PATIENCE)


# ---- changes while it runs


def test_a_change_is_answered_and_shows_from_the_frame_it_says():
    with Stage(open_session(), open_session()) as stage:
        stage.give(*(picture(index) for index in range(12)))
        answer = stage.runner.control({"prompt": "neon", "rate": None})
        assert answer.effects == {"prompt": "re-prime", "rate": "now"}
        stage.give(*(picture(index) for index in range(12, 20)))
        stage.end()
        (changed,) = (event for event in stage.events.items if event.kind == "changed")
    assert changed.frame == answer.frame == 14
    same = Stage(open_session())
    with same:
        same.give(*(picture(index) for index in range(20)))
        same.end()
    pairs = zip(stage.sink.got.items, same.sink.got.items, strict=True)
    assert [not torch.equal(ours.rgb, theirs.rgb) for ours, theirs in pairs] == [
        index >= answer.frame for index in range(20)
    ]


def test_bad_values_are_refused_and_the_stream_goes_on():
    with Stage(open_session()) as stage:
        stage.give(*range(10))
        answer = stage.runner.control({"prompt": "oil painting", "pause": 3, "colour": 1})
        assert set(answer.refused) == {"prompt", "pause", "colour"}
        assert answer.frame is None
        stage.give(10, 11)
        stage.end()
    assert stage.sink.indices == list(range(12))


def test_many_threads_may_ask():
    with Stage() as stage:
        answers = Waiting()
        threads = [
            Thread(target=lambda rate=rate: answers.add(stage.runner.control({"rate": rate})))
            for rate in range(1, 21)
        ]
        for thread in threads:
            thread.start()
        answers.until(lambda items: len(items) == 20)
        for thread in threads:
            thread.join(PATIENCE)
        assert all(answer.effects == {"rate": "now"} for answer in answers.items)
        stage.end()


def test_a_stream_that_does_not_run_takes_no_changes():
    stage = Stage()
    with pytest.raises(StreamClosed, match="does not run"):
        stage.runner.control({"pause": True})
    with stage:
        stage.end()
    with pytest.raises(StreamClosed, match="does not run"):
        stage.runner.control({"pause": True})


def test_states_are_told():
    stage = Stage(sources=[Script(), Script()])
    assert stage.runner.state == "starting"
    with stage:
        stage.give(*range(5))
        stage.sink.until_count(5)
        stage.pass_time(lambda: stage.runner.state == "running", step=0)
        stage.runner.control({"pause": True})
        assert stage.runner.state == "paused"
        stage.source.put(SourceError("unplugged"))
        stage.until_event("source lost")
        assert stage.runner.state == "failing"
        assert str(stage.runner.error) == "unplugged"
        assert stage.runner.statistics().error == "unplugged"
        json.dumps(stage.runner.statistics().as_dict())


def test_panic_needs_no_frame():
    with Stage() as stage:
        stage.give(*range(5))
        stage.sink.until_count(5)
        stage.runner.control({"panic": True})
        shown = stage.sink.until_count(6)
    assert torch.equal(shown[5].rgb, card((WIDTH, HEIGHT), "Please stand by", ""))


# ---- parts that fail


def test_a_source_that_dies_is_opened_again_and_goes_on():
    second = Script()
    stage = Stage(sources=[Script(), SourceError("still gone"), second])
    with stage:
        stage.give(*range(6))
        stage.source.put(SourceError("unplugged"))
        stage.until_event("source lost")
        opened = stage.clock.now
        stage.pass_time(lambda: not stage._sources)
        assert stage.clock.now - opened >= 0.5 + 1.0
        stage.give(*range(6), source=second)
        second.put(END)
        assert stage.runner.wait(PATIENCE)
    shown = [(frame.index, value(frame)) for frame in stage.sink.got.items]
    back = [entry for entry in shown if entry[0] > 5]
    assert [index for index, _ in back] == list(range(6, 12))
    assert back[-1][1] == translation(5)
    assert stage.kinds == ["source lost", "source back", "source ended", "stopped"]
    live = stage.runner.statistics()
    assert (live.failures, live.reconnects) == (1, 1)
    assert stage.source.closed.is_set()


@pytest.mark.parametrize("on_failure", ["hold", "passthrough", "card"])
def test_while_the_source_is_gone_something_is_shown_at_the_rate(on_failure):
    with Stage(rate=20, on_failure=on_failure, first_retry=9) as stage:
        for index in range(6):
            stage.give(index)
            stage.clock.advance(0.05)
        stage.source.put(SourceError("unplugged"))
        stage.until_event("source lost")
        stage.pass_time(lambda: len(stage.sink.got.items) >= 30, step=0.01)
        shown = list(stage.sink.got.items)
    assert stage.runner.statistics().stood_in >= 24
    held = value(shown[5]) == value(shown[-1])
    assert held == (on_failure != "card")
    assert (torch.equal(shown[-1].rgb, card((WIDTH, HEIGHT), "No signal", "unplugged"))) != held


def test_a_source_that_falls_silent_is_lost_and_found():
    with Stage(silence=5) as stage:
        stage.give(*range(6))
        stage.pass_time(lambda: "source lost" in stage.kinds, step=0.5)
        assert "none came for 5 s" in str(stage.runner.error)
        stage.give(6, 7)
        stage.until_event("source back")
        assert stage.runner.error is None
        stage.end()
    assert stage.sink.indices[-2:] == [6, 7]


def test_a_source_of_something_else_than_pictures_is_lost():
    with Stage() as stage:
        stage.source.put(Frame(torch.zeros(4, 4, dtype=torch.uint8), 0, 0.0))
        stage.until_event("source lost")
        assert "(3, h, w)" in str(stage.runner.error)


@pytest.mark.parametrize("error", [MemoryError("no room"), torch.OutOfMemoryError("no room")])
def test_an_engine_that_raises_is_opened_again_while_the_stream_goes_on(error):
    second = FakeSession(latency=0)
    with Stage(FakeSession(latency=0), MemoryError("still none"), second) as stage:
        stage.give(*range(6))
        stage.session.breaks.append(error)
        stage.give(6)
        assert stage.runner.state == "failing"
        assert "no room" in stage.runner.statistics().error
        for index in range(7, 100):
            stage.clock.advance(0.04)
            stage.give(index)
        assert stage.runner.error is None
        stage.end()
    assert stage.sink.indices == list(range(100))
    assert stage.sink.values[6] == translation(5)
    assert stage.sink.values[-1] == translation(99)
    assert stage.session.closed
    assert [kind for kind in stage.kinds if "engine" in kind] == ["engine failed", "engine back"]


def test_an_engine_that_cannot_be_opened_at_first_is_no_end():
    with Stage(MemoryError("no room"), FakeSession(latency=0)) as stage:
        stage.until_event("engine failed")
        stage.give(0)
        stage.clock.advance(0.5)
        stage.give(1, 2, 3, 4)
        stage.end()
    assert stage.sink.values[-1] == translation(4)


def test_a_sink_that_raises_is_closed_and_the_others_go_on():
    bad = Collector()
    good = Collector()
    with Stage(sinks=[bad, good]) as stage:
        stage.give(*range(6))
        good.until_count(6)
        bad.breaks.append(ValueError("the encoder broke"))
        stage.give(*range(6, 12))
        stage.end()
    assert good.indices == list(range(12))
    assert bad.indices == list(range(6))
    assert (bad.closed, good.closed) == (1, 1)
    (failed,) = (event for event in stage.events.items if event.kind == "sink failed")
    assert failed.text == "ValueError: the encoder broke"
    assert stage.runner.statistics().sinks_failed == 1


def test_a_sink_that_cannot_close_is_told():
    class Stuck(Collector):
        def close(self) -> None:
            raise SinkError("the disk is full")

    with Stage(sinks=[Stuck()]) as stage:
        stage.give(*range(6))
        stage.end()
    assert "sink failed" in stage.kinds


def test_a_recording_that_fails_plays_and_the_stream_goes_on(tmp_path: Path):
    class Full(VideoFileSink):
        def write(self, frame: Frame) -> None:
            if frame.timestamp >= 0.5:
                raise SinkError("the disk is full")
            super().write(frame)

    path, other = tmp_path / "out.mp4", Collector()
    recorder = Recorder(Full(path, (WIDTH, HEIGHT), Fraction(25)))
    with Stage(sinks=[recorder, other]) as stage:
        stage.give(*range(100, 116))
        recorder._thread.join(PATIENCE)
        stage.give(*range(116, 120))
        stage.end()
    assert other.indices == list(range(100, 120))
    assert stage.kinds[0] == "sink failed"
    with VideoFile(path) as video:
        assert len(list(video)) == 13


def test_a_listener_that_raises_is_no_failure():
    def loud(event) -> None:
        raise ValueError(event.kind)

    stage = Stage()
    stage.runner._on_event = loud
    stage.runner.start()
    stage.give(*range(5))
    stage.end()
    assert stage.sink.indices == list(range(5))


def test_what_our_own_code_raises_ends_the_stream_and_is_told():
    stage = Stage()
    stage.runner._engine.take = lambda *_: 1 / 0
    stage.runner.start()
    stage.source.put(picture(0))
    assert stage.runner.wait(PATIENCE)
    assert stage.session.closed
    assert stage.sink.closed == 1
    assert "ZeroDivisionError" in stage.runner.statistics().error
    with pytest.raises(StreamClosed):
        stage.runner.control({"pause": True})
    stage.runner.stop(PATIENCE)
    assert stage.source.closed.is_set()
    assert "crashed" in stage.kinds
