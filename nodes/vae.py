"""The autoencoder of a ComfyUI VAE, as our engine runs it."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ..live2diff_core.errors import WeightsKindError
from ..live2diff_core.models.autoencoder import KLAutoencoder, TinyAutoencoder
from ..live2diff_core.models.layout import lay_out
from ..live2diff_core.weights.autoencoders import SCALE, taesd_from_file, vae_from_ldm
from . import host

WHAT = "this VAE"
TAESD_SCALES = ("vae_scale", "vae_shift")  # between ComfyUI's latents and TAESD's own
SCALE_TOLERANCE = 1e-3  # half precision rounds it
FORM = {"latent_channels": 4, "latent_dim": 2, "downscale_ratio": 8, "output_channels": 3}
ADVICE = "connect the VAE of a Stable Diffusion 1.5 checkpoint, or taesd by Load VAE"

COPIES = host.Copies()


class HostAutoencoder(nn.Module):
    """A copy of a VAE's weights, in a network of ours that ComfyUI keeps whole on the VAE's device.

    Not the VAE's own network: ComfyUI may fetch its weights layer by layer and give their memory to
    others, so they could neither be recorded nor counted on. It computes in the VAE's precision;
    results are on the caller's device and in the caller's precision. Latents are the mode of the
    encoder's distribution.
    """

    def __init__(self, vae: Any) -> None:  # noqa: ANN401 - ComfyUI's VAE
        """Raises WeightsKindError for a VAE that is not Stable Diffusion 1.5's or TAESD."""
        super().__init__()
        _check_form(vae)
        resident = COPIES.of(vae.first_stage_model, _source(vae), lambda: _copy(vae))
        self.network: KLAutoencoder | TinyAutoencoder = resident.module
        self.patcher = resident.patcher
        self.factor, self.channels = self.network.factor, self.network.channels
        self.alive = self.network.alive
        self._device, self._dtype = vae.device, vae.vae_dtype

    def encode(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, channels, h / factor, w / factor), scaled."""
        return self.network.encode(self._moved(rgb)).to(rgb)

    def decode(self, latent: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, 3, h factor, w factor), not clamped."""
        return self.network.decode(self._moved(latent)).to(latent)

    def _moved(self, x: Tensor) -> Tensor:
        return x.to(self._device, self._dtype)


def _source(vae: Any) -> Hashable:  # noqa: ANN401 - ComfyUI's VAE
    return vae.patcher.patches_uuid, vae.device, vae.vae_dtype


def _copy(vae: Any) -> host.Resident:  # noqa: ANN401 - ComfyUI's VAE
    weights, device = host.held_weights(vae.patcher), host.storage_device()
    scales = {name: weights.pop(name) for name in TAESD_SCALES if name in weights}
    tensors = host.merged(weights, device, vae.vae_dtype)
    network: KLAutoencoder | TinyAutoencoder
    if scales:
        _check_scale(scales["vae_scale"])
        network = taesd_from_file(tensors, WHAT, device, vae.vae_dtype)
    else:
        network = vae_from_ldm(tensors, WHAT, device, vae.vae_dtype)
    lay_out((network,), torch.device(vae.device))
    return host.Resident(network, vae.device)


def _check_form(vae: Any) -> None:  # noqa: ANN401 - ComfyUI's VAE
    if vae.first_stage_model is None:
        raise WeightsKindError(f"{WHAT} is empty, its checkpoint holds none: {ADVICE}")
    found = {name: getattr(vae, name) for name in FORM}
    if found != FORM:
        listed = ", ".join(
            f"{name} {_shown(value)}, expected {FORM[name]}"
            for name, value in found.items()
            if value != FORM[name]
        )
        raise WeightsKindError(f"{WHAT} is not Stable Diffusion 1.5's ({listed}): {ADVICE}")


def _shown(value: object) -> object:
    """Video autoencoders give functions of the length."""
    return value if isinstance(value, int | float) else "of a video"


def _check_scale(held: host.HeldWeight) -> None:
    scale = float(held.merged())
    if abs(scale - SCALE) > SCALE_TOLERANCE:
        raise WeightsKindError(
            f"{WHAT} is a TAESD of another base (its latents are scaled by {scale:.5f}, expected "
            f"{SCALE}): {ADVICE}"
        )
