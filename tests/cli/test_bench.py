"""live2diff bench: the figures are there, and they are of what was asked for."""

import json
from typing import Any

import pytest
import torch

from live2diff_core.cli import main
from live2diff_core.cli.bench import STAGES
from live2diff_core.config import StepSelection, StreamConfig
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from tests.clips import make_video, ramp
from tests.tiny import make_frames

FRAMES = 4
pytestmark = pytest.mark.usefixtures("tiny")


def bench(*arguments: str) -> int:
    return main(["bench", "--device", "cpu", "--frames", str(FRAMES), *arguments])


def runs(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert bench("--json", *arguments) == 0
    data = json.loads(capsys.readouterr().out)
    assert list(data) == ["runs"]
    return data["runs"]


def held_bytes(model, width: int, height: int, steps: int) -> int:
    """Bytes of the tensors that a stream keeps, asked of a session."""
    config = StreamConfig(width, height, StepSelection(strength=0.8, steps=steps))
    session = Session(model, config, "ink")
    list(translate(session, make_frames(9, width, height)))
    assert session._pipeline is not None
    return session._pipeline.state.nbytes


def test_every_stage_is_measured(capsys):
    (run,) = runs(capsys, "--size", "24x16")
    assert STAGES.keys() <= run["stages_ms"].keys()
    for times in [*run["stages_ms"].values(), run["latency_ms"]]:
        assert 0 < times["p50"] <= times["p95"]
    assert run["warmup_ms"] > 0


def test_the_rate_counts_the_measured_frames(capsys):
    (run,) = runs(capsys, "--size", "24x16")
    assert run["frames"] == FRAMES
    network = run["stages_ms"]["network"]["p50"] / 1000
    assert 0 < run["fps"] < FRAMES / network


@pytest.mark.parametrize("steps", [1, 3])
def test_the_state_is_what_a_session_holds(capsys, tiny, steps):
    (run,) = runs(capsys, "--size", "32x16", "--steps", str(steps))
    assert run["state_bytes"] == held_bytes(tiny, 32, 16, steps)


def test_a_run_says_what_it_was(capsys):
    arguments = ["--size", "24x16", "--size", "16x32", "--noise", "fixed", "--dtype", "float32"]
    first, second = runs(capsys, *arguments)
    assert (first["size"], second["size"]) == ("24x16", "16x32")
    for run in (first, second):
        assert (run["model"], run["steps"], run["noise"]) == ("tiny", 2, "fixed")
        assert (run["device"], run["dtype"]) == ("cpu", "float32")
        assert run["threads"] == torch.get_num_threads()


def test_the_table_names_every_stage(capsys):
    assert bench("--size", "24x16") == 0
    shown = " ".join(capsys.readouterr().out.split())  # the title may be wrapped
    title = "24x16, 2 steps, float32 on cpu: "
    for label in [*STAGES.values(), title, "frames/s", "latency", "warm-up"]:
        assert label in shown


def test_a_video_of_ones_own_is_measured_as_far_as_it_goes(capsys, tmp_path):
    path = make_video(tmp_path / "own.mp4", ramp(11))
    (run,) = runs(capsys, "--size", "24x16", "--input", str(path))
    assert run["frames"] == 3


@pytest.mark.parametrize("frames", [3, 8])
def test_a_video_that_is_too_short_is_refused(capsys, tmp_path, frames):
    path = make_video(tmp_path / "short.mp4", ramp(frames))
    assert bench("--size", "24x16", "--input", str(path)) == 1
    assert "live2diff: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--frames", "1"], "ConfigError: --frames must be at least 2, got 1"),
        (["--size", "20x16"], "FrameSizeError"),
        (["--input", "missing.mp4", "--size", "24x16"], "SourceError: missing.mp4"),
        (["--prompt", "oil", "--size", "24x16"], "PromptError"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, arguments, reason):
    assert bench(*arguments) == 1
    assert f"live2diff: {reason}" in capsys.readouterr().err
