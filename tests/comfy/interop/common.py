"""ComfyUI's networks and ours, made of the same weights and run on the same input.

Imported only by ComfyUI's Python, with its folder and a scratch folder as the program's words.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from tests import loras, sd15
from tests.pack import pack_module

COMFYUI, SCRATCH = sys.argv[1:]
sys.argv[1:] = ["--cpu", "--base-directory", SCRATCH]
# After our helpers: ComfyUI has its own package `tests` and module `nodes`.
sys.path.insert(0, COMFYUI)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import folder_paths  # noqa: E402, F401 - the pack makes its folders known when it is imported
from comfy.model_detection import detect_unet_config  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from comfy.supported_models import SD15  # noqa: E402

unet = pack_module("nodes.unet")

CPU = torch.device("cpu")
HAS_QUANTISED = hasattr(comfy.utils, "detect_layer_quantization")  # not in 0.3.64
SIZE, TOKENS = 8, 77  # of latents and prompts
CHECKS: dict[str, Callable[[], object]] = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def weights(seed: int = 0) -> dict[str, Tensor]:
    """A UNet of SD 1.5's form in original names, without their prefix."""
    generator = torch.Generator().manual_seed(seed)
    state = sd15.original_unet(sd15.tiny_unet().spatial)
    return {
        key.removeprefix(sd15.UNET_PREFIX): t + 0.02 * torch.randn(t.shape, generator=generator)
        for key, t in state.items()
    }


def model_of(state: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> ModelPatcher:
    """A MODEL as ComfyUI's loaders make it, for a network too small for them to know."""
    if HAS_QUANTISED:
        state, _ = comfy.utils.convert_old_quants(dict(state))
    config = SD15(detect_unet_config(state, ""))
    if HAS_QUANTISED:
        config.quant_config = comfy.utils.detect_layer_quantization(state, "")
    elif "scaled_fp8" in state:
        config.scaled_fp8 = state.pop("scaled_fp8").dtype
    config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    model = config.get_model(state, "", device=CPU)
    model.load_model_weights(dict(state), "")
    return ModelPatcher(model, load_device=CPU, offload_device=CPU)


def lora(seed: int) -> dict[str, Tensor]:
    """A LoRA of all layers in kohya's format, of a size that shows."""
    layers = loras.layer_shapes(sd15.tiny_unet().spatial)
    made = loras.kohya(loras.make_factors({"unet": layers}, rank=2 + seed))
    generator = torch.Generator().manual_seed(seed)
    return {
        key: t if key.endswith("alpha") else 0.2 * torch.randn(t.shape, generator=generator)
        for key, t in made.items()
    }


def with_lora(model: ModelPatcher, seed: int, strength: float) -> ModelPatcher:
    return comfy.sd.load_lora_for_models(model, None, lora(seed), strength, 0)[0]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 4, SIZE, SIZE, generator=generator)
    text = torch.randn(2, TOKENS, sd15.TEXT, generator=generator)
    return x, torch.tensor([37, 801]), text


def theirs(model: ModelPatcher) -> Tensor:
    """ComfyUI's network with the weights patched in place, as its sampler runs it."""
    comfy.model_management.load_models_gpu([model], force_patch_weights=True)
    x, timestep, text = inputs()
    return model.model.diffusion_model(x, timestep.float(), context=text)


def made_of(model: ModelPatcher) -> nn.Module:
    return unet.unet_of(model, MOTION).module


def ours(model: ModelPatcher) -> Tensor:
    """Our network without its temporal layers."""
    x, timestep, text = inputs()
    module = made_of(model)
    return module(x, timestep, text, torch.zeros(()), None)


def error(a: Tensor, b: Tensor) -> float:
    """Largest difference in units of the spread of the second one."""
    return ((a.float() - b.float()).abs().max() / b.float().std()).item()


def compared(model: ModelPatcher) -> dict[str, float]:
    return {"error": error(ours(model), theirs(model))}


MOTION = sd15.save(
    sd15.reference_motion(sd15.tiny_unet()),
    Path(SCRATCH) / "models" / "live2diff" / "live2diff.safetensors",
)
