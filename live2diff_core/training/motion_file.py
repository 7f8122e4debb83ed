"""Motion weights as training starts from them and writes them: Live2Diff's format."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from ..models.temporal import TemporalAttention, sinusoidal_positions
from ..models.unet import StreamingUNet
from ..weights import tables
from ..weights.files import open_tensors
from ..weights.inspect import require
from ..weights.kinds import Kind
from ..weights.load import from_live2diff, load_strict, rename
from ..weights.motion import FORMAT, LENGTH, POSITIONS, read_motion

ANIMATEDIFF = (Kind.ANIMATEDIFF_V1, Kind.ANIMATEDIFF_V2, Kind.ANIMATEDIFF_V3)
SPATIAL, DEPTH = "spatial", "depth_mapping"


def beside(unet: StreamingUNet) -> nn.ModuleDict:
    """What is trained: temporal layers and depth mapping, under their names in the network."""
    return nn.ModuleDict({n: m for n, m in unet.named_children() if n != SPATIAL})


def silence_depth(unet: StreamingUNet) -> None:
    """Make the depth mapping add nothing, so that an untrained one leaves the base as it was."""
    for parameter in unet.depth_mapping.conv_out.parameters():
        nn.init.zeros_(parameter)


def to_live2diff(unet: StreamingUNet) -> dict[str, Tensor]:
    """Temporal layers, their position tables and the depth mapping in Live2Diff's key names."""
    state = {_original(key): tensor for key, tensor in beside(unet).state_dict().items()}
    for name, module in unet.named_modules():
        if isinstance(module, TemporalAttention):
            table = sinusoidal_positions(LENGTH, module.position.shape[1])
            state[_original(f"{name}.").removesuffix(".") + POSITIONS] = table[None]
    return state


def save_motion(path: Path, unet: StreamingUNet, metadata: Mapping[str, str]) -> None:
    """Write motion weights in float32, as `read_motion` takes them."""
    state = {k: t.detach().float().cpu().contiguous() for k, t in to_live2diff(unet).items()}
    path.touch()
    mode = path.stat().st_mode  # as the user's other files; safetensors makes it private
    save_file(state, path, {"format": FORMAT, **metadata})
    path.chmod(mode)


def load_motion(unet: StreamingUNet, path: Path) -> None:
    """Put motion weights into a network in its own precision. Raises WeightsError."""
    motion = read_motion(path)
    load_strict(beside(unet), from_live2diff(motion.read(motion.keys)), str(path))


def is_animatediff(path: Path) -> bool:
    """Whether a file is AnimateDiff's and not Live2Diff's. Raises WeightsError for any other."""
    kinds = (Kind.LIVE2DIFF_MOTION, *ANIMATEDIFF)
    return require(open_tensors(path), kinds, "what training starts from").kind in ANIMATEDIFF


def load_animatediff(unet: StreamingUNet, path: Path) -> None:
    """Put AnimateDiff's motion weights into the temporal layers; the depth mapping falls silent.

    Its middle block, which v2 has, has no place in Live2Diff and is left out; the position tables
    are the same. Raises WeightsError.
    """
    file = open_tensors(path)
    names = {key.replace("module.", ""): key for key in file.infos}
    kept = {name: key for name, key in names.items() if name.startswith(_SIDES)}
    read = file.read(kept.values())
    silence_depth(unet)
    state = from_live2diff({name: read[key] for name, key in kept.items()})
    depth = {f"{DEPTH}.{k}": t for k, t in unet.depth_mapping.state_dict().items()}
    load_strict(beside(unet), {**state, **depth}, str(path))


_SIDES = ("down_blocks.", "up_blocks.")
_PREFIXES = tuple((ours, theirs) for theirs, ours in tables.LIVE2DIFF_PREFIXES)
_TRANSFORMER = tuple((ours, theirs) for theirs, ours in tables.LIVE2DIFF_TRANSFORMER)


def _original(key: str) -> str:
    if not key.startswith("temporal_"):
        return rename(key, _PREFIXES)
    side, block, layer, rest = key.split(".", 3)
    return rename(f"{side}.{block}.{layer}.", _PREFIXES) + rename(rest, _TRANSFORMER)
