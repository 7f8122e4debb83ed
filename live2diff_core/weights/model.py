"""A translation model from its parts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..config import NoiseScheduleConfig
from ..errors import WeightsMissingError
from ..models.adapters import AdapterUse
from ..models.autoencoder import Autoencoder
from ..models.depth import DepthEstimator, StructureMap
from ..models.text import TextEncoder
from ..models.translator import ModelDefaults, TranslationModel
from .autoencoders import load_autoencoder
from .base import Base, open_base
from .budget import Parts, StreamSize, check, files_footprint, merged_bytes, model_footprint
from .bundled import load_bundled
from .component import component
from .depth import load_depth
from .files import open_tensors
from .inspect import Kind, require
from .lora import load_lora
from .motion import attach_motion, read_motion
from .spec import BUNDLED, FROM_BASE, STRUCTURE, LoraSpec, ModelSpec, Part
from .text import find_tokenizer, load_clip, load_concept


def load_model(
    spec: ModelSpec, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> TranslationModel:
    """Load every part that a specification names and put them together.

    All files are found, and memory for them and for a stream of the default size is looked for,
    before one is read. Raises WeightsError and MemoryBudgetError, in which case nothing is kept.
    """
    device = torch.device(device)
    if spec.base == BUNDLED:
        model = load_bundled(device=device, dtype=dtype)
    else:
        model = _load_parts(spec, device, dtype)
    if not spec.loras:
        return model
    uses = [load_adapter(spec, lora, model) for lora in spec.loras]
    merged = merged_bytes((u.adapter for u in uses), model.unet.spatial, model.text.model, dtype)
    check(replace(model_footprint(model), weights=0, adapters=merged), _stream(spec), device)
    return model.with_adapters(uses)


def load_adapter(spec: ModelSpec, lora: LoraSpec, model: TranslationModel) -> AdapterUse:
    """A LoRA for a model, at the strengths that were asked for. Raises WeightsError."""
    adapter = load_lora(spec.find(lora.file, "lora"), model.unet.spatial, model.text.model)
    return AdapterUse(adapter, lora.unet, lora.text)


def _load_parts(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> TranslationModel:
    base_path, motion_path = spec.find(spec.base, "base"), spec.find(spec.motion, "motion")
    depth_path = None if spec.depth == STRUCTURE else spec.find(spec.depth, "depth")
    embeddings = [spec.find(name, "embedding") for name in spec.embeddings]
    autoencoder_path = _find_unless_base(spec, spec.autoencoder, "autoencoder")
    text_path = _find_unless_base(spec, spec.text_encoder, "text encoder")
    for lora in spec.loras:
        spec.find(lora.file, "lora")

    parts = Parts(base_path, motion_path, autoencoder_path, depth_path, text_path)
    check(files_footprint(parts, dtype), _stream(spec), device)
    motion = read_motion(motion_path)
    base = open_base(base_path)
    unet = attach_motion(base.load_unet(device, dtype), motion, device)
    return TranslationModel(
        name=base_path.stem,
        unet=unet.eval().requires_grad_(False),
        autoencoder=_autoencoder(base, autoencoder_path, device, dtype),
        depth=_depth(depth_path, device, dtype),
        text=_text(spec, base, text_path, embeddings, device, dtype),
        schedule=NoiseScheduleConfig(),
        defaults=ModelDefaults(spec.width, spec.height, spec.steps),
    )


def _stream(spec: ModelSpec) -> StreamSize:
    return StreamSize(spec.width, spec.height, len(spec.steps.indices))


def _find_unless_base(spec: ModelSpec, name: str, part: Part) -> Path | None:
    return None if name == FROM_BASE else spec.find(name, part)


def _autoencoder(
    base: Base, path: Path | None, device: torch.device, dtype: torch.dtype
) -> Autoencoder:
    if path is not None:
        return load_autoencoder(path, device, dtype)
    own = base.load_autoencoder(device, dtype)
    if own is None:
        raise WeightsMissingError(
            f"{base.file.path} brings no autoencoder: name one (taesd, or a Stable Diffusion 1.5 "
            "VAE)"
        )
    return own


def _depth(path: Path | None, device: torch.device, dtype: torch.dtype) -> DepthEstimator:
    return StructureMap() if path is None else load_depth(path, device, dtype)


def _text(
    spec: ModelSpec,
    base: Base,
    path: Path | None,
    embeddings: Sequence[Path],
    device: torch.device,
    dtype: torch.dtype,
) -> TextEncoder:
    folders = [*_tokenizers(base.folder), *_tokenizers(path), *spec.tokenizers()]
    if path is None:
        model = base.load_text(device, dtype)
    else:
        file = component(path) if path.is_dir() else open_tensors(path)
        require(file, Kind.CLIP_TEXT, "the text encoder")
        model = load_clip(file.read(), str(file.path), device, dtype)
    if model is None:
        raise WeightsMissingError(
            f"{base.file.path} brings no text encoder: name one (the CLIP ViT-L of Stable "
            "Diffusion 1.5)"
        )
    concepts = dict(load_concept(path) for path in embeddings)
    return TextEncoder(find_tokenizer(folders), model, spec.clip_skip, concepts)


def _tokenizers(path: Path | None) -> list[Path]:
    """Where a folder, or the folder around a text encoder's, may hold the tokenizer."""
    return [] if path is None else [path / "tokenizer", path, path.parent / "tokenizer"]
