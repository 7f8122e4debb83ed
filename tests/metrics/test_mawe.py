"""MAWE against cases that can be worked out by hand."""

import pytest
import torch

from live2diff_core.metrics.figures import LeftOut
from live2diff_core.metrics.flow import DisFlow
from live2diff_core.metrics.mawe import COEFFICIENT, SIDE, MaweMeter
from live2diff_core.metrics.picture import Picture
from tests.clips import PHONE
from tests.metrics.scenes import HEIGHT, WIDTH, clip_frames, noisy, still, wide, window


class Steady:
    """A flow that is known: every pixel goes this far to the right."""

    name = "steady"

    def __init__(self, *steps):
        self.steps, self.calls = steps, 0

    def __call__(self, first, second):
        # backward and forward of each pair
        pair, forward = divmod(self.calls, 2)
        self.calls += 1
        flow = torch.zeros(*first.shape[:2], 2)
        flow[..., 0] = self.steps[pair] * (1 if forward else -1)
        return flow.numpy()


def figures(frames, flow=None):
    meter = MaweMeter(flow or DisFlow())
    for frame in frames:
        meter.update(Picture.of(frame))
    return meter.figures()


def grey(level):
    return torch.full((3, 64, 64), float(level))


def test_the_formula_with_a_flow_that_is_known():
    """Levels 0, 0.2, 0.2 + 0.1: W of 51^2 and 25.5^2; flows of 3 and 1 pixels."""
    found = figures([grey(0), grey(0.2), grey(0.3)], Steady(3, 1))
    w = (51**2, 25.5**2)
    assert found["w"] == pytest.approx(sum(w) / 2, rel=1e-5)
    assert found["ofs"] == pytest.approx(2)
    assert found["mawe"] == pytest.approx((w[0] / 3 + w[1]) / 2 / 9.5, rel=1e-5)
    assert found["mawe_ratio_of_means"] == pytest.approx(sum(w) / 2 / (9.5 * 2), rel=1e-5)
    assert found["mawe"] != pytest.approx(found["mawe_ratio_of_means"], rel=0.05)


def test_the_flow_is_the_outputs_own_at_720():
    """A pan by 4 of 128 and 0 of 96 pixels is one by 22.5 of 720; what moves right is seen so."""
    scene = wide(0)
    found = figures([window(scene, 4 * k, 0) for k in range(4)])
    assert found["ofs"] == pytest.approx(4 * SIDE / WIDTH, rel=0.03)
    assert found["w"] < 0.02 * 255
    down = figures([window(scene, 0, 3 * k) for k in range(4)])
    assert down["ofs"] == pytest.approx(3 * SIDE / HEIGHT, rel=0.03)


def test_noise_is_charged_in_levels_squared():
    """Scaled up bilinearly from 64 to 720, noise of a pixel keeps (2 / 3)^2 of its variance."""
    generator = torch.Generator().manual_seed(0)
    frames = [noisy(grey(0.5), 0.05, generator) for _ in range(3)]
    found = figures(frames, Steady(1e-3, 1e-3))
    assert found["w"] == pytest.approx(2 * (0.05 * 255) ** 2 * 4 / 9, rel=0.05)


def test_a_frozen_video_has_no_mawe():
    found = figures([still(0)] * 3)
    assert (found["w"], found["ofs"]) == (0, 0)
    for name in ("mawe", "mawe_ratio_of_means"):
        assert found[name] == LeftOut("nothing moves in the output")


def test_a_frozen_pair_is_left_out_of_the_mean_over_pairs_alone():
    found = figures([grey(0), grey(0.2), grey(0.2)], Steady(3, 0))
    assert found["mawe"] == pytest.approx(51**2 / (COEFFICIENT * 3), rel=1e-5)
    assert found["mawe_ratio_of_means"] == pytest.approx(51**2 / 2 / (COEFFICIENT * 1.5), rel=1e-5)


def test_a_pair_in_which_nothing_is_seen_twice_is_left_out():
    found = figures([grey(0), grey(0.2), grey(0.3)], Steady(3, SIDE))
    assert (found["w"], found["ofs"]) == (pytest.approx(51**2, rel=1e-5), 3)


def test_one_frame_has_none():
    assert set(figures([still(0)]).values()) == {LeftOut("fewer than two frames")}


def test_flashes_of_a_real_clip_are_charged():
    frames = [frame.float() / 255 for frame in clip_frames(PHONE, 6)]
    flashing = [(frame + 0.1 * (k % 2)).clamp(0, 1) for k, frame in enumerate(frames)]
    steady, restless = figures(frames), figures(flashing)
    assert restless["w"] == pytest.approx(steady["w"] + 25.5**2, rel=0.25)
    assert restless["mawe"] > 5 * steady["mawe"] > 0
