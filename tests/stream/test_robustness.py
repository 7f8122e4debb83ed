"""What a session, a model file and a recording do with bad or unusual input."""

import pytest
import torch

from live2diff_core.config import AttentionWindow
from live2diff_core.errors import ConfigError, FrameSizeError, Live2DiffError, WeightsFormatError
from live2diff_core.metrics.parity import Recording
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.bundled import CONFIG, TOKENIZER, load_bundled, save_bundled
from tests.tiny import (
    make_frames,
    make_parts,
    open_session,
    reference,
    same,
    steps_of,
    stream_config,
    tiny_config,
)

WINDOW = AttentionWindow(5, 3)
FRAMES = make_frames(16)


@pytest.fixture
def saved(tmp_path):
    config = tiny_config()
    save_bundled(tmp_path, make_parts(config), config)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_half_precision_streams(dtype, prediction, tmp_path):
    config = tiny_config(prediction)
    save_bundled(tmp_path, make_parts(config), config)
    settings = stream_config(2, window=WINDOW)
    half = list(translate(Session(load_bundled(tmp_path, dtype=dtype), settings, "ink"), FRAMES))
    full = list(translate(Session(load_bundled(tmp_path), settings, "ink"), FRAMES))
    gap = max((a.rgb - b.rgb).abs().mean().item() for a, b in zip(half, full, strict=True))
    assert gap < 0.05


@pytest.mark.parametrize(("steps", "to"), [(5, 2), (5, 1), (3, 2)])
def test_frames_before_the_returned_index_are_unchanged_when_the_steps_shrink(steps, to):
    settings = stream_config(steps, window=WINDOW)
    session = open_session(settings)
    out = session.warmup(FRAMES[:5]) + session.push(FRAMES[5:12])
    first = session.update(steps=steps_of(to))
    out += session.push(FRAMES[12:]) + session.flush()
    assert same(out[:first], reference(16, settings)[:first])


def test_finished_frames_survive_a_bad_frame_in_the_same_push():
    session = open_session(stream_config(1, window=WINDOW))
    session.warmup(FRAMES[:5])
    with pytest.raises(FrameSizeError):
        session.push([*FRAMES[5:8], *make_frames(1, 8, 8)])
    out = session.push(FRAMES[8:]) + session.flush()
    assert [f.index for f in out] == list(range(5, 16))


def test_frames_finished_by_an_update_survive_a_bad_frame():
    session = open_session(stream_config(5, window=WINDOW))
    session.warmup(FRAMES[:5])
    out = session.push(FRAMES[5:12])
    session.update(steps=steps_of(2))
    with pytest.raises(FrameSizeError):
        session.push(make_frames(1, 8, 8))
    out += session.push(FRAMES[12:]) + session.flush()
    assert [f.index for f in out] == list(range(5, 16))


@pytest.mark.parametrize("shape", [(1, 8, 99), (8, 16), (1, 8, 16, 1)])
def test_an_embedding_of_the_wrong_shape_is_refused_and_changes_nothing(shape):
    settings = stream_config(2, window=WINDOW)
    session = open_session(settings)
    out = session.warmup(FRAMES[:5]) + session.push(FRAMES[5:9])
    with pytest.raises(Live2DiffError):
        session.update(prompt=torch.zeros(shape))
    out += session.push(FRAMES[9:]) + session.flush()
    assert same(out, reference(16, settings))


@pytest.mark.parametrize("window", [AttentionWindow(20, 10), AttentionWindow(30, 1)], ids=str)
def test_a_window_beyond_the_position_table_is_refused_at_the_door(window):
    with pytest.raises(ConfigError):
        open_session(stream_config(2, window=window))


@pytest.mark.parametrize("content", ["not json", "{}"])
def test_a_spoiled_tokenizer_is_refused(saved, content):
    (saved / TOKENIZER).write_text(content)
    with pytest.raises(WeightsFormatError):
        load_bundled(saved)


@pytest.mark.parametrize("content", ["{}", "[]", "null"])
def test_a_configuration_of_something_else_is_refused(saved, content):
    (saved / CONFIG).write_text(content)
    with pytest.raises(WeightsFormatError):
        load_bundled(saved)


@pytest.mark.parametrize("content", ["{}", "[]"])
def test_a_recording_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "golden.json").write_text(content)
    with pytest.raises(WeightsFormatError):
        Recording(tmp_path)


def test_closing_frees_the_noise_as_well():
    session = open_session(stream_config(2, window=WINDOW, noise="fixed"))
    session.warmup(FRAMES[:5])
    session.close()
    assert session._pipeline is None
