"""Nodes run by hand, as ComfyUI would run them, on the bundled model at a small size."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from live2diff_core.live.source import VideoFile
from tests.clips import BIKES
from tests.pack import pack_module

SIZE = 64
SETTINGS = {
    "width": SIZE,
    "height": SIZE,
    "steps": 2,
    "denoise": 0.6,
    "seed": 1,
    "noise": "fixed",
    "fit": "crop",
}

MAPPINGS = pack_module("nodes").NODE_CLASS_MAPPINGS


def run(name: str, **inputs: Any) -> Any:
    """Outputs of a new node of a class."""
    node = MAPPINGS[f"Live2Diff{name}"]()
    return getattr(node, node.FUNCTION)(**inputs)


def images(count: int, start: int = 0) -> Tensor:
    """Pictures of a real clip, (n, h, w, 3) in [0, 1]."""
    return _clip()[start : start + count]


@cache
def _clip() -> Tensor:
    with VideoFile(BIKES, 32) as source:
        frames = torch.stack([frame.rgb for frame in source]).float() / 255
    return functional.interpolate(frames, (SIZE, SIZE), mode="area").movedim(1, -1)


def model_and_prompt(words: str = "neon") -> tuple[Any, list[Any]]:
    """The bundled model and a CONDITIONING for it."""
    model, clip = run("BundledModel")
    return model, prompt(clip, words)


def prompt(clip: Any, words: str) -> list[Any]:
    """What the core's CLIPTextEncode makes of words."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(words))


def warm_up(node: str = "1", **changes: Any) -> Any:
    """Stream and images of a warm-up on the first 8 pictures of the clip."""
    model, conditioning = model_and_prompt(changes.pop("words", "neon"))
    given = {**SETTINGS, "frames": images(8), **changes}
    return run("Warmup", model=model, conditioning=conditioning, unique_id=node, **given)


def sample(stream: Any, pictures: Tensor, node: str = "2", **inputs: Any) -> Any:
    """Images and the count in flight of a sampler."""
    given = {"flush": False, **inputs}
    return run("Sampler", stream=stream, images=pictures, unique_id=node, **given)
