"""A VAE as an autoencoder: scale, range, precision, and which ones are refused."""

import pytest
import torch

from live2diff_core.errors import WeightsKindError
from live2diff_core.models.autoencoder import KLAutoencoder, TinyAutoencoder
from tests.nodes.fakes import SCALE, KLNetwork, TinyNetwork, fake_vae
from tests.pack import pack_module

vae = pack_module("nodes.vae")


def flat(*levels: float) -> torch.Tensor:
    """A picture of one colour, (1, 3, 16, 24)."""
    return torch.tensor(levels).view(1, 3, 1, 1).expand(1, 3, 16, 24)


@pytest.mark.parametrize("network", [KLNetwork(), TinyNetwork(SCALE)])
def test_latents_are_scaled_and_pixels_in_0_to_1_come_back(network):
    autoencoder = vae.HostAutoencoder(fake_vae(network))
    rgb = flat(0.25, 0.5, 1.0)
    latent = autoencoder.encode(rgb)
    assert latent.shape == (1, 4, 16 // autoencoder.factor, 24 // autoencoder.factor)
    assert torch.allclose(latent[0, :3, 0, 0], torch.tensor([-0.5, 0.0, 1.0]))
    assert torch.allclose(autoencoder.decode(latent), rgb, atol=1e-6)


def test_decoded_pixels_are_not_clamped():
    autoencoder = vae.HostAutoencoder(fake_vae())
    assert torch.allclose(autoencoder.decode(torch.full((1, 4, 2, 2), 3.0)), torch.tensor(2.0))


def test_it_computes_in_the_vaes_precision_and_gives_the_callers():
    network = KLNetwork()
    autoencoder = vae.HostAutoencoder(fake_vae(network, vae_dtype=torch.bfloat16))
    latent = autoencoder.encode(flat(0.1, 0.2, 0.3))
    assert (network.seen.dtype, latent.dtype) == (torch.bfloat16, torch.float32)
    pixels = autoencoder.decode(latent.half())
    assert (network.seen.dtype, pixels.dtype) == (torch.bfloat16, torch.float16)


def test_it_computes_on_the_vaes_device_and_gives_on_the_callers():
    class Recording(KLNetwork):
        def encode(self, x):
            self.device = x.device
            return torch.zeros(1, 4, 2, 3)

    network = Recording()
    autoencoder = vae.HostAutoencoder(fake_vae(network, device=torch.device("meta")))
    assert autoencoder.encode(flat(0.1, 0.2, 0.3)).device.type == "cpu"
    assert network.device.type == "meta"


def test_a_scale_that_half_precision_rounded_is_undone_exactly():
    rounded = float(torch.tensor(SCALE).bfloat16())
    autoencoder = vae.HostAutoencoder(fake_vae(TinyNetwork(rounded)))
    assert autoencoder.scale == rounded != SCALE


def test_memory_is_counted_as_for_our_own():
    own = (vae.HostAutoencoder(fake_vae(net)).alive for net in (KLNetwork(), TinyNetwork(SCALE)))
    assert list(own) == [KLAutoencoder.alive, TinyAutoencoder.alive]


def test_comfyui_moves_it_by_its_own_patcher():
    given = fake_vae()
    assert vae.HostAutoencoder(given).patcher is given.patcher


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latent_channels": 16}, "latent_channels 16, expected 4"),
        ({"latent_dim": 3}, "latent_dim 3, expected 2"),
        ({"downscale_ratio": 4}, "downscale_ratio 4, expected 8"),
        ({"downscale_ratio": (lambda a: a, 8, 8)}, "downscale_ratio of a video, expected 8"),
        ({"output_channels": 2}, "output_channels 2, expected 3"),
    ],
)
def test_another_autoencoder_is_refused_by_its_form(changes, words):
    with pytest.raises(WeightsKindError, match=f"{words}.*taesd by Load VAE"):
        vae.HostAutoencoder(fake_vae(**changes))


def test_taesd_of_sdxl_is_refused_by_its_scale():
    with pytest.raises(WeightsKindError, match=r"TAESD of another base .*0\.13025, expected"):
        vae.HostAutoencoder(fake_vae(TinyNetwork(0.13025)))


def test_a_checkpoint_without_a_vae_is_said_to_be_one():
    empty = fake_vae()
    empty.first_stage_model = None
    with pytest.raises(WeightsKindError, match="this VAE is empty"):
        vae.HostAutoencoder(empty)
