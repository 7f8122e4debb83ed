"""As much of ComfyUI's MODEL and VAE as the pack asks of them."""

from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace
from uuid import uuid4

import torch
from torch import nn

from tests import sd15
from tests.networks import recorded, seeded, tiny_vae

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


def tiny_weights():
    """SD 1.5 at a tiny size in original names, without their prefix."""
    state = sd15.original_unet(sd15.tiny_unet().spatial)
    return {key.removeprefix(sd15.UNET_PREFIX): t.clone() for key, t in state.items()}


class FakePatcher:
    """Holds a network of weights as ComfyUI's ModelPatcher does; clones share `model`."""

    def __init__(self, weights, prefix=""):
        self.model, self.prefix = nn.Module(), prefix
        self.backup, self.hook_backup, self.patches = {}, {}, {}
        self.patches_uuid = uuid4()
        for key, weight in weights.items():
            self.hold(key, weight)

    def hold(self, key, weight, convert=None):
        """Put a weight under a key, and ComfyUI's conversion of it, if there is one."""
        *path, name = (self.prefix + key).split(".")
        layer = self.model
        for part in path:
            if part not in dict(layer.named_children()):
                layer.add_module(part, nn.Module())
            layer = getattr(layer, part)
        layer.register_parameter(name, nn.Parameter(weight, requires_grad=False))
        if convert is not None:
            setattr(layer, f"convert_{name}", convert)

    def use_ejected(self):
        return nullcontext()


class FakeModel(FakePatcher):
    """A MODEL. weights: of its network in original names."""

    def __init__(self, weights=None, predicts=EPS):
        self.weights = tiny_weights() if weights is None else weights
        super().__init__(self.weights, "diffusion_model.")
        self.sampling = sampling(predicts)
        self.model_options = {"transformer_options": {}}

    def get_model_object(self, name):
        assert name == "model_sampling"
        return self.sampling


@cache
def kl_weights():
    """Stable Diffusion's VAE at a tiny width."""
    sides = {"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"]}
    widths = [32] * 4
    levels = {name: kinds * len(widths) for name, kinds in sides.items()}
    return tiny_vae(block_out_channels=widths, **levels).state_dict()


@cache
def taesd_weights(scale=SCALE):
    """TAESD as ComfyUI loads its two files."""
    scales = {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(0.0)}
    return seeded(recorded("taesd.json")["shapes"]) | scales


def fake_vae(weights=None, **changes):
    """A VAE as ComfyUI describes Stable Diffusion 1.5's."""
    patcher = FakePatcher(kl_weights() if weights is None else weights)
    form = {
        "first_stage_model": patcher.model,
        "latent_channels": 4,
        "latent_dim": 2,
        "downscale_ratio": 8,
        "output_channels": 3,
        "device": torch.device("cpu"),
        "vae_dtype": torch.float32,
        "patcher": patcher,
    }
    return SimpleNamespace(**{**form, **changes})
