"""Short runs of training on a tiny network of Stable Diffusion's shape, for several test files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderTiny
from torch import Tensor

from live2diff_core.training.config import (
    DataPart,
    ModelPart,
    NoisePart,
    OptimisationPart,
    TrainConfig,
)
from live2diff_core.training.footage import Footage
from live2diff_core.training.motion import MotionTrainer, Progress, make_accelerator
from tests import sd15

FRAMES, WIDTH, HEIGHT = 18, 32, 16
PROMPTS = ("a cat", "a dog and a very long street")


def write_models(folder: Path) -> Path:
    """A models folder with a tiny Stable Diffusion 1.5 and TAESD, but no motion weights."""
    sd15.save(sd15.checkpoint(), folder / "checkpoints" / "tiny.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderTiny().save_pretrained(folder / "vae_approx" / "taesd")
    return folder


class Noise:
    """Clips of still noise, with one of two captions; counts what is drawn."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def draw(self, seed: int) -> Footage:
        self.drawn.append(seed)
        generator = torch.Generator().manual_seed(seed)
        picture = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator)
        return Footage(picture.expand(FRAMES, -1, -1, -1).clone(), PROMPTS[seed % 2])


def settings(models: Path, directory: Path, **optimisation: Any) -> TrainConfig:
    """A run on the models of `write_models`."""
    given = {"steps": 4, "learning_rate": 1e-3, "warmup": 2} | optimisation
    return TrainConfig(
        model=ModelPart("tiny", depth="structure", models=models),
        data=DataPart("a folder", WIDTH, HEIGHT, FRAMES),
        optimisation=OptimisationPart(**given),
        noise=NoisePart(0.25),
        directory=directory,
        seed=3,
        checkpoint_every=2,
    )


def make_trainer(config: TrainConfig, clips: Noise | None = None) -> MotionTrainer:
    """A trainer on the CPU, in a process that may have had others."""
    AcceleratorState._reset_state(reset_partial_state=True)
    config.directory.mkdir(parents=True, exist_ok=True)
    return MotionTrainer(config, clips or Noise(), make_accelerator(config, cpu=True))


def train(config: TrainConfig) -> list[Progress]:
    """All steps that are left."""
    return list(make_trainer(config).run())


def longer(config: TrainConfig, steps: int) -> TrainConfig:
    """The same run with another last step."""
    return replace(config, optimisation=replace(config.optimisation, steps=steps))


def copies(module: torch.nn.Module) -> dict[str, Tensor]:
    """Every tensor of a module as it is now."""
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}
