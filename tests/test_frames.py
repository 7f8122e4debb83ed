"""Pixels between bytes and numbers."""

import pytest
import torch

from live2diff_core.frames import Frame, to_bytes, to_unit_range

CPU = torch.device("cpu")
ALL_BYTES = torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 16, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_every_byte_survives_the_way_there_and_back(dtype):
    unit = to_unit_range(ALL_BYTES, CPU, dtype)
    assert unit.dtype == dtype
    assert (unit.min(), unit.max()) == (0, 1)
    assert torch.equal(to_bytes(unit), ALL_BYTES)


def test_floating_point_keeps_its_values():
    rgb = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(to_unit_range(rgb, CPU, torch.float32), rgb)
    assert to_unit_range(rgb, CPU, torch.float16).dtype == torch.float16


def test_what_lies_outside_is_clamped_and_the_rest_rounded():
    rgb = torch.tensor([-1.0, 0.0, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4, 1.0, 7.0])
    assert to_bytes(rgb).tolist() == [0, 0, 0, 1, 255, 255]


def test_bytes_pass_through():
    assert to_bytes(ALL_BYTES) is ALL_BYTES


def test_frames_are_told_apart_by_identity():
    rgb = torch.zeros(3, 2, 2)
    assert Frame(rgb, 0, 0.0) != Frame(rgb, 0, 0.0)
