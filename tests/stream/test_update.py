"""Changing parameters while frames are in flight: none is lost, none before it touched."""

from functools import cache

import pytest

from live2diff_core.config import AttentionWindow, Guidance, StepSelection, StreamConfig
from live2diff_core.errors import ConfigError, PromptError
from live2diff_core.frames import Frame
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from tests.tiny import (
    HEIGHT,
    WIDTH,
    distance,
    make_frames,
    open_session,
    reference,
    same,
    steps_of,
    stream_config,
    tiny_model,
)

SINKS = 5
BEFORE = 6  # streamed frames before the change
FRAMES = make_frames(SINKS + BEFORE + 7)
HALF = SINKS + BEFORE

CHANGES = {
    "prompt": {"prompt": "neon"},
    "embedding": {"prompt": tiny_model().text.encode("neon")},
    "strength": {"strength": 0.4},
    "seed": {"seed": 5},
    "guidance": {"guidance": Guidance("self", 0.5)},
    "full guidance": {"guidance": Guidance("full", 2.0, "neon")},
    "same prompt": {"prompt": "ink"},
    "nothing": {},
    "two at once": {"prompt": "neon", "seed": 5},
}


def config(steps: int = 2, sinks: int = SINKS, **settings) -> StreamConfig:
    return stream_config(steps, **({"window": AttentionWindow(sinks, 3)} | settings))


def halfway(settings: StreamConfig) -> tuple[Session, list[Frame]]:
    """A session before a change, and what it gave so far."""
    session, sinks = open_session(settings), settings.window.sinks
    out = session.warmup(FRAMES[:sinks])
    return session, out + session.push(FRAMES[sinks:HALF])


def plain(settings: StreamConfig, prompt: str = "ink") -> list[Frame]:
    """All frames without a change."""
    return list(reference(len(FRAMES), settings, prompt))


def finish(session: Session) -> list[Frame]:
    return session.push(FRAMES[HALF:]) + session.flush()


def indices(frames: list[Frame]) -> list[int]:
    return [frame.index for frame in frames]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_no_frame_is_lost_and_those_before_the_change_stay_as_they_are(steps, change):
    session, out = halfway(config(steps))
    first = session.update(**CHANGES[change])
    assert first == HALF - (steps - 1)  # the oldest frame in flight
    out += finish(session)
    assert indices(out) == indices(FRAMES)
    assert same(out[:first], plain(config(steps))[:first])


@cache
def reprimed(steps: int) -> tuple[Frame, ...]:
    """Re-primed where others change something."""
    session, out = halfway(config(steps, noise="fixed"))
    session.reprime()
    return tuple(out + finish(session))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("change", ["prompt", "strength", "guidance"])
def test_the_change_shows_from_the_returned_index_on(steps, change):
    session, out = halfway(config(steps, noise="fixed"))
    first = session.update(**CHANGES[change])
    out += finish(session)
    unchanged = reprimed(steps)
    assert all(distance([out[k]], [unchanged[k]]) > 0.005 for k in range(first, len(FRAMES)))


def fresh_from_the_last_inputs(settings: StreamConfig, prompt: str = "ink") -> list[Frame]:
    """A new session that is warmed up on the last inputs before the change."""
    session = open_session(settings, prompt)
    return list(translate(session, FRAMES[HALF - SINKS :]))[SINKS:]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("change", ["prompt", "strength", "guidance", "full guidance", "seed"])
def test_new_frames_are_those_of_a_fresh_session(steps, change):
    """Frames in flight are re-primed as well, those pushed after it are the new ones."""
    session, _ = halfway(config(steps, noise="fixed"))
    session.update(**CHANGES[change])
    new = finish(session)[-(len(FRAMES) - HALF) :]
    settings, prompt = session.config, CHANGES[change].get("prompt", "ink")
    assert same(new, fresh_from_the_last_inputs(settings, prompt))
    assert distance(new, plain(config(steps, noise="fixed"))[HALF:]) > 0.01


@pytest.mark.parametrize("steps", [1, 3])
def test_a_new_seed_is_that_of_a_fresh_session_with_fresh_noise_too(steps):
    session, _ = halfway(config(steps))
    session.update(seed=5)
    new = finish(session)[-(len(FRAMES) - HALF) :]
    assert same(new, fresh_from_the_last_inputs(config(steps, seed=5)))


@pytest.mark.parametrize(("steps", "to"), [(3, 3), (5, 5), (5, 2), (2, 5)])
def test_frames_in_flight_go_on_where_their_own_warmup_stands(steps, to):
    """They end as the warm-up of a fresh session ends, up to the position they attend from."""
    session, out = halfway(config(steps, noise="fixed"))
    session.update(prompt="neon", steps=steps_of(to), guidance=Guidance("self", 0.5))
    out += finish(session)
    fresh = open_session(session.config, "neon").warmup(FRAMES[HALF - SINKS : HALF])
    for back in range(1, steps):
        gaps = [(out[HALF - back].rgb - frame.rgb).abs().mean().item() for frame in fresh]
        assert gaps[-back] < 0.003
        assert sorted(gaps)[1] > 0.01


# ---- the number of steps


