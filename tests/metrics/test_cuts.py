"""SCuts: the cuts of an output beyond those of its input."""

import pytest
import scenedetect
import torch
from torch.nn import functional

from live2diff_core.metrics.cuts import CutDetector, beyond, scuts
from live2diff_core.metrics.picture import Picture
from tests.clips import BIKES, BUNNY, PHONE
from tests.metrics.scenes import clip_frames, still

LENGTH = 20  # more than PySceneDetect's shortest scene


def detector(frames, rate=25):
    found = CutDetector(scenedetect, rate)
    for frame in frames:
        found.update(Picture.of(frame))
    return found


def film(*paths, size=(270, 480)):
    return [
        functional.interpolate(frame[None].float() / 255, size, mode="area")[0]
        for path in paths
        for frame in clip_frames(path, LENGTH)
    ]


def test_a_hard_cut_is_found_where_it_is():
    assert detector(film(BUNNY, BIKES, PHONE)).found == [LENGTH, 2 * LENGTH]


@pytest.mark.parametrize("rate", [23.976, 25, 59.94])
def test_the_rate_does_not_move_it(rate):
    assert detector(film(BUNNY, PHONE), rate).found == [LENGTH]


def test_it_is_what_pyscenedetect_finds_in_the_file(tmp_path):
    import numpy as np

    from tests.clips import Make, make_video

    frames = film(BUNNY, BIKES, PHONE)
    pixels = [np.ascontiguousarray((f * 255).byte().permute(1, 2, 0).numpy()) for f in frames]
    path = make_video(tmp_path / "film.mp4", pixels, Make())
    scenes = scenedetect.detect(str(path), scenedetect.AdaptiveDetector(), show_progress=False)
    assert [start.frame_num for start, _ in scenes[1:]] == detector(frames).found


def test_cuts_of_the_input_are_not_charged():
    both, one = detector(film(BUNNY, BIKES)), detector(film(BUNNY, BUNNY))
    still_one = detector([still()] * 2 * LENGTH)
    assert scuts(both, both) == {"scuts": 0}
    assert scuts(still_one, both) == {"scuts": 1}
    assert scuts(both, still_one) == {"scuts": 0}
    assert one.found != []  # a clip that begins again is a cut, too


def test_noise_and_a_frozen_video_have_no_cuts():
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(3, 96, 128, generator=generator) for _ in range(2 * LENGTH)]
    assert detector(noise).found == []
    assert detector([still()] * 2 * LENGTH).found == []


def test_two_frames_apart_is_the_same_cut():
    assert beyond([10, 50, 90], [12, 47]) == [50, 90]
    assert beyond([], [1]) == []
