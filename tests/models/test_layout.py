"""Weights as a device wants them: in another order, with the same values."""

import pytest
import torch
from torch import nn

from live2diff_core.models.layout import lay_out


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8, 2))


@pytest.mark.parametrize(("device", "last"), [("cuda", True), ("cpu", False), ("mps", False)])
def test_convolutions_have_channels_last_on_cuda_devices_alone(device: str, last: bool) -> None:
    laid = network()
    before = {key: value.clone() for key, value in laid.state_dict().items()}
    lay_out((laid, "no network"), torch.device(device))
    weight = laid[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is last
    assert weight.is_contiguous() is not last
    assert laid[2].weight.is_contiguous()
    assert all(torch.equal(laid.state_dict()[key], value) for key, value in before.items())
