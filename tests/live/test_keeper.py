"""A session for as long as a stream lasts: warm-up, anchors, resets, failures, changes."""

import pytest
import torch

from live2diff_core.errors import ConfigError, Live2DiffError
from live2diff_core.live.controls import Answer
from live2diff_core.live.guards import Drift, SceneCut, Similarity, is_finite
from live2diff_core.live.keeper import Guards, Keeper
from live2diff_core.live.settings import LiveConfig
from live2diff_core.live.statistics import Ledger
from tests.live.fakes import FakeClock, FakeGuards, FakeSession, picture, translation, value
from tests.tiny import open_session, stream_config


class Rig:
    """A keeper on sessions that a test scripts."""

    def __init__(self, *sessions: FakeSession | Exception, **settings) -> None:
        self.clock, self.guards = FakeClock(), FakeGuards()
        self.ledger = Ledger(self.clock)
        self.events: list[tuple[str, int | None]] = []
        self._sessions = list(sessions or [FakeSession()])
        self.session = self._sessions[0]
        self.opened = 0
        config = LiveConfig(**settings)
        self.keeper = Keeper(self.open, config, self.guards.guards, self.ledger, self.report)

    def open(self) -> FakeSession:
        self.opened += 1
        session = self._sessions.pop(0)
        if isinstance(session, Exception):
            raise session
        return session

    def report(self, kind, text, error, frame) -> None:
        assert text
        self.events.append((kind, frame))

    def push(self, *indices: int) -> list[list[int] | None]:
        """Indices of what each push gives."""
        assert self.keeper.ready(self.clock())
        given = [self.keeper.push(picture(index), self.clock()) for index in indices]
        assert all(value_of(frame) == translation(frame.index) for r in given for frame in r or ())
        return [None if results is None else [f.index for f in results] for results in given]

    def counts(self):
        return self.ledger.snapshot("running", None)

    def control(self, **changes: object) -> Answer:
        return self.keeper.control(changes, self.session.next_index, self.clock())


def value_of(frame) -> int:
    return int((frame.rgb * 255).round().flatten()[0])


# ---- warm-up and anchors


def test_a_stream_begins_on_its_first_frame():
    rig = Rig(start="prime")
    assert rig.push(0, 1, 2) == [[0], [], [1]]
    assert rig.session.of("warmup") == [[0]]


def test_once_there_are_real_frames_the_stream_is_anchored_on_them():
    rig = Rig(start="prime")
    rig.push(*range(9))
    expected = ["warmup", "push", "push", "push", "begin_update"] + 5 * ["push"]
    assert rig.session.names() == expected
    assert rig.counts().reprimes == 1


def test_an_anchor_without_room_costs_no_frame_and_no_session():
    rig = Rig(start="prime")
    begin = rig.session.begin_update

    def full(**_: object) -> int:
        raise torch.OutOfMemoryError("no room for a second cache")

    rig.session.begin_update = full
    assert rig.push(*range(9))[1:] == [[], *([index] for index in range(1, 8))]
    assert rig.events == [("change failed", None)]
    assert (rig.counts().reprimes, rig.counts().failures) == (0, 1)
    rig.session.begin_update = begin
    rig.guards.cuts = {9}
    rig.push(*range(9, 15))
    assert rig.counts().reprimes == 1


def test_a_stream_may_wait_for_its_warmup():
    rig = Rig(start="wait")
    assert rig.push(*range(6)) == [None, None, None, [0, 1, 2, 3], [], [4]]
    assert rig.session.names() == ["warmup", "push", "push"]


def test_after_a_scene_cut_the_stream_is_anchored_in_the_new_scene():
    rig = Rig(start="wait")
    rig.guards.cuts = {6}
    rig.push(*range(12))
    assert rig.session.names()[-3:] == ["begin_update", "push", "push"]
    pushed = rig.session.calls[: rig.session.calls.index(("begin_update", {}))]
    assert pushed[-1] == ("push", [9])  # 6, 7, 8, 9 are the last real inputs
    assert rig.events == [("scene cut", 6)]
    assert rig.counts().scene_cuts == 1


