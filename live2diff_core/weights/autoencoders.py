"""Autoencoders: Stable Diffusion's VAE and TAESD, in every form that they are published in."""

from collections.abc import Container, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from torch import Tensor

from ..errors import WeightsKeyError, WeightsKindError, WeightsMissingError
from ..models.autoencoder import KLAutoencoder, TinyAutoencoder
from .component import CONFIG, component, empty, fill, network_name, read_config
from .files import SUFFIXES, TensorFile, open_tensors
from .inspect import Kind, require
from .load import rename

PURPOSE = "the autoencoder"
CHANNELS, SCALE = 4, 0.18215  # of latents in Stable Diffusion 1.5

PREFIXES = ("first_stage_model.", "vae.")  # around the names of a VAE that came out of a checkpoint
TRAINING = ("loss.", "model_ema.")  # what trainers leave in a VAE's file

# Attention was named otherwise in diffusers before 0.17; many published folders are older.
EARLY_DIFFUSERS = tuple(
    (f"{half}.mid_block.attentions.0.{old}.", f"{half}.mid_block.attentions.0.{new}.")
    for half in ("encoder", "decoder")
    for old, new in (
        ("query", "to_q"),
        ("key", "to_k"),
        ("value", "to_v"),
        ("proj_attn", "to_out.0"),
    )
)

# Layer 0 of TAESD's decoder only clamps and has no weights; diffusers does not count it.
TAESD = (
    ("taesd_encoder.{0}.", "encoder.layers.{0}."),
    *((f"taesd_decoder.{n}.", f"decoder.layers.{n - 1}.") for n in range(1, 20)),
)
TAESD_HALVES = {
    Kind.TAESD_ENCODER: ("encoder", "decoder", Kind.TAESD_DECODER),
    Kind.TAESD_DECODER: ("decoder", "encoder", Kind.TAESD_ENCODER),
}


class _Name(str):
    """A key in the place of its tensor, for a converter that moves values and asks their shape."""

    __slots__ = ()
    shape = ()
    ndim = 0


def load_autoencoder(
    path: Path, device: torch.device, dtype: torch.dtype
) -> KLAutoencoder | TinyAutoencoder:
    """Load the VAE of Stable Diffusion 1.5 or TAESD.

    path: a diffusers folder; a VAE as a single file in original or diffusers names; TAESD as a
    single file, as one of taesd_encoder and taesd_decoder, or as the folder that holds both.
    Raises WeightsError; other autoencoders are named.
    """
    if path.is_dir():
        if (path / CONFIG).is_file():
            return _from_folder(path, device, dtype)
        path = _encoder_in(path)
    file = open_tensors(path)
    kind = require(file, (Kind.VAE, Kind.TAESD, *TAESD_HALVES), PURPOSE).kind
    if kind is Kind.VAE:
        return vae_from_ldm(_without_prefix(file.read(dtype=dtype)), str(path), device, dtype)
    if kind is Kind.TAESD:
        state, what = file.read(dtype=dtype), str(path)
    else:
        state, what = _both_halves(file, kind, dtype), f"{path} with its other half"
    return taesd_from_file(state, what, device, dtype)


def vae_from_ldm(
    tensors: Mapping[str, Tensor], what: str, device: torch.device, dtype: torch.dtype
) -> KLAutoencoder:
    """A VAE from tensors in original (LDM) or diffusers names, without a checkpoint's prefix.

    Its widths and depth are read from the tensors. Raises WeightsKindError for tensors of another
    autoencoder, WeightsKeyError for missing or unexpected ones.
    """
    state = {key: t for key, t in tensors.items() if not key.startswith(TRAINING)}
    table = ldm_table(state, what)
    state = {table.get(key, key): tensor for key, tensor in state.items()}
    return _vae(vae_settings(state, what), state, what, device, dtype)


def taesd_from_file(
    tensors: Mapping[str, Tensor], what: str, device: torch.device, dtype: torch.dtype
) -> TinyAutoencoder:
    """TAESD from tensors in the names of its two files, or in diffusers' names.

    Raises WeightsKeyError for missing or unexpected ones.
    """
    state = {rename(key, TAESD): tensor for key, tensor in tensors.items()}
    return _taesd({}, state, what, device, dtype)


def ldm_table(keys: Iterable[str], what: str) -> dict[str, str]:
    """Original key -> diffusers key of a VAE, as far as diffusers' converter knows the keys.

    The converter drops what it does not know without a word, so it is run on the keys themselves.
    """
    names = {key: _Name(key) for key in keys}
    blocks = range(_count(names, "encoder.down.{}.block.0.conv1.weight"))
    sides = {"down_block_types": blocks, "up_block_types": blocks}
    try:
        moved = convert_ldm_vae_checkpoint(names, sides)
    except KeyError as error:  # it takes a downsampler's or upsampler's bias for granted
        raise WeightsKeyError(f"{what} lacks the key {error}: it is incomplete") from error
    return {str(old): new for new, old in moved.items() if old is not None}


