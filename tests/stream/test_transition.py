"""A re-prime spread over frames: no frame is lost, none before the change differs, none after it
from a session that was opened so.
"""

import pytest

from live2diff_core.config import Guidance
from live2diff_core.stream.denoise import Prefilling
from live2diff_core.stream.pipeline import Pipeline
from tests.stream.halfway import (
    FRAMES,
    HALF,
    SINKS,
    STEPS,
    begun,
    config,
    finish,
    fresh,
    halfway,
    indices,
    undisturbed,
)
from tests.tiny import (
    open_session,
    same,
    steps_of,
)

CHANGES = {
    "prompt": {"prompt": "neon"},
    "strength": {"strength": 0.4},
    "seed": {"seed": 5},
    "guidance": {"guidance": Guidance("self", 0.5)},
    "full guidance": {"guidance": Guidance("full", 2.0, "neon")},
    "two at once": {"prompt": "neon", "seed": 5},
    "nothing": {},
}


# ---- equal to the bit


@pytest.mark.parametrize(
    ("change", "steps", "noise"),
    [*((change, 3, "fresh") for change in CHANGES), ("prompt", 1, "fixed")],
)
def test_frames_are_the_old_streams_before_the_change_and_a_fresh_ones_after_it(
    steps, change, noise
):
    settings = config(steps, noise=noise)
    session, out = halfway(settings)
    first = session.begin_update(**CHANGES[change])
    assert first == HALF + steps
    out += finish(session)
    prompt = CHANGES[change].get("prompt", "ink")
    assert same(out[:first], undisturbed(settings)[:first])
    assert same(out[first:], fresh(session, HALF, first, prompt))
    assert session.stats.reprimes == 1


@pytest.mark.parametrize("to", STEPS)
@pytest.mark.parametrize("steps", STEPS)
def test_the_number_of_steps_may_change(steps, to):
    """Frames leave at the old latency before the change, at the new one after it; a shorter
    pipeline waits, then gives what it has at once.
    """
    settings = config(steps)
    session, out = halfway(settings)
    first = session.begin_update(steps=steps_of(to))
    assert first == HALF + to
    for frame in FRAMES[HALF:]:
        out += session.push([frame])
        old, new = frame.index - (steps - 1), frame.index - (to - 1)
        assert out[-1].index == (old if old < first - 1 else max(first - 1, new))
    out += session.flush()
    assert [(f.index, f.timestamp) for f in out] == [(f.index, f.timestamp) for f in FRAMES]
    assert same(out[:first], undisturbed(settings)[:first])
    assert same(out[first:], fresh(session, HALF, first))
    assert session.config.steps == steps_of(to)


@pytest.mark.parametrize(("steps", "to"), [(2, 2), (3, 3), (4, 2), (2, 4)])
def test_a_frame_costs_one_more_network_call_at_most(steps, to, monkeypatch):
    calls = []
    for owner, name in ((Pipeline, "step"), (Prefilling, "advance")):
        original = getattr(owner, name)

        def counted(self, *inputs, original=original, name=name):
            calls.append(name)
            return original(self, *inputs)

        monkeypatch.setattr(owner, name, counted)
    session, _ = halfway(config(steps))
    calls.clear()
    session.begin_update(steps=steps_of(to))
    assert calls == []
    per_frame = []
    for frame in FRAMES[HALF:]:
        calls.clear()
        session.push([frame])
        per_frame.append(list(calls))
    plain, priming, both = ["step"], ["step", "advance"], ["step", "step"]
    changing = [priming] * to + [both] * (steps - 1)
    assert per_frame == changing + [plain] * (len(per_frame) - len(changing))


def test_two_sessions_change_apart():
    session, out = halfway(config(3))
    other, other_out = halfway(config(3))
    session.begin_update(prompt="neon", steps=steps_of(2))
    for frame in FRAMES[HALF:]:
        out += session.push([frame])
        other_out += other.push([frame])
    assert same(other_out + other.flush(), undisturbed(config(3)))
    assert indices(out + session.flush()) == indices(FRAMES)


def test_it_is_known_whether_a_change_is_under_way():
    session, _ = halfway(config(3))
    first = session.begin_update(prompt="neon")
    changing = []
    for frame in FRAMES[HALF:]:
        changing.append(session.changing)
        session.push([frame])
    assert changing == [True] * 5 + [False] * (len(changing) - 5)  # N calls, then N - 1 in both
    assert first == HALF + 3
    assert session._transition is None  # one cache is left
    assert session._pipeline.state.nbytes == session.spec.state_bytes


@pytest.mark.parametrize("pushed", [0, 1])
@pytest.mark.parametrize(("steps", "to"), [(4, 1), (4, 3)])
def test_a_change_may_begin_with_few_frames_in_flight(steps, to, pushed):
    session = open_session(config(steps))
    out = session.warmup(FRAMES[:SINKS]) + session.push(FRAMES[SINKS : SINKS + pushed])
    first = session.begin_update(prompt="neon", steps=steps_of(to))
    out += finish(session, SINKS + pushed)
    assert indices(out) == indices(FRAMES)
    assert same(out[:first], undisturbed(config(steps))[:first])
    assert same(out[first:], fresh(session, SINKS + pushed, first, "neon"))


# ---- before the warm-up, after a flush


def test_a_change_before_the_warmup_is_an_update():
    session, updated = open_session(config(3)), open_session(config(3))
    change = {"prompt": "neon", "strength": 0.5, "seed": 3}
    assert session.begin_update(**change) == updated.update(**change) == 0
    assert not session.changing
    results = [s.warmup(FRAMES[:SINKS]) + finish(s, SINKS) for s in (session, updated)]
    assert same(*results)


def test_a_change_after_a_flush_is_made_by_the_re_prime_that_follows():
    session, _ = halfway(config(3))
    updated, _ = halfway(config(3))
    session.flush()
    updated.flush()
    assert session.begin_update(prompt="neon") == updated.update(prompt="neon") == HALF
    assert same(finish(session), finish(updated))
    assert session.stats.reprimes == updated.stats.reprimes == 1


# ---- numbers


def test_frames_in_and_out_are_counted_once():
    session, out = begun(4, steps=4, to=1)
    stats = session.stats
    assert stats.frames_in == HALF + 4
    assert stats.frames_out == len(out) == HALF + 4 - session.in_flight
    assert session.next_index == HALF + 4
    assert "transition" in stats.stages_ms
