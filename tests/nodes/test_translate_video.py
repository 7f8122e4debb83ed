"""A video through the node: frame for frame, with its rate and its sound."""

from fractions import Fraction

import pytest
import torch

from live2diff_core.errors import FrameSizeError, PromptError, SourceError
from live2diff_core.live.source import VideoFile
from tests.clips import BIKES
from tests.nodes.graph import MAPPINGS, SETTINGS, model_and_prompt, run
from tests.pack import pack_module


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where temporary files go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The first frames of the example clip."""
    (source,) = run("ExampleVideo")
    return cut(source, tmp_path_factory.mktemp("clip") / "cut.mp4", 12)


def cut(source, target, frames):
    from live2diff_core.live.sink import VideoFileSink

    with VideoFile(source, frames) as video:
        info = video.info
        with VideoFileSink(target, (info.width, info.height), info.rate, info) as sink:
            for frame in video:
                sink.write(frame)
    return target


def translate(video, words="neon", **changes):
    model, conditioning = model_and_prompt(words)
    given = {**SETTINGS, "width": 128, **changes}
    (path,) = run("TranslateVideo", model=model, conditioning=conditioning, video=video, **given)
    return path


def frames_of(path):
    with VideoFile(path) as source:
        return [frame.timestamp for frame in source]


def pixels_of(path):
    with VideoFile(path) as source:
        return torch.stack([frame.rgb for frame in source])


def test_frame_for_frame_with_sound(example) -> None:
    path = translate(example)
    with VideoFile(path) as result, VideoFile(example) as source:
        assert (result.info.width, result.info.height) == (128, 64)
        assert result.info.rate == source.info.rate == Fraction(25)
        assert result.info.has_audio
    assert frames_of(path) == pytest.approx(frames_of(example), abs=1e-4)


def test_a_seed_gives_the_same_video(example) -> None:
    first, again, other = (pixels_of(translate(example, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_timeline_in_seconds_is_followed(example) -> None:
    model, clip = run("BundledModel")
    (travel,) = run("PromptTravel", clip=clip, timeline="0s: neon; 0.3s: ink")
    given = {**SETTINGS, "width": 128}
    (path,) = run("TranslateVideo", model=model, conditioning=travel, video=example, **given)
    travelled, plain = pixels_of(path).float(), pixels_of(translate(example)).float()
    change = (travelled - plain).abs().mean(dim=(1, 2, 3))
    assert change[0] < 3
    assert change[-1] > 10


def test_nothing_is_left_of_a_run_that_breaks_off(example, temporary, monkeypatch) -> None:
    class Interrupt(BaseException):
        pass

    steps = []

    def interrupt(self, *_):
        steps.append(1)
        if len(steps) == 10:
            raise Interrupt

    monkeypatch.setattr(pack_module("nodes.host").Progress, "step", interrupt)
    with pytest.raises(Interrupt):
        translate(example)
    assert len(steps) == 10
    assert [path for path in temporary.iterdir() if path.is_file()] == []


def test_a_broken_video_says_so_and_keeps_what_was_done(temporary, tmp_path) -> None:
    broken = tmp_path / "broken.mkv"
    cut(BIKES, broken, 40)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"broken\.mkv") as raised:
        translate(broken)
    (kept,) = [path for path in temporary.iterdir() if path.suffix == ".mp4"]
    assert str(kept) in str(raised.value)
    assert 8 <= len(frames_of(kept)) < 40


def test_a_video_of_another_kind_is_written_for_the_run_alone(example, temporary, monkeypatch):
    host = pack_module("nodes.host")
    copy = temporary / "copy.mp4"
    copy.write_bytes(example.read_bytes())
    monkeypatch.setattr(host, "video_file", lambda video: (copy, True))
    assert len(frames_of(translate(object()))) == 12
    assert not copy.exists()


def test_an_unknown_style_is_answered_with_the_list(example) -> None:
    with pytest.raises(PromptError, match="blueprint"):
        translate(example, "a portrait in oil")


def test_a_size_that_the_model_cannot_take_is_refused() -> None:
    hosted = pack_module("nodes.hosted")
    model, _ = model_and_prompt()
    config = pack_module("nodes.inputs").stream_config({**SETTINGS, "t_index": ""}, "running")
    from dataclasses import replace

    with (
        pytest.raises(FrameSizeError, match="multiples of 32"),
        hosted.HostedModel(model.model, "running", ()).running(replace(config, width=40), True),
    ):
        pass


def test_the_example_is_in_the_pack() -> None:
    (path,) = run("ExampleVideo")
    assert len(frames_of(path)) == 100
    assert "Live2DiffExampleVideo" in MAPPINGS
