"""The depth mapping network: convolutions that keep the place of what they see."""

import pytest
import torch

from live2diff_core.models.depth_mapping import DepthMapping


def mapping(widths=(8, 16)) -> DepthMapping:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DepthMapping(4, 32, widths).requires_grad_(False)


def test_the_default_is_live2diffs_network():
    layers = [m for m in DepthMapping(4, 320).modules() if isinstance(m, torch.nn.Conv2d)]
    sizes = [(layer.in_channels, layer.out_channels) for layer in layers]
    chain = [(4, 16), (16, 16), (16, 32), (32, 32), (32, 96), (96, 96), (96, 256), (256, 320)]
    assert sizes == chain
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == 1_086_624


@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 8, 8)])
def test_a_pixel_reaches_one_pixel_for_each_convolution(widths):
    network, depth = mapping(widths), torch.zeros(1, 4, 15, 15)
    touched = depth.clone()
    touched[..., 7, 7] = 5.0
    moved = (network(touched) - network(depth)).abs().amax((0, 1)).nonzero()
    reach = len(widths) + 1
    assert moved.min() == 7 - reach
    assert moved.max() == 7 + reach


def test_the_layers_in_between_are_not_linear():
    network, depth = mapping(), torch.ones(1, 4, 5, 5)
    zero = network(torch.zeros_like(depth))
    assert not torch.allclose(network(2 * depth) - zero, 2 * (network(depth) - zero), atol=1e-3)


def test_negative_features_are_not_cut_off():
    out = mapping()(torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (1, 32, 6, 6)
    assert out.min() < 0 < out.max()
