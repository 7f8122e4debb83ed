"""The block cosine transform: orthonormal, exact when nothing is dropped, else close.

Learned autoencoders: diffusers' networks behind the pixels and latents that all of them share.
"""

import math

import pytest
import torch
from diffusers import AutoencoderTiny
from skimage import data
from torch import Tensor

from benchmarks.activations import peak
from live2diff_core.models.autoencoder import (
    BlockCosineAutoencoder,
    KLAutoencoder,
    TinyAutoencoder,
    block_transform,
)
from tests.networks import pictures, tiny_vae

ORDERS = [(8, 9, 4), (4, 3, 2), (2, 1, 1), (4, 7, 7)]


def photo(name: str) -> Tensor:
    """A photo of scikit-image, (1, 3, h, w) in [0, 1] with sides that divide by 8."""
    rgb = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None] / 255
    height, width = (side // 8 * 8 for side in rgb.shape[-2:])
    return rgb[..., :height, :width]


def noise(side: int = 16) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def psnr(ours: Tensor, theirs: Tensor) -> float:
    return -10 * math.log10((ours - theirs).square().mean().item())


@pytest.mark.parametrize("orders", ORDERS, ids=str)
def test_the_transform_is_orthonormal(orders):
    rows = block_transform(*orders).flatten(1).double()
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_all_frequencies_give_the_picture_back(factor):
    whole = 2 * factor - 1
    autoencoder = BlockCosineAutoencoder(factor, whole, whole)
    assert autoencoder.channels == 3 * factor**2
    latent = autoencoder.encode(noise())
    assert latent.shape == (2, autoencoder.channels, 16 // factor, 16 // factor)
    torch.testing.assert_close(autoencoder.decode(latent), noise(), rtol=0, atol=1e-5)


def test_kept_frequencies_are_counted_in_triangles():
    assert BlockCosineAutoencoder(8, luma_order=3, chroma_order=2).channels == 6 + 3 + 3
    assert BlockCosineAutoencoder(8, luma_order=9, chroma_order=4).channels == 43 + 10 + 10


@pytest.mark.parametrize(("name", "floor"), [("astronaut", 30), ("coffee", 33), ("chelsea", 36)])
def test_the_default_keeps_what_a_photo_shows(name, floor):
    autoencoder, rgb = BlockCosineAutoencoder(), photo(name)
    assert psnr(autoencoder.decode(autoencoder.encode(rgb)), rgb) > floor


def test_a_smooth_picture_is_kept_almost_exactly():
    x, y = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    rgb = torch.stack([x, y, (x + y) / 2])[None]
    autoencoder = BlockCosineAutoencoder()
    assert psnr(autoencoder.decode(autoencoder.encode(rgb)), rgb) > 45


def test_what_was_decoded_is_encoded_without_loss():
    autoencoder = BlockCosineAutoencoder(4, 3, 2)
    autoencoder.scale.copy_(torch.linspace(0.3, 3, autoencoder.channels))
    latent = autoencoder.encode(noise())
    again = autoencoder.encode(autoencoder.decode(latent))
    torch.testing.assert_close(again, latent, rtol=0, atol=1e-5)


def test_the_scale_divides_latents_and_leaves_pictures():
    plain, scaled = BlockCosineAutoencoder(4, 3, 2), BlockCosineAutoencoder(4, 3, 2)
    scale = torch.linspace(0.3, 3, plain.channels)
    scaled.scale.copy_(scale)
    latent = plain.encode(noise())
    torch.testing.assert_close(scaled.encode(noise()) * scale[:, None, None], latent)
    torch.testing.assert_close(
        scaled.decode(scaled.encode(noise())), plain.decode(latent), rtol=0, atol=1e-5
    )


def test_grey_is_the_origin_and_the_first_channel_is_brightness():
    autoencoder = BlockCosineAutoencoder(4, 3, 2)
    assert autoencoder.encode(torch.full((1, 3, 8, 8), 0.5)).abs().max() < 1e-6
    white = autoencoder.encode(torch.ones(1, 3, 8, 8))[0]
    torch.testing.assert_close(white[0], torch.full((2, 2), math.sqrt(48.0)))
    assert white[1:].abs().max() < 1e-5


def test_blocks_do_not_meet():
    autoencoder, rgb = BlockCosineAutoencoder(), noise()
    touched = rgb.clone()
    touched[..., :8, :8] = 0
    gap = (autoencoder.encode(touched) - autoencoder.encode(rgb)).abs().amax((0, 1))
    assert gap[0, 0] > 0.1
    assert gap.flatten()[1:].max() == 0


def test_pixels_are_not_clamped():
    autoencoder = BlockCosineAutoencoder(4, 7, 7)
    rgb = torch.full((1, 3, 4, 4), 1.7)
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(rgb)), rgb)


