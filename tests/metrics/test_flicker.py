"""Flicker: warping error against cases that can be worked out by hand."""

import math

import numpy as np
import pytest
import torch

from live2diff_core.errors import FrameSizeError
from live2diff_core.metrics.flicker import FlickerMeter
from live2diff_core.metrics.flow import visible, warp
from tests.clips import BIKES, BUNNY, PHONE
from tests.metrics.scenes import (
    HEIGHT,
    WIDTH,
    clip_frames,
    noisy,
    tensor,
    texture,
    wide,
    window,
)


def test_what_does_not_move_does_not_flicker() -> None:
    meter = FlickerMeter()
    for _ in range(4):
        meter.update(tensor(texture(0)), tensor(texture(1)))
    report = meter.report()
    assert (report.source, report.outputs) == (0, (0,))
    assert (report.pairs, report.cuts, report.visible) == (3, 0, 1)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -4), (5, 2)])
def test_an_output_that_moves_with_the_input_does_not_flicker(right: int, down: int) -> None:
    """Another picture with the same motion: only the flow's error of some 0.02 pixels is left."""
    meter = FlickerMeter()
    scene, translated = wide(0), wide(1)
    for k in range(4):
        meter.update(
            window(scene, k * right, k * down),
            window(translated, k * right, k * down),
            window(translated, 0, 0),
        )
    report = meter.report()
    follows, stands = report.outputs
    assert report.source < 1e-4
    assert follows < 1e-4
    assert stands > 20 * follows
    border = 1 - (HEIGHT - abs(down)) * (WIDTH - abs(right)) / (HEIGHT * WIDTH)
    assert report.visible == pytest.approx(1 - border, abs=0.03)


def test_an_output_that_stands_still_is_charged_with_the_motion() -> None:
    """Its error is that of the picture against itself, moved by the input's 4 pixels."""
    meter = FlickerMeter()
    scene, translated = wide(0), wide(1)
    for k in range(3):
        meter.update(window(scene, 4 * k, 0), window(translated, 0, 0))
    still = window(translated, 0, 0)
    expected = float((still[:, :, 4:] - still[:, :, :-4]).square().mean())
    assert meter.report().outputs[0] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_independent_noise_costs_twice_its_variance(sigma: float) -> None:
    meter, generator = FlickerMeter(), torch.Generator().manual_seed(0)
    still, output = tensor(texture(0)), tensor(texture(1))
    for _ in range(6):
        meter.update(still, noisy(output, sigma, generator))
    assert meter.report().outputs[0] == pytest.approx(2 * sigma**2, rel=0.02)


def test_the_pairs_count_alike() -> None:
    """One step of 0.2 in four pairs: a mean of 0.2^2 / 4."""
    meter = FlickerMeter()
    still = tensor(texture(0))
    for level in (0.3, 0.3, 0.5, 0.5, 0.5):
        meter.update(still, torch.full_like(still, level))
    assert meter.report().outputs[0] == pytest.approx(0.2**2 / 4, rel=1e-5)


def test_bytes_and_floats_measure_the_same() -> None:
    meter = FlickerMeter()
    as_bytes = [(tensor(texture(seed)) * 255).round().to(torch.uint8) for seed in (0, 1, 2)]
    for picture in as_bytes[1:]:
        meter.update(as_bytes[0], picture, picture.float() / 255)
    first, second = meter.report().outputs
    assert first == pytest.approx(second, rel=1e-6)
    assert first > 0.01


def test_a_source_of_another_size_is_scaled_to_the_outputs() -> None:
    meter = FlickerMeter()
    scene = wide(0)
    for k in range(3):
        view = window(scene, 4 * k, 0)
        doubled = torch.nn.functional.interpolate(view[None], scale_factor=2, mode="bilinear")[0]
        meter.update(doubled, view)
    assert meter.report().outputs[0] < 1e-4
    assert meter.report().visible > 0.9


def test_what_was_covered_is_left_out() -> None:
    """A bright square moves 12 pixels to the right and uncovers a strip of the resting ground.

    In the output the strip is where all the change is: measured over all pixels it costs
    12 * 40 / (96 * 128) = 4 % of 1; left out, almost nothing.
    """
    ground, thing = texture(0) * 0.4, texture(1, 40, 40) * 0.4 + 0.6
    meter = FlickerMeter()
    views, outputs = [], []
    for x in (30, 42):
        view = ground.copy()
        view[28:68, x : x + 40] = thing
        views.append(view)
        output = np.zeros_like(ground)
        output[28:68, 30:42] = float(x == 42)
        outputs.append(output)
        meter.update(tensor(view), tensor(output))
    everywhere = float(np.square(outputs[1] - outputs[0]).mean())
    assert everywhere == pytest.approx(12 * 40 / (HEIGHT * WIDTH))
    assert meter.report().outputs[0] < 0.25 * everywhere
    assert 0.8 < meter.report().visible < 1 - 0.7 * everywhere


