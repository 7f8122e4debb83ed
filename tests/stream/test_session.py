"""A session: streamed equals replayed, sessions do not meet, frame in is frame out."""

import logging
from itertools import count

import pytest
import torch

from live2diff_core.config import AttentionWindow, Guidance, StepSelection, StreamConfig
from live2diff_core.errors import (
    ConfigError,
    FrameSizeError,
    PromptError,
    StreamClosed,
    StreamNotReady,
)
from live2diff_core.frames import Frame, to_bytes
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from tests.tiny import (
    HEIGHT,
    WIDTH,
    changed,
    distance,
    make_frames,
    make_model,
    open_session,
    reference,
    same,
    stream_config,
    tiny_model,
    translated,
)

ALL_STEPS = [1, 2, 3, 5, 8]
WINDOW = AttentionWindow(3, 3)
SINKS = WINDOW.sinks
FRAMES = make_frames(SINKS + 9)


def config(steps: int = 2, **settings) -> StreamConfig:
    """A short window, so that few frames wrap the ring."""
    return stream_config(steps, **({"window": WINDOW} | settings))


def started(settings: StreamConfig | None = None, prompt: str = "ink") -> Session:
    session = open_session(settings or config(), prompt)
    session.warmup(FRAMES[:SINKS])
    return session


def expected(settings: StreamConfig | None = None, prompt: str = "ink") -> list[Frame]:
    """All frames through a session of their own."""
    return list(reference(len(FRAMES), settings or config(), prompt))


# ---- equal to the bit


@pytest.mark.parametrize("noise", ["fresh", "fixed"])
@pytest.mark.parametrize("steps", ALL_STEPS)
def test_streamed_is_replayed_and_keeps_its_places(steps, noise):
    first = expected(config(steps, noise=noise))
    torch.rand(3)  # whatever else draws random numbers
    assert same(translated(FRAMES, config(steps, noise=noise)), first)
    assert [(f.index, f.timestamp) for f in first] == [(f.index, f.timestamp) for f in FRAMES]


@pytest.mark.parametrize("steps", [1, 3])
def test_one_by_one_is_all_at_once(steps):
    session = started(config(steps))
    at_once = session.push(FRAMES[SINKS:]) + session.flush()
    assert same(at_once, expected(config(steps))[SINKS:])


@pytest.mark.parametrize("steps", [1, 3])
def test_two_sessions_on_one_model_never_meet(steps):
    settings, others = config(steps, seed=1), config(steps, seed=2)
    other_frames = make_frames(len(FRAMES), seed=9)
    a, b = open_session(settings, "ink"), open_session(others, "neon")
    out_a = a.warmup(FRAMES[:SINKS])
    out_b = b.warmup(other_frames[:SINKS])
    for mine, theirs in zip(FRAMES[SINKS:], other_frames[SINKS:], strict=True):
        out_b += b.push([theirs])
        out_a += a.push([mine])
    assert same(out_a + a.flush(), expected(settings))
    assert same(out_b + b.flush(), translated(other_frames, others, "neon"))


@pytest.mark.parametrize("steps", [1, 3])
def test_a_reset_session_is_a_fresh_one(steps):
    session = started(config(steps))
    session.push(make_frames(5, seed=4))
    session.update(prompt="neon")
    session.reset()
    assert same(list(translate(session, FRAMES)), expected(config(steps), "neon"))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_changed_frame_shows_from_there_on_and_never_before(steps):
    position = SINKS + 4
    ours = expected(config(steps))
    theirs = translated(changed(FRAMES, position), config(steps))
    assert same(ours[:position], theirs[:position])
    for k in range(position, position + 3):  # itself and those that still attend to it
        assert distance(ours[k : k + 1], theirs[k : k + 1]) > 1e-4


def test_a_changed_warmup_frame_shows_everywhere():
    ours, theirs = expected(), translated(changed(FRAMES, 1), config())
    assert all(distance([a], [b]) > 1e-5 for a, b in zip(ours, theirs, strict=True))


def test_bytes_are_the_same_picture_as_numbers():
    as_bytes = [Frame(to_bytes(f.rgb), f.index, f.timestamp) for f in FRAMES]
    as_numbers = [Frame(f.rgb.float() / 255, f.index, f.timestamp) for f in as_bytes]
    assert same(translated(as_bytes, config()), translated(as_numbers, config()))


# ---- what matters


