"""Training of the temporal layers and the depth mapping beside a frozen spatial network.

A clip passes as a whole with the streaming mask, so what is trained is what runs (Live2Diff, sec.
3.2 to 3.4): its first frames are the warm-up, its later ones see the warm-up and the ring.
"""

import copy
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from ..cache import WholeClip
from ..config import AttentionWindow, NoiseScheduleConfig
from ..errors import ConfigError
from ..models.adapters import with_child
from ..models.depth import DepthRange, depth_latent
from ..models.translator import TranslationModel
from ..models.unet import StreamingUNet
from ..schedule import alphas_cumprod
from ..weights.random import random_text
from .config import NoisePart, TrainConfig
from .footage import Batch, Clips, NumberedClips
from .motion_file import beside, load_motion, save_motion
from .recompute import recompute
from .start import load_start

CHECKPOINTS, MOTION, RUN = "checkpoints", "motion.safetensors", "run.json"
PARTIAL = ".partial"
TEXTS = 4096  # embeddings that are kept
FIXED_CLIPS, FIXED_SEED = 8, 1_000_003
TOGETHER = 8  # pictures that are encoded at once


@dataclass(frozen=True, slots=True)
class Progress:
    """A step that was made; steps count from 0. loss: mean over its clips. norm: of the gradients
    before they were clipped. rate: learning rate.
    """

    step: int
    loss: float
    norm: float
    rate: float


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What the network gets and should give for clips of f frames, rows in order: x and target
    (clips f, c, h, w), depth latents of that shape, timestep (clips,), text (clips, tokens, dim).
    """

    x: Tensor
    target: Tensor
    depth: Tensor
    timestep: Tensor
    text: Tensor


class WholeClipPass(nn.Module):
    """The network over whole clips in one pass, equal to a prefill and the stream after it."""

    def __init__(self, unet: StreamingUNet, window: AttentionWindow) -> None:
        super().__init__()
        self.unet, self.window = unet, window

    def forward(self, x: Tensor, timestep: Tensor, text: Tensor, depth: Tensor) -> Tensor:
        """All of a clip's frames are at its timestep. Shapes as in `Inputs`; returns as x."""
        unet, clips = self.unet, len(timestep)
        frames = len(x) // clips
        state = WholeClip(frames, clips, self.window, x.device)
        emb = unet.embed(timestep, text).repeat_interleave(frames, 0)
        return unet.walk(x, emb, unet.text_keys(text), unet.depth_mapping(depth), state)


