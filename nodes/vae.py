"""A ComfyUI VAE as our engine's autoencoder."""

from typing import Any

from torch import Tensor, nn

from ..live2diff_core.errors import WeightsKindError
from ..live2diff_core.models.autoencoder import KLAutoencoder, TinyAutoencoder
from ..live2diff_core.weights.autoencoders import SCALE

SCALE_TOLERANCE = 1e-3  # half precision rounds it
FORM = {"latent_channels": 4, "latent_dim": 2, "downscale_ratio": 8, "output_channels": 3}
ADVICE = "connect the VAE of a Stable Diffusion 1.5 checkpoint, or taesd by Load VAE"


class HostAutoencoder(nn.Module):
    """The network of a VAE, run directly: ComfyUI's own methods would look for memory every time.

    It computes in the VAE's precision on the VAE's device, where `patcher` brings it; results are
    on the caller's. Latents are the mode of the encoder's distribution.
    """

    factor, channels = 8, 4

    def __init__(self, vae: Any) -> None:  # noqa: ANN401 - ComfyUI's VAE
        """Raises WeightsKindError for a VAE that is not Stable Diffusion 1.5's or TAESD."""
        super().__init__()
        _check_form(vae)
        self._vae, self._network = vae, vae.first_stage_model
        self.patcher = vae.patcher
        tiny = hasattr(self._network, "taesd_encoder")
        self.alive = (TinyAutoencoder if tiny else KLAutoencoder).alive
        self.scale = _tiny_scale(self._network) if tiny else SCALE

    def encode(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) in [0, 1] -> (n, channels, h / factor, w / factor), scaled."""
        latent = self._network.encode(self._moved(self._vae.process_input(rgb)))
        return latent.to(rgb.device, rgb.dtype) * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, 3, h factor, w factor), not clamped."""
        pixels = self._network.decode(self._moved(latent / self.scale))
        return (pixels.to(latent.device, latent.dtype) + 1) / 2

    def _moved(self, x: Tensor) -> Tensor:
        return x.to(self._vae.device, self._vae.vae_dtype)


def _check_form(vae: Any) -> None:  # noqa: ANN401 - ComfyUI's VAE
    if vae.first_stage_model is None:
        raise WeightsKindError(f"this VAE is empty, its checkpoint holds none: {ADVICE}")
    found = {name: getattr(vae, name) for name in FORM}
    if found != FORM:
        listed = ", ".join(
            f"{name} {_shown(value)}, expected {FORM[name]}"
            for name, value in found.items()
            if value != FORM[name]
        )
        raise WeightsKindError(f"this VAE is not Stable Diffusion 1.5's ({listed}): {ADVICE}")


def _shown(value: object) -> object:
    """Video autoencoders give functions of the length."""
    return value if isinstance(value, int | float) else "of a video"


def _tiny_scale(network: Any) -> float:  # noqa: ANN401 - ComfyUI's TAESD
    """What TAESD divides its latents by, in the precision that it does so."""
    scale = float(network.vae_scale)
    if abs(scale - SCALE) > SCALE_TOLERANCE:
        raise WeightsKindError(
            f"this VAE is a TAESD of another base (its latents are scaled by {scale:.5f}, expected "
            f"{SCALE}): {ADVICE}"
        )
    return scale
