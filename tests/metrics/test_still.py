"""Flicker of still regions, by hand."""

import numpy as np
import pytest
import torch

from live2diff_core.metrics.figures import LeftOut
from live2diff_core.metrics.flow import Motion
from live2diff_core.metrics.picture import Picture
from live2diff_core.metrics.still import NOTHING_STILL, StillFlickerMeter, StillRegions

SIDE = 8


def picture(level):
    return Picture.of(torch.full((3, SIDE, SIDE), float(level)))


def moved(right=0.0, seen=True):
    flow = np.zeros((SIDE, SIDE, 2), np.float32)
    flow[..., 0] = right
    return Motion(flow, -flow, flow, np.full((SIDE, SIDE), seen))


def figures(outputs, inputs=None, motions=None):
    """inputs: levels of the input; motions: between its frames."""
    inputs = inputs or [0.5] * len(outputs)
    motions = [None, *(motions or [moved()] * (len(outputs) - 1))]
    regions, meter = StillRegions(), StillFlickerMeter()
    for output, source, motion in zip(outputs, inputs, motions, strict=True):
        meter.update(picture(output), regions.update(picture(source), motion))
    return meter.figures()


def test_it_is_the_standard_deviation():
    levels = [0.2, 0.5, 0.3, 0.9]
    found = figures(levels)
    assert found["still_flicker"] == pytest.approx(np.std(levels, ddof=1), rel=1e-5)
    assert found["still_share"] == 1


@pytest.mark.parametrize(
    ("inputs", "motions"),
    [
        ([0.5] * 5, [moved(), moved(), moved(2.0), moved()]),  # it moves
        ([0.5] * 5, [moved(), moved(), moved(seen=False), moved()]),  # it was hidden
        ([0.5, 0.5, 0.5, 0.6, 0.6], [moved()] * 4),  # it changes
        ([0.5, 0.5, 0.5, 0.5 + 9 / 255, 0.5 + 9 / 255], [moved()] * 4),
    ],
)
def test_rests_are_pooled(inputs, motions):
    """Three frames and two: their squared deviations over 2 + 1 degrees of freedom."""
    outputs = [0.1, 0.3, 0.2, 0.8, 0.9]
    squares = sum(np.var(part) * len(part) for part in (outputs[:3], outputs[3:]))
    found = figures(outputs, inputs, motions)
    assert found["still_flicker"] == pytest.approx((squares / 3) ** 0.5, rel=1e-5)
    assert found["still_share"] == 3 / 4


def test_the_inputs_noise_and_a_quarter_of_a_pixel_are_no_movement():
    found = figures([0.1, 0.3], [0.5, 0.5 + 7 / 255], [moved(0.24)])
    assert found["still_flicker"] == pytest.approx(np.std([0.1, 0.3], ddof=1), rel=1e-5)
    assert figures([0.1, 0.3], [0.5, 0.5], [moved(0.26)])["still_share"] == 0


def test_a_slow_fade_of_the_input_ends_a_rest():
    """7 levels a frame: each of them is near the one before, the third is not near the first."""
    fade = [0.2 + 7 / 255 * k for k in range(5)]
    assert figures(fade, fade)["still_share"] == 2 / 4


def test_regions_are_told_pixel_by_pixel():
    """The left half moves and flickers, the right half does neither."""
    motion = moved()
    motion.backward[:, : SIDE // 2, 0] = 3
    regions, meter = StillRegions(), StillFlickerMeter()
    for k in range(3):
        output = torch.full((3, SIDE, SIDE), 0.5)
        output[:, :, : SIDE // 2] += 0.1 * k
        meter.update(Picture.of(output), regions.update(picture(0.5), motion if k else None))
    assert meter.figures() == {"still_flicker": 0, "still_share": 0.5}


def test_independent_noise_is_its_deviation():
    generator = torch.Generator().manual_seed(0)
    regions, meter = StillRegions(), StillFlickerMeter()
    for k in range(60):
        output = 0.5 + 0.03 * torch.randn(3, SIDE, SIDE, generator=generator)
        meter.update(Picture.of(output), regions.update(picture(0.5), moved() if k else None))
    assert meter.figures()["still_flicker"] == pytest.approx(0.03, rel=0.03)


def test_where_nothing_is_still_there_is_no_figure():
    found = figures([0.1, 0.9], [0.5, 0.5], [moved(5.0)])
    assert found == {"still_flicker": LeftOut(NOTHING_STILL), "still_share": 0}
    assert set(figures([0.1]).values()) == {LeftOut(NOTHING_STILL)}
