"""live2diff train: settings in; checkpoints, log, curves and videos out; a model that streams."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from live2diff_core.cli import main
from live2diff_core.cli.train.reader import FileReader
from live2diff_core.cli.train.record import Record, draw, running_mean
from live2diff_core.errors import SourceError
from live2diff_core.live.source import VideoFile
from live2diff_core.training import motion
from tests.clips import BIKES, BUNNY, PHONE, Make, cut, make_video, ramp
from tests.training.runs import write_models

SETTINGS = """
checkpoint_every = 2
directory = "{folder}/run"
[model]
base = "tiny"
depth = "structure"
models = "{folder}/models"
[data]
source = "{folder}/videos"
prompt = "a film"
width = 48
height = 32
frames = 17
[optimisation]
steps = 4
learning_rate = 1e-3
[validation]
clips = ["{phone}"]
prompt = "a man"
every = 3
frames = 10
"""


@pytest.fixture(scope="module", autouse=True)
def _few_fixed_clips() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motion, "FIXED_CLIPS", 1)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models, two short videos with one caption, and settings."""
    folder: Path = tmp_path_factory.mktemp("train")
    write_models(folder / "models")
    (folder / "videos").mkdir()
    for name, seed in (("a", 0), ("b", 1)):
        pictures = np.random.default_rng(seed).integers(0, 256, (20, 32, 48, 3), np.uint8)
        make_video(folder / "videos" / f"{name}.mp4", list(pictures))
    (folder / "videos" / "a.txt").write_text("a cat", encoding="utf-8")
    text = SETTINGS.format(folder=folder, phone=PHONE)
    (folder / "run.toml").write_text(text, encoding="utf-8")
    return folder


def run(*arguments: object) -> int:
    AcceleratorState._reset_state(reset_partial_state=True)
    return main(["train", *map(str, arguments), "--device", "cpu"])


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    """The directory of a finished run."""
    assert run(folder / "run.toml") == 0
    return folder / "run"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---- a run


def test_every_step_is_in_the_log(trained):
    log = lines(trained / "log.jsonl")
    assert [line["step"] for line in log] == [0, 1, 2, 3]
    assert all(line["loss"] > 0 and line["norm"] > 0 and line["rate"] > 0 for line in log)
    fixed = lines(trained / "fixed.jsonl")
    assert [line["step"] for line in fixed] == [0, 2, 4]


def test_validation_is_of_the_start_in_between_and_of_the_end(trained):
    checks = lines(trained / "validation.jsonl")
    assert [(line["step"], line["clip"]) for line in checks] == [
        (step, "carphone_pristine") for step in (0, 3, 4)
    ]
    assert all(line["flicker"] > 0 and line["input_flicker"] > 0 for line in checks)
    for step in (0, 3, 4):
        place = trained / "validation" / f"step-{step:07d}"
        with VideoFile(place / "carphone_pristine.mp4") as video:
            assert (video.info.width, video.info.height, len(list(video))) == (48, 32, 10)
        assert (place / "carphone_pristine.png").read_bytes().startswith(b"\x89PNG")
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_checkpoint_translates_a_video(trained, folder, tmp_path):
    """Through the command that users have, with the motion weights that were trained."""
    weights = trained / "checkpoints" / "step-0000004" / "motion.safetensors"
    arguments = ["translate", str(PHONE), str(tmp_path / "out.mp4"), "--model", "tiny"]
    arguments += ["--models", str(folder / "models"), "--depth", "structure", "--device", "cpu"]
    arguments += ["--motion", str(weights), "--prompt", "a man", "--frames", "12"]
    assert main([*arguments, "--size", "48x32", "--t-index", "20,35"]) == 0
    with VideoFile(tmp_path / "out.mp4") as video:
        assert len(list(video)) == 12


def test_a_run_that_is_interrupted_says_so_and_goes_on(folder, tmp_path, monkeypatch, capsys):
    step, made = motion.MotionTrainer._finish, []

    def interrupted(self: motion.MotionTrainer, *given: Any) -> motion.Progress:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(step(self, *given))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(motion.MotionTrainer, "_finish", interrupted)
        assert run(folder / "run.toml", "--directory", tmp_path) == 130
    assert "stopped after 3 steps; the same command goes on" in capsys.readouterr().err
    assert len(lines(tmp_path / "log.jsonl")) == 3
    assert run(folder / "run.toml", "--directory", tmp_path) == 0
    whole = lines(folder / "run" / "log.jsonl")
    assert lines(tmp_path / "log.jsonl") == whole
    assert len(lines(tmp_path / "validation.jsonl")) == 3


