"""Our network beside that of a MODEL: LoRAs, merges, precisions, weights patched in place."""

from unittest.mock import patch

import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from comfy_extras.nodes_model_merging import ModelMergeSimple

from live2diff_core.errors import WeightsKindError
from tests.comfy.interop.common import (
    CPU,
    HAS_QUANTISED,
    MOTION,
    check,
    compared,
    error,
    lora,
    made_of,
    model_of,
    ours,
    theirs,
    unet,
    weights,
    with_lora,
)


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
        if bias in stored and not HAS_QUANTISED:  # kept in 8 bits without a scale
            widened[bias] = stored[bias].to(torch.float8_e4m3fn).float()
    stored["scaled_fp8"] = torch.zeros(
        2, dtype=torch.float8_e4m3fn
    )  # 2: products in full precision
    plain, exact = model_of(stored), model_of(widened)
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
    for name, running, little in (
        ("same", changed, 0),
        ("other", other, 0),
        ("part", other, plain.model_size() // 2),
    ):
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
