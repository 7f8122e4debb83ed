"""A live stream whose parts fail: the source, the engine, a sink, a recording, a listener."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from live2diff_core.errors import SinkError, SourceError, StreamClosed
from live2diff_core.frames import Frame
from live2diff_core.live.failover import card
from live2diff_core.live.recorder import Recorder
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile
from tests.live.fakes import (
    END,
    PATIENCE,
    Collector,
    FakeSession,
    Script,
    picture,
    translation,
    value,
)
from tests.live.stage import Stage
from tests.tiny import HEIGHT, WIDTH


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