def vae_settings(state: Mapping[str, Tensor], what: str) -> dict[str, Any]:
    """Settings of AutoencoderKL from tensors in its own names. Raises WeightsKindError."""
    first = "encoder.down_blocks.{}.resnets.0.conv1.weight"
    kernels = [state[first.format(n)] for n in range(_count(state, first))]
    widths = [kernel.shape[0] for kernel in kernels if kernel.ndim]
    if not widths or "decoder.conv_in.weight" not in state:
        raise WeightsKindError(f"{what} holds no autoencoder of Stable Diffusion")
    channels = state["decoder.conv_in.weight"].shape[1]
    if channels != CHANNELS:
        raise WeightsKindError(
            f"{what} has latents of {channels} channels, expected {CHANNELS}: take the VAE of "
            "Stable Diffusion 1.5"
        )
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": _count(state, "encoder.down_blocks.0.resnets.{}.conv1.weight"),
        "latent_channels": channels,
        "scaling_factor": SCALE,
    }


def _count(keys: Container[str], pattern: str) -> int:
    """How many keys there are, numbered from 0."""
    return next(n for n in count() if pattern.format(n) not in keys)


def _vae(
    settings: Mapping[str, Any],
    state: Mapping[str, Tensor],
    what: str,
    device: torch.device,
    dtype: torch.dtype,
) -> KLAutoencoder:
    state = {
        rename(key, EARLY_DIFFUSERS): _as_matrix(tensor) if ".attentions." in key else tensor
        for key, tensor in state.items()
    }
    vae = fill(empty(AutoencoderKL, settings, what), state, what, device, dtype)
    return KLAutoencoder(vae).eval().requires_grad_(False)


def _taesd(
    settings: Mapping[str, Any],
    state: Mapping[str, Tensor],
    what: str,
    device: torch.device,
    dtype: torch.dtype,
) -> TinyAutoencoder:
    vae = fill(empty(AutoencoderTiny, settings, what), state, what, device, dtype)
    return TinyAutoencoder(vae).eval().requires_grad_(False)


def _from_folder(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> KLAutoencoder | TinyAutoencoder:
    settings = read_config(folder)
    name = network_name(settings)
    if name not in ("AutoencoderKL", "AutoencoderTiny"):
        raise WeightsKindError(
            f"{folder} holds {name}, expected AutoencoderKL or AutoencoderTiny as {PURPOSE}"
        )
    file = component(folder)
    what = str(file.path)
    if name == "AutoencoderTiny":
        require(file, Kind.TAESD, PURPOSE)
        settings.pop("block_out_channels", None)  # diffusers writes it, and warns when it reads it
        return _taesd(settings, file.read(dtype=dtype), what, device, dtype)
    require(file, Kind.VAE, PURPOSE)
    scale = settings.get("scaling_factor", SCALE)
    if scale != SCALE:
        raise WeightsKindError(
            f"{folder} scales latents by {scale}, expected {SCALE}: it belongs to another base "
            "than Stable Diffusion 1.5 (0.13025 is that of SDXL)"
        )
    return _vae(settings, file.read(dtype=dtype), what, device, dtype)


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = next((p for p in PREFIXES if f"{p}decoder.conv_in.weight" in state), "")
    return {key.removeprefix(prefix): tensor for key, tensor in state.items()}


def _as_matrix(tensor: Tensor) -> Tensor:
    """A 1x1 convolution as the matrix that it is; anything else as it is."""
    return tensor.flatten(1) if tensor.shape[2:] == (1, 1) else tensor


def _encoder_in(folder: Path) -> Path:
    for suffix in SUFFIXES:
        path = folder / f"taesd_encoder{suffix}"
        if path.is_file():
            return path
    raise WeightsMissingError(
        f"{folder} holds no autoencoder: expected a diffusers folder ({CONFIG} and weights), or "
        "taesd_encoder and taesd_decoder (.safetensors or .pth)"
    )


def _both_halves(file: TensorFile, kind: Kind, dtype: torch.dtype) -> dict[str, Tensor]:
    """TAESD from one of its two files and the other one, which lies beside it."""
    own, other, wanted = TAESD_HALVES[kind]
    stem = file.path.stem.replace(own, other)
    beside = [file.path.with_name(f"{stem}{suffix}") for suffix in SUFFIXES]
    path = next((path for path in beside if path.is_file()), None)
    if path is None:
        raise WeightsMissingError(
            f"{file.path} is the {own} of TAESD; its {other} is expected beside it as "
            f"{stem}.safetensors or {stem}.pth"
        )
    partner = open_tensors(path)
    require(partner, wanted, PURPOSE)
    return {
        f"taesd_{half}.{key.removeprefix(f'taesd_{half}.')}": tensor
        for half, part in ((own, file), (other, partner))
        for key, tensor in part.read(dtype=dtype).items()
    }
