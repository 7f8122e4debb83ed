"""What the node Apply makes runs in ComfyUI, under its memory rules."""

import comfy.model_management
import torch

from live2diff_core.config import StepSelection, StreamConfig
from live2diff_core.frames import Frame
from live2diff_core.stream.session import Session
from tests import sd15
from tests.comfy.interop.common import MOTION, TOKENS, check, model_of, weights, with_lora
from tests.comfy.interop.vaes import tiny_vae
from tests.pack import pack_module

Apply = pack_module("nodes.apply").Live2DiffApply


@check
def a_stream() -> object:
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
