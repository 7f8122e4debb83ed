"""The node that measures: images and videos, its table, its JSON, its picture."""

import json
import subprocess
import sys

import pytest
import torch

from live2diff_core.errors import ConfigError, FrameSizeError, SourceError
from live2diff_core.frames import Frame
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.metrics import charts
from live2diff_core.metrics.figures import QUANTITIES
from tests.nodes.graph import SIZE, images, run
from tests.pack import ROOT, pack_module

COUNT = 6
WIDGETS = {"fit": "crop", "rate": 3.0, "column": 0.5}


def measure(**inputs):
    """Table, figures and picture."""
    found = run("Metrics", **{**WIDGETS, **inputs})
    table, figures, picture = found["result"]
    assert found["ui"]["text"] == [table]
    return table, json.loads(figures), picture


def restless(pictures):
    """Every second one is darker."""
    return torch.stack([p * (1 - 0.2 * (k % 2)) for k, p in enumerate(pictures)])


@pytest.fixture(scope="module")
def measured():
    return measure(source=images(COUNT), output=restless(images(COUNT)))


def test_figures_of_images(measured):
    table, figures, _ = measured
    assert (figures["frames"], figures["pairs"], figures["size"]) == (COUNT, 5, f"{SIZE}x{SIZE}")
    weightless = [name for name in QUANTITIES if not name.startswith(("clip", "latency"))]
    assert figures.keys() >= set(weightless)
    assert all(f"| {name} |" in table for name in weightless)
    assert figures["left_out"].keys() == QUANTITIES.keys() - set(weightless)
    assert figures["warp_error"] > 2 * figures["warp_error_source"]


def test_the_picture_is_an_image(measured):
    _, _, picture = measured
    assert picture.shape[0] == 1 and picture.shape[2:] == (1000, 3)
    assert 0 <= picture.min() < picture.max() <= 1


def test_the_column_is_a_part_of_the_width(measured):
    _, _, left = measure(source=images(COUNT), output=restless(images(COUNT)), column=0.0)
    assert left.shape == measured[2].shape
    assert not torch.equal(left, measured[2])
    measure(source=images(2), output=images(2), column=1.0)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The images as a file without loss."""
    path = tmp_path_factory.mktemp("metrics") / "source.mp4"
    with VideoFileSink(path, (SIZE, SIZE), 3, quality=0) as sink:
        for k, picture in enumerate(images(COUNT)):
            sink.write(Frame(picture.movedim(-1, 0), k, k / 3))
    return path


def test_a_video_has_its_own_rate(file):
    _, figures, _ = measure(source_video=file, output_video=file, rate=240.0)
    assert figures["frames"] == COUNT
    assert figures["depth_mse"] == 0
    assert "drift" in figures  # two seconds at the video's rate
    _, figures, _ = measure(source=images(COUNT), output=images(COUNT), rate=240.0)
    assert "drift" in figures["left_out"]


def test_images_and_a_video_can_be_compared(file):
    _, figures, _ = measure(source=images(COUNT), output_video=file)
    assert 0 < figures["depth_mse"] < 0.01


def test_fit_is_that_of_the_translation():
    wide = torch.nn.functional.pad(images(2), (0, 0, 20, 20))
    _, cropped, _ = measure(source=wide, output=images(2))
    _, stretched, _ = measure(source=wide, output=images(2), fit="stretch")
    assert cropped["depth_mse"] < 1e-6 < stretched["depth_mse"]


def test_progress_is_that_of_the_frames(monkeypatch):
    host, steps = pack_module("nodes.host"), []
    monkeypatch.setattr(host.Progress, "step", lambda self, *_: steps.append(self.total))
    measure(source=images(3), output=images(3))
    assert steps == [3, 3, 3]


def test_without_matplotlib_the_rest_is_measured(monkeypatch):
    monkeypatch.setattr(charts, "find_spec", lambda _: None)
    table, figures, picture = measure(source=images(2), output=images(2))
    assert picture is None  # outside ComfyUI
    assert "warp_error" in table and figures["frames"] == 2


# ---- refused


@pytest.mark.parametrize("given", ["", "source", "output", "source output source_video"])
def test_one_source_and_one_output_are_needed(given, file):
    kinds = {"source": images(2), "output": images(2), "source_video": file}
    with pytest.raises(ConfigError, match="connect either"):
        measure(**{name: kinds[name] for name in given.split()})


def test_lengths_that_differ_are_refused():
    with pytest.raises(SourceError, match="the output ended after 2 frames"):
        measure(source=images(3), output=images(2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pictures_that_are_not_finite_are_refused_by_name(bad):
    spoiled = images(2).clone()
    spoiled[1, 3, 3] = bad
    with pytest.raises(ConfigError, match="output has pictures with NaN or infinity"):
        measure(source=images(2), output=spoiled)


def test_what_is_no_image_is_refused():
    with pytest.raises(FrameSizeError, match="images are"):
        measure(source=images(2)[..., 0], output=images(2))


def test_importing_the_node_leaves_heavy_libraries_out():
    program = (
        "import sys; from tests.pack import load_pack; load_pack();"
        "print(sorted({'cv2', 'matplotlib', 'scenedetect'} & sys.modules.keys()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
