"""Compares our networks with ComfyUI's own; run by ComfyUI's Python, prints what it found as JSON.

PYTHONPATH=<repository> python interop_program.py <ComfyUI's folder> <scratch folder>
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from live2diff_core.config import StepSelection, StreamConfig
from live2diff_core.errors import WeightsKindError
from live2diff_core.frames import Frame
from live2diff_core.stream.session import Session
from live2diff_core.weights.autoencoders import load_autoencoder, vae_from_ldm
from tests import loras, sd15
from tests.pack import pack_module

COMFYUI, SCRATCH = sys.argv[1:]
sys.argv[1:] = ["--cpu", "--base-directory", SCRATCH]
# After our helpers: ComfyUI has a package `tests` and a module `nodes` of its own.
sys.path.insert(0, COMFYUI)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
from comfy.model_detection import detect_unet_config  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from comfy.supported_models import SD15  # noqa: E402
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete  # noqa: E402
from comfy_extras.nodes_model_merging import ModelMergeSimple  # noqa: E402

unet = pack_module("nodes.unet")
vae = pack_module("nodes.vae")
Apply = pack_module("nodes.apply").Live2DiffApply

CPU = torch.device("cpu")
SCALE = 0.18215
SIZE, TOKENS = 8, 77  # of latents and prompts
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
CHECKS: dict[str, Callable[[], object]] = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


# ---- networks


def weights(seed: int = 0) -> dict[str, Tensor]:
    """A UNet of SD 1.5's form in original names, without their prefix."""
    generator = torch.Generator().manual_seed(seed)
    state = sd15.original_unet(sd15.tiny_unet().spatial)
    return {
        key.removeprefix(sd15.UNET_PREFIX): t + 0.02 * torch.randn(t.shape, generator=generator)
        for key, t in state.items()
    }


def model_of(
    state: dict[str, Tensor], dtype: torch.dtype = torch.float32, scaled: torch.dtype | None = None
) -> ModelPatcher:
    """A MODEL as ComfyUI's loaders make it, for a network too small for them to know."""
    config = SD15(detect_unet_config(state, ""))
    config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    config.scaled_fp8 = scaled
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


# ---- both networks on the same input


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


# ---- MODEL


@check
def a_checkpoint() -> object:
    return compared(model_of(weights()))


@check
def a_lora() -> object:
    plain = model_of(weights())
    changed = with_lora(plain, 1, 0.7)
    without = ours(plain)
    expected = theirs(changed)
    return {
        "layers": len(changed.patches),
        "expected_layers": len(lora(1)) // 3,
        "error": error(ours(changed), expected),
        "error_without": error(without, expected),
    }


@check
def two_loras() -> object:
    one = with_lora(model_of(weights()), 1, 0.7)
    both = with_lora(one, 2, -0.4)
    expected = theirs(both)
    return {"error": error(ours(both), expected), "error_without": error(ours(one), expected)}


@check
def a_merge_of_two_models_with_loras() -> object:
    first, second = with_lora(model_of(weights(0)), 1, 0.5), with_lora(model_of(weights(1)), 2, 0.5)
    (merged,) = ModelMergeSimple().merge(first, second, 0.3)
    expected = theirs(merged)
    return {"error": error(ours(merged), expected), "error_without": error(ours(first), expected)}


@check
def half_precision_with_a_lora() -> object:
    """ComfyUI rounds what it merged; ours is compared with what it had not rounded."""
    stored = {key: t.half() for key, t in weights().items()}
    exact = model_of({key: t.float() for key, t in stored.items()})
    found = ours(with_lora(model_of(stored, torch.float16), 1, 0.7))
    return {"error": error(found, theirs(with_lora(exact, 1, 0.7)))}


@check
def eight_bits() -> object:
    return compared(model_of(weights(), torch.float8_e4m3fn))


