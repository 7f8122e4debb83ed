"""Files to tensors, names to names, tensors to modules: all keys or none."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn

from live2diff_core.errors import WeightsError, WeightsFormatError, WeightsKeyError
from live2diff_core.metrics.parity import Recording
from live2diff_core.models.unet import MotionConfig, StreamingUNet
from live2diff_core.weights.files import read_safetensors
from live2diff_core.weights.load import (
    from_live2diff,
    load_live2diff,
    load_strict,
    rename,
)
from tests.golden import GOLDEN

SHAPES = Path(__file__).parent.parent / "data" / "reference_shapes.json"
SD15 = {"cross_attention_dim": 768}  # every other setting of SD 1.5 is diffusers' default
Shapes = dict[str, tuple[int, ...]]


def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).requires_grad_(False)


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


# ---- files


def test_several_files_are_read_as_one(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "1.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "2.safetensors")
    got = read_safetensors(tmp_path / "1.safetensors", tmp_path / "2.safetensors")
    assert equal(got, {"a": torch.ones(2), "b": torch.zeros(3)})


def test_a_key_in_two_files_is_refused(tmp_path):
    for name in ("1.safetensors", "2.safetensors"):
        save_file({"a": torch.ones(2)}, tmp_path / name)
    with pytest.raises(WeightsKeyError, match=r"2\.safetensors repeats keys .*: a$"):
        read_safetensors(tmp_path / "1.safetensors", tmp_path / "2.safetensors")


def missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def text(path: Path) -> None:
    path.write_text("<!DOCTYPE html> you must accept the licence first " * 9)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    save_file({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [missing, text, empty, truncated, directory])
def test_what_is_no_safetensors_file_is_refused_by_name(tmp_path, spoil):
    path = tmp_path / "model.safetensors"
    spoil(path)
    with pytest.raises(WeightsFormatError, match=r"model\.safetensors cannot be read"):
        read_safetensors(path)


# ---- names


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.3.b.12.c", "x.12.3.c"),
        ("a.3.b.", "a.3.b."),
        ("old.name", "new.name"),
        ("the.old.name", "the.old.name"),
        ("aX3.b.12.c", "aX3.b.12.c"),
    ],
)
def test_prefixes_are_renamed_with_their_numbers(key, expected):
    assert rename(key, [("a.{0}.b.{1}.", "x.{1}.{0}."), ("old.", "new.")]) == expected


def test_the_first_prefix_that_fits_counts():
    assert rename("to_out.0.weight", [("to_out.0.", "to_out."), ("to_", "x_")]) == "to_out.weight"


def test_derived_position_tables_are_dropped_and_spatial_keys_go_below_spatial():
    state = {
        "conv_in.weight": torch.ones(1),
        "flow_conv_in.conv_in.bias": torch.ones(1),
        "down_blocks.0.motion_modules.1.temporal_transformer.transformer_blocks.0."
        "attention_blocks.1.pos_encoder.pe": torch.ones(1),
        "up_blocks.3.motion_modules.2.temporal_transformer.transformer_blocks.0."
        "attention_blocks.0.to_out.0.bias": torch.ones(1),
    }
    assert set(from_live2diff(state)) == {
        "spatial.conv_in.weight",
        "depth_mapping.conv_in.bias",
        "temporal_up.3.2.attentions.0.to_out.bias",
    }


def reference_shapes() -> dict[str, Shapes]:
    """Keys and shapes of the published networks, without their values."""
    stored = json.loads(SHAPES.read_text())
    return {part: {k: tuple(v) for k, v in keys.items()} for part, keys in stored.items()}


def test_the_full_size_network_has_the_references_keys_and_shapes():
    parts = reference_shapes()
    assert (len(parts["sd15"]), len(parts["live2diff"])) == (686, 576)
    with torch.device("meta"):
        unet = StreamingUNet(UNet2DConditionModel(**SD15), MotionConfig())
    ours = {key: tuple(tensor.shape) for key, tensor in unet.state_dict().items()}
    theirs = from_live2diff(
        {k: torch.empty(s, device="meta") for k, s in (parts["sd15"] | parts["live2diff"]).items()}
    )
    assert ours == {key: tuple(tensor.shape) for key, tensor in theirs.items()}
    assert len([key for key in ours if key.startswith("spatial.")]) == 686
    assert len([key for key in ours if not key.startswith("spatial.")]) == 576 - 40


def recorded_state() -> dict[str, torch.Tensor]:
    return read_safetensors(*sorted(GOLDEN.glob("unet-*.safetensors")))


def test_the_recorded_weights_all_arrive():
    unet, state = Recording(GOLDEN).network(), recorded_state()
    ours = unet.state_dict()
    renamed = from_live2diff(state)
    assert ours.keys() == renamed.keys()
    assert all(torch.equal(ours[key], renamed[key].float()) for key in ours)
    tables = [key for key in state if key.endswith("pos_encoder.pe")]
    assert len(renamed) == len(state) - len(tables)


def test_loading_the_reference_again_changes_nothing():
    recording = Recording(GOLDEN)
    unet = recording.network()
    before = snapshot(unet)
    load_live2diff(unet, recorded_state(), "again")
    assert equal(before, snapshot(unet))


@pytest.mark.parametrize(
    "key", ["conv_in.weight", "flow_conv_in.blocks.0.bias", "up_blocks.1.resnets.0.norm1.bias"]
)
def test_a_reference_without_a_key_is_refused(key):
    unet, state = Recording(GOLDEN).network(), recorded_state()
    del state[key]
    with pytest.raises(WeightsKeyError, match="1 missing"):
        load_live2diff(unet, state, "file")


# ---- strictness


def test_values_arrive_in_the_modules_own_dtype():
    module, state = small().double(), snapshot(small().half())
    load_strict(module, state, "file")
    for key, tensor in module.state_dict().items():
        assert tensor.dtype == torch.float64
        assert torch.equal(tensor, state[key].double())


def drop(state):
    del state["1.bias"]


def add(state):
    state["2.bias"] = torch.zeros(1)


def reshape(state):
    state["0.weight"] = state["0.weight"].T.contiguous()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (drop, r"1 missing \(1\.bias\)"),
        (add, r"1 unexpected \(2\.bias\)"),
        (reshape, r"1 of another shape \(0\.weight: expected \(3, 2\), got \(2, 3\)\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_module_stays_as_it_was(spoil, reason):
    module = small()
    before = snapshot(module)
    state = {key: tensor + 1 for key, tensor in before.items()}
    spoil(state)
    with pytest.raises(WeightsKeyError, match=f"my file does not fit this network: {reason}"):
        load_strict(module, state, "my file")
    assert equal(before, snapshot(module))


def test_all_problems_are_told_at_once_and_long_lists_cut():
    state = {f"extra.{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(WeightsKeyError, match=r"4 missing .*; 9 unexpected .* and 4 more") as e:
        load_strict(small(), state, "file")
    assert isinstance(e.value, WeightsError)
    assert "extra.5" not in str(e.value)
