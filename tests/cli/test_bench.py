"""live2diff bench: the figures are there, and they are of what was asked for."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from live2diff_core.cli import main, make_parser
from live2diff_core.cli.bench import STAGES, choices
from live2diff_core.cli.bench.floor import Rates
from live2diff_core.config import StepSelection, StreamConfig
from live2diff_core.metrics import reference
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from tests.clips import make_video, ramp
from tests.tiny import make_frames
from tests.untrained import tiny_networks

FRAMES = 4
pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """A device of known speed: 1 TFLOP/s, 1 GB/s."""
    known = Rates(1e12, 1e9)
    monkeypatch.setattr(choices, "measure_rates", lambda *_: known)
    return known


@pytest.fixture
def threads() -> Iterator[None]:
    """Two threads; afterwards as many as there were."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def bench(*arguments: str) -> int:
    return main(["bench", "--device", "cpu", "--frames", str(FRAMES), *arguments])


def report(
    capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    assert bench("--json", *arguments) == status
    data = json.loads(capsys.readouterr().out)
    assert list(data) == ["environment", "runs"]
    return data["environment"], data["runs"]


def runs(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    return report(capsys, *arguments)[1]


def held_bytes(model, width: int, height: int, steps: int) -> int:
    """Bytes of the tensors that a stream keeps, asked of a session."""
    config = StreamConfig(width, height, StepSelection(strength=0.8, steps=steps))
    session = Session(model, config, "ink")
    list(translate(session, make_frames(9, width, height)))
    assert session._pipeline is not None
    return session._pipeline.state.nbytes


# ---- figures


def test_every_stage_is_measured(capsys):
    (run,) = runs(capsys, "--size", "24x16")
    assert STAGES.keys() <= run["stages_ms"].keys()
    for times in [*run["stages_ms"].values(), run["frame_ms"], run["latency_ms"]]:
        assert 0 < times["p50"] <= times["p95"]
    assert min(run["first_frame_ms"], run["reprime_ms"]) > 0
    assert run["compile_ms"] is None


def test_the_network_is_its_spatial_and_its_temporal_part(capsys):
    (run,) = runs(capsys, "--size", "24x16")
    stages, counted = run["stages_ms"], run["eager_pass"]
    for name in ("p50", "p95"):
        parts = stages["spatial"][name] + stages["temporal"][name]
        assert parts == pytest.approx(stages["network"][name])
    for figures in counted.values():
        assert 0 < figures["attention"] < figures["temporal"] < figures["network"]
    share = counted["ms"]["temporal"] / counted["ms"]["network"]
    assert stages["temporal"]["p50"] == pytest.approx(share * stages["network"]["p50"])


@pytest.mark.parametrize("part", ["network", "attention"])
def test_the_floor_is_at_the_rates_of_the_device(capsys, part):
    (run,) = runs(capsys, "--size", "24x16")
    assert (run["floor"]["matmul_tflops"], run["floor"]["copy_gb_s"]) == (1, 1)
    row = run["floor"][part]
    assert row["flops"] == run["eager_pass"]["flops"][part]
    assert row["compute_ms"] == pytest.approx(row["flops"] / 1e9)
    assert row["memory_ms"] == pytest.approx(row["bytes"] / 1e6)
    assert row["ms"] == max(row["compute_ms"], row["memory_ms"])
    taken = {
        "network": run["stages_ms"]["network"]["p50"],
        "attention": run["eager_pass"]["ms"]["attention"],
    }
    assert row["taken_ms"] == taken[part]
    assert row["ratio"] == pytest.approx(taken[part] / row["ms"])


def test_the_rate_counts_the_measured_frames(capsys):
    (run,) = runs(capsys, "--size", "24x16")
    assert run["frames"] == FRAMES
    slowest = run["frame_ms"]["p95"] / 1000  # of four
    assert 1 / slowest <= run["fps"] < 1000 * FRAMES / run["frame_ms"]["p50"]


@pytest.mark.parametrize("steps", [1, 3])
def test_the_memory_names_the_state_that_a_session_holds(capsys, tiny, steps):
    (run,) = runs(capsys, "--size", "32x16", "--n", str(steps))
    memory = run["memory"]
    assert memory["state"] == held_bytes(tiny, 32, 16, steps)
    assert memory["state"] < memory["peak"] <= memory["peak_with_reprime"]


def test_the_environment_is_named(capsys, threads):
    found, (run,) = report(capsys, "--size", "24x16", "--threads", "1")
    assert found["torch"] == torch.__version__
    assert found["device"] == found["processor"] != ""
    assert found["threads"] == run["threads"] == 1


# ---- combinations


def test_a_run_says_what_it_was(capsys):
    arguments = ["--size", "24x16", "--size", "16x32", "--noise", "fixed", "--dtype", "float32"]
    first, second = runs(capsys, *arguments)
    assert (first["size"], second["size"]) == ("24x16", "16x32")
    for run in (first, second):
        assert (run["model"], run["steps"], run["noise"]) == ("tiny", 2, "fixed")
        assert (run["device"], run["dtype"], run["weights"]) == ("cpu", "float32", "files")
        assert (run["runtime"], run["attention"], run["cache"]) == ("eager", "auto", "network")
        assert run["threads"] == torch.get_num_threads()


def test_all_combinations_are_run(capsys):
    arguments = ["--size", "24x16", "--size", "16x32", "--steps", "1", "--n", "3"]
    arguments += ["--dtype", "float32", "--dtype", "bfloat16"]
    found = [(run["dtype"], run["size"], run["steps"]) for run in runs(capsys, *arguments)]
    sizes = [(size, steps) for size in ("24x16", "16x32") for steps in (1, 3)]
    assert found == [(dtype, *rest) for dtype in ("float32", "bfloat16") for rest in sizes]


def test_a_model_is_loaded_once_for_each_precision(capsys, monkeypatch):
    loaded = []
    load = choices.load
    monkeypatch.setattr(choices, "load", lambda choice: loaded.append(choice) or load(choice))
    varied = ["--n", "1", "--n", "2", "--dtype", "float32", "--dtype", "bfloat16"]
    runs(capsys, "--size", "24x16", *varied)
    assert [choice.dtype for choice in loaded] == ["float32", "bfloat16"]


def test_the_sizes_are_the_models_own_and_a_square_where_none_is_named():
    options = make_parser().parse_args(["bench", "--n", "1", "--n", "2"])
    found = [(choice.size, choice.steps) for choice in choices.combinations(options)]
    assert found == [(size, steps) for size in (None, (256, 256)) for steps in (1, 2)]


@pytest.mark.parametrize("refused", [("--runtime", "graph"), ("--size", "20x16")])
def test_what_cannot_run_says_why_and_the_others_go_on(capsys, refused):
    arguments = ["--size", "24x16", "--runtime", "eager", *refused]
    assert bench("--json", *arguments) == 1
    shown = capsys.readouterr()
    ran, not_run = json.loads(shown.out)["runs"]
    assert ran["frames"] == FRAMES
    assert not_run["refused"].partition(": ")[0] in ("ConfigError", "FrameSizeError")
    assert f"live2diff: {not_run['refused']}" in shown.err


def test_what_runs_after_a_refusal_is_measured(capsys):
    assert bench("--size", "20x16", "--size", "24x16") == 1
    shown = capsys.readouterr().out
    assert "not run: 20x16" in shown
    assert "24x16, 2 steps, float32 on cpu, eager: " in shown


# ---- what is shown


def test_the_table_names_every_stage(capsys):
    assert bench("--size", "24x16") == 0
    shown = capsys.readouterr().out
    title = "24x16, 2 steps, float32 on cpu, eager: "
    told = [title, "frames/s", "latency", "first frame", "re-prime", "memory", "taken / floor"]
    for label in [*STAGES.values(), *told]:
        assert label in shown
    assert "summary" not in shown


def test_several_runs_end_with_a_summary(capsys):
    assert bench("--size", "24x16", "--n", "1", "--n", "2") == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "│ 24x16 │" in line]
    assert [row.split("│")[2].strip() for row in rows] == ["1", "2"]


# ---- what is measured


def test_a_video_of_ones_own_is_measured_as_far_as_it_goes(capsys, tmp_path):
    path = make_video(tmp_path / "own.mp4", ramp(13))
    (run,) = runs(capsys, "--size", "24x16", "--input", str(path))
    assert run["frames"] == 2  # of 13 frames 8 are the warm-up's and 3 are not counted


@pytest.mark.parametrize("frames", [3, 8, 11])
def test_a_video_that_is_too_short_is_refused(capsys, tmp_path, frames):
    path = make_video(tmp_path / "short.mp4", ramp(frames))
    assert bench("--size", "24x16", "--input", str(path)) == 1
    assert "live2diff: ConfigError: " in capsys.readouterr().err


def test_weights_can_be_random(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(choices, "sd15", lambda *parts: asked.append(parts) or tiny_networks())
    arguments = ["--weights", "random", "--vae", "base", "--depth", "structure"]
    (run,) = runs(capsys, *arguments, "--size", "32x16", "--n", "1")
    assert (run["model"], run["weights"], run["steps"]) == ("random", "random", 1)
    assert asked == [(True, True)]


def test_the_reference_is_run_beside(capsys, monkeypatch, tmp_path):
    asked = []
    times = {"p50_ms": 4.0, "p95_ms": 5.0, "peak_bytes": 3 * 10**9}
    figures = {"reference": times, "ours": times | {"p50_ms": 2.0}, "ratio": 2.0}
    figures |= {"largest_difference": 1.5e-6, "note": None, "frames": FRAMES}
    monkeypatch.setattr(reference, "beside", lambda *given: asked.append(given) or figures)
    arguments = ["--size", "24x16", "--against", str(tmp_path)]
    (run,) = runs(capsys, *arguments)
    assert run["against"] == figures
    ((model, checkout, config, frames),) = asked
    assert (model.name, checkout, frames) == ("tiny", tmp_path, FRAMES)
    assert config.size_text == "24x16"
    assert bench(*arguments) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "takes 2.00 times as long" in shown
    assert "1.5e-06" in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--frames", "1"], "ConfigError: --frames must be at least 2, got 1"),
        (["--uncounted", "0"], "ConfigError: --uncounted must be at least 1, got 0"),
        (["--threads", "0"], "ConfigError: --threads must be at least 1, got 0"),
        (["--size", "20x16"], "FrameSizeError"),
        (["--input", "missing.mp4", "--size", "24x16"], "SourceError: missing.mp4"),
        (["--prompt", "oil", "--size", "24x16"], "PromptError"),
        (["--weights", "random", "--model", "sd15"], "ConfigError: --weights random takes no"),
        (["--weights", "random", "--vae", "my.pt"], "ConfigError: --weights random has --vae"),
        (["--weights", "random", "--depth", "midas"], "ConfigError: --weights random has its own"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, arguments, reason):
    assert bench(*arguments) == 1
    assert f"live2diff: {reason}" in capsys.readouterr().err
