"""Depth networks: MiDaS DPT-hybrid in its original names, and transformers' folders."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    PretrainedConfig,
)
from transformers.utils import logging

from ..errors import WeightsFormatError, WeightsKeyError, WeightsKindError, WeightsMissingError
from ..models.depth import DepthNetwork
from .component import BAD_SETTINGS, CONFIG, component, network_name, read_config
from .files import open_tensors, some
from .inspect import Kind, identify, require
from .load import check_finite, rename

PURPOSE = "the depth model"

# MiDaS 3.0's DPT-hybrid where it differs from transformers' defaults. The published folder has a
# layer_norm_eps of 1e-12 instead; MiDaS computed with this one.
MIDAS_HYBRID: Mapping[str, Any] = {
    "is_hybrid": True,
    "neck_hidden_sizes": [256, 512, 768, 768],
    "layer_norm_eps": 1e-6,
}

# MiDaS's names to those of transformers' published files; {0}, {1} stand for numbers.
_VIT, _STEM = "pretrained.model.", "pretrained.model.patch_embed.backbone."
_BIT, _LAYER = "dpt.embeddings.backbone.bit.", "dpt.encoder.layer.{0}."
MIDAS = (
    (f"{_VIT}cls_token", "dpt.embeddings.cls_token"),
    (f"{_VIT}pos_embed", "dpt.embeddings.position_embeddings"),
    (f"{_STEM}stem.conv.", f"{_BIT}embedder.convolution."),
    (f"{_STEM}stem.norm.", f"{_BIT}embedder.norm."),
    (f"{_STEM}stages.{{0}}.blocks.{{1}}.", f"{_BIT}encoder.stages.{{0}}.layers.{{1}}."),
    (f"{_VIT}patch_embed.proj.", "dpt.embeddings.projection."),
    (f"{_VIT}blocks.{{0}}.norm1.", f"{_LAYER}layernorm_before."),
    (f"{_VIT}blocks.{{0}}.norm2.", f"{_LAYER}layernorm_after."),
    (f"{_VIT}blocks.{{0}}.attn.proj.", f"{_LAYER}attention.output.dense."),
    (f"{_VIT}blocks.{{0}}.mlp.fc1.", f"{_LAYER}intermediate.dense."),
    (f"{_VIT}blocks.{{0}}.mlp.fc2.", f"{_LAYER}output.dense."),
    (f"{_VIT}norm.", "dpt.layernorm."),
    *(
        (f"pretrained.act_postprocess{n}.{old}.", f"neck.reassemble_stage.{new}.")
        for n in (3, 4)
        for old, new in (
            ("0.project.0", f"readout_projects.{n - 1}.0"),
            ("3", f"layers.{n - 1}.projection"),
            ("4", f"layers.{n - 1}.resize"),
        )
    ),
    *((f"scratch.layer{n}_rn.", f"neck.convs.{n - 1}.") for n in (1, 2, 3, 4)),
    *(
        (f"scratch.refinenet{n}.{old}.", f"neck.fusion_stage.layers.{4 - n}.{new}.")
        for n in (1, 2, 3, 4)
        for old, new in (
            ("out_conv", "projection"),
            ("resConfUnit1.conv1", "residual_layer1.convolution1"),
            ("resConfUnit1.conv2", "residual_layer1.convolution2"),
            ("resConfUnit2.conv1", "residual_layer2.convolution1"),
            ("resConfUnit2.conv2", "residual_layer2.convolution2"),
        )
    ),
    ("scratch.output_conv.", "head.head."),
)
MIDAS_FUSED = re.compile(r"pretrained\.model\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
MIDAS_UNUSED = ("pretrained.model.head.",)  # the classifier of the backbone's first training

# Built by transformers and never run for depth: published files hold them or leave them out.
NEVER_RUN = ("neck.fusion_stage.layers.0.residual_layer1.", "backbone.embeddings.mask_token")

Depth = DPTForDepthEstimation | DepthAnythingForDepthEstimation


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of transformers, and the only backbone that it may have here."""

    kind: Kind
    backbone: str
    config: type[PretrainedConfig]
    network: type[Depth]


ARCHITECTURES = {
    "dpt": Architecture(Kind.DPT_HYBRID, "bit", DPTConfig, DPTForDepthEstimation),
    "depth_anything": Architecture(
        Kind.DEPTH_ANYTHING, "dinov2", DepthAnythingConfig, DepthAnythingForDepthEstimation
    ),
}

# Settings that make transformers fetch a backbone from the hub where the folder describes none.
REMOTE = ("backbone", "backbone_kwargs", "use_pretrained_backbone", "use_timm_backbone")