OTHERS = {
    "noise": (config(noise="fixed"), "ink"),
    "seed": (config(seed=1), "ink"),
    "prompt": (config(), "neon"),
    "guidance": (config(guidance=Guidance("self", 0.5)), "ink"),
    "steps": (config(3), "ink"),
    "window": (config(window=AttentionWindow(3, 1)), "ink"),
    "strength": (
        StreamConfig(WIDTH, HEIGHT, StepSelection(strength=0.3, steps=2), window=WINDOW),
        "ink",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_setting_matters(name):
    settings, prompt = OTHERS[name]
    assert distance(expected(settings, prompt), expected()) > 0.01


@pytest.mark.parametrize("part", ["depth", "temporal"])
def test_depth_and_time_matter(part):
    model = make_model()
    session = Session(model, config(), "ink")
    if part == "depth":
        model.unet.depth_mapping.conv_out.weight.zero_()
    else:
        for side in (model.unet.temporal_down, model.unet.temporal_up):
            for transformers in side:
                transformers[0].start_silent()
    assert distance(list(translate(session, FRAMES)), expected()) > 0.01


def test_a_text_embedding_is_as_good_as_words():
    embedding = tiny_model().text.encode("neon")
    session = Session(tiny_model(), config(), embedding)
    assert same(list(translate(session, FRAMES)), expected(prompt="neon"))


@pytest.mark.parametrize("mode", ["self", "full"])
def test_guidance_of_scale_one_is_none(mode):
    guided = config(3, guidance=Guidance(mode, 1.0, "neon"))
    assert distance(expected(guided), expected(config(3))) <= 1e-5


def test_self_guidance_of_scale_zero_gives_the_encoded_input_back():
    autoencoder = tiny_model().autoencoder
    got = expected(config(guidance=Guidance("self", 0.0)))
    inputs = [
        Frame(autoencoder.decode(autoencoder.encode(f.rgb[None]))[0].clamp(0, 1), 0, 0.0)
        for f in FRAMES
    ]
    assert distance(got, inputs) <= 1e-4


def test_results_are_pictures():
    for frame in expected():
        assert frame.rgb.shape == (3, HEIGHT, WIDTH)
        assert frame.rgb.dtype == torch.float32
        assert frame.rgb.min() >= 0
        assert frame.rgb.max() <= 1
        assert frame.rgb.std() > 0.05


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_frames_of_another_size_are_brought_to_the_sessions(fit):
    large = make_frames(5, width=40, height=40)
    got = translated(large, config(fit=fit))
    assert [frame.rgb.shape for frame in got] == [(3, HEIGHT, WIDTH)] * 5


# ---- frame in, frame out


@pytest.mark.parametrize("steps", ALL_STEPS)
def test_a_frame_leaves_after_the_announced_latency(steps):
    session = started(config(steps))
    late = session.spec.latency_frames
    for t, frame in enumerate(FRAMES[SINKS:]):
        due = [FRAMES[SINKS + t - late].index] if t >= late else []
        assert [out.index for out in session.push([frame])] == due
    assert len(session.flush()) == min(late, len(FRAMES) - SINKS)
    assert session.flush() == []


@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("pushed", [0, 1, 2])
def test_fewer_frames_than_steps_are_all_given_back(steps, pushed):
    session = started(config(steps))
    out = session.push(FRAMES[SINKS : SINKS + pushed]) + session.flush()
    assert [f.index for f in out] == list(range(SINKS, SINKS + pushed))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_stream_goes_on_after_a_flush(steps):
    session = started(config(steps))
    out = session.push(FRAMES[SINKS : SINKS + 4]) + session.flush()
    assert same(out, translated(FRAMES[: SINKS + 4], config(steps))[SINKS:])
    out += session.push(FRAMES[SINKS + 4 :]) + session.flush()
    assert [f.index for f in out] == [f.index for f in FRAMES[SINKS:]]
    assert session.stats.reprimes == (steps > 1)


@pytest.mark.parametrize("length", [1, SINKS - 1])
def test_a_clip_shorter_than_the_warmup_is_padded_and_said(length, caplog):
    with caplog.at_level(logging.WARNING, "live2diff_core"):
        got = translated(FRAMES[:length], config(3))
    assert [f.index for f in got] == list(range(length))
    assert f"wants {SINKS} frames and got {length}" in caplog.text
    padded = FRAMES[:length] + [FRAMES[length - 1]] * (SINKS - length)
    assert same(got, translated(padded, config(3))[:length])


def test_a_stream_goes_on_after_a_short_warmup():
    session = open_session(config(2))
    out = session.warmup(FRAMES[:1])
    out += session.push(FRAMES[1:]) + session.flush()
    assert [f.index for f in out] == [f.index for f in FRAMES]


def test_no_frames_give_no_frames():
    assert translated([], config()) == []
    session = started()
    assert session.push([]) == []
    assert session.flush() == []


def test_translate_reads_no_further_ahead_than_it_must():
    taken = []
    source = (taken.append(f) or f for f in FRAMES)
    out = translate(open_session(config(2)), source)
    for done in count(1):
        if next(out, None) is None:
            break
        assert len(taken) <= max(SINKS, done + 1)


# ---- refused


def test_push_before_the_warmup_is_refused():
    with pytest.raises(StreamNotReady, match=f"warmup.. with {SINKS} frames"):
        open_session(config()).push(FRAMES[:1])
    with pytest.raises(StreamNotReady):
        open_session(config()).reprime()


@pytest.mark.parametrize("length", [0, SINKS + 1])
def test_a_warmup_of_another_length_is_refused(length):
    with pytest.raises(ConfigError, match=f"1 to {SINKS} frames, got {length}"):
        open_session(config()).warmup(FRAMES[:length])


def test_a_second_warmup_is_refused_and_changes_nothing():
    session = started()
    with pytest.raises(ConfigError, match="reset"):
        session.warmup(FRAMES[:SINKS])
    out = session.push(FRAMES[SINKS:]) + session.flush()
    assert same(out, expected()[SINKS:])


def test_a_frame_of_another_size_is_refused_and_forgotten():
    session = started()
    with pytest.raises(FrameSizeError, match=f"takes {WIDTH}x{HEIGHT} frames, got 8x8"):
        session.push(make_frames(1, 8, 8))
    out = session.push(FRAMES[SINKS:]) + session.flush()
    assert same(out, expected()[SINKS:])


def test_a_warmup_frame_of_another_size_leaves_the_session_as_new():
    session = open_session(config())
    with pytest.raises(FrameSizeError):
        session.warmup([*FRAMES[: SINKS - 1], *make_frames(1, 8, 8)])
    assert same(list(translate(session, FRAMES)), expected())


def test_a_size_that_the_network_cannot_take_is_refused_with_the_nearest():
    with pytest.raises(FrameSizeError, match="nearest size is 24x16"):
        Session(tiny_model(), StreamConfig(26, 18, config().steps), "ink")


def test_an_unknown_prompt_is_refused_at_the_door():
    with pytest.raises(PromptError, match="oil"):
        open_session(config(), "oil painting")


@pytest.mark.parametrize("method", ["warmup", "push", "flush", "update", "reset", "reprime"])
def test_a_closed_session_is_of_no_use(method):
    session = started()
    session.close()
    session.close()
    arguments = [FRAMES[:1]] if method in ("warmup", "push") else []
    with pytest.raises(StreamClosed, match="open a new one"):
        getattr(session, method)(*arguments)


# ---- bytes and numbers


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("mode", ["none", "self", "full"])
@pytest.mark.parametrize("size", [(24, 16), (8, 32)])
def test_the_announced_bytes_are_those_of_the_state(steps, mode, size):
    settings = StreamConfig(*size, config(steps).steps, guidance=Guidance(mode), window=WINDOW)
    session = open_session(settings)
    announced = session.spec.state_bytes
    session.warmup(make_frames(SINKS, *size))
    assert session._pipeline is not None
    assert session._pipeline.state.nbytes == announced


def test_closing_drops_the_state():
    with started() as session:
        session.push(FRAMES[SINKS:])
        assert session._pipeline is not None
        assert session._history
    assert session._pipeline is None
    assert not session._history
    assert not session._in_flight


def test_statistics_count_frames_and_time():
    ticks = count()
    session = Session(tiny_model(), config(3), "ink", clock=lambda: float(next(ticks)))
    assert session.stats.latency_ms.p50 is None
    session.warmup(FRAMES[:SINKS])
    session.push(FRAMES[SINKS : SINKS + 5])
    stats = session.stats
    assert (stats.frames_in, stats.frames_out, stats.dropped) == (SINKS + 5, SINKS + 3, 0)
    assert set(stats.stages_ms) == {"encode", "depth", "network", "decode", "warmup"}
    assert stats.stages_ms["network"].p50 == 1000.0
    assert stats.latency_ms.p95 is not None
    assert stats.latency_ms.p95 > 1000.0
    session.flush()
    assert session.stats.frames_out == session.stats.frames_in
    session.reset()
    assert (session.stats.frames_in, session.stats.frames_out) == (0, 0)


# ---- what costs less


def test_a_stream_with_an_8_bit_cache_is_close_and_as_large_as_it_says():
    kept = open_session(stream_config(cache="float8"))
    plain = open_session()
    frames = make_frames(8 + 20)
    results = [[*s.warmup(frames[:8]), *s.push(frames[8:])] for s in (kept, plain)]
    assert 0 < distance(*results) < 0.05
    assert kept._pipeline.state.nbytes == kept.spec.state_bytes
    assert kept.spec.state_bytes < plain.spec.state_bytes / 2


@pytest.mark.parametrize("every", [1, 2, 5])
def test_depth_is_estimated_for_every_kth_frame(every, monkeypatch):
    session = open_session(stream_config(depth_every=every))
    estimate, seen = type(session.model).depth_features, []

    def counted(model, rgb, depth_range):
        seen.append(rgb)
        return estimate(model, rgb, depth_range)

    monkeypatch.setattr(type(session.model), "depth_features", counted)
    frames = make_frames(8 + 7)
    session.warmup(frames[:8])
    session.push(frames[8:])
    assert [rgb[0].equal(frames[i * every].rgb) for i, rgb in enumerate(seen)] == [True] * len(seen)
    assert len(seen) == -(-15 // every)
    session.reset()
    session.warmup(frames[3:11])
    assert seen[-(-8 // every) * -1][0].equal(frames[3].rgb)
