"""A translation model small enough for every test, and frames to feed it.

Its weights are random, seeded and nowhere zero: time, depth and prompt all show in the result.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn

from live2diff_core.config import NoiseScheduleConfig, Prediction, StepSelection, StreamConfig
from live2diff_core.frames import Frame
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.bundled import END, PAD, START, UNKNOWN, Parts, assemble, build

WIDTH, HEIGHT = 24, 16
STYLES = {"ink": ["ink drawing", "ink"], "neon": ["neon", "neon lights"]}
WORDS = ["ink", "drawing", "neon", "lights", "a", "of", "the", "cat", "city"]

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "unet": {
        "sample_size": 8,
        "in_channels": 12,
        "out_channels": 12,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "block_out_channels": [32, 32],
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "cross_attention_dim": 16,
        "norm_num_groups": 16,
    },
    "temporal": {"heads": 4, "norm_groups": 32, "max_positions": 24, "attentions": 2},
    "depth_mapping": {"widths": [8, 16]},
    "autoencoder": {"factor": 4, "luma_order": 3, "chroma_order": 2},
    "structure": {"detail": 1.0, "surround": 0.2, "floor": 0.03},
    "text": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
    },
    "schedule": asdict(NoiseScheduleConfig(prediction="sample")),
    "styles": STYLES,
    "defaults": {"width": WIDTH, "height": HEIGHT, "strength": 0.8, "steps": 2, "noise": "fresh"},
}


def tiny_config(prediction: Prediction = "sample") -> dict[str, Any]:
    """A configuration of its own for whoever changes it."""
    config = copy.deepcopy(CONFIG)
    config["schedule"]["prediction"] = prediction
    return config


def make_tokenizer() -> Tokenizer:
    """Words to numbers, with a start and an end, as the bundled model's."""
    vocabulary = {word: i for i, word in enumerate([PAD, START, END, UNKNOWN, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(t, vocabulary[t]) for t in (START, END)]
    )
    return tokenizer


@torch.no_grad()
def roughen(module: nn.Module, seed: int, amount: float = 0.1) -> None:
    """Add noise to every weight, so that none is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.add_(amount * torch.randn(parameter.shape, generator=generator))


def make_parts(config: dict[str, Any], seed: int = 0) -> Parts:
    """Modules with random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = build(config, make_tokenizer())
    roughen(parts.modules(), seed)
    scale = torch.linspace(1.5, 0.5, parts.autoencoder.channels)
    parts.autoencoder.scale.copy_(scale)
    parts.modules().eval().requires_grad_(False)
    return parts


def make_model(prediction: Prediction = "sample", seed: int = 0) -> TranslationModel:
    """A model of its own for whoever changes it."""
    config = tiny_config(prediction)
    return assemble(make_parts(config, seed), config)


@cache
def tiny_model() -> TranslationModel:
    """One model for all tests that only run it."""
    return make_model()


def make_frames(
    count: int, width: int = WIDTH, height: int = HEIGHT, seed: int = 0, first: int = 0
) -> list[Frame]:
    """Random pictures at 25 a second, numbered from `first`."""
    generator = torch.Generator().manual_seed(seed)
    pictures = [torch.rand(3, height, width, generator=generator) for _ in range(count)]
    return [Frame(rgb, first + i, (first + i) / 25) for i, rgb in enumerate(pictures)]


def changed(frames: Sequence[Frame], position: int) -> list[Frame]:
    """The same frames with another picture at one position."""
    frames = list(frames)
    frames[position] = replace(frames[position], rgb=1 - frames[position].rgb)
    return frames


def steps_of(count: int, strength: float = 0.8) -> StepSelection:
    """`count` denoising steps."""
    return StepSelection(strength=strength, steps=count)


def stream_config(steps: int = 2, **settings: Any) -> StreamConfig:
    """Settings of a stream of tiny frames."""
    return StreamConfig(WIDTH, HEIGHT, steps_of(steps), **settings)


def open_session(config: StreamConfig | None = None, prompt: str = "ink") -> Session:
    """A session on the shared model."""
    return Session(tiny_model(), config or stream_config(), prompt)


def translated(
    frames: Sequence[Frame], config: StreamConfig | None = None, prompt: str = "ink"
) -> list[Frame]:
    """Frames through a session of their own."""
    return list(translate(open_session(config, prompt), frames))


@cache
def reference(count: int, config: StreamConfig, prompt: str = "ink") -> tuple[Frame, ...]:
    """The first `count` frames of `make_frames`, translated once for all that compare with it."""
    return tuple(translated(make_frames(count), config, prompt))


def same(ours: Sequence[Frame], theirs: Sequence[Frame]) -> bool:
    """Equal pictures to the bit, in equal places."""
    return len(ours) == len(theirs) and all(
        torch.equal(a.rgb, b.rgb) and (a.index, a.timestamp) == (b.index, b.timestamp)
        for a, b in zip(ours, theirs, strict=True)
    )


def distance(ours: Sequence[Frame], theirs: Sequence[Frame]) -> float:
    """Largest difference of any pixel."""
    pairs = zip(ours, theirs, strict=True)
    return max((a.rgb - b.rgb).abs().max().item() for a, b in pairs)
