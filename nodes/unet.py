"""The UNet of a ComfyUI MODEL, with every LoRA and merge of the graph, as our engine runs it."""

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..live2diff_core.config import Prediction
from ..live2diff_core.errors import WeightsKindError
from ..live2diff_core.weights.base import unet_from_ldm
from ..live2diff_core.weights.files import TensorInfo, some
from ..live2diff_core.weights.identity import Identity, recognise
from ..live2diff_core.weights.inspect import Kind, require
from ..live2diff_core.weights.motion import Motion, attach_motion, read_motion
from . import host
from .files import stamp

logger = logging.getLogger(__name__)

WHAT = "this MODEL"
PREFIX = "diffusion_model."  # of the network's keys in ComfyUI

# What a class of comfy.model_sampling says of the network's output; None: not made for Live2Diff.
PREDICTIONS: Mapping[str, Prediction | None] = {
    "EPS": "epsilon",
    "V_PREDICTION": "v_prediction",
    "EDM": None,
    "X0": None,
    "IMG_TO_IMG": None,
    "CONST": None,
    "COSMOS_RFLOW": None,
}

Weights = Mapping[str, host.HeldWeight]

COPIES = host.Copies()


def unet_of(model: Any, motion_file: Path) -> host.Resident:  # noqa: ANN401 - ComfyUI's MODEL
    """A StreamingUNet of a MODEL's weights, changes merged, and motion weights, off the device.

    The MODEL stays as it is. What was made last of the same base is given again where nothing
    changed. Raises WeightsKindError for a MODEL that is not Stable Diffusion 1.5, WeightsError for
    what else is wrong with it or with the motion weights, and ComfyUI's interrupt.
    """
    weights = host.held_weights(model, PREFIX)
    dtype = host.network_dtype(_identity(weights).parameters)
    motion = read_motion(motion_file)

    def make() -> host.Resident:
        _warn_of_ignored(model)
        return _build(weights, motion, dtype)

    return COPIES.of(model.model, _source(model, motion_file, dtype), make)


def prediction_of(model: Any) -> Prediction:  # noqa: ANN401 - ComfyUI's MODEL
    """What a MODEL's network gives. Raises WeightsKindError for what Live2Diff cannot follow."""
    sampling = model.get_model_object("model_sampling")
    names = [cls.__name__ for cls in type(sampling).__mro__]
    name = next((name for name in names if name in PREDICTIONS), names[0])
    prediction = PREDICTIONS.get(name)
    if prediction is None:
        raise WeightsKindError(
            f"{WHAT} is sampled as {name}; expected EPS or V_PREDICTION, as Stable Diffusion 1.5 "
            "is: leave out the node that changes it (ModelSampling...), or set it to eps"
        )
    if getattr(sampling, "zsnr", False):
        logger.warning(
            "%s has a noise schedule of zero terminal SNR (zsnr): it has no effect in Live2Diff, "
            "whose schedule is the one of the motion weights",
            WHAT,
        )
    return prediction


def _identity(held: Weights) -> Identity:
    """Check by keys and shapes what a MODEL is."""
    weights = {key: weight.stored for key, weight in held.items()}
    infos = {key: TensorInfo(tuple(w.shape), w.dtype) for key, w in weights.items()}
    identity = require(recognise(Path(WHAT), infos, "MODEL"), Kind.SD15_UNET, "the base")
    integers = [key for key, weight in weights.items() if not weight.is_floating_point()]
    if integers:
        raise WeightsKindError(
            f"{WHAT} is quantised to integers (GGUF?) in {some(integers)}: take a .safetensors "
            "checkpoint of it; 8-bit floats will do"
        )
    return identity


def _source(model: Any, motion_file: Path, dtype: torch.dtype) -> Hashable:  # noqa: ANN401
    """All that a network is made from, and where it runs."""
    return model.patches_uuid, stamp(motion_file), host.network_device(), dtype


def _build(weights: Weights, motion: Motion, dtype: torch.dtype) -> host.Resident:
    device = host.storage_device()
    spatial = unet_from_ldm(host.merged(weights, device, dtype), WHAT, device, dtype)
    unet = attach_motion(spatial, motion, device)
    return host.Resident(unet.eval().requires_grad_(False))


def _warn_of_ignored(model: Any) -> None:  # noqa: ANN401 - ComfyUI's MODEL
    options = model.model_options.get("transformer_options", {})
    ignored = sorted({*options.get("patches", {}), *options.get("patches_replace", {})})
    if ignored:
        logger.warning(
            "%s has changes that are no weights (%s: IP-Adapter, FreeU and the like): they have no "
            "effect in Live2Diff",
            WHAT,
            ", ".join(ignored),
        )
