"""Training of the bundled model: pictures, then the temporal layers on clips, then both in turn,
and a last stage that can also start from a finished model and teach it further styles.

Every stage regresses the painted picture from the noised source, and again from the model's own
noised result, as streaming does. Clips pass as a whole with the streaming mask, so what is trained
is what runs; while only they are trained the spatial network is frozen (Live2Diff, sec. 3.5).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional

from ..cache import WholeClip
from ..config import AttentionWindow, NoiseScheduleConfig
from ..errors import ConfigError
from ..models.autoencoder import BlockCosineAutoencoder
from ..models.depth import StructureMap, depth_latent
from ..schedule import alphas_cumprod
from ..weights.bundled import WEIGHTS, Parts, build, bundled_vocabulary, save_bundled
from ..weights.files import read_safetensors
from ..weights.load import load_strict
from .batches import Batch, BatchSampler
from .prompts import make_tokenizer
from .styles import STYLES

Stage = Literal["pictures", "clips", "together", "refine"]

STAGES: tuple[Stage, ...] = get_args(Stage)
STAGE_SEEDS = {"pictures": 1, "clips": 1_000_003, "together": 2_000_003, "refine": 3_000_017}
IN_TURN: tuple[Stage, ...] = ("together", "refine")  # pictures at every second step
CHECKPOINT = "checkpoint.pt"
TOKEN_TABLE = "text.embeddings.token_embedding.weight"  # a row for each word


@dataclass(frozen=True, slots=True)
class StageRecipe:
    """How long and on what a stage trains. sizes: (height, width) in pixels, drawn per step."""

    steps: int
    clips: int
    frames: int
    sizes: tuple[tuple[int, int], ...]
    learning_rate: float
    change_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the result, with the bundled model's values.

    frame_by_frame: the last stage takes pictures alone and leaves the temporal layers as they are,
    for a network to compare with that was trained as long and knows no other frames.
    """

    seed: int = 20261120
    pictures: StageRecipe = StageRecipe(
        3000, 8, 2, ((128, 128), (96, 160), (160, 192), (160, 96)), learning_rate=1e-3
    )
    clips: StageRecipe = StageRecipe(
        1700, 1, 26, ((96, 96), (64, 128), (128, 64)), learning_rate=1e-3, change_weight=2.0
    )
    together: StageRecipe = StageRecipe(
        1300, 1, 26, ((96, 96), (64, 128), (128, 64)), learning_rate=4e-4, change_weight=0.3
    )
    refine: StageRecipe = StageRecipe(
        2400, 1, 26, ((96, 96), (64, 128), (128, 64), (96, 128)), 6e-4, change_weight=0.3
    )
    frame_by_frame: bool = False
    warmup_steps: int = 200
    ema_decay: float = 0.998
    fixed_noise_share: float = 0.4
    first_timesteps: tuple[int, int] = (150, 850)
    checkpoint_every: int = 100


def bundled_config() -> dict[str, Any]:
    """Configuration of the bundled model, as in config.json."""
    autoencoder = {"factor": 8, "luma_order": 9, "chroma_order": 4}
    channels = BlockCosineAutoencoder(**autoencoder).channels
    return {
        "name": "bundled",
        "unet": {
            "sample_size": 24,
            "in_channels": channels,
            "out_channels": channels,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "block_out_channels": [96, 96, 128],
            "layers_per_block": 1,
            "attention_head_dim": 4,
            "cross_attention_dim": 64,
            "norm_num_groups": 32,
            "resnet_time_scale_shift": "scale_shift",
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 4,
        },
        "temporal": {"heads": 8, "norm_groups": 32, "max_positions": 128, "attentions": 2},
        "depth_mapping": {"widths": [64, 64, 96]},
        "autoencoder": autoencoder,
        "structure": {"detail": 1.0, "surround": 0.08, "floor": 0.03},
        "text": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 20,
        },
        "schedule": asdict(NoiseScheduleConfig(prediction="sample")),
        "styles": {name: list(style.phrases) for name, style in STYLES.items()},
        "defaults": {"width": 192, "height": 160, "strength": 0.6, "steps": 2, "noise": "fixed"},
    }


