"""A translation model from its parts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import NoiseScheduleConfig
from ..errors import ConfigError, WeightsKeyError, WeightsMissingError
from ..models.adapters import AdapterUse
from ..models.autoencoder import Autoencoder
from ..models.depth import DepthEstimator, StructureMap
from ..models.layout import lay_out
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
    before one is read. Raises WeightsError, ConfigError and MemoryBudgetError, and keeps nothing
    then.
    """
    if not dtype.is_floating_point or dtype.itemsize == 1:
        raise ConfigError(f"models run in float32, bfloat16 or float16, not in {dtype}")
    device = torch.device(device)
    if spec.base == BUNDLED:
        model = _load_bundled(spec, device, dtype)
    else:
        model = _load_parts(spec, device, dtype)
    lay_out((model.unet, model.autoencoder, model.depth), device)
    if not spec.loras:
        return model
    uses = [load_adapter(spec, lora, model) for lora in spec.loras]
    merged = merged_bytes((u.adapter for u in uses), model.unet.spatial, model.text.model, dtype)
    check(
        replace(model_footprint(model), weights=0, adapters=merged), _stream(model.defaults), device
    )
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

    base, motion = open_base(base_path), read_motion(motion_path)
    schedule = NoiseScheduleConfig(prediction=base.prediction)
    parts = Parts(base, motion, autoencoder_path, depth_path, text_path)
    defaults = ModelDefaults(spec.width, spec.height, spec.steps)
    check(files_footprint(parts, dtype), _stream(defaults), device)
    text = _text(spec, base, text_path, embeddings, device, dtype)  # the small parts fail first
    autoencoder = _autoencoder(base, autoencoder_path, device, dtype)
    depth = _depth(depth_path, device, dtype)
    unet = attach_motion(base.load_unet(device, dtype), motion, device)
    return TranslationModel(
        name=base_path.stem if base_path.is_file() else base_path.name,
        unet=unet.eval().requires_grad_(False),
        autoencoder=autoencoder,
        depth=depth,
        text_encoder=text,
        schedule=schedule,
        defaults=defaults,
    )


def _load_bundled(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> TranslationModel:
    """The bundled model, with its own temporal layers or with those of a training beside it."""
    _refuse_parts(spec)
    own = spec.motion == ModelSpec().motion
    motion = None if own else read_motion(spec.find(spec.motion, "motion"))
    model = load_bundled(device=device, dtype=dtype)
    if motion is None:
        return model
    unet = attach_motion(model.unet.spatial, motion, device)
    return replace(model, unet=unet.eval().requires_grad_(False))


def _refuse_parts(spec: ModelSpec) -> None:
    """The bundled model is whole: a part that is named for it was meant for another base."""
    plain = ModelSpec()
    parts = ("autoencoder", "depth", "text_encoder", "embeddings", "clip_skip")
    named = [part for part in parts if getattr(spec, part) != getattr(plain, part)]
    if named:
        raise ConfigError(
            f"the bundled model takes no {', '.join(named)}: name a base (--model), or leave them "
            "out"
        )


def _stream(defaults: ModelDefaults) -> StreamSize:
    return StreamSize(defaults.width, defaults.height, len(defaults.steps.indices))


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
        model = load_clip(file.read(dtype=dtype), str(file.path), device, dtype)
    if model is None:
        raise WeightsMissingError(
            f"{base.file.path} brings no text encoder: name one (the CLIP ViT-L of Stable "
            "Diffusion 1.5)"
        )
    tokenizer = find_tokenizer(folders)
    embedding: Any = model.get_input_embeddings()
    known = int(embedding.num_embeddings)
    if known < len(tokenizer):
        raise WeightsKeyError(
            f"the text encoder knows {known} tokens, its tokenizer has {len(tokenizer)}: they do "
            "not belong together"
        )
    return TextEncoder(tokenizer, model, spec.clip_skip, _concepts(embeddings))


def _concepts(paths: Sequence[Path]) -> dict[str, Tensor]:
    concepts: dict[str, Tensor] = {}
    for path in paths:
        name, vectors = load_concept(path)
        if name in concepts:
            raise ConfigError(f"two embeddings are called {name}: rename the file {path}")
        concepts[name] = vectors
    return concepts


def _tokenizers(path: Path | None) -> list[Path]:
    """Where a folder, or the folder around a text encoder's, may hold the tokenizer."""
    return [] if path is None else [path / "tokenizer", path, path.parent / "tokenizer"]
