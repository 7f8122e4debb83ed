"""live2diff translate: a file in, a file out, a report, and what happens when something breaks."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live2diff_core.cli import main, translate
from live2diff_core.cli.options import size_for
from live2diff_core.errors import SourceError
from live2diff_core.frames import Frame
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile
from live2diff_core.stream.session import Session
from tests.clips import BIKES, PHONE, burst, cut, make_video, remux
from tests.tiny import distance, same

FRAMES = 11
TICK = 2 / 90_000  # a sink's clock, rounded twice
pytestmark = pytest.mark.usefixtures("tiny")


def run(source: Path, output: Path, *more: str, prompt: str = "ink") -> int:
    arguments = ["translate", str(source), str(output), "--prompt", prompt, "--device", "cpu"]
    return main([*arguments, *more])


def until_the_break(path: Path, count: int | None = None) -> tuple[list[Frame], bool]:
    """Frames of a file, and whether it broke."""
    frames: list[Frame] = []
    with VideoFile(path, count) as source:
        try:
            frames.extend(source)
        except SourceError:
            return frames, True
    return frames, False


def shown(path: Path, count: int | None = None) -> list[Frame]:
    """Frames of a file that is whole."""
    frames, broken = until_the_break(path, count)
    assert not broken
    return frames


def figures(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Eleven noisy pictures of 48x32 pixels with a tone."""
    pictures = np.random.default_rng(0).integers(0, 256, (FRAMES, 32, 48, 3), np.uint8)
    path = tmp_path_factory.mktemp("clips") / "small.mp4"
    return make_video(path, list(pictures), tone=burst(FRAMES / 25, 0))