def load_depth(path: Path, device: torch.device, dtype: torch.dtype) -> DepthNetwork:
    """Load dpt_hybrid_384.pt (MiDaS), or a transformers folder of DPT-hybrid or Depth Anything.

    Raises WeightsError; other depth models are named.
    """
    if path.is_file() and path.suffix != ".pt" and (path.parent / CONFIG).is_file():
        path = path.parent  # the weights file of a transformers folder stands for it
    model = _from_folder(path, dtype) if path.is_dir() else _from_midas(path, dtype)
    return DepthNetwork(model).to(device).eval().requires_grad_(False)


def _from_midas(path: Path, dtype: torch.dtype) -> Depth:
    file = open_tensors(path)
    if identify(file).kind in (Kind.DPT_HYBRID, Kind.DEPTH_ANYTHING):
        raise WeightsMissingError(
            f"{path} needs its {CONFIG} beside it: download the whole folder of the model"
        )
    require(file, Kind.MIDAS_HYBRID, PURPOSE)
    config, state = DPTConfig(**MIDAS_HYBRID), from_midas(file.read(dtype=dtype))
    return from_tensors(DPTForDepthEstimation, config, state, str(path), dtype)


def _from_folder(folder: Path, dtype: torch.dtype) -> Depth:
    settings = read_config(folder)
    name = network_name(settings)
    if name not in ARCHITECTURES:
        raise WeightsKindError(
            f"{folder} holds {name}, expected dpt (DPT-hybrid) or depth_anything as {PURPOSE}"
        )
    architecture = ARCHITECTURES[name]
    _refuse_variants(folder, settings, architecture.backbone)
    file = component(folder)
    require(file, architecture.kind, PURPOSE)
    local = {key: value for key, value in settings.items() if key not in REMOTE}
    try:
        config = architecture.config.from_dict(local)
    except BAD_SETTINGS as error:
        raise WeightsFormatError(f"{folder / CONFIG} describes no {name}: {error}") from error
    return from_tensors(architecture.network, config, file.read(dtype=dtype), str(file.path), dtype)


def _refuse_variants(folder: Path, settings: Mapping[str, Any], backbone: str) -> None:
    inner = settings.get("backbone_config")
    found = inner.get("model_type", backbone) if isinstance(inner, Mapping) else backbone
    if found != backbone:
        raise WeightsKindError(f"{folder} has a backbone of kind {found}, expected {backbone}")
    if settings.get("depth_estimation_type", "relative") != "relative":
        raise WeightsKindError(
            f"{folder} estimates metric depth, expected relative inverse depth: take the model "
            "without Metric in its name"
        )
    if settings.get("quantization_config"):
        raise WeightsKindError(f"{folder} is quantised, expected plain weights: take its original")


def from_midas(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MiDaS's key names to those of transformers' published files; query, key, value parted."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        fused = MIDAS_FUSED.fullmatch(key)
        if fused and tensor.shape[:1].numel() % 3 == 0 and tensor.ndim:
            layer, kind = fused.groups()
            for name, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[f"dpt.encoder.layer.{layer}.attention.attention.{name}.{kind}"] = part
        elif not key.startswith(MIDAS_UNUSED):
            renamed[rename(key, MIDAS)] = tensor
    return renamed


def from_tensors(
    network: type[Depth],
    config: PretrainedConfig,
    state: Mapping[str, Tensor],
    what: str,
    dtype: torch.dtype,
) -> Depth:
    """A network of transformers with these tensors, named as in its published files; all or none.

    transformers loads them, as its modules' own names change from release to release. Raises
    WeightsKeyError, WeightsValueError, WeightsFormatError for settings that describe no network.
    """
    check_finite(state, what)
    integers = [k for k, t in state.items() if k.endswith("weight") and not t.is_floating_point()]
    if integers:
        raise WeightsKeyError(f"{what} holds integers (quantised?) in {some(integers)}")
    try:
        with _quiet():
            loaded: Any = network.from_pretrained(
                None,
                config=config,
                state_dict=dict(state),
                dtype=dtype,
                ignore_mismatched_sizes=True,  # reported, and refused below
                output_loading_info=True,
            )
    except BAD_SETTINGS as error:
        raise WeightsFormatError(f"{what}: its settings describe no network: {error}") from error
    model, report = loaded
    problems = _problems(report)
    if problems:
        raise WeightsKeyError(f"{what} does not fit this network: {problems}")
    return model


def _problems(report: Mapping[str, Iterable[Any]]) -> str:
    """What transformers reports of a loading, without what is never run."""
    kinds = {
        "missing": [key for key in report["missing_keys"] if not key.startswith(NEVER_RUN)],
        "unexpected": list(report["unexpected_keys"]),
        "of another shape": [
            f"{key}: expected {tuple(own)}, got {tuple(got)}"
            for key, got, own in report["mismatched_keys"]
        ],
    }
    return "; ".join(
        f"{len(keys)} {kind} ({some(sorted(keys))})" for kind, keys in kinds.items() if keys
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no report from transformers: what it would say is raised."""
    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
