"""The combinations that the options ask for, and the model of each."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from ...memory import give_back
from ...models.translator import TranslationModel
from ...weights.budget import StreamSize
from ...weights.random import DEFAULTS, random_model, random_text, sd15
from ...weights.spec import FROM_BASE, STRUCTURE
from ..options import load_model, parse_device, parse_dtype
from .floor import Rates, measure_rates

RANDOM = "random"
# What can be repeated, and what stands for it where it is not given; None is the model's own. The
# first changes last, as a model is of one dtype.
VARIED: dict[str, list[Any]] = {
    "dtype": [None],
    "size": [None, (256, 256)],
    "steps": [None],
    "runtime": ["eager"],
}

NAMED_FILES = (
    "model",
    "style",
    "motion",
    "text_encoder",
    "lora",
    "embedding",
    "clip_skip",
    "prompt",
)


def combinations(options: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """The options with one value of each that can be repeated."""
    given = vars(options)
    for values in product(*(given[name] or usual for name, usual in VARIED.items())):
        yield argparse.Namespace(**given | dict(zip(VARIED, values, strict=True)))


def check_options(options: argparse.Namespace) -> None:
    """Raise ConfigError for what no combination could be measured with."""
    if options.frames < 2:
        raise ConfigError(f"--frames must be at least 2, got {options.frames}")
    if options.uncounted < 1:
        raise ConfigError(f"--uncounted must be at least 1, got {options.uncounted}")
    if options.threads is not None and options.threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {options.threads}")
    if options.weights == RANDOM:
        named = [name for name in NAMED_FILES if vars(options)[name] not in (None, [])]
        if named:
            raise ConfigError(f"--weights random takes no {', '.join(named)}: it has no files")
        if options.vae not in (None, "taesd", FROM_BASE):
            raise ConfigError(f"--weights random has --vae taesd or base, not {options.vae}")
        if options.depth not in (None, STRUCTURE):
            raise ConfigError(f"--weights random has its own depth or {STRUCTURE}")


@dataclass(slots=True)
class Shelf:
    """The model and the device's rates of one precision, kept until another one is asked for."""

    dtype: torch.dtype | None = None
    model: TranslationModel | None = None
    rates: Rates | None = None

    def take(self, choice: argparse.Namespace) -> tuple[TranslationModel, Rates]:
        """What a combination runs on. Raises what loading raises."""
        device = parse_device(choice.device)
        dtype = parse_dtype(choice.dtype, device)
        if dtype != self.dtype:
            self.model, self.rates, self.dtype = None, None, dtype
            give_back()
        if self.rates is None:
            self.rates = measure_rates(device, dtype)
        if self.model is None:
            self.model = load(choice)
        return self.model, self.rates


def load(choice: argparse.Namespace) -> TranslationModel:
    """The model that the options name, or one of random weights."""
    if choice.weights != RANDOM:
        return load_model(choice)
    width, height = choice.size or (DEFAULTS.width, DEFAULTS.height)
    steps = choice.steps or len(DEFAULTS.steps.indices)
    device = parse_device(choice.device)
    make = partial(sd15, choice.vae == FROM_BASE, choice.depth == STRUCTURE)
    stream = StreamSize(width, height, steps)
    return random_model(make, stream, device, parse_dtype(choice.dtype, device))


def prompt_for(choice: argparse.Namespace, model: TranslationModel) -> str | Tensor:
    """What guides the stream."""
    if choice.weights == RANDOM:
        return random_text(model)
    return str(choice.prompt or next(iter(model.text.styles), ""))