class Trainer:
    """Trains in a directory that holds its checkpoint; a second run goes on from there."""

    def __init__(self, directory: Path, recipe: Recipe, device: torch.device) -> None:
        self.directory, self.recipe, self.device = directory, recipe, device
        torch.manual_seed(recipe.seed)
        self.config = bundled_config()
        self.parts: Parts = build(self.config, make_tokenizer())
        self.structure = StructureMap(**self.config["structure"])
        self.modules = self.parts.modules().to(device)
        self.parts.autoencoder.scale.copy_(latent_scale(self.parts, recipe.seed))
        self.alpha_bar = alphas_cumprod(NoiseScheduleConfig(**self.config["schedule"])).to(device)
        for transformer in self.parts.unet.transformers():
            transformer.start_silent()

    def run(self, stage: Stage) -> Iterator[tuple[int, float]]:
        """Train a stage, from its checkpoint if there is one; yields (step, loss).

        Stages run in the order of STAGES in one process.
        """
        plan = self.plan(stage)
        trained = self._trained(stage)
        optimizer = torch.optim.AdamW(trained, lr=plan.learning_rate, weight_decay=1e-3)
        ema = EMAModel(trained, decay=self.recipe.ema_decay)
        first = self._resume(stage, optimizer, ema)
        if first is None:
            return
        for step in range(first, plan.steps):
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * self._rate(step, plan.steps)
            loss = self._step(stage, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            ema.step(trained)
            yield step, loss.item()
            if (step + 1) % self.recipe.checkpoint_every == 0 or step + 1 == plan.steps:
                self._save(stage, step + 1, optimizer, ema)
        ema.copy_to(trained)

    def plan(self, stage: Stage) -> StageRecipe:
        """The recipe of a stage."""
        plans = {
            "pictures": self.recipe.pictures,
            "clips": self.recipe.clips,
            "together": self.recipe.together,
            "refine": self.recipe.refine,
        }
        return plans[stage]

    def export(self, directory: Path) -> None:
        """Write the model as it is now."""
        save_bundled(directory, self.parts, self.config)

    def start_from(self, directory: Path) -> None:
        """Take the weights of a finished model; words that it does not know stay untrained.

        Raises WeightsError for files that are not such a model's.
        """
        known = bundled_vocabulary(directory)
        words = self.parts.text.tokenizer.get_vocab()
        weights = read_safetensors(directory / WEIGHTS)
        table = self.modules.state_dict()[TOKEN_TABLE].clone()
        for word, row in words.items():
            if word in known:
                table[row] = weights[TOKEN_TABLE][known[word]]
        load_strict(self.modules, weights | {TOKEN_TABLE: table}, str(directory))

    def _trained(self, stage: Stage) -> list[nn.Parameter]:
        of_clips = {id(p) for t in self.parts.unet.transformers() for p in t.parameters()}
        everything = stage in IN_TURN and not self._pictures_alone(stage)
        for parameter in self.modules.parameters():
            temporal = id(parameter) in of_clips
            parameter.requires_grad_(everything or temporal == (stage == "clips"))
        return [p for p in self.modules.parameters() if p.requires_grad]

    def _rate(self, step: int, steps: int) -> float:
        warm = min(1.0, (step + 1) / self.recipe.warmup_steps)
        cosine = torch.cos(torch.tensor(step / steps * torch.pi)).item()
        return warm * (0.02 + 0.98 * (0.5 + 0.5 * cosine))

    def _pictures_alone(self, stage: Stage) -> bool:
        return stage == "refine" and self.recipe.frame_by_frame

    def _step(self, stage: Stage, step: int) -> Tensor:
        """Loss of one batch, drawn from the seed and the step's number alone.

        Where pictures and clips come in turn the network also stays whole without its temporal
        layers. On a CPU bfloat16 is no gain: a step takes a third longer.
        """
        seed = self.recipe.seed + (step + 1) * STAGE_SEEDS[stage]
        torch.manual_seed(seed)
        pictures = self._pictures_alone(stage) or (stage in IN_TURN and step % 2 == 0)
        plan = self.recipe.pictures if pictures else self.plan(stage)
        height, width = plan.sizes[step // 2 % len(plan.sizes)]
        batch = BatchSampler(seed).sample(plan.clips, plan.frames, height, width)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu"):
            return self._loss(plan, batch)

    def _loss(self, plan: StageRecipe, batch: Batch) -> Tensor:
        unet, autoencoder = self.parts.unet, self.parts.autoencoder
        source = batch.source.flatten(0, 1).to(self.device)
        text = torch.cat([request.encode(self.parts.text) for request in batch.requests])
        text = text.repeat_interleave(plan.frames, 0)
        depth = unet.depth_mapping(depth_latent(autoencoder, self.structure(source)))
        window, state = AttentionWindow(), None
        if plan.frames > window.sinks:
            state = WholeClip(plan.frames, plan.clips, window, self.device)
        low, high = self.recipe.first_timesteps
        timestep = torch.randint(low, high, (plan.clips,))
        target = batch.target(timestep).to(self.device)
        latent, loss = autoencoder.encode(source), torch.zeros((), device=self.device)
        for _ in range(2):
            rows = timestep.to(self.device).repeat_interleave(plan.frames)
            x = self._noised(latent, rows, plan)
            x0 = unet(x, rows, text, depth, state).float()
            rgb = autoencoder.decode(x0).view(target.shape)
            loss = loss + picture_loss(rgb, target, plan.change_weight)
            latent = x0.detach()
            timestep = (timestep * (0.1 + 0.8 * torch.rand(plan.clips))).long()
        return loss

    def _noised(self, latent: Tensor, rows: Tensor, plan: StageRecipe) -> Tensor:
        noise = torch.randn_like(latent)
        if plan.frames > 2 and torch.rand(()) < self.recipe.fixed_noise_share:
            per_clip = noise.unflatten(0, (plan.clips, plan.frames))
            noise = per_clip[:, :1].expand_as(per_clip).flatten(0, 1)
        signal = self.alpha_bar[rows].view(-1, 1, 1, 1)
        return signal.sqrt() * latent + (1 - signal).sqrt() * noise

    def _save(
        self, stage: Stage, step: int, optimizer: torch.optim.Optimizer, ema: EMAModel
    ) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / CHECKPOINT
        state = {
            "stage": stage,
            "step": step,
            "recipe": json.dumps(asdict(self.recipe)),
            "modules": self.modules.state_dict(),
            "optimizer": optimizer.state_dict(),
            "ema": ema.state_dict(),
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def _resume(self, stage: Stage, optimizer: torch.optim.Optimizer, ema: EMAModel) -> int | None:
        """First step to run: after the checkpoint's, or None if a later stage has begun."""
        path = self.directory / CHECKPOINT
        if not path.exists():
            return 0
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != json.dumps(asdict(self.recipe)):
            raise ConfigError(
                f"{path} was made with another recipe; remove it or choose another directory"
            )
        if state["stage"] != stage:
            later = STAGES.index(state["stage"]) > STAGES.index(stage)
            return None if later else 0
        if len(state["ema"]["shadow_params"]) != len(ema.shadow_params):
            raise ConfigError(
                f"{path} was made by a version whose layers had other parameters; remove it or "
                "choose another directory"
            )
        self.modules.load_state_dict(state["modules"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


def picture_loss(rgb: Tensor, target: Tensor, change_weight: float) -> Tensor:
    """Mean absolute error of pixels, of their gradients and, weighted, of their change in time.

    rgb, target: (clips, frames, 3, h, w).
    """
    loss = functional.l1_loss(rgb, target)
    for axis in (-1, -2):
        loss = loss + functional.l1_loss(rgb.diff(dim=axis), target.diff(dim=axis))
    if change_weight:
        loss = loss + change_weight * functional.l1_loss(rgb.diff(dim=1), target.diff(dim=1))
    return loss


@torch.no_grad()
def latent_scale(parts: Parts, seed: int) -> Tensor:
    """Spread of every transform channel over sources and teachers' pictures, (channels,)."""
    batch = BatchSampler(seed).sample(64, 2, 128, 128)
    pictures = torch.cat([batch.source, batch.painted]).flatten(0, 1)
    parts.autoencoder.scale.fill_(1)
    spread: Tensor = parts.autoencoder.encode(pictures).std((0, 2, 3))
    return spread
