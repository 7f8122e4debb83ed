"""Live2Diff's motion weights: temporal layers and depth mapping, beside any SD 1.5 base."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import WeightsFormatError, WeightsKeyError, WeightsKindError, WeightsValueError
from ..models.temporal import sinusoidal_positions
from ..models.unet import MotionConfig, StreamingUNet
from . import tables
from .component import empty
from .files import TensorFile, open_tensors, sha256, some
from .inspect import Kind, require
from .load import check_finite, from_live2diff, load_strict, rename

logger = logging.getLogger(__name__)

POSITIONS, QUERY = ".pos_encoder.pe", ".to_q.weight"
LENGTH = 24  # positions in a table of the reference
FORMAT = "live2diff-motion"
TABLE_TOLERANCE = 4e-3  # sines and cosines in bfloat16 are exact to 2^-9


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Motion weights that are open, under the reference's key names; tensors are not read yet.

    keys: temporal layers with their position tables, and depth mapping; name -> key in the file.
    spatial: the same for keys of the base that the file holds, too.
    """

    file: TensorFile
    keys: Mapping[str, str]
    spatial: Mapping[str, str]

    def read(self, keys: Mapping[str, str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Tensors by name, floating ones in `dtype` if one is given."""
        found = self.file.read(keys.values(), dtype)
        return {name: found[key] for name, key in keys.items()}

    def width(self, name: str) -> int:
        """Length of a tensor's first axis. Raises WeightsKeyError."""
        info = self.file.infos[self.keys[name]]
        if not info.shape:
            raise WeightsKeyError(f"{self.file.path}: {name} is a single number")
        return info.shape[0]


def read_motion(path: Path) -> Motion:
    """Open live2diff.ckpt or a conversion of it, and check its position tables.

    `module.` is taken out of the keys and `grid` keys are dropped, as the reference does. Position
    tables may be absent altogether, since they are computed. Raises WeightsError: WeightsKindError
    for another kind of file, WeightsKeyError where one position table is missing beside others or
    has another shape, WeightsValueError where a table is not sinusoidal.
    """
    file = open_tensors(path)
    require(file, Kind.LIVE2DIFF_MOTION, "the motion weights")
    plain = {key: key.replace("module.", "") for key in file.infos if "grid" not in key}
    if len(set(plain.values())) < len(plain):
        raise WeightsKeyError(f"{path} holds keys twice, with and without `module.`")
    keys = {name: key for key, name in plain.items()}
    motion = {name: key for name, key in keys.items() if _is_motion(name)}
    spatial = {name: key for name, key in keys.items() if name not in motion}
    projected = tables.LIVE2DIFF_PROJECTED
    kept = {name: key for name, key in motion.items() if not name.endswith(projected)}
    found = Motion(file, kept, spatial)
    _check_positions(found)
    return found


def attach_motion(
    spatial: UNet2DConditionModel, motion: Motion, device: torch.device
) -> StreamingUNet:
    """A base with motion weights beside it, in the base's precision.

    Keys of the base that the motion file holds replace the base's, which is logged. Raises
    WeightsKindError for motion weights of other widths, WeightsKeyError for missing and unexpected
    keys; the base is as before then.
    """
    what, dtype = str(motion.file.path), spatial.dtype
    _check_widths(spatial, motion)
    with init_empty_weights():
        unet = StreamingUNet(spatial, motion_config(motion))
    beside = nn.ModuleDict({n: m for n, m in unet.named_children() if n != "spatial"})
    state = from_live2diff(motion.read(motion.keys, dtype))
    load_strict(beside.to(dtype), state, what, device)
    if motion.spatial:
        replaced = motion.read(motion.spatial, dtype)
        load_strict(spatial, {**spatial.state_dict(), **replaced}, what, device)
        logger.warning(
            "%s holds %d keys of the spatial network, which replace the base's (%s)",
            what,
            len(motion.spatial),
            some(motion.spatial),
        )
    return unet


def motion_config(motion: Motion) -> MotionConfig:
    """Shape of the temporal layers and of the depth mapping. Raises WeightsKeyError."""
    names = ["flow_conv_in.conv_in.weight"]
    while names[-1] in motion.keys:
        names.append(f"flow_conv_in.blocks.{len(names) - 1}.weight")
    widths = tuple(motion.width(name) for name in names[:-1])
    return MotionConfig(depth_widths=widths) if widths else MotionConfig()


def convert_motion(source: Path, target: Path) -> int:
    """Write a motion file as safetensors in the reference's key names; returns the keys written.

    Metadata name the source's SHA-256. Raises WeightsError, also for missing and unexpected keys,
    with no file left behind and an existing one as it was.
    """
    if target.suffix.lower() != ".safetensors":
        raise WeightsFormatError(f"{target} must end in .safetensors")
    motion = read_motion(source)
    _check_complete(motion)
    state = motion.read({**motion.keys, **motion.spatial})
    check_finite(state, str(source))
    metadata = {"format": FORMAT, "source_sha256": sha256(source)}
    try:
        with TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder:
            partial = Path(folder) / "motion.safetensors"
            partial.touch()
            mode = partial.stat().st_mode  # as the user's other files; safetensors makes it private
            save_file(state, partial, metadata)
            partial.chmod(mode)
            partial.replace(target)
    except (OSError, SafetensorError) as error:
        raise WeightsFormatError(f"{target} cannot be written: {error}") from error
    return len(state)


def _is_motion(key: str) -> bool:
    return any(rename(key, (row,)) != key for row in tables.LIVE2DIFF_PREFIXES)


def _check_complete(motion: Motion) -> None:
    """Compare with the network of these widths, without a base at hand."""
    layer = re.compile(r"down_blocks\.0\.motion_modules\.(\d+)\.temporal_transformer\.norm\.weight")
    widths = _widths(motion)
    settings = {
        "block_out_channels": widths,
        "layers_per_block": sum(bool(layer.fullmatch(name)) for name in motion.keys),
        "down_block_types": ["DownBlock2D"] * len(widths),
        "up_block_types": ["UpBlock2D"] * len(widths),
        "mid_block_type": None,
    }
    spatial = empty(UNet2DConditionModel, settings, str(motion.file.path))
    attach_motion(spatial, replace(motion, spatial={}), torch.device("meta"))


def _check_positions(motion: Motion) -> None:
    what, infos = motion.file.path, motion.file.infos
    held = {name: key for name, key in motion.keys.items() if name.endswith(POSITIONS)}
    queries = {n.removesuffix(QUERY): key for n, key in motion.keys.items() if n.endswith(QUERY)}
    missing = sorted(queries.keys() - {name.removesuffix(POSITIONS) for name in held})
    if held and missing:
        raise WeightsKeyError(
            f"{what} lacks {len(missing)} position tables ({some(missing)}) and holds others: it "
            "is incomplete; download it again"
        )
    for name, key in held.items():
        query = queries.get(name.removesuffix(POSITIONS))
        channels = infos[query].shape[-1] if query and infos[query].shape else 0
        if channels % 2 or infos[key].shape != (1, LENGTH, channels):
            raise WeightsKeyError(
                f"{what}: {name} is {infos[key].shape}, expected {(1, LENGTH, channels)}"
            )
    for name, table in motion.read(held, torch.float32).items():
        difference = (table[0] - sinusoidal_positions(*table.shape[1:])).abs().max()
        if not difference <= TABLE_TOLERANCE:  # NaN is not
            raise WeightsValueError(
                f"{what}: {name} is not the sinusoidal table; weights that were trained with other "
                "positions cannot be used"
            )


def _widths(motion: Motion) -> list[int]:
    """Channels of each down block."""
    norm = re.compile(r"down_blocks\.\d+\.motion_modules\.0\.temporal_transformer\.norm\.weight")
    return [motion.width(name) for name in sorted(motion.keys) if norm.fullmatch(name)]


def _check_widths(spatial: UNet2DConditionModel, motion: Motion) -> None:
    widths, base = _widths(motion), list(spatial.config.block_out_channels)
    if widths and widths != base:
        raise WeightsKindError(
            f"{motion.file.path} holds motion weights for a network with blocks of {widths} "
            f"channels, the base has {base}: use the file that was trained for this base (Stable "
            "Diffusion 1.5 has [320, 640, 1280, 1280])"
        )
