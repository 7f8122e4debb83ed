"""Which frame is translated, and what is shown of the others: all in order, none twice."""

from itertools import pairwise

import pytest
import torch

from live2diff_core.errors import SourceError
from live2diff_core.live.engine import Engine, Timed
from live2diff_core.live.failover import FADE_SECONDS, card
from live2diff_core.live.keeper import Keeper
from live2diff_core.live.settings import LiveConfig
from live2diff_core.live.statistics import Ledger
from tests.live.fakes import FakeClock, FakeGuards, FakeSession, picture, translation, value
from tests.tiny import HEIGHT, WIDTH

STAND_BY = card((WIDTH, HEIGHT), "Please stand by", "")


class Rig:
    """An engine on a scripted session; keeps what was shown as (index, value)."""

    def __init__(self, *sessions: FakeSession, latency: int = 1, **settings) -> None:
        self.clock, self.guards = FakeClock(0.0), FakeGuards()
        self.ledger = Ledger(self.clock)
        self._sessions = list(sessions or [FakeSession(latency)])
        self.session = self._sessions[0]
        config = LiveConfig(**settings)
        guards = self.guards.guards
        self.keeper = Keeper(
            lambda: self._sessions.pop(0), config, guards, self.ledger, lambda *_: None
        )
        self.engine = Engine(self.keeper, config, guards, self.ledger)
        self.shown: list[Timed] = []

    def take(self, *indices: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[tuple[int, int]]:
        """Give frames, 40 ms apart; returns what was shown since the last call."""
        return [seen for index in indices for seen in self._take(picture(index, *size))]

    def _take(self, frame) -> list[tuple[int, int]]:
        self.clock.advance(0.04)
        self.ledger.came()
        return self.note(self.engine.take(Timed(frame, self.clock()), self.clock()))

    def note(self, shown: list[Timed]) -> list[tuple[int, int]]:
        for timed in shown:
            if timed.arrived is not None:
                self.ledger.showed(timed.arrived)
        self.shown += shown
        return [(timed.frame.index, value(timed.frame)) for timed in shown]

    def control(self, **changes: object):
        return self.engine.control(changes, self.clock())

    def fill(self, lost: Exception | None = None) -> list[tuple[int, int]]:
        return self.note(self.engine.fill(lost, self.clock()))

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.ledger.snapshot("running", None).dropped)

    def check(self) -> None:
        """What must hold whatever happened."""
        frames = [timed.frame for timed in self.shown]
        real = [timed.frame.index for timed in self.shown if timed.arrived is not None]
        assert real == sorted(set(real))
        assert all(a.timestamp < b.timestamp for a, b in pairwise(frames))
        assert all(frame.rgb.shape == (3, HEIGHT, WIDTH) for frame in frames)
        assert all(frame.rgb.dtype == torch.uint8 for frame in frames)
        live = self.ledger.snapshot("running", None)
        assert live.in_flight == len(self.engine._pending)


def done(*indices: int) -> list[tuple[int, int]]:
    return [(index, translation(index)) for index in indices]


def raw(*indices: int) -> list[tuple[int, int]]:
    return [(index, index) for index in indices]


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


# ---- failures


def failing(*later: FakeSession, **settings) -> Rig:
    rig = Rig(FakeSession(), *later, **settings)
    rig.take(*range(6))
    rig.session.breaks.append(MemoryError("no room"))
    return rig


def test_a_failure_holds_the_last_picture_until_a_session_works():
    rig = failing(FakeSession(), on_failure="hold")
    held = rig.take(*range(6, 19))  # half a second
    assert held == [(index, translation(4)) for index in range(6, 19)]
    assert rig.dropped == {"engine": 1}
    assert rig.take(*range(19, 23)) == done(19, 20, 21)
    assert rig.session.closed
    rig.check()


def test_a_failure_passes_the_input_through():
    rig = failing(on_failure="passthrough")
    assert rig.take(6, 7, 8) == raw(6, 7, 8)
    rig.check()


def test_a_failure_fades_to_a_card_that_says_why():
    rig = failing(on_failure="card", first_retry=5)
    rig.take(*range(6, 25))
    assert value(rig.shown[-19].frame) == translation(4)
    expected = card((WIDTH, HEIGHT), "No translation", "MemoryError: no room")
    assert torch.equal(rig.shown[-1].frame.rgb, expected)
    rig.check()