def test_cuts_that_follow_each_other_anchor_once():
    rig = Rig(start="wait")
    rig.guards.cuts = set(range(6, 20))
    rig.push(*range(26))
    assert rig.session.names().count("begin_update") == 1


def test_an_anchor_waits_for_a_change_that_is_under_way():
    rig = Rig()
    rig.push(0)
    rig.session.changing = True
    rig.push(*range(1, 12))
    assert "begin_update" not in rig.session.names()
    rig.session.changing = False
    rig.push(*range(12, 15))
    assert rig.session.names()[-1] == "begin_update"


def test_a_look_that_drifts_is_anchored_with_the_next_frame():
    rig = Rig(start="wait")
    rig.guards.drifts = {5}
    rig.push(*range(9))
    assert rig.session.names()[-4:] == ["push", "push", "begin_update", "push"]
    assert rig.events == [("drift", 5)]
    assert rig.counts().drifts == 1
    assert rig.guards.looks == 1


# ---- results that are not finite


def test_a_bad_result_begins_the_stream_anew_from_the_last_inputs():
    rig = Rig(start="wait")
    rig.push(*range(6))
    rig.session.spoiled = {5}
    assert rig.push(6, 7, 8) == [[3, 4, 5, 6], [], [7]]
    assert rig.session.names() == ["warmup", "push", "push", "push", "reset", "warmup"] + 2 * [
        "push"
    ]
    assert rig.counts().resets == 1
    assert rig.events == [("reset", None)]


def test_a_warmup_that_stays_bad_is_a_failure():
    rig = Rig(start="wait")
    rig.push(*range(3))
    rig.session.spoiled = {0, 3}
    rig.session._result = lambda frame: type(frame)(frame.rgb * torch.nan, frame.index, 0.0)
    with pytest.raises(Live2DiffError, match="NaN"):
        rig.push(3)


# ---- sessions that fail


def test_another_session_is_opened_after_a_wait_that_grows():
    rig = Rig(FakeSession(), MemoryError("no room"), ConfigError("no"), FakeSession())
    rig.push(0)
    rig.keeper.fail(MemoryError("no room"), rig.clock())
    assert rig.session.closed
    tries = []
    for _ in range(30):
        rig.clock.advance(0.25)
        tries.append(rig.keeper.ready(rig.clock()))
    opened_at = tries.index(True)
    assert (opened_at + 1) * 0.25 == 0.5 + 1 + 2
    assert rig.opened == 4
    assert rig.events == [("engine failed", None)]
    assert isinstance(rig.keeper.error, ConfigError)


def test_a_session_that_works_again_is_told_and_warmed_by_the_last_inputs():
    second = FakeSession()
    rig = Rig(FakeSession(), second)
    rig.push(*range(5))
    rig.keeper.fail(MemoryError("no room"), rig.clock())
    rig.keeper.missed(picture(8))
    rig.clock.advance(0.5)
    assert rig.push(9) == [[3, 4, 8, 9]]
    assert second.of("warmup") == [[3, 4, 8, 9]]
    assert rig.keeper.error is None
    assert rig.events == [("engine failed", None), ("engine back", 9)]
    live = rig.counts()
    assert (live.failures, live.reconnects) == (1, 1)
    rig.keeper.fail(MemoryError("no room"), rig.clock())
    rig.clock.advance(0.4)
    assert not rig.keeper.ready(rig.clock())
    rig.clock.advance(0.1)
    with pytest.raises(IndexError):  # there is no third one
        rig.open()


def test_a_session_opened_again_gets_the_changes_before_its_warmup():
    second = FakeSession()
    rig = Rig(FakeSession(), second)
    rig.push(0)
    rig.control(seed=5)
    rig.keeper.fail(MemoryError("no room"), rig.clock())
    rig.clock.advance(0.5)
    rig.push(1)
    assert second.calls[:2] == [("update", {"seed": 5}), ("warmup", [0, 1])]


