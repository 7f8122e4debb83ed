"""live2diff metrics: its table, its JSON, its pictures, on files of real clips."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch

from live2diff_core.cli import main
from live2diff_core.cli import metrics as command
from live2diff_core.metrics.figures import QUANTITIES
from tests.clips import PHONE, Make, make_video
from tests.metrics.scenes import clip_frames

FRAMES = 8
RATE = 4  # so that eight frames are two stretches of drift
WEIGHTLESS = {
    *("warp_error", "warp_error_source", "w", "ofs", "mawe", "mawe_ratio_of_means", "scuts"),
    *("depth_mse", "still_flicker", "still_share", "drift", "drift_source"),
}


def encode(path, frames):
    pixels = [np.ascontiguousarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    return make_video(path, pixels, Make(rate=RATE))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A clip, a darker one that flickers, and one that is the clip again."""
    folder = tmp_path_factory.mktemp("videos")
    frames = [frame[:, :144, :176] for frame in clip_frames(PHONE, FRAMES)]
    flickering = [(f * (0.5 + 0.1 * (k % 2))).to(torch.uint8) for k, f in enumerate(frames)]
    return {
        "source": encode(folder / "source.mp4", frames),
        "flicker": encode(folder / "flicker.mp4", flickering),
        "same": encode(folder / "same.mp4", frames),
        "short": encode(folder / "short.mp4", frames[:5]),
    }


def run_metrics(capsys, *arguments):
    """Standard output of a run that ends well."""
    code = main(["metrics", *map(str, arguments)])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


def failed(capsys, *arguments):
    assert main(["metrics", *map(str, arguments)]) == 1
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def compared(videos, tmp_path_factory):
    """Folder of a comparison."""
    folder = tmp_path_factory.mktemp("compared") / "new"
    paths = videos["flicker"], videos["same"]
    arguments = ["--source", videos["source"], "--compare", *paths, "--output", folder]
    assert main(["metrics", *map(str, arguments)]) == 0
    return folder


def test_json_of_one_output_is_flat(videos, capsys):
    out = run_metrics(capsys, videos["flicker"], "--source", videos["source"], "--json")
    figures = json.loads(out)
    assert figures.keys() == WEIGHTLESS | {
        *("source", "output", "flow", "depth", "frames", "pairs", "cuts", "size", "left_out")
    }
    assert (figures["frames"], figures["pairs"], figures["size"]) == (FRAMES, FRAMES - 1, "176x144")
    assert (figures["flow"], figures["depth"]) == ("dis", "structure")
    assert figures["output"] == str(videos["flicker"])
    assert figures["warp_error"] > 5 * figures["warp_error_source"]
    assert figures["left_out"].keys() == QUANTITIES.keys() - WEIGHTLESS
    assert "--clip" in figures["left_out"]["clip_score"]
    assert "--report" in figures["left_out"]["latency_p50_ms"]


def test_a_table_names_figures_and_what_was_left_out(videos, capsys):
    out = run_metrics(capsys, videos["same"], "--source", videos["source"], "--frames", 3)
    for figure in ("warp_error", "mawe", "depth_mse", "scuts"):
        assert f"│ {figure}" in out
    assert "same: 3 frames, 2 pairs, 0 cuts" in out
    assert "left out: drift, drift_source: shorter than two stretches of 4 frames" in out


def test_a_comparison_writes_what_it_names(compared, videos, capsys):
    assert {path.name for path in compared.iterdir()} == {
        *("metrics.json", "metrics.md", "xt.png", "warp_error.png")
    }
    figures = json.loads((compared / "metrics.json").read_text())
    assert figures.keys() == {"source", "flow", "depth", "outputs"}
    flicker, same = figures["outputs"]["flicker"], figures["outputs"]["same"]
    for name in ("warp_error", "w", "depth_mse", "still_flicker"):
        assert flicker[name] > same[name]
    assert same["depth_mse"] == same["scuts"] == 0
    alone = run_metrics(capsys, videos["flicker"], "--source", videos["source"], "--json")
    assert {**json.loads(alone), **flicker} == json.loads(alone)


