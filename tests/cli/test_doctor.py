"""live2diff doctor: each line is true, what is wrong comes with what to do."""

import argparse
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch

from live2diff_core import __version__
from live2diff_core.cli import doctor
from live2diff_core.cli.doctor import ENCODERS, PACKAGES, Finding
from live2diff_core.errors import WeightsKeyError, WeightsMissingError
from live2diff_core.models.translator import TranslationModel
from live2diff_core.weights.spec import MODELS_VARIABLE
from live2diff_core.weights.styles import load_styles

pytestmark = pytest.mark.usefixtures("tiny")
Found = dict[tuple[str, str], dict[str, str]]


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_command(parser.add_subparsers())
    options = parser.parse_args(["doctor", *arguments])
    return int(options.run(options))


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Found]:
    """Exit status, and lines by group and part."""
    status = run("--json", *arguments)
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert facts["ok"] == (status == 0)
    for line in facts["findings"]:
        assert bool(line["advice"]) == (line["state"] != "ok")
    return status, {(line["group"], line["part"]): line for line in facts["findings"]}


def by_part(findings: Any) -> dict[str, Finding]:
    return {finding.part: finding for finding in findings}


def test_the_bundled_model_is_run(capsys):
    status, lines = found(capsys)
    assert status == 0
    stream = lines["bundled model", "stream"]
    assert (stream["state"], stream["text"]) == ("ok", "tiny translated 12 frames on cpu")
    assert lines["devices", "cpu"]["text"].endswith(" GB free")


def broken_files(*_: object) -> TranslationModel:
    raise WeightsKeyError("bundled.safetensors does not fit this network: 3 missing")


def broken_driver(*_: object) -> TranslationModel:
    raise RuntimeError("no kernel image is available")


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (broken_files, "WeightsKeyError: bundled.safetensors does not fit"),
        (broken_driver, "RuntimeError: no kernel image"),
    ],
)
def test_a_bundled_model_that_does_not_load_fails(monkeypatch, capsys, load, reason):
    monkeypatch.setattr(doctor.weights, "load_model", load)
    status, lines = found(capsys)
    assert status == 1
    line = lines["bundled model", "stream"]
    assert line["state"] == "failed"
    assert line["text"].startswith(reason)
    assert "reinstall live2diff" in line["advice"]


def test_a_bundled_model_that_gives_no_pictures_fails(monkeypatch, tiny):
    broken = SimpleNamespace(rgb=torch.full((3, 2, 2), torch.nan))
    monkeypatch.setattr(doctor, "translate", lambda *_: [broken])
    line = doctor.check_bundled()
    assert line.state == "failed"
    assert "not finite" in line.text


def test_versions_are_those_that_are_installed():
    lines = by_part(doctor.versions())
    assert lines["live2diff"].text == __version__
    assert lines["opencv"].text == cv2.__version__
    for package in PACKAGES:
        assert (lines[package].state, lines[package].text) == ("ok", version(package))


def test_a_package_that_is_missing_is_named(monkeypatch):
    def without(name: str) -> str:
        if name == "accelerate":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", without)
    lines = by_part(doctor.versions())
    absent = [line for line in lines.values() if line.state != "ok"]
    assert [(line.part, line.advice) for line in absent] == [
        ("accelerate", "pip install accelerate")
    ]


def test_encoders_are_asked_of_ffmpeg(monkeypatch):
    monkeypatch.setitem(ENCODERS, "AAC", "no_such_encoder")
    lines = by_part(doctor.extras())
    assert lines["AAC encoder"].state == "missing"
    assert "no_such_encoder" in lines["AAC encoder"].advice
    assert lines["H.264 encoder"].text == "libx264"  # PyAV's own builds have it


def test_a_compiler_is_looked_for_by_its_names(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", {"g++": "/bin/g++"}.get)
    assert by_part(doctor.extras())["C++ compiler"].text == "/bin/g++"
    monkeypatch.setenv("CXX", "mine")
    monkeypatch.setattr(doctor.shutil, "which", {"mine": "/opt/mine", "g++": "/bin/g++"}.get)
    assert by_part(doctor.extras())["C++ compiler"].text == "/opt/mine"
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    line = by_part(doctor.extras())["C++ compiler"]
    assert (line.state, "C++ compiler" in line.advice) == ("missing", True)


@pytest.mark.parametrize(
    ("system", "devices", "state"),
    [
        ("Linux", ["/dev/video1", "/dev/video0"], "ok"),
        ("Linux", [], "missing"),
        ("Windows", [], "ok"),
    ],
)
def test_cameras_are_listed_and_not_opened(monkeypatch, system, devices, state):
    def opened(*_: object) -> None:
        raise AssertionError("a camera was opened")

    monkeypatch.setattr(cv2, "VideoCapture", opened)
    monkeypatch.setattr(Path, "glob", lambda *_: map(Path, devices))
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    line = by_part(doctor.extras())["camera"]
    assert line.state == state
    if devices:
        assert line.text == "/dev/video0, /dev/video1"


def test_every_missing_file_is_named_once_with_its_place(tmp_path):
    lines = list(doctor.files(tmp_path))
    names = [line.part for line in lines if line.group == "files"]
    assert len(set(names)) == len(names)
    files = by_part(lines)
    motion = files["motion live2diff"]
    assert motion.state == "missing"
    assert motion.advice.startswith(f"put it into {tmp_path / 'live2diff'}, from https://")
    styles = {line.part: line for line in lines if line.group == "styles"}
    assert styles.keys() == load_styles().keys()
    for name, style in load_styles().items():
        assert style.base in styles[name].text
        assert f"base {style.base}" in files


def test_a_file_that_is_there_is_not_missing(tmp_path):
    style = next(iter(load_styles().values()))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / style.base).touch()
    (tmp_path / "live2diff.ckpt").touch()
    lines = by_part(doctor.files(tmp_path))
    assert not {f"base {style.base}", "motion live2diff"} & lines.keys()
    assert lines[style.name].state == "missing"
    assert style.base not in lines[style.name].text


def test_a_style_with_all_its_files_is_complete(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "missing", lambda *_: [])
    lines = [line for line in doctor.files(tmp_path) if line.group == "styles"]
    assert len(lines) == len(load_styles())
    assert {line.state for line in lines} == {"ok"}


def test_a_missing_vocabulary_says_what_to_do(monkeypatch, tmp_path):
    def nowhere(_: object) -> None:
        raise WeightsMissingError("CLIP's vocabulary is missing: put vocab.json into clip")

    monkeypatch.setattr(doctor, "find_tokenizer", nowhere)
    line = by_part(doctor.files(tmp_path))["CLIP vocabulary"]
    assert (line.state, "put vocab.json" in line.advice) == ("missing", True)


def test_the_models_folder_is_the_one_that_is_used(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "theirs"))
    _, lines = found(capsys)
    assert lines["files", f"models folder {tmp_path / 'theirs'}"]["state"] == "missing"
    _, lines = found(capsys, "--models", str(tmp_path))
    assert lines["files", f"models folder {tmp_path}"]["state"] == "ok"


def test_it_reads_well(capsys, tmp_path):
    assert run("--models", str(tmp_path)) == 0
    shown = capsys.readouterr().out.splitlines()
    assert f"  ok       torch {version('torch')}" in shown
    assert shown[0] == "versions"
    assert shown[-1] == "the bundled model runs"
    assert any(line.startswith("  missing  motion live2diff is not here: put") for line in shown)
