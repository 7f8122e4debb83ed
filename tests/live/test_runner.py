"""A whole live stream on its threads: order, counts, and changes."""

import json
from threading import Event, Thread

import pytest
import torch

from live2diff_core.errors import SourceError, StreamClosed
from live2diff_core.frames import Frame, to_bytes
from live2diff_core.live.failover import card
from live2diff_core.stream.translate import translate
from tests.live.fakes import (
    PATIENCE,
    FakeSession,
    Script,
    Waiting,
    picture,
    translation,
)
from tests.live.stage import Stage, counted
from tests.tiny import HEIGHT, WIDTH, make_frames, open_session

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
