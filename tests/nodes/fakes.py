"""As much of ComfyUI's MODEL and VAE as the pack asks of them."""

from types import SimpleNamespace
from uuid import uuid4

import torch
from torch import nn
from torch.nn import functional

from tests import sd15

SCALE = 0.18215


class EPS: ...


class LCM(EPS): ...


class V_PREDICTION(EPS): ...


class X0(EPS): ...


class EDM(V_PREDICTION): ...


class CONST: ...


class OwnSampler: ...


def sampling(*parts):
    """An instance of a class made of others, as ComfyUI makes them."""
    return type("ModelSampling", (nn.Module, *parts), {})()


def unchanged(weight, **_):
    return weight


def tiny_weights():
    """SD 1.5 at a tiny size in original names, without their prefix."""
    state = sd15.original_unet(sd15.tiny_unet().spatial)
    return {key.removeprefix(sd15.UNET_PREFIX): t.clone() for key, t in state.items()}


class FakeModel:
    """A MODEL. weights: of its network in original names. conversions: of some of them."""

    def __init__(self, weights=None, predicts=EPS, conversions=None):
        self.model = nn.Module()  # what clones share
        self.weights = tiny_weights() if weights is None else weights
        self.conversions = conversions or {}
        self.sampling = sampling(predicts)
        self.patches_uuid = uuid4()
        self.model_options = {"transformer_options": {}}

    def get_key_patches(self, prefix):
        return {
            prefix + key: [(weight, self.conversions.get(key, unchanged))]
            for key, weight in self.weights.items()
        }

    def get_model_object(self, name):
        assert name == "model_sampling"
        return self.sampling


class KLNetwork(nn.Module):
    """Means of blocks, and a fourth channel; takes and gives pixels in [-1, 1]."""

    def encode(self, x):
        self.seen = x
        small = functional.avg_pool2d(x, 8)
        return torch.cat([small, small[:, :1]], 1) / SCALE

    def decode(self, latent):
        self.seen = latent
        return functional.interpolate(latent[:, :3], scale_factor=8.0) * SCALE


class TinyNetwork(KLNetwork):
    def __init__(self, scale):
        super().__init__()
        self.taesd_encoder = nn.Identity()
        self.vae_scale = nn.Parameter(torch.tensor(scale), requires_grad=False)


def fake_vae(network=None, **changes):
    """A VAE as ComfyUI describes Stable Diffusion 1.5's."""
    form = {
        "first_stage_model": KLNetwork() if network is None else network,
        "latent_channels": 4,
        "latent_dim": 2,
        "downscale_ratio": 8,
        "output_channels": 3,
        "process_input": lambda image: image * 2 - 1,
        "device": torch.device("cpu"),
        "vae_dtype": torch.float32,
        "patcher": object(),
    }
    return SimpleNamespace(**{**form, **changes})