def test_only_the_scale_is_stored():
    assert list(BlockCosineAutoencoder().state_dict()) == ["scale"]


def test_the_transform_needs_no_more_memory_than_is_said():
    autoencoder, rgb = BlockCosineAutoencoder(), torch.zeros(1, 3, 64, 64)
    latent = autoencoder.encode(rgb)
    most = max(peak(lambda: autoencoder.encode(rgb)), peak(lambda: autoencoder.decode(latent)))
    assert 0.5 * most < autoencoder.alive * 64 * 64 * 4 <= 1.5 * most


# ---- learned ones


def tiny_taesd(**settings) -> AutoencoderTiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoencoderTiny(**settings).eval().requires_grad_(False)


@pytest.mark.parametrize("side", [16, 24])
def test_a_latent_is_the_scaled_mean_of_what_the_encoder_says_of_pixels_around_zero(side):
    vae, rgb = tiny_vae(), pictures(2, 16, side)
    mean, _ = vae.quant_conv(vae.encoder(rgb * 2 - 1)).chunk(2, dim=1)
    latent = KLAutoencoder(vae).encode(rgb)
    assert latent.shape == (2, 4, 8, side // 2)
    torch.testing.assert_close(latent, mean * 0.18215)


def test_decoding_takes_the_scale_back_and_gives_pixels_from_zero_to_one():
    vae = tiny_vae()
    latent = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = vae.decoder(vae.post_quant_conv(latent / 0.18215)) / 2 + 0.5
    torch.testing.assert_close(KLAutoencoder(vae).decode(latent), expected)


def test_no_noise_is_drawn_for_a_latent():
    autoencoder = KLAutoencoder(tiny_vae())
    state = torch.random.get_rng_state()
    autoencoder.encode(pictures(1, 16, 16))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_taesd_itself_takes_pixels_from_zero_to_one_and_latents_as_they_are():
    vae, rgb = tiny_taesd(), pictures(2, 16, 24)
    autoencoder = TinyAutoencoder(vae)
    latent = autoencoder.encode(rgb)
    assert latent.shape == (2, 4, 2, 3)
    torch.testing.assert_close(latent, vae.encoder.layers(rgb))
    clamped = torch.tanh(latent / 3) * 3
    torch.testing.assert_close(autoencoder.decode(latent), vae.decoder.layers(clamped))


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_factor_is_what_the_network_shrinks_a_picture_by(levels):
    widths = {"block_out_channels": (32,) * levels}
    kinds = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    kl = KLAutoencoder(tiny_vae(**widths, **{key: kind * levels for key, kind in kinds.items()}))
    names = ("encoder_block_out_channels", "decoder_block_out_channels")
    blocks = ("num_encoder_blocks", "num_decoder_blocks")
    sizes = {**dict.fromkeys(names, (8,) * levels), **dict.fromkeys(blocks, (1,) * levels)}
    for autoencoder in (kl, TinyAutoencoder(tiny_taesd(**sizes))):
        assert autoencoder.channels == 4
        assert autoencoder.factor == 2 ** (levels - 1)
        side = 16 // autoencoder.factor
        latent = autoencoder.encode(pictures(1, 16, 16))
        assert latent.shape == (1, 4, side, side)
        assert autoencoder.decode(latent).shape == (1, 3, 16, 16)
