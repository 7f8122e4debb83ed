"""Live2Diff's motion weights: temporal layers and depth mapping, beside any SD 1.5 base."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import TemporalConfig
from ..errors import WeightsFormatError, WeightsKeyError, WeightsKindError, WeightsValueError
from ..models.temporal import sinusoidal_positions
from ..models.unet import MotionConfig, StreamingUNet
from . import tables
from .files import open_tensors, sha256, some
from .inspect import Kind, require
from .load import check_finite, from_live2diff, load_strict, rename

logger = logging.getLogger(__name__)

POSITIONS = ".pos_encoder.pe"
FORMAT = "live2diff-motion"
TABLE_TOLERANCE = 4e-3  # sines and cosines in bfloat16 are exact to 2^-9


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Motion weights under the reference's key names, with what a trainer added taken off.

    tensors: temporal layers with their position tables, and depth mapping. spatial: keys of the
    base that the file holds, too.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    spatial: Mapping[str, Tensor]


def read_motion(path: Path) -> Motion:
    """Read live2diff.ckpt or a conversion of it; tensors stay mapped.

    `module.` is taken out of the keys and `grid` keys are dropped, as the reference does. Position
    tables may be absent altogether, since they are computed. Raises WeightsError: WeightsKindError
    for another kind of file, WeightsKeyError where one position table is missing beside others,
    WeightsValueError where a table is not sinusoidal.
    """
    file = open_tensors(path)
    require(file, Kind.LIVE2DIFF_MOTION, "the motion weights")
    plain = {key: key.replace("module.", "") for key in file.infos if "grid" not in key}
    tensors = {plain[key]: tensor for key, tensor in file.read(plain).items()}
    _check_positions(tensors, str(path))
    motion = {key: tensor for key, tensor in tensors.items() if _is_motion(key)}
    spatial = {key: tensor for key, tensor in tensors.items() if key not in motion}
    kept = {key: t for key, t in motion.items() if not key.endswith(tables.LIVE2DIFF_PROJECTED)}
    return Motion(path, kept, spatial)


def attach_motion(
    spatial: UNet2DConditionModel, motion: Motion, device: torch.device
) -> StreamingUNet:
    """A base with motion weights beside it, in the base's precision.

    Keys of the base that the motion file holds replace the base's, which is logged. Raises
    WeightsKindError for motion weights of other widths, WeightsKeyError for missing and unexpected
    keys; the base is as before then.
    """
    what = str(motion.path)
    _check_widths(spatial, motion)
    with init_empty_weights():
        unet = StreamingUNet(spatial, motion_config(motion.tensors))
    beside = nn.ModuleDict({n: m for n, m in unet.named_children() if n != "spatial"})
    load_strict(beside.to(spatial.dtype), from_live2diff(motion.tensors), what, device)
    if motion.spatial:
        load_strict(spatial, {**spatial.state_dict(), **motion.spatial}, what, device)
        logger.warning(
            "%s holds %d keys of the spatial network, which replace the base's (%s)",
            what,
            len(motion.spatial),
            some(motion.spatial),
        )
    return unet


def motion_config(tensors: Mapping[str, Tensor]) -> MotionConfig:
    """Shape of the temporal layers and of the depth mapping, from the tensors of a motion file."""
    attentions = {m[1] for key in tensors if (m := re.search(r"attention_blocks\.(\d+)\.", key))}
    first = tensors.get("flow_conv_in.conv_in.weight")
    widths = [] if first is None else [first.shape[0]]
    while widths and (key := f"flow_conv_in.blocks.{len(widths) - 1}.weight") in tensors:
        widths.append(tensors[key].shape[0])
    config = MotionConfig(TemporalConfig(attentions=len(attentions)))
    return replace(config, depth_widths=tuple(widths)) if widths else config


def convert_motion(source: Path, target: Path) -> int:
    """Write a motion file as safetensors in the reference's key names; returns the keys written.

    Metadata name the source's SHA-256. Raises WeightsError, with no file left behind and an
    existing one as it was.
    """
    if target.suffix.lower() != ".safetensors":
        raise WeightsFormatError(f"{target} must end in .safetensors")
    motion = read_motion(source)
    state = {**motion.spatial, **motion.tensors}
    check_finite(state, str(source))
    metadata = {"format": FORMAT, "source_sha256": sha256(source)}
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # as the user's other files; safetensors makes it private
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, partial, metadata)
        partial.chmod(mode)
        partial.replace(target)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise WeightsFormatError(f"{target} cannot be written: {error}") from error
    return len(state)


def _is_motion(key: str) -> bool:
    return any(rename(key, (row,)) != key for row in tables.LIVE2DIFF_PREFIXES)


def _check_positions(tensors: Mapping[str, Tensor], what: str) -> None:
    held = {key: tensor for key, tensor in tensors.items() if key.endswith(POSITIONS)}
    queries = (key for key in tensors if _is_motion(key) and key.endswith(".to_q.weight"))
    wanted = [key.replace(".to_q.weight", POSITIONS) for key in queries]
    missing = sorted(set(wanted) - held.keys())
    if held and missing:
        raise WeightsKeyError(
            f"{what} lacks {len(missing)} position tables ({some(missing)}) and holds others: it "
            "is incomplete; download it again"
        )
    for key, table in held.items():
        if table.ndim != 3 or table.shape[-1] % 2:
            raise WeightsKeyError(
                f"{what}: {key} is {tuple(table.shape)}, expected (1, positions, channels)"
            )
        computed = sinusoidal_positions(table.shape[-2], table.shape[-1])
        if (table[0].float() - computed).abs().max() > TABLE_TOLERANCE:
            raise WeightsValueError(
                f"{what}: {key} is not the sinusoidal table; weights that were trained with other "
                "positions cannot be used"
            )


def _check_widths(spatial: UNet2DConditionModel, motion: Motion) -> None:
    pattern = re.compile(r"down_blocks\.\d+\.motion_modules\.0\.temporal_transformer\.norm\.weight")
    widths = [t.shape[0] for key, t in sorted(motion.tensors.items()) if pattern.fullmatch(key)]
    base = list(spatial.config.block_out_channels)
    if widths and widths != base:
        raise WeightsKindError(
            f"{motion.path} holds motion weights for a network with blocks of {widths} channels, "
            f"the base has {base}: use the file that was trained for this base (Stable Diffusion "
            "1.5 has [320, 640, 1280, 1280])"
        )
