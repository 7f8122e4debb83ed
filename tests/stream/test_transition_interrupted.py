"""Calls, refusals and failures while a re-prime is spread over frames."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from live2diff_core.config import AttentionWindow
from live2diff_core.errors import ConfigError, FrameSizeError, PromptError
from live2diff_core.frames import Frame
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
    distance,
    make_frames,
    open_session,
    reference,
    same,
    steps_of,
)

PUSHED = [1, 3, 4, 5]  # frames after begin_update: 3 prefill, 2 more go into both


@pytest.mark.parametrize(("steps", "to"), [(4, 1), (2, 4)])
@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.update(seed=3),
        lambda session: session.update(steps=steps_of(2)),
        lambda session: session.reprime(),
        lambda session: session.steer("ink"),
        lambda session: session.begin_update(seed=3),
        lambda session: session.begin_update(steps=steps_of(2)),
    ],
    ids=["update", "update steps", "reprime", "steer", "begin", "begin steps"],
)
def test_no_call_during_a_change_loses_a_frame(call: Callable, steps, to):
    """Two frames into it the shorter pipeline has one waiting, the longer one is half primed."""
    session, out = begun(2, steps, to)
    call(session)
    out += finish(session, HALF + 2)
    assert indices(out) == indices(FRAMES)
    assert not session.changing
    assert session.in_flight == 0


@cache
def through() -> tuple[Frame, ...]:
    """All frames around a change that nothing interrupts."""
    session, out = begun(0)
    return tuple(out + finish(session))


@pytest.mark.parametrize("pushed", PUSHED)
def test_a_flush_finishes_old_and_new_frames_as_they_would_have_been(pushed):
    session, out = begun(pushed)
    out += session.flush()
    assert indices(out) == list(range(HALF + pushed))
    assert session.in_flight == 0
    assert not session.changing
    first = min(HALF + 3, HALF + pushed)
    assert same(out[:first], undisturbed(config(3))[:first])
    assert same(out[first:], through()[first : HALF + pushed])


@pytest.mark.parametrize("pushed", [2, 4])
def test_a_stream_goes_on_under_the_new_plan_after_a_flush(pushed):
    session, out = begun(pushed)
    out += session.flush()
    out += finish(session, HALF + pushed)
    assert indices(out) == indices(FRAMES)
    other, _ = halfway(config(3))
    other.push(FRAMES[HALF : HALF + pushed])
    other.flush()
    other.update(prompt="neon")
    theirs = finish(other, HALF + pushed)
    assert distance(out[HALF + pushed :], undisturbed(config(3))[HALF + pushed :]) > 0.01
    if pushed < 3:  # nothing of the new plan had begun: an update after the flush is the same
        assert same(out[HALF + pushed :], theirs)


@pytest.mark.parametrize("pushed", PUSHED)
def test_another_change_follows_the_first_and_keeps_what_it_asked_for(pushed):
    session, out = begun(pushed)
    waits = 0 < pushed < 5  # before any work was done it begins anew, after it there is no other
    again = HALF + (5 if waits else pushed)
    first = again + 3
    assert session.begin_update(seed=5) == first
    out += finish(session, HALF + pushed)
    assert same(out[first:], fresh(session, again, first, "neon"))
    assert session.config.seed == 5
    if waits:
        assert same(out[:first], through()[:first])


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("to", [2, 4])
def test_a_value_that_changes_with_every_frame_is_seen_to_change(steps, to):
    session, _ = halfway(config(steps))
    shown = []
    for seed, frame in enumerate(make_frames(30, first=HALF), start=1):
        first = session.begin_update(seed=seed, steps=steps_of(to))
        assert first > frame.index
        session.push([frame])
        shown.append(session._pipeline.plan.config.seed)
    assert len(set(shown)) >= 30 // (2 * max(steps, to)) - 1
    assert session._plan.config.seed == 30


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("pushed", [1, 2, 4])
@pytest.mark.parametrize("flushed", [False, True])
def test_what_was_asked_for_last_shows_in_the_end(steps, pushed, flushed):
    session, _ = halfway(config(steps))
    session.begin_update(prompt="neon")
    session.push(FRAMES[HALF : HALF + pushed])
    first = session.begin_update(seed=5)
    session.push(FRAMES[HALF + pushed : HALF + pushed + 1])
    begun = HALF + pushed + 1
    if flushed:
        session.flush()
    if flushed and steps > 1:  # with one step nothing is in flight, and nothing ends with a flush
        first = begun
    else:
        begun = first - steps
    more = make_frames(60)
    more[: len(FRAMES)] = FRAMES
    out = session.push(more[HALF + pushed + 1 : 40])
    assert not session.changing
    assert session._pipeline.plan is session._plan
    opened = open_session(session.config, "neon")
    opened.warmup(more[begun - SINKS : begun])
    expected = opened.push(more[first:40])
    assert same([frame for frame in out if frame.index >= first], expected)


@pytest.mark.parametrize("pushed", [1, 4])
@pytest.mark.parametrize("change", [{"seed": 5}, None], ids=["update", "reprime"])
def test_an_update_or_a_re_prime_makes_all_changes_at_once(change, pushed):
    session, out = begun(pushed)
    other, others = halfway(config(3))
    others += other.push(FRAMES[HALF : HALF + pushed])
    if change is None:
        session.reprime()
    else:
        assert session.update(**change) == HALF + pushed - 2
    other.update(prompt="neon", **(change or {}))
    out += finish(session, HALF + pushed)
    assert same(out, others + finish(other, HALF + pushed))


def test_an_update_finishes_more_frames_than_the_sinks_hold_as_they_were():
    settings = config(4, window=AttentionWindow(2, 3))
    session = open_session(settings)
    out = session.warmup(FRAMES[:2]) + session.push(FRAMES[2:HALF])
    session.begin_update(prompt="neon")
    out += session.push(FRAMES[HALF : HALF + 6])
    assert session.changing
    assert session.update(seed=5) == HALF + 6
    out += finish(session, HALF + 6)
    assert same(out[: HALF + 6], undisturbed(settings)[: HALF + 6])
    assert indices(out) == indices(FRAMES)


@pytest.mark.parametrize("pushed", [1, 4])
def test_steering_reaches_the_old_plan_and_the_new_one(pushed):
    session, out = begun(pushed)
    session.steer("neon lights")
    out += finish(session, HALF + pushed)
    started = HALF + pushed - 2  # in flight at the latest
    changed = zip(out[started:], through()[started:], strict=True)
    assert all(distance([a], [b]) > 1e-4 for a, b in changed)
    assert same(out[:started], through()[:started])
    assert session._plan.prompt == "neon lights"


@pytest.mark.parametrize("pushed", [1, 4])
def test_a_reset_forgets_the_change_and_keeps_its_parameters(pushed):
    session, _ = begun(pushed)
    session.reset()
    assert not session.changing
    out = session.warmup(FRAMES[:SINKS]) + finish(session, SINKS)
    assert same(out, list(reference(len(FRAMES), config(3), "neon")))


def test_closing_frees_both_caches():
    session, _ = begun(4)
    session.close()
    assert session._pipeline is None
    assert session._transition is None
    assert session.in_flight == 0


# ---- refused, and broken


BAD = {
    "prompt": ({"prompt": "oil painting"}, PromptError),
    "strength": ({"strength": 0.0}, ConfigError),
    "both": ({"strength": 0.5, "steps": steps_of(2)}, ConfigError),
    "one of two": ({"seed": 5, "prompt": "oil painting"}, PromptError),
    "embedding": ({"prompt": torch.zeros(1, 8, 99)}, ConfigError),
}


@pytest.mark.parametrize("name", BAD)
def test_a_refused_change_changes_nothing(name):
    change, error = BAD[name]
    session, out = begun(4)
    settings = session.config
    with pytest.raises(error):
        session.begin_update(**change)
    with pytest.raises(PromptError):
        session.steer("oil painting")
    assert session.config == settings
    assert same(out + finish(session, HALF + 4), through())


@pytest.mark.parametrize("pushed", [1, 4])
def test_a_refused_frame_is_forgotten_during_a_change(pushed):
    session, out = begun(pushed)
    with pytest.raises(FrameSizeError):
        session.push(make_frames(1, 8, 8))
    assert same(out + finish(session, HALF + pushed), through())


@pytest.mark.parametrize("pushed", [0, 1, 3, 4])
def test_a_change_whose_work_fails_is_over_and_the_stream_goes_on(pushed, monkeypatch):
    def fail(self, *_):
        raise RuntimeError("out of memory")

    session, out = begun(pushed)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        if session._transition.primed:
            new, original = session._transition.pipeline, Pipeline.step
            patch.setattr(
                Pipeline, "step", lambda self, x: (fail if self is new else original)(self, x)
            )
        else:
            patch.setattr(Prefilling, "advance", fail)
        session.push(FRAMES[HALF + pushed : HALF + pushed + 1])
    assert not session.changing
    assert session.config == config(3)
    out += finish(session, HALF + pushed + 1)
    assert same(out, undisturbed(config(3)))


@pytest.mark.parametrize("pushed", [0, 4])
def test_a_frame_that_the_network_fails_on_is_not_taken(pushed, monkeypatch):
    def fail(self, *_):
        raise RuntimeError("interrupted")

    session, out = begun(pushed)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Pipeline, "step", fail)
        session.push(FRAMES[HALF + pushed : HALF + pushed + 1])
    assert session.next_index == HALF + pushed
    out += finish(session, HALF + pushed)
    assert indices(out) == indices(FRAMES)
