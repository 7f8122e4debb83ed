"""The structure map sees shapes, not brightness."""

import pytest
import torch
from skimage import data
from torch import Tensor

from live2diff_core.models.depth import StructureMap, blur, depth_latent
from tests.tiny import tiny_model


def photo(side: int = 128) -> Tensor:
    """The middle of a photo with strong contrast, (1, 3, side, side) in [0, 1]."""
    rgb = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255
    return torch.nn.functional.interpolate(rgb, (side, side), mode="area")


@pytest.mark.parametrize(
    ("gain", "offset"), [(0.5, 0.0), (0.5, 0.4), (1.0, 0.0), (0.7, 0.1), (0.3, 0.7)]
)
def test_brightness_and_contrast_hardly_matter(gain, offset):
    structure = StructureMap(floor=0.003)
    gap = (structure(gain * photo() + offset) - structure(photo())).abs()
    assert gap.mean() < 0.01
    assert gap.quantile(0.99) < 0.1


def test_an_inverted_picture_has_the_inverted_map():
    structure = StructureMap()
    torch.testing.assert_close(structure(1 - photo()), -structure(photo()), rtol=0, atol=1e-3)


def test_colour_alone_shows_nothing():
    rgb = torch.full((1, 3, 32, 32), 0.5)
    rgb[:, 0, :, 16:] += 0.299  # as much red as green makes up for in luminance
    rgb[:, 1, :, 16:] -= 0.299 * 0.299 / 0.587
    assert StructureMap()(rgb).abs().max() < 1e-3


@pytest.mark.parametrize("side", [8, 16, 96])
def test_the_range_is_minus_one_to_one_and_both_signs_are_used(side):
    noise = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    got = StructureMap()(noise)
    assert got.shape == (2, 1, side, side)
    assert got.abs().max() < 1
    assert got.max() > 0.1
    assert got.min() < -0.1


@pytest.mark.parametrize("value", [0.0, 0.37, 1.0])
def test_a_constant_picture_has_no_structure(value):
    assert StructureMap()(torch.full((1, 3, 40, 24), value)).abs().max() < 1e-3


def test_faint_noise_stays_faint():
    noise = 0.5 + 0.002 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert StructureMap()(noise).abs().max() < 0.1


def test_the_map_moves_with_the_picture():
    picture, structure = photo(), StructureMap()
    moved = structure(picture.roll(8, -1))[..., 40:-40]
    torch.testing.assert_close(moved, structure(picture).roll(8, -1)[..., 40:-40])


def test_pictures_of_a_batch_do_not_meet():
    pair = torch.cat([photo(), photo().flip(-1)])
    torch.testing.assert_close(StructureMap()(pair)[1:], StructureMap()(photo().flip(-1)))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_blurring_a_point_gives_a_gaussian_of_its_width(sigma):
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = blur(point, sigma)[0, 0]
    offset = torch.arange(41.0) - 20
    variance = (spread.sum(0) * offset**2).sum()
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    assert variance.sqrt().item() == pytest.approx(sigma, rel=0.1)
    torch.testing.assert_close(spread, spread.T)


def test_blur_keeps_edges_of_the_picture_as_bright_as_they_are():
    torch.testing.assert_close(blur(torch.ones(1, 1, 5, 9), 3.0), torch.ones(1, 1, 5, 9))


def test_a_map_is_encoded_as_the_grey_picture_it_is():
    autoencoder = tiny_model().autoencoder
    depth = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    latent = depth_latent(autoencoder, depth)
    assert latent.shape == (1, autoencoder.channels, 2, 2)
    grey = torch.cat([depth / 2 + 0.5] * 3, 1)
    assert torch.equal(latent, autoencoder.encode(grey))