def test_visibility_is_the_formula() -> None:
    """Forward and backward cancel within 0.01 (|f|^2 + |b|^2) + 0.5, and stay in the picture."""
    backward = np.zeros((5, 8, 2), np.float32)
    backward[..., 0] = -2
    forward = -backward
    assert visible(backward, forward).tolist() == [[False] * 2 + [True] * 6] * 5
    # 2 and -2 + d: d^2 against 0.01 (4 + (2 - d)^2) + 0.5, which d = 0.74 keeps and 0.76 breaks.
    for off, kept in ((0.74, True), (0.76, False)):
        wrong = forward.copy()
        wrong[..., 0] = 2 - off
        assert bool(visible(backward, wrong)[2, 4]) is kept


def test_warp_fetches_from_the_origin() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4, 1).repeat(3, axis=2)
    y, x = np.mgrid[0:3, 0:4].astype(np.float32)
    moved = warp(image, np.stack((x - 1, y), axis=2))
    assert moved[..., 0].tolist() == [[0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]
    between = warp(image, np.stack((x, y + 0.5), axis=2))
    assert between[:2, :, 1].tolist() == [[2, 3, 4, 5], [6, 7, 8, 9]]


def test_a_cut_is_not_flicker() -> None:
    meter = FlickerMeter()
    frames = clip_frames(BUNNY, 3), clip_frames(BIKES, 3)
    for frame in (*frames[0], *frames[1]):
        small = torch.nn.functional.interpolate(frame[None].float() / 255, (HEIGHT, WIDTH))[0]
        meter.update(small, small)
    report = meter.report()
    assert (report.pairs, report.cuts) == (4, 1)
    assert report.outputs[0] < 0.01


def test_a_real_clip_has_little_and_a_restless_output_more() -> None:
    meter, generator = FlickerMeter(), torch.Generator().manual_seed(0)
    frames = clip_frames(PHONE, 12)
    for k, frame in enumerate(frames):
        unit = frame.float() / 255
        flashing = (unit + 0.1 * (k % 2)).clamp(0, 1)
        meter.update(frame, unit, noisy(unit, 0.05, generator).clamp(0, 1), flashing)
    report = meter.report()
    same, noise, flash = report.outputs
    assert same == pytest.approx(report.source, rel=1e-6)
    assert 0 < same < 0.001
    assert noise == pytest.approx(same + 0.05**2 * 1.6, rel=0.2)
    assert flash == pytest.approx(same + 0.1**2, rel=0.2)
    assert report.visible > 0.8


def test_the_order_of_outputs_is_kept_and_they_do_not_touch_each_other() -> None:
    alone, together = FlickerMeter(), FlickerMeter()
    frames = clip_frames(PHONE, 4)
    for k, frame in enumerate(frames):
        other = torch.full_like(frame, 50 * k)
        together.update(frame, other, frame)
        alone.update(frame, frame)
    assert together.report().outputs[1] == alone.report().outputs[0]
    assert together.report().outputs[0] == pytest.approx((50 / 255) ** 2, rel=1e-4)


def test_without_pairs_there_is_no_figure() -> None:
    meter = FlickerMeter()
    assert math.isnan(meter.report().source)
    assert meter.report().outputs == ()
    meter.update(tensor(texture(0)), tensor(texture(1)))
    report = meter.report()
    assert math.isnan(report.source)
    assert [math.isnan(value) for value in report.outputs] == [True]
    assert report.pairs == 0


def test_sizes_and_their_number_are_fixed() -> None:
    meter = FlickerMeter()
    picture = tensor(texture(0))
    half = picture[:, ::2, ::2]
    with pytest.raises(FrameSizeError, match="outputs of one size"):
        meter.update(picture, picture, half)
    meter.update(picture, picture)
    with pytest.raises(FrameSizeError, match="as before"):
        meter.update(picture, half)
    with pytest.raises(FrameSizeError, match="as before"):
        meter.update(picture, picture, picture)
    meter.update(picture, picture)
    assert meter.report().pairs == 1