@check
def scaled_eight_bits_with_a_lora() -> object:
    stored, widened = weights(), weights()
    for key in [key for key, t in stored.items() if t.ndim == 2]:
        scale = stored[key].abs().max() / 400
        stored[key] = (stored[key] / scale).to(torch.float8_e4m3fn)
        stored[key.replace(".weight", ".scale_weight")] = scale
        widened[key] = stored[key].float() * scale
        bias = key.replace(".weight", ".bias")
        if bias in stored:  # kept in 8 bits without a scale
            widened[bias] = stored[bias].to(torch.float8_e4m3fn).float()
    plain, exact = model_of(stored, scaled=torch.float8_e4m3fn), model_of(widened)
    found = {"plain": compared(plain)["error"]}
    changed = ours(with_lora(plain, 1, 0.7))
    return found | {"lora": error(changed, theirs(with_lora(exact, 1, 0.7)))}


@check
def weights_that_are_patched_in_place() -> object:
    """The shared model holds the changes of whoever ran last; ours are those of our own graph."""
    plain = model_of(weights())
    changed, other = with_lora(plain, 1, 0.7), with_lora(plain, 2, 0.7)
    fresh = made_of(changed).state_dict()
    results = {}
    for name, running, little in (("same", changed, 0), ("other", other, 0), ("part", other, 5000)):
        plain.unpatch_model(CPU)
        running.patch_model(CPU, lowvram_model_memory=little)
        before = {key: t.clone() for key, t in plain.model.state_dict().items()}
        unet.unet_of(plain, MOTION)  # so that the next one is made again
        found = made_of(changed).state_dict()
        after = plain.model.state_dict()
        results[name] = {
            "backed_up": len(running.backup),
            "equal": all(torch.equal(fresh[key], found[key]) for key in fresh),
            "untouched": all(torch.equal(before[key], after[key]) for key in before),
        }
    return results


@check
def clones() -> object:
    """A node that changes no weights gives a MODEL of the same network."""
    changed = with_lora(model_of(weights()), 1, 0.7)
    (clone,) = ModelSamplingDiscrete().patch(changed, "lcm", False)
    return {
        "same": unet.unet_of(changed, MOTION) is unet.unet_of(clone, MOTION),
        "another_lora": made_of(changed) is made_of(with_lora(clone, 2, 0.1)),
    }


@check
def predictions() -> object:
    model, found = model_of(weights()), {}
    for name in ("eps", "v_prediction", "lcm", "x0", "img_to_img"):
        (patched,) = ModelSamplingDiscrete().patch(model, name, False)
        try:
            found[name] = unet.prediction_of(patched)
        except WeightsKindError:
            found[name] = "refused"
    return found | {"unpatched": unet.prediction_of(model)}


@check
def noise_schedules() -> object:
    """What is said of a MODEL's noise schedule, without and with zero terminal SNR."""
    model, said = model_of(weights()), list[int]()
    with patch.object(unet.logger, "warning") as warning:
        for zsnr in (False, True):
            (patched,) = ModelSamplingDiscrete().patch(model, "v_prediction", zsnr)
            unet.prediction_of(patched)
            said.append(warning.call_count)
    return said


# ---- VAE


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


# ---- the node


@check
def a_stream() -> object:
    """What Apply makes runs in ComfyUI, under its memory rules."""
    model = with_lora(model_of(weights()), 1, 0.7)
    (hosted,) = Apply().apply(model, tiny_vae(), MOTION.name, "structure", "running")
    config = StreamConfig(64, 64, StepSelection(strength=0.6, steps=2))
    frames = [Frame(torch.rand(3, 64, 64), i, i / 25) for i in range(8)]
    with hosted.running(config, caches=1):
        session = Session(hosted.model, config, torch.randn(1, TOKENS, sd15.TEXT))
        warm = torch.stack([frame.rgb for frame in session.warmup(frames)])
    loaded = [held.model.model for held in comfy.model_management.current_loaded_models]
    return {
        "frames": len(warm),
        "finite": bool(warm.isfinite().all()),
        "patchers": len(hosted.patchers),
        "held_by_comfyui": any(module is hosted.model.unet for module in loaded),
    }


MOTION = sd15.save(
    sd15.reference_motion(sd15.tiny_unet()),
    Path(SCRATCH) / "models" / "live2diff" / "live2diff.safetensors",
)


def main() -> None:
    with torch.inference_mode():  # as ComfyUI runs its nodes
        found = {name: run_check() for name, run_check in CHECKS.items()}
    (Path(SCRATCH) / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
