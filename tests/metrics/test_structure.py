"""Depth MSE, by hand and with the networks."""

import pytest
import torch

from live2diff_core.metrics.figures import LeftOut
from live2diff_core.metrics.structure import DepthMaps, DepthMeter
from live2diff_core.models.depth import StructureMap
from tests.clips import BUNNY
from tests.metrics.scenes import clip_frames, still

CPU = torch.device("cpu")


class Brightness:
    """A depth network whose map has a range of its own."""

    relative = True

    def __call__(self, rgb):
        return 5 + 3 * rgb.mean(1, keepdim=True)


def test_it_is_the_mean_squared_difference():
    meter = DepthMeter()
    assert meter.figures() == {"depth_mse": LeftOut("no frames")}
    zero = torch.zeros(1, 1, 2, 2)
    meter.update(zero, zero + 0.5)
    meter.update(zero, torch.tensor([[[[1.0, 0], [0, 1]]]]))
    assert meter.figures()["depth_mse"] == pytest.approx((0.25 + 0.5) / 2)


def test_a_relative_map_spans_its_range_in_every_frame():
    maps = DepthMaps(Brightness(), CPU)
    ramp = torch.linspace(0, 1, 9).expand(1, 3, 4, 9)
    assert maps(ramp)[0, 0, 0].tolist() == pytest.approx([k / 4 - 1 for k in range(9)])
    assert torch.allclose(maps(ramp * 0.3 + 0.2), maps(ramp), atol=1e-5)
    assert torch.allclose(maps(1 - ramp), -maps(ramp), atol=1e-5)


def test_opposite_maps_are_far_apart():
    """A ramp from -1 to 1 against its mirror image: the mean of (2 x)^2, 4 / 3."""
    maps, meter = DepthMaps(Brightness(), CPU), DepthMeter()
    ramp = torch.linspace(0, 1, 1001).expand(1, 3, 2, 1001)
    meter.update(maps(ramp), maps(1 - ramp))
    assert meter.figures()["depth_mse"] == pytest.approx(4 / 3, rel=0.01)


def test_the_structure_map_is_left_in_its_range_and_made_at_256():
    maps = DepthMaps(StructureMap(), CPU)
    small = still()[None]
    assert torch.equal(maps(small), StructureMap()(small))
    large = clip_frames(BUNNY, 1)[0][None].float() / 255
    assert large.shape[2:] == (720, 1280)
    assert maps(large).shape == (1, 1, 256, 455)
    assert maps(large).abs().max() < 1


def test_the_structure_of_another_picture_is_farther_than_that_of_other_colours():
    maps = DepthMaps(StructureMap(), CPU)
    picture = clip_frames(BUNNY, 1)[0][None].float() / 255
    own = maps(picture)
    darker = (maps(picture * 0.5 + 0.1) - own).square().mean()
    mirrored = (maps(picture.flip(3)) - own).square().mean()
    assert 0 < darker < 0.05 < mirrored
