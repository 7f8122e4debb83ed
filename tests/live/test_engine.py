"""Which frame is translated, and what is shown of the others: all in order, none twice."""

import pytest
import torch

from live2diff_core.errors import SourceError
from tests.live.fakes import translation, value
from tests.live.rig import STAND_BY, Rig, done, raw
from tests.tiny import HEIGHT, WIDTH


@pytest.mark.parametrize("latency", [0, 1, 3])
def test_every_frame_is_translated_in_order(latency):
    rig = Rig(latency=latency)
    shown = rig.take(*range(12))
    assert shown == done(*range(12 - latency))
    assert rig.note(rig.engine.drain(0.0)) == done(*range(12 - latency, 12))
    rig.check()


def test_a_frame_keeps_index_time_and_arrival():
    rig = Rig(latency=0)
    rig.take(50, 51)
    last = rig.shown[-1]
    assert (last.frame.index, last.frame.timestamp) == (51, 51 / 25)
    assert last.arrived == pytest.approx(0.08)


def test_the_input_passes_while_a_warmup_waits():
    rig = Rig(start="wait")
    assert rig.take(*range(6)) == raw(0, 1, 2) + done(3) + done(4)
    rig.check()


def test_a_rate_drops_input():
    rig = Rig(latency=0, rate=12.5)
    rig.take(*range(50))
    assert len(rig.shown) == pytest.approx(25, abs=1)
    assert rig.dropped == {"rate": 50 - len(rig.shown)}
    rig.control(rate=None)
    assert rig.take(50, 51, 52) == done(50, 51, 52)
    rig.check()


# ---- still pictures


def test_a_still_picture_costs_no_network_once_it_is_shown():
    rig = Rig(similarity=0.9)
    rig.guards.stills = set(range(5, 10))
    rig.take(*range(5))
    pushed = len(rig.session.of("push"))
    shown = rig.take(*range(5, 10))
    assert len(rig.session.of("push")) == pushed + 1  # what moved last has to come out
    # Frame 5 was in flight: it is as still as those after it.
    assert shown == [(4, translation(4))] + [(index, translation(4)) for index in range(5, 10)]
    assert rig.ledger.snapshot("running", None).repeated == 4
    rig.check()


@pytest.mark.parametrize("latency", [0, 1, 3])
def test_motion_after_a_still_picture_comes_in_order(latency):
    rig = Rig(latency=latency, similarity=0.9)
    rig.guards.stills = set(range(5, 12)) | set(range(20, 22))
    rig.take(*range(30))
    rig.note(rig.engine.drain(0.0))
    assert [timed.frame.index for timed in rig.shown] == list(range(30))
    moving = [k for k in range(30) if k not in rig.guards.stills]
    values = {timed.frame.index: value(timed.frame) for timed in rig.shown}
    assert all(values[index] == translation(index) for index in moving)
    rig.check()


def test_a_change_shows_on_a_still_picture():
    rig = Rig(similarity=0.9)
    rig.guards.stills = set(range(5, 100))
    rig.take(*range(10))
    rig.control(seed=3)
    assert rig.guards.forgotten == 1
    pushed = len(rig.session.of("push"))
    rig.take(*range(10, 20))
    # Two frames until the change shows, that frame, and one more that brings it out.
    assert len(rig.session.of("push")) == pushed + 4
    assert [timed.frame.index for timed in rig.shown] == list(range(20))
    assert value(rig.shown[-1].frame) == translation(12)
    rig.check()


def test_similarity_can_change():
    rig = Rig()
    rig.guards.stills = set(range(100))
    rig.take(*range(5))
    assert rig.guards.thresholds == []
    rig.control(similarity=0.8)
    assert rig.guards.thresholds == [0.8]
    rig.take(*range(5, 9))
    assert rig.ledger.snapshot("running", None).repeated == 4
    rig.control(similarity=0)
    rig.take(9)
    assert rig.session.of("push")[-1] == [9]


# ---- instead of a translation


def test_pause_shows_nothing():
    rig = Rig()
    rig.take(0, 1)
    rig.control(pause=True)
    assert rig.take(2, 3) == []
    rig.control(pause=False)
    assert rig.take(4, 5) == done(4)  # what was in flight would come as late as the pause was long
    assert rig.dropped == {"pause": 3}
    rig.check()