@pytest.mark.parametrize("noise", ["fresh", "fixed"])
@pytest.mark.parametrize(
    ("steps", "to", "sinks"),
    [(2, 5, 5), (5, 2, 5), (1, 8, 5), (8, 1, 5), (8, 8, 2), (8, 3, 2), (3, 8, 1), (5, 4, 2)],
)
def test_no_frame_is_lost_when_the_number_of_steps_changes(steps, to, sinks, noise):
    settings = config(steps, sinks, noise=noise)
    session, out = halfway(settings)
    session.update(steps=steps_of(to))
    assert session.spec.latency_frames == to - 1
    out += finish(session)
    assert indices(out) == indices(FRAMES)
    safe = HALF - (steps - 1)
    assert same(out[:safe], plain(settings)[:safe])


@pytest.mark.parametrize(("steps", "to"), [(2, 5), (5, 2)])
def test_new_frames_after_a_change_of_steps_are_those_of_a_fresh_session(steps, to):
    session, _ = halfway(config(steps, noise="fixed"))
    session.update(steps=steps_of(to))
    new = finish(session)[-(len(FRAMES) - HALF) :]
    assert same(new, fresh_from_the_last_inputs(config(to, noise="fixed")))


def test_more_steps_in_flight_than_sinks_are_finished_as_they_were():
    settings = config(8, sinks=2)
    session, out = halfway(settings)
    first = session.update(prompt="neon")
    assert first == HALF
    out += finish(session)
    assert same(out[:HALF], plain(settings)[:HALF])
    assert distance(out[HALF:], plain(settings)[HALF:]) > 0.01


@pytest.mark.parametrize("pushed", [0, 1, 3])
def test_the_steps_change_with_few_frames_in_flight(pushed):
    session = open_session(config(5))
    out = session.warmup(FRAMES[:SINKS]) + session.push(FRAMES[SINKS : SINKS + pushed])
    for to in (3, 1, 8, 2):
        session.update(steps=steps_of(to))
    out += session.push(FRAMES[SINKS + pushed :]) + session.flush()
    assert indices(out) == indices(FRAMES)


def test_strength_keeps_the_number_of_steps():
    session, _ = halfway(config(3))
    session.update(strength=0.5)
    assert session.config.steps == StepSelection(strength=0.5, steps=3)


def test_updates_before_every_frame_lose_none():
    session = open_session(config(3))
    out = session.warmup(FRAMES[:SINKS])
    for k, frame in enumerate(FRAMES[SINKS:]):
        session.update(prompt=("ink", "neon")[k % 2], strength=0.3 + 0.05 * k)
        out += session.push([frame])
    assert indices(out + session.flush()) == indices(FRAMES)
    assert session.stats.reprimes == len(FRAMES) - SINKS


def test_an_update_after_a_flush_counts_from_the_next_frame():
    session, _ = halfway(config(3))
    session.flush()
    assert session.update(prompt="neon") == HALF
    assert indices(finish(session)) == indices(FRAMES[HALF:])


@pytest.mark.parametrize("noise", ["fresh", "fixed"])
def test_an_update_before_the_warmup_is_as_if_opened_so(noise):
    session = open_session(config(3, noise=noise))
    assert session.update(prompt="neon", strength=0.5, seed=3) == 0
    steps = StepSelection(strength=0.5, steps=3)
    window = AttentionWindow(SINKS, 3)
    expected = StreamConfig(WIDTH, HEIGHT, steps, noise, seed=3, window=window)
    assert session.config == expected
    assert same(list(translate(session, FRAMES)), plain(expected, "neon"))


def test_two_sessions_change_apart():
    session, out = halfway(config())
    other, other_out = halfway(config())
    session.update(prompt="neon", steps=steps_of(3))
    other_out += finish(other)
    assert same(other_out, plain(config()))
    assert indices(out + finish(session)) == indices(FRAMES)


# ---- refused


BAD = {
    "prompt": ({"prompt": "oil painting"}, PromptError),
    "strength": ({"strength": 0.0}, ConfigError),
    "too little strength": ({"strength": 0.02}, ConfigError),
    "both": ({"strength": 0.5, "steps": steps_of(2)}, ConfigError),
    "seed": ({"seed": -1}, ConfigError),
    "one of two": ({"seed": 5, "prompt": "oil painting"}, PromptError),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("steps", [2, 8])
def test_a_refused_change_changes_nothing(name, steps):
    change, error = BAD[name]
    settings = config(steps, sinks=3)
    session, out = halfway(settings)
    with pytest.raises(error):
        session.update(**change)
    assert session.config == settings
    assert session.stats.reprimes == 0
    assert same(out + finish(session), plain(settings))


# ---- re-priming by hand


@pytest.mark.parametrize("steps", [1, 3])
def test_repriming_forgets_what_is_long_past(steps):
    """Frames that only the sinks still remembered no longer matter; without re-priming they do."""
    other = [Frame(1 - f.rgb, f.index, f.timestamp) for f in FRAMES[:SINKS]] + FRAMES[SINKS:]
    outs = []
    for frames in (FRAMES, other):
        session = open_session(config(steps))
        session.warmup(frames[:SINKS])
        session.push(frames[SINKS:HALF])
        session.reprime()
        outs.append(finish(session)[-(len(FRAMES) - HALF) :])
    assert same(*outs)
    unprimed = list(translate(open_session(config(steps)), other))
    assert distance(plain(config(steps))[HALF:], unprimed[HALF:]) > 0.001
