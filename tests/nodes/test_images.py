import pytest
import torch

from live2diff_core.errors import FrameSizeError
from tests.pack import pack_module

images = pack_module("nodes.images")


def test_images_come_back_as_they_went() -> None:
    pictures = torch.rand(3, 4, 5, 3)
    frames = images.to_frames(pictures, 8)
    assert [(frame.index, frame.timestamp) for frame in frames] == [(8, 8.0), (9, 9.0), (10, 10.0)]
    assert frames[0].rgb.shape == (3, 4, 5)
    assert torch.equal(images.to_images(frames), pictures)


def test_alpha_is_left_out() -> None:
    pictures = torch.rand(1, 4, 5, 4)
    assert torch.equal(images.to_images(images.to_frames(pictures)), pictures[..., :3])


@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 4, 5, 1)])
def test_other_shapes_are_refused(shape) -> None:
    with pytest.raises(FrameSizeError, match="height, width, 3"):
        images.to_frames(torch.zeros(shape))