@pytest.fixture
def written(monkeypatch) -> list[Frame]:
    """What the command hands to the file, before it is compressed."""
    frames: list[Frame] = []

    class Recorder(VideoFileSink):
        def write(self, frame: Frame) -> None:
            super().write(frame)
            frames.append(frame)

    monkeypatch.setattr(translate, "VideoFileSink", Recorder)
    return frames


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Press Ctrl-C while the frame of this number is pushed, from 1."""
    push, pushes = Session.push, itertools.count(1)

    def interrupted(session: Session, frames: list[Frame]) -> list[Frame]:
        if next(pushes) == number:
            raise KeyboardInterrupt
        return push(session, frames)

    monkeypatch.setattr(Session, "push", interrupted)


# ---- what comes out


@pytest.mark.parametrize("clip", [PHONE, BIKES], ids=lambda path: path.stem)
def test_every_frame_of_a_real_clip_comes_out_at_its_time(tmp_path, tiny, clip):
    output = tmp_path / "out.mp4"
    assert run(clip, output, "--frames", str(FRAMES)) == 0
    ours, theirs = shown(output), shown(clip, FRAMES)
    assert len(ours) == len(theirs) == FRAMES
    for our, their in zip(ours, theirs, strict=True):
        assert our.timestamp == pytest.approx(their.timestamp, abs=TICK)
    height, width = theirs[0].rgb.shape[1:]
    assert ours[0].rgb.shape[:0:-1] == size_for(width, height, tiny)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_the_size_that_is_asked_for_comes_out_of_every_kind_of_file(tmp_path, small, suffix):
    output = tmp_path / f"out.{suffix}"
    assert run(small, output, "--size", "32x40", "--frames", "9") == 0
    frames = shown(output)
    assert len(frames) == 9
    assert {tuple(frame.rgb.shape) for frame in frames} == {(3, 40, 32)}


@pytest.mark.parametrize(("flags", "sound"), [([], True), (["--no-audio"], False)])
def test_sound_is_carried_over_unless_it_is_left_out(tmp_path, small, flags, sound):
    assert run(small, tmp_path / "out.mp4", *flags) == 0
    with VideoFile(tmp_path / "out.mp4") as output:
        assert output.info.has_audio == sound


def test_the_report_holds_what_was_done(tmp_path, small):
    report = tmp_path / "report.json"
    more = ["--size", "24x16", "--seed", "7", "--steps", "3", "--noise", "fixed"]
    assert run(small, tmp_path / "out.mp4", *more, "--report", str(report)) == 0
    data = figures(report)
    latency = data.pop("latency_ms")
    assert 0 < latency["p50"] <= latency["p95"]
    assert data.pop("fps") > 0
    assert data == {
        "frames_in": FRAMES,
        "frames_out": FRAMES,
        "steps": 3,
        "t_index": [10, 23, 36],  # strength 0.8: the last 40 of 50, in thirds
        "size": "24x16",
        "seed": 7,
        "noise": "fixed",
        "model": "tiny",
        "prompt": "ink",
        "blend": None,
        "timeline": None,
        "style": None,
        "device": "cpu",
        "dtype": "float32",
        "padded": 0,
    }


def test_the_last_line_says_what_was_written(tmp_path, small, capsys):
    assert run(small, tmp_path / "out.mp4") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{tmp_path / 'out.mp4'}: {FRAMES} frames, ")


@pytest.mark.parametrize(("seed", "equal"), [("3", True), ("4", False)])
def test_a_seed_gives_the_same_frames_and_another_seed_others(
    tmp_path, small, written, seed, equal
):
    assert run(small, tmp_path / "first.mp4", "--seed", "3") == 0
    first = written[:]
    written.clear()
    assert run(small, tmp_path / "second.mp4", "--seed", seed) == 0
    assert same(first, written) == equal
    assert (distance(shown(tmp_path / "first.mp4"), shown(tmp_path / "second.mp4")) == 0) == equal


@pytest.mark.parametrize("count", [1, 7, 8])
def test_a_short_clip_is_padded_which_is_said(tmp_path, small, caplog, count):
    report = tmp_path / "report.json"
    output = tmp_path / "out.mp4"
    assert run(small, output, "--frames", str(count), "--report", str(report)) == 0
    assert len(shown(output)) == count
    data = figures(report)
    assert (data["frames_in"], data["frames_out"]) == (count, count)
    assert data["padded"] == 8 - count
    assert ("the last one is repeated" in caplog.text) == (count < 8)


def test_a_timeline_ends_where_a_cut_to_its_last_prompt_would(tmp_path, small, written):
    def translated(*arguments: str) -> list[Frame]:
        assert main(["translate", str(small), str(tmp_path / "out.mp4"), *arguments]) == 0
        frames = list(written)
        written.clear()
        return frames

    ink = translated("--prompt", "ink")
    still = translated("--timeline", "0: ink")
    assert same(still, ink)
    moved = translated("--timeline", "8: ink; 10: neon")
    assert same(moved[:8], ink[:8])
    assert distance(moved[9:], ink[9:]) > 1e-4


def test_words_are_needed(tmp_path, small, capsys):
    assert main(["translate", str(small), str(tmp_path / "out.mp4")]) == 1
    assert "--prompt, or --timeline, or a --style" in capsys.readouterr().err
    named = ["--timeline", "0: ink", "--blend", "neon"]
    assert main(["translate", str(small), str(tmp_path / "out.mp4"), *named]) == 1
    assert "leave --blend out" in capsys.readouterr().err


def test_a_blend_lies_between_its_prompts(tmp_path, small, written):
    def translated(prompt: str, *more: str) -> list[Frame]:
        written.clear()
        assert run(small, tmp_path / "out.mp4", "--frames", "9", *more, prompt=prompt) == 0
        return written[:]

    ink, neon = translated("ink"), translated("neon")
    half = translated("ink", "--blend", "neon")
    assert same(translated("ink", "--blend", "neon", "--blend-weight", "0"), ink)
    assert same(translated("ink", "--blend", "neon", "--blend-weight", "1"), neon)
    assert distance(half, ink) > 0
    assert distance(half, neon) > 0


def test_timesteps_may_be_named(tmp_path, small):
    report = tmp_path / "report.json"
    assert run(small, tmp_path / "o.mp4", "--t-index", "20,35", "--report", str(report)) == 0
    assert (figures(report)["steps"], figures(report)["t_index"]) == (2, [20, 35])


# ---- what breaks


def test_a_broken_file_is_translated_up_to_the_break(tmp_path, capsys):
    whole = remux(PHONE, tmp_path / "whole.mp4", movflags="faststart")
    broken, output, report = (tmp_path / name for name in ("cut.mp4", "out.mp4", "report.json"))
    cut(whole, broken, 0.25)
    decoded, broke = until_the_break(broken)
    assert broke
    assert 8 < len(decoded) < 60
    assert run(broken, output, "--report", str(report)) == 1
    frames = shown(output)
    assert len(frames) == len(decoded)
    assert frames[-1].timestamp == pytest.approx(decoded[-1].timestamp, abs=TICK)
    data = figures(report)
    assert (data["frames_in"], data["frames_out"]) == (len(decoded), len(decoded))
    error = capsys.readouterr().err
    assert f"SourceError: {broken}" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("number", [2, 3])
def test_an_interrupt_leaves_a_file_that_plays_and_a_report(
    tmp_path, small, monkeypatch, capsys, number
):
    interrupt_at(monkeypatch, number)
    output, report = tmp_path / "out.mp4", tmp_path / "report.json"
    assert run(small, output, "--report", str(report)) == 130
    done = 8 + number - 2  # with two steps, the newest frame is still in flight
    assert len(shown(output)) == done
    assert figures(report)["frames_out"] == done
    assert "live2diff: interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("number", [2, 3])
def test_the_report_of_an_interrupted_run_counts_every_frame_that_went_in(
    tmp_path, small, monkeypatch, number
):
    interrupt_at(monkeypatch, number)
    report = tmp_path / "report.json"
    assert run(small, tmp_path / "out.mp4", "--report", str(report)) == 130
    assert figures(report)["frames_in"] == 8 + number - 1


def test_a_run_that_took_no_frame_reports_no_padding(tmp_path, small):
    report = tmp_path / "report.json"
    assert run(small, tmp_path / "out.gif", "--report", str(report)) == 1
    assert figures(report)["frames_in"] == figures(report)["padded"] == 0


def test_the_input_is_not_overwritten(tmp_path, small, capsys):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(small.read_bytes())
    assert run(copy, copy) == 1
    assert copy.read_bytes() == small.read_bytes()
    assert "SinkError" in capsys.readouterr().err


def test_a_prompt_without_a_style_is_refused_with_all_styles(tmp_path, small, capsys):
    assert run(small, tmp_path / "out.mp4", prompt="an oil painting") == 1
    error = capsys.readouterr().err
    for part in ("PromptError", "an oil painting", "ink drawing", "neon lights"):
        assert part in error
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["--size", "30x16"], ["FrameSizeError", "multiples of 8", "30x16", "32x16"]),
        (["--size", "0x16"], ["0x16"]),
        (["--t-index", "20,35", "--strength", "0.5"], ["ConfigError", "leave strength"]),
        (["--model", "other"], ["WeightsMissingError", "the base other is not here"]),
        (["--style", "other"], ["ConfigError", "no such style: other; there are arknight"]),
        (["--timeline", "0: ink"], ["ConfigError", "leave --prompt out"]),
        (["--guidance-scale", "7"], ["ConfigError", "--guidance-scale needs --guidance self"]),
        (["--guidance", "full"], ["ConfigError", "with a scale of 1 is no guidance"]),
        (["--guidance", "self", "--guidance-scale", "2", "--negative", "ink"], ["full alone"]),
        (["--device", "nonsense"], ["ConfigError", "device 'nonsense' cannot be used"]),
        (["--device", "cuda:99"], ["ConfigError", "device 'cuda:99' cannot be used"]),
        (["--frames", "0"], ["ConfigError", "at least 1"]),
        (["--seed", "-1"], ["ConfigError", "seed"]),
        (["--blend", "oil"], ["PromptError", "'oil'"]),
        (["--fit", "refuse"], ["FrameSizeError", "48x32"]),
    ],
)
def test_a_setting_that_cannot_be_is_refused(tmp_path, small, capsys, arguments, reasons):
    assert run(small, tmp_path / "out.mp4", *arguments) == 1
    error = capsys.readouterr().err
    for reason in reasons:
        assert reason in error
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("missing.mp4", "out.mp4"), "SourceError"),
        (("small.mp4", "out.gif"), "SinkError"),
        (("small.mp4", "missing/out.mp4"), "SinkError"),
    ],
)
def test_a_place_that_is_not_there_is_refused_by_name(tmp_path, small, capsys, names, reason):
    source, output = names
    folder = small.parent if source == "small.mp4" else tmp_path
    assert run(folder / source, tmp_path / output) == 1
    assert f"live2diff: {reason}: " in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path, small, capsys):
    report = tmp_path / "missing" / "report.json"
    assert run(small, tmp_path / "out.mp4", "--report", str(report)) == 1
    assert f"SinkError: the folder {report.parent} of the report" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
