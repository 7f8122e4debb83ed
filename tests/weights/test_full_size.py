"""The 686 and 576 keys of the real networks, at full size, through the loaders of every container.

The files have their full length and are holes but for the position tables: nothing is written and
nothing read but headers, as the networks are on the meta device.
"""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from live2diff_core.errors import WeightsKeyError
from live2diff_core.models.unet import StreamingUNet
from live2diff_core.weights.base import open_base
from live2diff_core.weights.motion import attach_motion, read_motion
from tests import sd15

SHAPES = json.loads((Path(__file__).parent.parent / "data" / "reference_shapes.json").read_text())
META = torch.device("meta")
Shapes = dict[str, list[int]]
Write = Callable[[Shapes, Path], Path]


def original(shapes: Shapes) -> Shapes:
    """The UNet's keys as single files name them."""
    attended = [False, True, True, True]
    return {sd15.UNET_PREFIX + sd15.original_name(k, 2, attended): s for k, s in shapes.items()}


def tables(shapes: Shapes) -> dict[str, Tensor]:
    found = {key: shape for key, shape in shapes.items() if key.endswith(".pe")}
    return {key: sd15.position_table(*shape[1:])[None].half() for key, shape in found.items()}


def safetensors(shapes: Shapes, path: Path) -> Path:
    """A header, a hole, and the position tables at their places."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        first = file.tell()
        for key, table in tables(shapes).items():
            file.seek(first + header[key]["data_offsets"][0])
            file.write(table.numpy().tobytes())
        file.truncate(first + end)
    return path


def pickled(shapes: Shapes, path: Path, wrap: Callable[[Mapping[str, Tensor]], object]) -> Path:
    with FakeTensorMode():
        holes = {key: torch.empty(shape, dtype=torch.float16) for key, shape in shapes.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(wrap(holes), path)
    return path


def checkpoint(shapes: Shapes, folder: Path) -> Path:
    return safetensors(original(shapes), folder / "sd15.safetensors")


def wrapped_pickle(shapes: Shapes, folder: Path) -> Path:
    return pickled(original(shapes), folder / "sd15.ckpt", lambda state: {"state_dict": state})


def diffusers_folder(shapes: Shapes, folder: Path) -> Path:
    unet = folder / "sd15" / "unet"
    unet.mkdir(parents=True)
    (unet / "config.json").write_text(json.dumps({"cross_attention_dim": 768}))
    safetensors(shapes, unet / "diffusion_pytorch_model.safetensors")
    return unet.parent


def converted(shapes: Shapes, folder: Path) -> Path:
    return safetensors(shapes, folder / "live2diff.safetensors")


def parallel_pickle(shapes: Shapes, folder: Path) -> Path:
    """Tables of zeros would be refused: this container goes without them."""
    kept = {key: shape for key, shape in shapes.items() if not key.endswith(".pe")}
    return pickled(
        kept,
        folder / "live2diff.ckpt",
        lambda state: {
            "state_dict": {f"module.{k}": t for k, t in state.items()},
            "global_step": 1,
        },
    )


BASES: list[Write] = [checkpoint, wrapped_pickle, diffusers_folder]
MOTIONS: list[Write] = [converted, parallel_pickle]
EACH = pytest.mark.parametrize(
    ("base", "motion"), list(zip(BASES, [*MOTIONS, converted], strict=True))
)


def load(base: Path, motion: Path) -> StreamingUNet:
    spatial = open_base(base).load_unet(META, torch.float16)
    return attach_motion(spatial, read_motion(motion), META)


@EACH
def test_every_container_is_accepted_key_by_key(tmp_path, base, motion):
    unet = load(base(SHAPES["sd15"], tmp_path), motion(SHAPES["live2diff"], tmp_path))
    ours = {key: list(t.shape) for key, t in unet.spatial.state_dict().items()}
    assert ours == SHAPES["sd15"]
    assert (len(SHAPES["sd15"]), len(SHAPES["live2diff"])) == (686, 576)
    assert sum(p.numel() for p in unet.parameters()) == 1_277_745_188
    assert {p.dtype for p in unet.parameters()} == {torch.float16}


@pytest.mark.parametrize(
    ("base", "motion", "change"),
    [
        (checkpoint, converted, "missing"),
        (wrapped_pickle, parallel_pickle, "unexpected"),
        (diffusers_folder, converted, "of another shape"),
    ],
)
def test_every_container_is_read_strictly(tmp_path, base, motion, change):
    shapes = {part: dict(SHAPES[part]) for part in ("sd15", "live2diff")}
    spoiled = {
        "sd15": "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.bias",
        "live2diff": "up_blocks.0.motion_modules.2.temporal_transformer.proj_out.bias",
    }
    for part, key in spoiled.items():
        intact = dict(shapes[part])
        if change == "missing":
            del shapes[part][key]
        elif change == "unexpected":
            shapes[part][key.replace(".bias", ".gate")] = [3]
        else:
            shapes[part][key] = [7]
        (tmp_path / part).mkdir()
        folder = tmp_path / part
        with pytest.raises(WeightsKeyError, match=f"1 {change}"):
            load(base(shapes["sd15"], folder), motion(shapes["live2diff"], folder))
        shapes[part] = intact