def test_panic_and_passthrough_work_while_the_engine_fails():
    rig = failing(first_retry=5)
    rig.take(6)
    assert rig.control(passthrough=True, prompt="ink").refused.keys() == {"prompt"}
    assert rig.take(7) == raw(7)
    rig.control(panic=True)
    rig.take(8)
    assert torch.equal(rig.shown[-1].frame.rgb, STAND_BY)


def test_an_engine_that_never_opened_says_so_in_the_size_of_the_input():
    rig = Rig()
    rig._sessions.clear()
    rig.take(0)
    rig.clock.advance(FADE_SECONDS)
    rig.take(1)
    assert value(rig.shown[0].frame) == 0
    assert rig.shown[1].frame.rgb.float().std() > 1
    rig.check()


def test_a_bad_result_costs_no_frame():
    rig = Rig(start="wait")
    rig.take(*range(6))
    rig.session.spoiled = {5}
    assert rig.take(6, 7, 8) == done(5, 6, 7)
    rig.check()


def test_a_failure_while_draining_is_no_end():
    rig = failing(FakeSession())
    assert rig.note(rig.engine.drain(rig.clock())) == []
    assert rig.dropped == {"engine": 1}
    rig.clock.advance(0.5)
    assert rig.take(6) == done(6)
    rig.check()


def test_a_change_that_is_given_up_costs_no_frame():
    rig = Rig()
    rig.take(*range(6))
    push = rig.session.push

    def give_up(frames) -> None:
        rig.session.changing, rig.session.push = False, push
        rig.session._in_flight.extend(frames)
        raise MemoryError("no room")

    rig.session.changing, rig.session.push = True, give_up
    assert rig.take(6, 7, 8) == done(5, 6, 7)
    assert not rig.session.closed
    rig.check()


def test_frames_that_an_engine_cannot_take_do_not_keep_it_from_working_again():
    class Picky(FakeSession):
        def warmup(self, frames):
            assert 6 not in [frame.index for frame in frames]
            return super().warmup(frames)

    rig = failing(Picky())
    rig.take(*range(6, 40))
    assert value(rig.shown[-1].frame) == translation(38)


# ---- no frames


LOST = OSError("unplugged")


@pytest.mark.parametrize("kind", ["hold", "passthrough"])
def test_a_lost_source_is_stood_in_for_at_the_rate(kind):
    rig = Rig(on_failure=kind, rate=10)
    rig.take(*range(20))
    rig.note(rig.engine.drain(rig.clock()))
    last, count = value(rig.shown[-1].frame), len(rig.shown)
    for _ in range(100):
        rig.clock.advance(0.01)
        rig.fill(LOST)
    assert len(rig.shown) - count == pytest.approx(10, abs=1)
    assert {value(timed.frame) for timed in rig.shown[count:]} == {last}
    assert rig.ledger.snapshot("failing", None).stood_in == len(rig.shown) - count
    rig.check()


def test_a_lost_source_fades_to_a_card_that_says_why():
    rig = Rig(on_failure="card")
    rig.take(*range(6))
    for _ in range(20):
        rig.clock.advance(0.04)
        rig.fill(LOST)
    expected = card((WIDTH, HEIGHT), "No signal", "OSError: unplugged")
    assert torch.equal(rig.shown[-1].frame.rgb, expected)
    rig.check()


def test_a_source_that_is_back_goes_on_after_what_stood_in():
    rig = Rig()
    rig.take(*range(6))
    rig.note(rig.engine.drain(rig.clock()))
    for _ in range(10):
        rig.clock.advance(0.1)
        rig.fill(LOST)
    assert rig.take(0, 1, 2)[0][0] == 6
    rig.check()


def test_nothing_stands_in_while_paused():
    rig = Rig()
    rig.take(*range(6))
    rig.control(pause=True)
    assert rig.fill(LOST) == []


def test_closing_drops_what_is_in_flight():
    rig = Rig(latency=3)
    rig.take(*range(6))
    rig.engine.close()
    assert rig.dropped == {"stop": 3}
    assert rig.session.closed
    rig.check()
