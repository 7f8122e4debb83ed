"""The base: the UNet of Stable Diffusion 1.5 or a finetune, with what comes beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from ..config import Prediction
from ..errors import WeightsFormatError, WeightsKindError
from ..models.autoencoder import Autoencoder
from .autoencoders import load_autoencoder, vae_from_ldm
from .component import component, empty, fill, read_config, read_object
from .files import TensorFile, TensorInfo, open_tensors
from .inspect import Kind, require
from .ldm import ldm_keys
from .text import load_clip

UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
FIRST = "input_blocks.0.0.weight"  # of a UNet in original names
PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "sample": "sample",
}
HEADS, NORM_GROUPS = 8, 32  # of every SD 1.5 network: the two sizes that no tensor tells


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A base that is open: SD 1.5 or a finetune, of which only headers have been read.

    folder: of diffusers, None for a single file. file: the UNet's. prefix: of the UNet's keys in
    original names, None in diffusers' names. settings: of UNet2DConditionModel.
    """

    folder: Path | None
    file: TensorFile
    prefix: str | None
    settings: Mapping[str, Any]

    def parameters(self, text: bool, autoencoder: bool) -> int:
        """Values in the UNet and in what else is taken, from the headers."""
        if self.folder is not None:
            folders = ["text_encoder"] * text + ["vae"] * autoencoder
            beside = [self.folder / name for name in folders if (self.folder / name).is_dir()]
            return self.file.parameters + sum(component(folder).parameters for folder in beside)
        prefixes = (self.prefix or "", *[CLIP] * text, *[VAE] * autoencoder)
        taken = (info for key, info in self.file.infos.items() if key.startswith(prefixes))
        return sum(prod(info.shape) for info in taken)

    @property
    def prediction(self) -> Prediction:
        """What the UNet predicts, as the base says it; one that says nothing predicts epsilon.

        A file says it in the metadata of ModelSpec, a folder in its scheduler. Raises WeightsError.
        """
        if self.folder is None:
            said, where = self.file.metadata.get("modelspec.prediction_type"), self.file.path
        else:
            where = self.folder / "scheduler" / "scheduler_config.json"
            said = read_object(where).get("prediction_type") if where.is_file() else None
        if said is None:
            return "epsilon"
        if not isinstance(said, str) or said not in PREDICTIONS:
            known = ", ".join(PREDICTIONS)
            raise WeightsKindError(f"{where}: its UNet predicts {said!r}; known are {known}")
        return PREDICTIONS[said]

    def load_unet(self, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
        """The UNet, strictly. Raises WeightsError."""
        what, state = str(self.file.path), _read_below(self.file, self.prefix or "", dtype)
        if self.prefix is not None:
            return unet_from_ldm(state, what, device, dtype)
        return fill(empty(UNet2DConditionModel, self.settings, what), state, what, device, dtype)

    def load_text(self, device: torch.device, dtype: torch.dtype) -> CLIPTextModel | None:
        """The text encoder, if the base brings one. Raises WeightsError."""
        if self.folder is None:
            tensors, what = _read_below(self.file, CLIP, dtype), str(self.file.path)
        elif (self.folder / "text_encoder").is_dir():
            file = component(self.folder / "text_encoder")
            tensors, what = file.read(dtype=dtype), str(file.path)
        else:
            return None
        return load_clip(tensors, what, device, dtype) if tensors else None

    def load_autoencoder(self, device: torch.device, dtype: torch.dtype) -> Autoencoder | None:
        """The VAE, if the base brings one. Raises WeightsError."""
        if self.folder is None:
            tensors = _read_below(self.file, VAE, dtype)
            return vae_from_ldm(tensors, str(self.file.path), device, dtype) if tensors else None
        vae = self.folder / "vae"
        return load_autoencoder(vae, device, dtype) if vae.is_dir() else None


def open_base(path: Path) -> Base:
    """Open SD 1.5 or a finetune: a file in original or diffusers names, or a diffusers folder.

    Widths and depth are read from the shapes, or from the folder's config.json. Raises
    WeightsError; other bases are named.
    """
    if path.is_dir():
        return _open_folder(path)
    file = open_tensors(path)
    require(file, (Kind.SD15, Kind.SD15_UNET), "the base")
    for prefix in (UNET, "diffusion_model.", ""):
        if f"{prefix}{FIRST}" in file.infos:
            return Base(None, file, prefix, unet_config(_below(file.infos, prefix), str(path)))
    return Base(None, file, None, diffusers_unet_config(file.infos, str(path)))


def unet_from_ldm(
    tensors: Mapping[str, Tensor], what: str, device: torch.device, dtype: torch.dtype
) -> UNet2DConditionModel:
    """A UNet from tensors in original (LDM) names, without their prefix, strictly.

    They are not copied if they are of the device and dtype. what: their file, for errors. Raises
    WeightsKindError for tensors of no such network, WeightsKeyError, WeightsValueError.
    """
    infos = {key: TensorInfo(tuple(t.shape), t.dtype) for key, t in tensors.items()}
    made = empty(UNet2DConditionModel, unet_config(infos, what), what)
    own = ldm_keys(made.state_dict())
    state = {own.get(key, key): tensor for key, tensor in tensors.items()}
    return fill(made, state, what, device, dtype)


def _open_folder(path: Path) -> Base:
    unet = path / "unet"
    if not unet.is_dir():
        raise WeightsFormatError(
            f"{path} has no folder unet: expected a diffusers folder (unet, text_encoder, vae, "
            "tokenizer) or a single .safetensors or .ckpt file"
        )
    file = component(unet)
    require(file, Kind.SD15_UNET, "the base")
    return Base(path, file, None, read_config(unet))


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
        channels = infos[FIRST].shape[1], infos["out.2.weight"].shape[0]
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


def _out(block: int) -> str:
    return f"input_blocks.{block}.0.out_layers.3.weight"


def _below(infos: Mapping[str, TensorInfo], prefix: str) -> dict[str, TensorInfo]:
    return {k.removeprefix(prefix): info for k, info in infos.items() if k.startswith(prefix)}


def _read_below(file: TensorFile, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    keys = [key for key in file.infos if key.startswith(prefix)]
    return {key.removeprefix(prefix): tensor for key, tensor in file.read(keys, dtype).items()}