def test_a_session_that_cannot_close_is_let_go():
    rig = Rig()
    rig.push(0)
    rig.session.close = lambda: 1 / 0
    rig.keeper.close()
    rig.session = FakeSession()
    rig._sessions = [rig.session]
    assert rig.push(1) == [[0, 1]]


# ---- changes


def test_a_change_is_told_when_it_shows():
    rig = Rig(start="wait")
    rig.push(*range(6))
    answer = rig.control(seed=5)
    assert answer == Answer(8, {"seed": "re-prime"}, {})
    rig.push(6, 7)
    assert rig.events == []
    rig.push(10)  # 8 and 9 were dropped
    assert rig.events == [("changed", 10)]


def changing(rig: Rig, gives_up: bool) -> None:
    """A change is under way, and the next push raises."""
    rig.push(*range(6))
    rig.control(seed=5)
    rig.session.changing = True

    def push(frames) -> None:
        rig.session.changing = not gives_up
        del rig.session.push
        raise MemoryError("no room")

    rig.session.push = push
    with pytest.raises(MemoryError):
        rig.push(6)


def test_a_change_that_the_session_gives_up_leaves_the_stream_as_it_was():
    rig = Rig(start="wait")
    changing(rig, gives_up=True)
    assert rig.keeper.survives(MemoryError("no room"), 6)
    assert rig.push(7) == [[5]]
    assert rig.events == [("change failed", 6)]
    assert rig.counts().failures == 1
    second = FakeSession()
    rig.keeper._controls.bring(second)
    assert second.calls == []


def test_a_session_that_fails_for_good_during_a_change_does_not_survive():
    rig = Rig(start="wait")
    changing(rig, gives_up=False)
    assert not rig.keeper.survives(MemoryError("no room"), 6)


def test_a_session_that_fails_without_a_change_does_not_survive():
    rig = Rig(start="wait")
    rig.push(*range(6))
    rig.session.breaks.append(MemoryError("no room"))
    with pytest.raises(MemoryError):
        rig.push(6)
    assert not rig.keeper.survives(MemoryError("no room"), 6)


def test_a_session_that_fails_on_a_change_is_given_up():
    rig = Rig()
    rig.push(0)
    rig.session.breaks.append(RuntimeError("the device is gone"))
    answer = rig.control(seed=5)
    assert answer == Answer(None, {}, {"seed": "RuntimeError: the device is gone"})
    assert rig.session.closed
    assert isinstance(rig.keeper.error, RuntimeError)


def test_figures_of_the_session_are_looked_at_now_and_then():
    rig = Rig()
    assert rig.counts().session_stages == {}
    rig.push(0)
    assert rig.counts().session_stages["network"].p95 == 2.0


# ---- a real session


def test_a_real_session_is_kept():
    """The way of the bundled model: warm-up of one frame, anchor, a cut, a change, a reset."""
    clock, events = FakeClock(), []
    guards = Guards(SceneCut(), Drift(), Similarity, is_finite)
    keeper = Keeper(
        lambda: open_session(stream_config(2, noise="fixed")),
        LiveConfig(),
        guards,
        Ledger(clock),
        lambda *event: events.append((event[0], event[3])),
    )
    assert keeper.ready(clock())
    out = []
    for index in range(40):
        out += keeper.push(picture(index), clock()) or []
        if index == 20:
            answer = keeper.control({"prompt": "neon", "steps": 3}, index + 1, clock())
    assert answer.frame == 24
    assert ("changed", 24) in events
    assert [frame.index for frame in out] == list(range(38))
    assert value(out[0]) >= 0
    keeper.reset()
    assert [frame.index for frame in keeper.push(picture(40), clock()) or []][-1] == 40
    keeper.close()
