"""The base: the UNet of Stable Diffusion 1.5 or a finetune, with what comes beside it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from torch import Tensor, nn
from transformers import CLIPTextModel

from ..errors import WeightsFormatError, WeightsKindError
from ..models.autoencoder import Autoencoder
from .autoencoders import load_autoencoder, vae_from_ldm
from .component import component, read_config
from .files import TensorFile, TensorInfo, open_tensors
from .inspect import Kind, require
from .load import load_strict
from .text import load_clip

UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
HEADS, NORM_GROUPS = 8, 32  # of every SD 1.5 network: the two sizes that no tensor tells


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """What a base file or folder gave; text and autoencoder only if they were in it."""

    unet: UNet2DConditionModel
    text: CLIPTextModel | None
    autoencoder: Autoencoder | None


def load_base(path: Path, device: torch.device, dtype: torch.dtype) -> Base:
    """Load SD 1.5 or a finetune: a file in original or diffusers names, or a diffusers folder.

    Widths and depth are read from the tensors. Raises WeightsError; other bases are named.
    """
    if path.is_dir():
        return _load_folder(path, device, dtype)
    file = open_tensors(path)
    require(file, (Kind.SD15, Kind.SD15_UNET), "the base")
    if any(key.startswith(UNET) for key in file.infos):
        return _load_single(file, device, dtype)
    return Base(_unet_from(file, file.infos, device, dtype), None, None)


def _load_single(file: TensorFile, device: torch.device, dtype: torch.dtype) -> Base:
    what = str(file.path)
    infos = _below(file.infos, UNET)
    with init_empty_weights():
        unet = UNet2DConditionModel(**unet_config(infos, what))
    table = ldm_table(infos, unet.config)
    state = {table.get(key, key): tensor for key, tensor in _read_below(file, UNET).items()}
    nn.Module.to(unet, dtype)  # diffusers' own warns of precision for every network
    load_strict(unet, state, what, device)
    clip, vae = _read_below(file, CLIP), _read_below(file, VAE)
    return Base(
        unet,
        load_clip(clip, what, device, dtype) if clip else None,
        vae_from_ldm(vae, what, device, dtype) if vae else None,
    )


def _load_folder(path: Path, device: torch.device, dtype: torch.dtype) -> Base:
    if not (path / "unet").is_dir():
        raise WeightsFormatError(
            f"{path} has no folder unet: expected a diffusers folder (unet, text_encoder, vae, "
            "tokenizer) or a single .safetensors or .ckpt file"
        )
    file = component(path / "unet")
    require(file, Kind.SD15_UNET, "the base")
    text, vae = path / "text_encoder", path / "vae"
    clip = component(text) if text.is_dir() else None
    return Base(
        _unet_from(file, file.infos, device, dtype, read_config(path / "unet")),
        load_clip(clip.read(), str(clip.path), device, dtype) if clip else None,
        load_autoencoder(vae, device, dtype) if vae.is_dir() else None,
    )


def _unet_from(
    file: TensorFile,
    infos: Mapping[str, TensorInfo],
    device: torch.device,
    dtype: torch.dtype,
    config: Mapping[str, Any] | None = None,
) -> UNet2DConditionModel:
    """A UNet in diffusers' names; its settings come from config.json or from the shapes."""
    what = str(file.path)
    settings = dict(config) if config is not None else diffusers_unet_config(infos, what)
    try:
        with init_empty_weights():
            unet = UNet2DConditionModel.from_config(settings)
    except (TypeError, ValueError, KeyError) as error:
        raise WeightsFormatError(f"{what}: its config.json describes no UNet: {error}") from error
    nn.Module.to(unet, dtype)
    load_strict(unet, file.read(), what, device)
    return unet


def unet_config(infos: Mapping[str, TensorInfo], what: str) -> dict[str, Any]:
    """Settings of UNet2DConditionModel from tensors in original names, without their prefix.

    Raises WeightsKindError for tensors that are no such network.
    """
    first_down = next(
        (i for i in range(1, 100) if f"input_blocks.{i}.0.op.weight" in infos), len(infos)
    )
    stride = first_down  # layers of a block and its downsampler
    starts = list(takewhile(lambda i: _out(i) in infos, (1 + n * stride for n in count())))
    attended = [f"input_blocks.{i}.1.norm.weight" in infos for i in starts]
    try:
        widths = tuple(infos[_out(i)].shape[0] for i in starts)
        text = next(
            info.shape[1]
            for key, info in infos.items()
            if key.endswith("attn2.to_k.weight") and len(info.shape) == 2
        )
        channels = infos["input_blocks.0.0.weight"].shape[1], infos["out.2.weight"].shape[0]
    except (KeyError, IndexError, StopIteration) as error:
        raise WeightsKindError(f"{what} holds no Stable Diffusion 1.5 UNet") from error
    return _settings(widths, attended, stride - 1, text, channels)


def diffusers_unet_config(infos: Mapping[str, TensorInfo], what: str) -> dict[str, Any]:
    """Settings of UNet2DConditionModel from tensors in its own names. Raises WeightsKindError."""

    def present(pattern: str) -> list[int]:
        return list(takewhile(lambda n: pattern.format(n) in infos, count()))

    blocks = present("down_blocks.{}.resnets.0.conv2.weight")
    attended = [f"down_blocks.{b}.attentions.0.norm.weight" in infos for b in blocks]
    layers = len(present("down_blocks.0.resnets.{}.conv2.weight"))
    try:
        widths = tuple(infos[f"down_blocks.{b}.resnets.0.conv2.weight"].shape[0] for b in blocks)
        key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
        text = infos[key].shape[1]
        channels = infos["conv_in.weight"].shape[1], infos["conv_out.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise WeightsKindError(f"{what} holds no Stable Diffusion 1.5 UNet") from error
    return _settings(widths, attended, layers, text, channels)


def _settings(
    widths: tuple[int, ...],
    attended: list[bool],
    layers: int,
    text: int,
    channels: tuple[int, int],
) -> dict[str, Any]:
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)]
    return {
        "in_channels": channels[0],
        "out_channels": channels[1],
        "block_out_channels": widths,
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "layers_per_block": layers,
        "cross_attention_dim": text,
        "attention_head_dim": HEADS,
        "norm_num_groups": NORM_GROUPS,
    }


def ldm_table(keys: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Original key -> diffusers key of a UNet, as far as diffusers' converter knows the keys.

    The converter moves values and never looks at them, so it is run on the keys themselves; what
    it leaves out is unexpected, which it would not say.
    """
    moved = convert_ldm_unet_checkpoint({f"{UNET}{key}": key for key in keys}, config)
    return {old: new for new, old in moved.items() if old is not None}


def _out(block: int) -> str:
    return f"input_blocks.{block}.0.out_layers.3.weight"


def _below(infos: Mapping[str, TensorInfo], prefix: str) -> dict[str, TensorInfo]:
    return {k.removeprefix(prefix): info for k, info in infos.items() if k.startswith(prefix)}


def _read_below(file: TensorFile, prefix: str) -> dict[str, Tensor]:
    keys = [key for key in file.infos if key.startswith(prefix)]
    return {key.removeprefix(prefix): tensor for key, tensor in file.read(keys).items()}