def test_a_pause_ends_with_an_anchor():
    rig = Rig()
    rig.take(*range(5))
    before = rig.session.names().count("begin_update")
    rig.control(pause=True)
    rig.take(5, 6)
    rig.control(pause=False)
    rig.take(*range(7, 14))
    assert rig.session.names().count("begin_update") == before + 1


@pytest.mark.parametrize("frames", [(), (5,)])
def test_panic_shows_a_card_in_a_pause(frames):
    rig = Rig()
    rig.take(*range(5))
    rig.control(pause=True)
    rig.control(panic=True)
    rig.take(*frames)
    rig.fill()
    assert torch.equal(rig.shown[-1].frame.rgb, STAND_BY)
    rig.control(panic=False)
    assert rig.take(6) == []
    rig.check()


def test_panic_does_not_wait_for_the_rate():
    rig = Rig(rate=0.5)
    rig.take(0)
    rig.control(panic=True)
    rig.take(1)
    assert torch.equal(rig.shown[-1].frame.rgb, STAND_BY)
    assert rig.take(2) == []
    rig.check()


def test_a_reset_after_a_freeze_is_anchored_when_new_inputs_have_come():
    rig = Rig()
    rig.take(*range(8))
    rig.control(freeze=True)
    rig.take(8, 9)
    rig.control(freeze=False)
    rig.control(reset=True)
    before = rig.session.names().count("begin_update")
    rig.take(*range(10, 24))
    assert rig.session.names().count("begin_update") == before + 1


def test_a_lost_source_is_stood_in_for_25_times_a_second_at_most():
    rig = Rig()
    rig.take(*range(5))
    shown = len(rig.shown)
    for _ in range(100):
        rig.clock.advance(0.01)
        rig.fill(SourceError("gone"))
    assert 20 <= len(rig.shown) - shown <= 27


def test_freeze_holds_the_last_picture_without_the_network():
    rig = Rig()
    rig.take(*range(5))
    calls = len(rig.session.calls)
    rig.control(freeze=True)
    assert rig.take(5, 6) == [(5, translation(3)), (6, translation(3))]
    assert len(rig.session.calls) == calls
    assert rig.dropped == {"bypass": 1}  # frame 4 was in flight
    rig.check()


def test_passthrough_shows_the_input_in_the_size_of_the_output():
    rig = Rig()
    rig.take(*range(5))
    rig.control(passthrough=True)
    assert rig.take(5, 6, size=(3 * WIDTH, 2 * HEIGHT)) == raw(5, 6)
    rig.check()


def test_a_picture_that_passed_is_what_freezes():
    rig = Rig()
    rig.take(*range(5))
    rig.control(passthrough=True)
    rig.take(5)
    rig.control(freeze=True)
    assert rig.take(6) == [(6, 5)]


@pytest.mark.parametrize("back", ["passthrough", "freeze", "panic"])
def test_the_way_back_is_in_order_and_anchors(back):
    rig = Rig()
    rig.take(*range(5))
    before = rig.session.names().count("begin_update")
    rig.control(**{back: True})
    rig.take(*range(5, 9))
    rig.control(**{back: False})
    assert rig.take(*range(9, 14)) == done(*range(9, 13))
    assert rig.session.names().count("begin_update") == before + 1
    rig.check()


def test_panic_shows_a_card_at_once_whatever_else_is_set():
    rig = Rig()
    rig.take(*range(5))
    rig.control(freeze=True, passthrough=True)
    rig.control(panic=True)
    rig.take(5)
    assert torch.equal(rig.shown[-1].frame.rgb, STAND_BY)
    rig.check()


def test_panic_may_be_the_input():
    rig = Rig(panic="passthrough")
    rig.take(*range(5))
    rig.control(panic=True)
    assert rig.take(5) == raw(5)


def test_panic_needs_no_frame():
    rig = Rig()
    rig.take(*range(5))
    assert rig.fill() == []
    rig.control(panic=True)
    rig.fill()
    assert torch.equal(rig.shown[-1].frame.rgb, STAND_BY)
    assert rig.fill() == []
    rig.check()


def test_reset_begins_anew_and_drops_what_is_in_flight():
    rig = Rig()
    rig.take(*range(6))
    rig.control(reset=True)
    assert rig.take(6, 7, 8) == done(6, 7)
    assert rig.session.names()[-4:] == ["reset", "warmup", "push", "push"]
    assert rig.dropped == {"engine": 1}
    rig.check()
