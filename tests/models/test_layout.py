"""Convolutions as a device wants them: weights in another order, single pixels as products."""

import pytest
import torch
from torch import nn

from live2diff_core.models.layout import PointwiseConvolution, lay_out


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.Conv2d(8, 6, 1),
        nn.Conv2d(6, 6, 1, stride=2),
        nn.Conv2d(6, 6, 1, groups=2),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


@pytest.mark.parametrize(("device", "last"), [("cuda", True), ("cpu", True), ("mps", False)])
def test_convolutions_have_channels_last_where_it_pays(device: str, last: bool) -> None:
    laid = network()
    before = {key: value.clone() for key, value in laid.state_dict().items()}
    lay_out((laid, "no network"), torch.device(device))
    weight = laid[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is last
    assert weight.is_contiguous() is not last
    assert laid[5].weight.is_contiguous()
    assert all(torch.equal(laid.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize(("device", "pointwise"), [("cuda", []), ("cpu", [1]), ("mps", [])])
def test_those_of_single_pixels_are_products_on_a_cpu(device: str, pointwise: list[int]) -> None:
    laid = network()
    lay_out((laid,), torch.device(device))
    assert [i for i, m in enumerate(laid) if isinstance(m, PointwiseConvolution)] == pointwise


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_the_convolution(bias: bool) -> None:
    laid = nn.Sequential(nn.Conv2d(5, 7, 1, bias=bias))
    x = torch.randn(2, 5, 3, 4)
    expected = laid(x)
    lay_out((laid,), torch.device("cpu"))
    assert isinstance(laid[0], PointwiseConvolution)
    torch.testing.assert_close(laid(x), expected, rtol=0, atol=1e-6)
    assert laid(x).is_contiguous(memory_format=torch.channels_last)
