"""Drift, by hand."""

import numpy as np
import pytest
import torch

from live2diff_core.metrics.drift import DriftMeter, statistics
from live2diff_core.metrics.figures import LeftOut
from live2diff_core.metrics.picture import Picture


def drift(levels, rate=2, seconds=1):
    meter = DriftMeter(rate, seconds)
    for level in levels:
        meter.update(Picture.of(torch.full((3, 4, 4), float(level))))
    return meter.value()


def test_statistics_are_means_and_deviations():
    rgb = torch.zeros(3, 2, 2)
    rgb[0, 0], rgb[1] = 1.0, 0.5
    assert statistics(Picture.of(rgb)).tolist() == [0.5, 0.5, 0, 0.5, 0, 0]


def test_it_is_the_mean_distance_from_the_first_stretch():
    """Stretches of two frames: 0.2, then 0.3 and 0.6. Three of the six numbers differ, alike."""
    expected = (0.1 + 0.4) / 2 * (3 / 6) ** 0.5
    assert drift([0.1, 0.3, 0.2, 0.4, 0.6, 0.6]) == pytest.approx(expected, rel=1e-5)


def test_a_video_that_comes_back_has_drifted():
    assert drift([0.2, 0.2, 0.5, 0.5, 0.2, 0.2]) == pytest.approx(0.15 * 0.5**0.5, rel=1e-5)


def test_flicker_within_a_stretch_is_no_drift():
    assert drift([0.2, 0.8] * 6) == pytest.approx(0, abs=1e-7)


def test_contrast_counts():
    meter = DriftMeter(1, 1)
    board = torch.from_numpy(np.indices((4, 4)).sum(0) % 2).float()
    for contrast in (0.2, 0.6):
        meter.update(Picture.of((0.5 + contrast * (board - 0.5)).expand(3, 4, 4)))
    assert meter.value() == pytest.approx(0.2 * 0.5**0.5, rel=1e-5)


def test_a_stretch_that_is_not_whole_does_not_count():
    assert drift([0.2, 0.2, 0.2, 0.2, 0.9]) == 0
    assert drift([0.2, 0.2, 0.9]) == LeftOut("shorter than two stretches of 2 frames")
    assert drift([0.2, 0.9], rate=0.3) > 0