def test_the_table_is_markdown(compared):
    lines = (compared / "metrics.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| figure | what it is | unit | better | flicker | same |"
    table = {line.split("|")[1].strip() for line in lines[2:] if line.startswith("|")}
    assert table == WEIGHTLESS
    assert "* left out: clip_score, clip_consistency: no CLIP was given (--clip)" in lines


def test_the_pictures_show_something(compared):
    for name in ("xt.png", "warp_error.png"):
        picture = cv2.imread(str(compared / name))
        assert picture.shape[1] == 1000
        assert picture.std() > 10


def test_the_column_can_be_chosen(compared, videos, tmp_path, capsys):
    arguments = ["--source", videos["source"], "--compare", videos["flicker"], videos["same"]]
    run_metrics(capsys, *arguments, "--output", tmp_path, "--column", 10)
    first, second = (cv2.imread(str(f / "xt.png")) for f in (compared, tmp_path))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
    error = failed(capsys, *arguments, "--output", tmp_path, "--column", 176)
    assert "column must be 0 to 175 here, got 176" in error


def test_latency_is_that_of_the_translations_report(videos, tmp_path, capsys):
    report = tmp_path / "figures.json"
    report.write_text(json.dumps({"fps": 5, "latency_ms": {"p50": 144, "p95": 168.5}}))
    arguments = [videos["same"], "--source", videos["source"], "--frames", 2, "--json"]
    figures = json.loads(run_metrics(capsys, *arguments, "--report", report))
    assert (figures["latency_p50_ms"], figures["latency_p95_ms"]) == (144, 168.5)
    assert "latency_p50_ms" not in figures["left_out"]
    report.write_text(json.dumps({"latency_ms": {"p50": None, "p95": None}}))
    figures = json.loads(run_metrics(capsys, *arguments, "--report", report))
    assert "nothing was translated" in figures["left_out"]["latency_p50_ms"]
    report.write_text("{}")
    assert "is no report of a translation" in failed(capsys, *arguments, "--report", report)


def test_outputs_of_one_name_are_called_by_their_paths(videos, tmp_path, capsys):
    other = tmp_path / "same.mp4"
    other.write_bytes(videos["flicker"].read_bytes())
    paths = [videos["same"], other]
    arguments = ["--source", videos["source"], "--frames", 2, "--json", "--compare"]
    found = json.loads(run_metrics(capsys, *arguments, *paths))
    assert list(found["outputs"]) == [str(path) for path in paths]


# ---- refused


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--source", "source"], "name one output"),
        (["same", "--source", "source", "--compare", "same"], "name one output"),
        (["--source", "source", "--compare", "same", "same"], "named twice"),
        (["same", "--source", "source", "--prompt", "ink"], "give --clip"),
        (["same", "--source", "source", "--column", "3"], "give --output"),
        (["--source", "source", "--compare", "same", "short", "--report", "x"], "leave it out"),
        (["short", "--source", "source"], "short.mp4 ended after 5 frames"),
        (["short", "--source", "source"], "(--frames 5)"),
        (["same", "--source", "source", "--flow", "raft"], "flow by RAFT needs torchvision"),
        (["same", "--source", "source", "--depth", "nowhere"], "the depth nowhere is not here"),
        (["same", "--source", "source", "--clip", "nowhere"], "holds no config.json"),
        (["same", "--source", "nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_what_cannot_be_measured_is_refused(videos, capsys, monkeypatch, arguments, reason):
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", None)
    assert reason in failed(capsys, *(videos.get(word, word) for word in arguments))


def test_pictures_without_matplotlib_are_refused_before_the_work(
    videos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("live2diff_core.metrics.charts.find_spec", lambda _: None)
    monkeypatch.setattr(command, "_measure", lambda *_: pytest.fail("measured"))
    arguments = [videos["same"], "--source", videos["source"], "--output", tmp_path]
    assert "pip install matplotlib" in failed(capsys, *arguments)