class Noising:
    """Draws timesteps and noise of clips, and says what the network should make of them."""

    def __init__(
        self, schedule: NoiseScheduleConfig, noise: NoisePart, device: torch.device
    ) -> None:
        self._schedule, self._noise = schedule, noise
        self._alpha_bar = alphas_cumprod(schedule).to(device)

    def draw(self, seed: int, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For one clip (t, c, h, w): what enters, what should come out, and the timestep, (1,).

        Drawn on the CPU: the same on every device.
        """
        generator = torch.Generator().manual_seed(seed)
        timestep = torch.randint(*self._noise.timesteps, (1,), generator=generator)
        fixed = torch.rand((), generator=generator) < self._noise.fixed_share
        size = latent[:1].shape if fixed else latent.shape
        noise = torch.randn(size, generator=generator).to(latent).expand_as(latent)
        signal = self._alpha_bar[timestep.to(latent.device)]
        a, b = signal.sqrt().view(1, 1, 1, 1), (1 - signal).sqrt().view(1, 1, 1, 1)
        x = a * latent + b * noise
        target = {"epsilon": noise, "v_prediction": a * noise - b * latent, "sample": latent}
        return x, target[self._schedule.prediction], timestep.to(latent.device)


def make_accelerator(config: TrainConfig, cpu: bool) -> Accelerator:
    """What knows this run's devices; cpu: no other one. Raises ConfigError for a precision that
    the device does not have.
    """
    part = config.optimisation
    try:
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=part.precision,
            gradient_accumulation_steps=part.accumulation,
            step_scheduler_with_optimizer=False,  # a step is the whole run's, not a process's
        )
    except ValueError as error:
        raise ConfigError(f"optimisation.precision {part.precision}: {error}") from error
    if part.precision == "fp16" and accelerator.device.type == "cpu":  # accelerate leaves it out
        raise ConfigError("optimisation.precision fp16 is not for a CPU: choose bf16 or no")
    return accelerator


class MotionTrainer:
    """A run in a directory that holds its checkpoints; a second run there goes on from the last.

    Raises ConfigError where the directory's run was made with other settings, and all that loading
    raises.
    """

    def __init__(self, config: TrainConfig, clips: Clips, accelerator: Accelerator) -> None:
        self.config, self._clips, self._accelerator = config, clips, accelerator
        self.model = load_start(config, accelerator.device)
        self.first = self._check_last()
        self._noising = Noising(self.model.schedule, config.noise, accelerator.device)
        self._text = lru_cache(TEXTS)(self._encode_text)
        if config.optimisation.recompute:
            recompute(self.model.unet)
        self._prepare()
        if self.first:
            accelerator.load_state(str(self._folder(self.first)))

    def _prepare(self) -> None:
        part, accelerator = self.config.optimisation, self._accelerator
        self.trained = list(beside(self.model.unet).parameters())
        optimizer = torch.optim.AdamW(
            self.trained, lr=part.learning_rate, weight_decay=part.weight_decay
        )
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / max(1, part.warmup))
        )
        network = WholeClipPass(self.model.unet, AttentionWindow())
        self._network = accelerator.prepare(network)
        self._optimizer, self._rate = accelerator.prepare(optimizer, rate)
        accelerator.register_save_state_pre_hook(self._save_motion)
        accelerator.register_load_state_pre_hook(self._load_motion)

    # ---- steps

    def run(self) -> Iterator[Progress]:
        """Train from the last checkpoint to the last step; yields every step when it is made.

        Checkpoints are written before the step is told. Raises ConfigError for a loss that is no
        number.
        """
        accelerator, losses = self._accelerator, list[Tensor]()
        step, norm = self.first, 0.0
        for batch in self._batches():
            with accelerator.accumulate(self._network):
                loss = self._loss(batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = float(accelerator.clip_grad_norm_(self.trained, self._clip))
                self._optimizer.step()
                self._optimizer.zero_grad()
            losses.append(loss.detach())
            if accelerator.sync_gradients:
                yield self._finish(step, torch.stack(losses), norm)
                step, losses = step + 1, []

    def _finish(self, step: int, losses: Tensor, norm: float) -> Progress:
        """What is left of a step after the optimiser's."""
        config, rate = self.config, self._rate.get_last_lr()[0]
        loss = float(self._accelerator.reduce(losses.mean(), "mean"))
        if math.isnan(loss):
            raise ConfigError(
                f"step {step}: the loss is no number any more. Go on from the last checkpoint with "
                "a lower optimisation.learning_rate, or with precision bf16 in place of fp16"
            )
        self._rate.step()
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.optimisation.steps:
            self.save(step + 1)
        return Progress(step, loss, norm, rate)

    @property
    def _clip(self) -> float:
        return self.config.optimisation.clip

    def _batches(self) -> Iterator[Batch]:
        part, config = self.config.optimisation, self.config
        a_step = part.batch * part.accumulation * self._accelerator.num_processes
        numbers = range(self.first * a_step, part.steps * a_step)
        clips = NumberedClips(self._clips, config.seed)
        loader = DataLoader(
            clips, part.batch, sampler=numbers, num_workers=config.data.workers, collate_fn=Batch.of
        )
        yield from self._accelerator.prepare(loader) if numbers else ()

    def _loss(self, batch: Batch) -> Tensor:
        """Mean squared error of what the network predicts: epsilon, v or x0."""
        return _error(self._network, self.inputs(batch))

    @torch.no_grad()
    def fixed_loss(self) -> float:
        """Mean loss on the same few clips, timesteps and noise whenever it is asked for.

        Losses of steps differ most by their timesteps; this one shows what was learned.
        """
        network = self._accelerator.unwrap_model(self._network, keep_fp32_wrapper=False)
        clips = NumberedClips(self._clips, self.config.seed + FIXED_SEED)
        losses = []
        for number in range(FIXED_CLIPS):
            with self._accelerator.autocast():
                losses.append(_error(network, self.inputs(Batch.of([clips[number]]))))
        return float(torch.stack(losses).mean())

    # ---- inputs

    @torch.no_grad()
    def inputs(self, batch: Batch) -> Inputs:
        """What the network gets of clips; every clip's depth has a range of its own."""
        device, rows = self._accelerator.device, list[tuple[Tensor, ...]]()
        for pictures, seed in zip(batch.pictures.to(device), batch.seeds, strict=True):
            rows.append((*self._noising.draw(seed, self._latents(pictures)), self._depth(pictures)))
        x, target, timestep, depth = (torch.cat(parts) for parts in zip(*rows, strict=True))
        texts = [self._text(prompt) for prompt in batch.prompts]
        if len({text.shape for text in texts}) > 1:
            texts = list(self.model.text.align(*texts))
        frozen = self._frozen_dtype
        return Inputs(x.to(frozen), target, depth.to(frozen), timestep, torch.cat(texts))

    @property
    def _frozen_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.unet.spatial.dtype
        return dtype

    def _latents(self, pictures: Tensor) -> Tensor:
        encode, dtype = self.model.autoencoder.encode, self._frozen_dtype
        return torch.cat([encode(part.to(dtype)).float() for part in pictures.split(TOGETHER)])

    def _depth(self, pictures: Tensor) -> Tensor:
        model = self.model
        depth = torch.cat([model.depth(part) for part in pictures.split(TOGETHER)])
        if model.depth.relative:
            depth = DepthRange(device=pictures.device).normalise(depth)
        parts = depth.to(self._frozen_dtype).split(TOGETHER)
        return torch.cat([depth_latent(model.autoencoder, part) for part in parts])

    def _encode_text(self, prompt: str) -> Tensor:
        if self.model.text_encoder is None:
            return random_text(self.model).to(self._accelerator.device, self._frozen_dtype)
        return self.model.text.encode(prompt).to(self._frozen_dtype)

    # ---- what comes of it

    def translator(self) -> TranslationModel:
        """The model as it is now, for streams: what is trained in the frozen networks' precision.

        In float32 it shares the weights that training goes on with.
        """
        unet, dtype = self.model.unet, self._frozen_dtype
        if dtype == torch.float32:
            return self.model
        for name, part in beside(unet).items():
            unet = with_child(unet, name, copy.deepcopy(part).to(dtype))
        return replace(self.model, unet=unet)

    def save(self, step: int) -> None:
        """Write the checkpoint of so many steps: whole, or not at all.

        Older ones keep their motion weights; only the newest can be gone on from.
        """
        accelerator, folder = self._accelerator, self._folder(step)
        partial = folder.with_name(folder.name + PARTIAL)
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            run = {"step": step, "settings": self.config.decides()}
            (partial / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
            self._thin_out(folder)
        accelerator.wait_for_everyone()

    def _thin_out(self, newest: Path) -> None:
        for folder in newest.parent.iterdir():
            if folder != newest and folder.is_dir():
                for file in folder.iterdir():
                    if file.name != MOTION:
                        file.unlink()

    def _check_last(self) -> int:
        """Steps that the directory's newest whole checkpoint holds, 0 where there is none."""
        found = sorted((self.config.directory / CHECKPOINTS).glob(f"step-*[0-9]/{RUN}"))
        if not found:
            return 0
        run = json.loads(found[-1].read_text(encoding="utf-8"))
        theirs, ours = run["settings"], json.loads(json.dumps(self.config.decides()))
        differing = [
            f"{part} {theirs.get(part)} (now {ours[part]})"
            for part in ours
            if theirs.get(part) != ours[part]
        ]
        if differing:
            raise ConfigError(
                f"{self.config.directory} holds a run with other settings: {'; '.join(differing)}. "
                "Set them back, or choose another directory and start from its motion weights"
            )
        return int(run["step"])

    def _folder(self, step: int) -> Path:
        return self.config.directory / CHECKPOINTS / f"step-{step:07d}"

    def _save_motion(self, models: list[nn.Module], weights: list[object], folder: str) -> None:
        """In place of the whole network, the frozen part of which is elsewhere."""
        weights.clear()
        if self._accelerator.is_main_process:
            metadata = {"base": self.config.model.base}
            save_motion(Path(folder) / MOTION, self.model.unet, metadata)

    def _load_motion(self, models: list[nn.Module], folder: str) -> None:
        models.clear()
        load_motion(self.model.unet, Path(folder) / MOTION)


def _error(network: nn.Module, inputs: Inputs) -> Tensor:
    output = network(inputs.x, inputs.timestep, inputs.text, inputs.depth)
    return functional.mse_loss(output.float(), inputs.target)
