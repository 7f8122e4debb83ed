"""A VAE as an autoencoder: whose weights, what precision and device, and which ones are refused."""

import gc
import weakref
from uuid import uuid4

import pytest
import torch

from live2diff_core.errors import WeightsKeyError, WeightsKindError
from live2diff_core.models.autoencoder import KLAutoencoder, TinyAutoencoder
from live2diff_core.weights.autoencoders import taesd_from_file, vae_from_ldm
from tests.networks import CPU, pictures
from tests.nodes.fakes import SCALE, fake_vae, kl_weights, taesd_weights
from tests.pack import pack_module

vae = pack_module("nodes.vae")
KINDS = [kl_weights(), taesd_weights()]


def own(weights):
    """Our own autoencoder of the same weights."""
    plain = {key: t for key, t in weights.items() if not key.startswith("vae_s")}
    return (vae_from_ldm if plain == weights else taesd_from_file)(plain, "", CPU, torch.float32)


@pytest.mark.parametrize("weights", KINDS)
def test_it_computes_what_our_own_autoencoder_of_these_weights_does(weights):
    autoencoder, expected = vae.HostAutoencoder(fake_vae(weights)), own(weights)
    rgb = pictures(1, 32, 24)
    latent = autoencoder.encode(rgb)
    assert latent.shape == (1, autoencoder.channels, 32 // autoencoder.factor, 3)
    assert torch.allclose(latent, expected.encode(rgb), atol=1e-5)
    assert torch.allclose(autoencoder.decode(latent), expected.decode(latent), atol=1e-5)


def test_it_computes_in_the_vaes_precision_and_gives_the_callers():
    autoencoder = vae.HostAutoencoder(fake_vae(vae_dtype=torch.bfloat16))
    assert {weight.dtype for weight in autoencoder.parameters()} == {torch.bfloat16}
    latent = autoencoder.encode(pictures(1, 16, 16))
    assert latent.dtype == torch.float32
    assert autoencoder.decode(latent.half()).dtype == torch.float16


def test_it_computes_on_the_vaes_device_and_gives_on_the_callers(monkeypatch):
    autoencoder = vae.HostAutoencoder(fake_vae(device=torch.device("meta")))
    autoencoder.network.to("meta")  # as ComfyUI would load it
    rgb = torch.zeros(1, 3, 16, 24, device="meta")
    assert autoencoder.encode(rgb).device.type == "meta"
    seen = []
    monkeypatch.setattr(autoencoder.network, "encode", lambda x: seen.append(x) or rgb[:, :, ::8])
    with pytest.raises(NotImplementedError, match="meta"):  # the way back, which meta has not
        autoencoder.encode(torch.zeros(1, 3, 16, 24))
    assert seen[0].device.type == "meta"


def test_a_scale_that_half_precision_rounded_changes_nothing():
    rounded = float(torch.tensor(SCALE).bfloat16())
    exact, other = (vae.HostAutoencoder(fake_vae(taesd_weights(s))) for s in (SCALE, rounded))
    rgb = pictures(1, 16, 16)
    assert rounded != SCALE
    assert torch.equal(exact.encode(rgb), other.encode(rgb))


def test_memory_is_counted_as_for_our_own():
    kinds = [type(vae.HostAutoencoder(fake_vae(weights)).network) for weights in KINDS]
    assert kinds == [KLAutoencoder, TinyAutoencoder]
    alive = [vae.HostAutoencoder(fake_vae(weights)).alive for weights in KINDS]
    assert alive == [KLAutoencoder.alive, TinyAutoencoder.alive]


# ---- whose weights


def test_the_vaes_weights_are_neither_changed_nor_shared():
    given = fake_vae({key: t.clone() for key, t in kl_weights().items()})
    for weight in vae.HostAutoencoder(given).parameters():
        weight.fill_(7)
    held = dict(given.first_stage_model.named_parameters())
    assert all(torch.equal(held[key], t) for key, t in kl_weights().items())


def test_the_same_vae_gives_the_same_network_which_goes_with_it():
    given = fake_vae()
    first, second = vae.HostAutoencoder(given), vae.HostAutoencoder(given)
    assert first.network is second.network
    seen = weakref.ref(first.network)
    del given, first, second
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("change", ["patches", "precision"])
def test_a_changed_vae_is_copied_again(change):
    given = fake_vae()
    first = vae.HostAutoencoder(given).network
    if change == "patches":
        given.patcher.patches_uuid = uuid4()
    else:
        given.vae_dtype = torch.bfloat16
    assert vae.HostAutoencoder(given).network is not first


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
        vae.HostAutoencoder(fake_vae(taesd_weights(0.13025)))


def test_an_autoencoder_with_other_layers_is_refused():
    extra = {"decoder.time_mix": torch.ones(3)}
    with pytest.raises(WeightsKeyError, match=r"this VAE does not fit.*1 unexpected.*time_mix"):
        vae.HostAutoencoder(fake_vae(kl_weights() | extra))


def test_a_checkpoint_without_a_vae_is_said_to_be_one():
    empty = fake_vae()
    empty.first_stage_model = None
    with pytest.raises(WeightsKindError, match="this VAE is empty"):
        vae.HostAutoencoder(empty)
