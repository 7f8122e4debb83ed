"""Dynamic VRAM, ComfyUI's default on NVIDIA: core's weights come to the device as layers run.

A CPU never has it, so the device here is `meta` and what reserves its memory is replaced.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import MagicMock, patch

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch

from tests.comfy.interop.common import CPU, check, made_of, model_of, weights, with_lora
from tests.comfy.interop.vaes import kl_vae, tiny_vae
from tests.pack import pack_module

host, vae = pack_module("nodes.host"), pack_module("nodes.vae")

DEVICE = torch.device("meta")
HAS_DYNAMIC = hasattr(comfy.model_patcher, "ModelPatcherDynamic")  # not in 0.3.64


def free_memory(_: object = None, torch_free_too: bool = False) -> int | tuple[int, int]:
    return (8 << 30, 0) if torch_free_too else 8 << 30


@contextmanager
def dynamic_vram() -> Iterator[None]:
    """What a start with an NVIDIA card sets."""
    dynamic = comfy.model_patcher.ModelPatcherDynamic
    with (
        patch.object(comfy.model_patcher, "CoreModelPatcher", dynamic),
        patch.object(dynamic, "_vbar_get", lambda *_, **__: None),
        patch("comfy_aimdo.host_buffer.HostBuffer", MagicMock()),
        patch.object(comfy.model_management, "vae_device", lambda: DEVICE),
        patch.object(comfy.model_management, "get_free_memory", free_memory),
    ):
        yield


def loaded(given: comfy.sd.VAE) -> dict[str, object]:
    """Where the autoencoder's weights are after a load, and how."""
    autoencoder = vae.HostAutoencoder(given)
    host.load([autoencoder.patcher], 0)
    again = vae.HostAutoencoder(given)
    return {
        "dynamic": given.patcher.is_dynamic(),
        "ours_is_dynamic": autoencoder.patcher.is_dynamic(),
        "devices": sorted({weight.device.type for weight in autoencoder.parameters()}),
        "once": again.patcher is autoencoder.patcher,
    }


@check
def a_vae_under_dynamic_vram() -> object:
    """TAESD and a KL VAE, whose layers are partly over the size that ComfyUI loads at once."""
    if not HAS_DYNAMIC:
        return {}
    with dynamic_vram():
        return {"taesd": loaded(tiny_vae()), "kl": loaded(kl_vae())}


@check
def a_model_under_dynamic_vram() -> object:
    """What ComfyUI put on the device before is neither taken from there nor moved."""
    if not HAS_DYNAMIC:
        return {}
    plain = with_lora(model_of(weights()), 1, 0.7)
    expected = made_of(plain).state_dict()
    with dynamic_vram():
        core = comfy.model_patcher.CoreModelPatcher(plain.model, DEVICE, CPU)
        held = with_lora(core, 1, 0.7)
        comfy.model_management.load_models_gpu([held])
        before = {key: weight.device.type for key, weight in held.model.state_dict().items()}
        found = made_of(held).state_dict()
        after = {key: weight.device.type for key, weight in held.model.state_dict().items()}
    return {
        "dynamic": held.is_dynamic(),
        "devices": sorted(set(before.values())),
        "equal": all(torch.equal(expected[key], found[key]) for key in expected),
        "untouched": before == after,
    }
