"""Our estimator of a DA3_MODEL beside ComfyUI's own node, on a picture that neither resizes."""

import importlib

import comfy.model_base
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from tests.comfy.interop.common import CPU, check, error
from tests.pack import pack_module

HEIGHT, WIDTH = 280, 504
HAS_DA3 = hasattr(comfy.model_base, "DepthAnything3")  # not in 0.3.64


def da3() -> ModelPatcher:
    """The small network without sky, as the loader makes it, with random values."""
    from comfy.supported_models import DepthAnything3

    settings = {
        "image_model": "DepthAnything3",
        "backbone_name": "vits",
        "out_layers": [5, 7, 9, 11],
        "head_type": "dpt",
        "head_dim_in": 384,
        "head_features": 64,
        "head_out_channels": [48, 96, 192, 384],
        "head_use_sky_head": True,
    }
    config = DepthAnything3(settings)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, device=CPU)
    generator = torch.Generator().manual_seed(6)
    for name, weight in model.diffusion_model.named_parameters():
        scale = 0.08 if weight.ndim > 1 else 0.3
        weight.copy_(torch.randn(weight.shape, generator=generator) * scale + ("norm" in name))
    return ModelPatcher(model, load_device=CPU, offload_device=CPU)


@check
def depth_anything_3() -> object:
    if not HAS_DA3:
        return {}
    theirs = importlib.import_module("comfy_extras.nodes_depth_anything_3")
    model = da3()
    rgb = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))
    depth, _, sky = theirs._run_da3(model, rgb.movedim(1, -1), process_res=WIDTH)
    expected = depth.clamp(min=1e-3).reciprocal() * (1 - sky.clamp(0, 1))
    depth_of = pack_module("nodes.depth").depth_of
    resident = depth_of(model, torch.float32)
    small = resident.module(rgb[..., ::2, ::2])
    return {
        "error": error(resident.module(rgb)[:, 0], expected),
        "spread": float(expected.std() / expected.mean()),
        "shape": list(small.shape),
        "once": depth_of(model, torch.float32) is resident,
    }
