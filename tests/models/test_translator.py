"""What a whole model says about sizes and where it computes."""

import pytest
import torch

from live2diff_core.errors import FrameSizeError
from live2diff_core.models.depth import DepthRange, depth_latent
from tests.tiny import make_model, tiny_model


@pytest.mark.parametrize("size", [(8, 8), (24, 16), (640, 360)])
def test_multiples_are_taken(size):
    tiny_model().check_size(*size)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((25, 16), "24x16"),
        ((24, 15), "24x16"),
        ((30, 30), "32x32"),
        ((3, 3), "8x8"),
        ((641, 479), "640x480"),
        ((0, 16), "8x16"),
        ((-8, 16), "8x16"),
    ],
)
def test_other_sizes_are_refused_with_the_nearest(size, nearest):
    with pytest.raises(FrameSizeError, match=f"multiples of 8 .*nearest size is {nearest}$") as e:
        tiny_model().check_size(*size)
    assert "x".join(map(str, size)) in str(e.value)


def test_the_multiple_is_that_of_autoencoder_and_network():
    model = tiny_model()
    assert (model.size_multiple, model.autoencoder.factor, model.unet.size_multiple) == (8, 4, 2)


def test_device_and_dtype_are_those_of_the_weights():
    model = make_model()
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    model.unet.double()
    assert model.dtype == torch.float64


def test_depth_features_are_the_mapped_latents_of_the_structure_map():
    model = tiny_model()
    rgb = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    features = model.depth_features(rgb, DepthRange())
    assert features.shape == (2, 32, 4, 6)
    expected = model.unet.depth_mapping(depth_latent(model.autoencoder, model.depth(rgb)))
    assert torch.equal(features, expected)
    torch.testing.assert_close(
        model.depth_features(rgb[1:], DepthRange()), features[1:], rtol=0, atol=1e-5
    )
