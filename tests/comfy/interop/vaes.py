"""Our autoencoder beside a VAE's own methods."""

from pathlib import Path

import comfy.sd
import comfy.taesd.taesd
import torch
from torch import Tensor, nn

from live2diff_core.weights.autoencoders import load_autoencoder, vae_from_ldm
from tests import sd15
from tests.comfy.interop.common import CPU, SCRATCH, check, error
from tests.pack import pack_module

vae = pack_module("nodes.vae")

SCALE = 0.18215
KL = {  # Stable Diffusion's VAE, narrow
    "double_z": True,
    "z_channels": 4,
    "resolution": 64,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def random_state(module: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {
        key: torch.randn(t.shape, generator=generator) / max(1, t[0].numel()) ** 0.5
        for key, t in module.state_dict().items()
        if t.ndim
    }


def tiny_vae() -> comfy.sd.VAE:
    """What the core's VAELoader makes of the two files of TAESD, which are written, too."""
    state = random_state(comfy.taesd.taesd.TAESD())
    for half in ("taesd_encoder", "taesd_decoder"):
        own = {k.removeprefix(f"{half}."): t for k, t in state.items() if k.startswith(half)}
        sd15.save(own, Path(SCRATCH) / f"{half}.safetensors")
    scales = {"vae_scale": torch.tensor(SCALE), "vae_shift": torch.tensor(0.0)}
    return comfy.sd.VAE(sd=state | scales)


def kl_state() -> dict[str, Tensor]:
    return random_state(comfy.sd.AutoencoderKL(ddconfig=KL, embed_dim=4))


def kl_vae() -> comfy.sd.VAE:
    return comfy.sd.VAE(sd=kl_state(), config={"params": {"ddconfig": KL, "embed_dim": 4}})


def compared_vae(given: comfy.sd.VAE, own: object) -> dict[str, object]:
    """Our wrapper beside the VAE's methods and beside our own autoencoder of the same weights."""
    wrapper = vae.HostAutoencoder(given)
    rgb = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(5))
    latent = wrapper.encode(rgb)
    pixels = wrapper.decode(latent)
    encoded = given.encode(rgb.movedim(1, -1)) * SCALE
    decoded = given.decode(latent / SCALE).movedim(-1, 1)
    return {
        "shape": list(latent.shape),
        "encode": error(latent, encoded),
        "decode": error(pixels.clamp(0, 1), decoded),
        "own_encode": error(latent, own.encode(rgb)),
        "own_decode": error(pixels, own.decode(latent)),
        "repeatable": torch.equal(latent, wrapper.encode(rgb)),
    }


@check
def taesd() -> object:
    given = tiny_vae()
    return compared_vae(given, load_autoencoder(Path(SCRATCH), CPU, torch.float32))


@check
def kl() -> object:
    return compared_vae(kl_vae(), vae_from_ldm(kl_state(), "vae", CPU, torch.float32))