def test_a_finished_run_is_left_as_it_is(trained, folder, capsys):
    before = (trained / "log.jsonl").read_text(encoding="utf-8")
    assert run(folder / "run.toml") == 0
    assert (trained / "log.jsonl").read_text(encoding="utf-8") == before
    assert "motion weights after 4 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.toml"], "none.toml cannot be read as TOML"),
        (["run.toml", "--output", "x"], "--output is the bundled model's"),
        (["run.toml", "--start", "x"], "--start is the bundled model's"),
        (["run.toml", "--frame-by-frame"], "--frame-by-frame is the bundled model's"),
        (["run.toml", "--device", "cuda:7"], "accelerate chooses the device, 'cuda:7'"),
    ],
)
def test_wrong_settings_and_options_end_with_a_message(folder, arguments, message, capsys):
    name, *more = arguments
    assert main(["train", str(folder / name), *more]) == 1
    assert message in capsys.readouterr().err


# ---- parts of files


def test_a_file_tells_its_length():
    length = FileReader().length(BIKES)
    assert length is not None
    assert (length.frames, length.rate) == (250, 25)


@pytest.mark.parametrize("clip", [BIKES, BUNNY, PHONE], ids=lambda path: path.stem)
@pytest.mark.parametrize("number", [0, 1, 37, 75])
def test_frames_from_the_middle_are_those_of_the_whole_file(clip, number):
    with VideoFile(clip, number + 3) as video:
        rate, whole = video.info.rate, list(video)[number:]
    with FileReader().open(clip, float(number / rate)) as frames:
        part = [next(frames) for _ in range(3)]
    assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(part, whole, strict=True))


def test_decoding_starts_at_the_key_frame_before(tmp_path):
    key_frames = Make(options=(("crf", "1"), ("g", "10"), ("sc_threshold", "0")))
    path = make_video(tmp_path / "a.mp4", ramp(20) * 3, key_frames)
    with FileReader().open(path, 45 / 25) as frames:
        first = next(frames)
    assert first.index == 5  # counted from the one that was decoded first, number 40
    assert float(first.rgb.float().mean()) == pytest.approx(20 + 10 * 5, abs=4)


def test_a_broken_file_is_named(tmp_path):
    broken = cut(BIKES, tmp_path / "broken.mp4")
    with pytest.raises(SourceError, match=re.escape(str(broken))):
        FileReader().length(broken)


# ---- what is left behind


def test_a_record_drops_lines_that_are_made_again(tmp_path):
    path = tmp_path / "log.jsonl"
    first = Record(path, 0)
    for step in range(4):
        first.add(step=step, loss=1.0)
    again = Record(path, 2)
    again.add(step=2, loss=0.5)
    assert lines(path) == [*({"step": s, "loss": 1.0} for s in (0, 1)), {"step": 2, "loss": 0.5}]
    assert lines(path) == list(again.lines)
    assert [file.name for file in tmp_path.iterdir()] == ["log.jsonl"]


def test_the_running_mean_looks_back_alone():
    assert running_mean([2.0, 4.0, 6.0]) == [2.0, 4.0, 6.0]  # a tenth of three steps is one
    smooth = running_mean([0.0] * 10 + [30.0] + [0.0] * 19)  # three steps
    assert smooth[9:14] == [0.0, 10.0, 10.0, 10.0, 0.0]


def test_curves_are_drawn_with_and_without_checks(tmp_path):
    steps = [{"step": s, "loss": 1 / (s + 1)} for s in range(30)]
    draw(tmp_path / "plain.png", steps, steps[::10], [])
    checks = [{"step": s, "clip": "a", "flicker": 0.1} for s in (0, 10)]
    draw(tmp_path / "both.png", steps, steps[::10], checks)
    sizes = [int.from_bytes((tmp_path / n).read_bytes()[16:20]) for n in ("plain.png", "both.png")]
    assert sizes[0] < sizes[1]  # a second panel
