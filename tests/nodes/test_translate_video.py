"""A video through the node: frame for frame, with its rate and its sound."""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_a_preview_is_made_small_whatever_the_pixels_are(monkeypatch, dtype) -> None:
    host, shown = pack_module("nodes.host"), []
    progress = host.Progress(1, None)
    bar = SimpleNamespace(update_absolute=lambda done, total, preview: shown.append(preview))
    monkeypatch.setattr(progress, "_bar", bar)
    rgb = torch.zeros(3, 300, 600, dtype=dtype)
    rgb[0] = 255 if dtype == torch.uint8 else 1.0
    progress.step(rgb)
    ((kind, picture, side),) = shown
    assert (kind, side, picture.size) == ("JPEG", 384, (384, 192))
    assert picture.getpixel((200, 100)) == (255, 0, 0)


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


class InMemory:
    """A VIDEO without a file, as ComfyUI's Create Video makes it."""

    def __init__(self, images, rate, audio):
        self.parts = SimpleNamespace(images=images, frame_rate=rate, audio=audio)

    def get_components(self):
        return self.parts


@pytest.fixture
def in_memory(monkeypatch):
    monkeypatch.setattr(pack_module("nodes.host"), "video_origin", lambda video: None)


def test_pictures_in_memory_are_a_video(in_memory, temporary) -> None:
    """Odd sides, alpha and sound as they come."""
    pictures = torch.rand(12, 47, 63, 4, generator=torch.Generator().manual_seed(0))
    time = torch.arange(24_000) / 48_000
    audio = {"waveform": torch.sin(time * 2000).expand(1, 2, -1), "sample_rate": 48_000}
    path = translate(InMemory(pictures, Fraction(24), audio))
    with VideoFile(path) as result:
        assert result.info.rate == 24
        assert result.info.has_audio
    assert frames_of(path) == pytest.approx([n / 24 for n in range(12)], abs=1e-4)
    assert [file for file in temporary.iterdir() if file.suffix != ".mp4"] == []
    silent = translate(InMemory(pictures, Fraction(24), None))
    assert torch.equal(pixels_of(path), pixels_of(silent))


def test_a_video_without_frames_is_refused(in_memory) -> None:
    with pytest.raises(SourceError, match="no frames"):
        translate(InMemory(torch.zeros(0, 48, 64, 3), Fraction(24), None))


def test_a_file_in_memory_is_read_as_a_file(example, temporary, monkeypatch) -> None:
    content = io.BytesIO(example.read_bytes())
    monkeypatch.setattr(pack_module("nodes.host"), "video_origin", lambda video: content)
    path = translate(object())
    assert torch.equal(pixels_of(path), pixels_of(translate_file(example, monkeypatch)))
    assert len([file for file in temporary.iterdir() if file.is_file()]) == 2


def translate_file(path, monkeypatch):
    monkeypatch.setattr(pack_module("nodes.host"), "video_origin", Path)
    return translate(path)


def test_an_unknown_style_is_answered_with_the_list(example) -> None:
    with pytest.raises(PromptError, match="blueprint"):
        translate(example, "a portrait in oil")


def test_a_size_that_the_model_cannot_take_is_refused() -> None:
    hosted = pack_module("nodes.hosted")
    model, _ = model_and_prompt()
    config = pack_module("nodes.inputs").stream_config({**SETTINGS, "t_index": ""}, model.computing)
    with (
        pytest.raises(FrameSizeError, match="multiples of 32"),
        hosted.HostedModel(model.model, ()).running(replace(config, width=40), 1),
    ):
        pass


def test_the_example_is_in_the_pack() -> None:
    (path,) = run("ExampleVideo")
    assert len(frames_of(path)) == 100
    assert "Live2DiffExampleVideo" in MAPPINGS
