"""Frames of another size are refused, stretched or cropped."""

import pytest
import torch

from live2diff_core.errors import FrameSizeError
from live2diff_core.stream.fit import fit_frame


def noise(width: int, height: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


def columns(width: int, height: int) -> torch.Tensor:
    """Red grows from left to right, green from top to bottom."""
    rgb = torch.zeros(3, height, width)
    rgb[0] = (torch.arange(width) + 0.5) / width
    rgb[1] = ((torch.arange(height) + 0.5) / height)[:, None]
    return rgb


@pytest.mark.parametrize("fit", ["refuse", "stretch", "crop"])
def test_the_right_size_passes_untouched(fit):
    rgb = noise(24, 16)
    assert fit_frame(rgb, 24, 16, fit) is rgb


def test_another_size_is_refused_with_both_sizes_and_a_way_out():
    with pytest.raises(FrameSizeError, match=r"takes 24x16 frames, got 16x24.*crop.*stretch"):
        fit_frame(noise(16, 24), 24, 16, "refuse")


@pytest.mark.parametrize("shape", [(16, 24), (1, 16, 24), (4, 16, 24), (1, 3, 16, 24), (16, 24, 3)])
@pytest.mark.parametrize("fit", ["refuse", "stretch", "crop"])
def test_what_is_no_rgb_frame_is_refused(shape, fit):
    with pytest.raises(FrameSizeError, match=r"a frame is \(3, height, width\)"):
        fit_frame(torch.zeros(shape), 24, 16, fit)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("size", [(48, 32), (12, 8), (100, 10), (10, 100), (1, 1), (25, 16)])
def test_any_size_comes_out_right_and_in_range(fit, size):
    got = fit_frame(noise(*size), 24, 16, fit)
    assert got.shape == (3, 16, 24)
    assert got.min() >= 0
    assert got.max() <= 1


def test_stretching_shows_the_whole_picture():
    got = fit_frame(columns(96, 16), 24, 16, "stretch")
    torch.testing.assert_close(got, columns(24, 16), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("size", "left", "top"), [((96, 16), 36, 0), ((24, 64), 0, 24), ((26, 16), 1, 0)]
)
def test_cropping_keeps_the_middle_unscaled(size, left, top):
    rgb = noise(*size)
    expected = rgb[:, top : top + 16, left : left + 24]
    torch.testing.assert_close(fit_frame(rgb, 24, 16, "crop"), expected, rtol=0, atol=1e-6)


def test_cropping_keeps_the_aspect_ratio():
    got = fit_frame(columns(192, 64), 24, 16, "crop")  # 3:1 to 3:2 keeps the middle half
    torch.testing.assert_close(got[0, 0], 0.25 + columns(24, 16)[0, 0] / 2, rtol=0, atol=0.02)
    torch.testing.assert_close(got[1], columns(24, 16)[1], rtol=0, atol=0.02)


def test_a_picture_of_the_same_aspect_is_not_cropped():
    rgb = noise(48, 32)
    assert torch.equal(fit_frame(rgb, 24, 16, "crop"), fit_frame(rgb, 24, 16, "stretch"))


def test_shrinking_averages_and_does_not_skip():
    rgb = torch.zeros(3, 64, 96)
    rgb[:, ::2] = 1.0
    got = fit_frame(rgb, 24, 16, "stretch")
    assert (got - 0.5).abs().max() < 0.1
