"""What is shown while the engine fails, while no frames come, and at the end."""

import pytest
import torch

from live2diff_core.live.failover import FADE_SECONDS, card
from tests.live.fakes import FakeSession, translation, value
from tests.live.rig import STAND_BY, Rig, done, raw
from tests.tiny import HEIGHT, WIDTH


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
