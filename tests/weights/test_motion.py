"""Motion weights: the reference's file in its containers, our conversion; strict both ways."""

import logging
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor

from live2diff_core.errors import (
    WeightsError,
    WeightsFormatError,
    WeightsKeyError,
    WeightsKindError,
    WeightsValueError,
)
from live2diff_core.models.unet import StreamingUNet
from live2diff_core.weights.files import open_tensors, sha256
from live2diff_core.weights.motion import attach_motion, convert_motion, read_motion
from tests import sd15

CPU = torch.device("cpu")
DOWN = "down_blocks.0.motion_modules.0.temporal_transformer."
QUERY = DOWN + "transformer_blocks.0.attention_blocks.0.to_q.weight"
TABLE = QUERY.replace("to_q.weight", "pos_encoder.pe")


def reference() -> dict[str, Tensor]:
    return sd15.reference_motion(sd15.tiny_unet())


def fresh_base(**settings: object) -> UNet2DConditionModel:
    config = dict(sd15.tiny_unet().spatial.config) | settings
    return UNet2DConditionModel.from_config(config)


def attach(path: Path, base: UNet2DConditionModel | None = None) -> StreamingUNet:
    return attach_motion(base or fresh_base(), read_motion(path), CPU)


def beside(unet: StreamingUNet) -> dict[str, Tensor]:
    return {key: t for key, t in unet.state_dict().items() if not key.startswith("spatial.")}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


# ---- containers and names


def plain(state: dict[str, Tensor]) -> dict[str, object]:
    return dict(state)


def wrapped(state: dict[str, Tensor]) -> dict[str, object]:
    return {"state_dict": state, "global_step": 20000}


def parallel(state: dict[str, Tensor]) -> dict[str, object]:
    return wrapped({f"module.{key}": tensor for key, tensor in state.items()})


def nested_parallel(state: dict[str, Tensor]) -> dict[str, object]:
    """As torch writes it when an inner network was wrapped."""
    return {
        key.replace("transformer_blocks", "module.transformer_blocks"): t
        for key, t in state.items()
    }


def with_grid(state: dict[str, Tensor]) -> dict[str, object]:
    return {**state, "warp.grid": torch.ones(2, 3)}


def with_projected_tables(state: dict[str, Tensor]) -> dict[str, object]:
    """As a network saves itself after its cache was prepared."""
    return {**state, QUERY.replace("to_q.weight", "q_pe"): torch.ones(1, 16, 32)}


@pytest.mark.parametrize(
    "form", [plain, wrapped, parallel, nested_parallel, with_grid, with_projected_tables]
)
def test_every_form_of_the_pickle_gives_the_same_network(tmp_path, form):
    torch.save(form(reference()), tmp_path / "live2diff.ckpt")
    assert same(beside(attach(tmp_path / "live2diff.ckpt")), beside(sd15.tiny_unet()))


def test_position_tables_may_be_absent_altogether(tmp_path):
    state = {key: t for key, t in reference().items() if not key.endswith(".pe")}
    unet = attach(sd15.save(state, tmp_path / "live2diff.safetensors"))
    assert same(beside(unet), beside(sd15.tiny_unet()))


def test_the_network_takes_the_precision_of_its_base(tmp_path):
    path = sd15.save(reference(), tmp_path / "live2diff.ckpt")
    unet = attach(path, fresh_base().half())
    assert {t.dtype for t in unet.state_dict().values()} == {torch.float16}


def test_keys_of_the_base_replace_the_bases_and_that_is_logged(tmp_path, caplog):
    bias = torch.arange(4.0)
    path = sd15.save(reference() | {"conv_out.bias": bias}, tmp_path / "live2diff.ckpt")
    with caplog.at_level(logging.WARNING):
        unet = attach(path)
    assert torch.equal(unet.spatial.conv_out.bias, bias)
    assert (
        "holds 1 keys of the spatial network, which replace the base's (conv_out.bias)"
        in caplog.text
    )


# ---- strict


@pytest.mark.parametrize(
    "key",
    [QUERY, "flow_conv_in.conv_out.bias", DOWN + "transformer_blocks.0.ff.net.2.weight", TABLE],
)
def test_a_missing_key_is_an_error(tmp_path, key):
    state = reference()
    del state[key]
    with pytest.raises(WeightsKeyError, match=r"missing|lacks 1 position table"):
        attach(sd15.save(state, tmp_path / "live2diff.ckpt"))


@pytest.mark.parametrize("key", ["up_blocks.9.extra", DOWN + "gate", "flow_conv_in.blocks.6.bias"])
def test_an_unexpected_key_is_an_error_and_the_base_stays(tmp_path, key):
    base = fresh_base()
    before = {k: t.clone() for k, t in base.state_dict().items()}
    state = reference() | {key: torch.ones(3), "conv_out.bias": torch.ones(4)}
    with pytest.raises(WeightsKeyError, match="unexpected"):
        attach(sd15.save(state, tmp_path / "live2diff.ckpt"), base)
    assert same(base.state_dict(), before)


def test_motion_weights_of_another_width_say_both(tmp_path):
    base = fresh_base(block_out_channels=(64, 128))
    path = sd15.save(reference(), tmp_path / "live2diff.ckpt")
    with pytest.raises(WeightsKindError, match=r"\[32, 64\] channels, the base has \[64, 128\]"):
        attach(path, base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_reference_s_tables_pass_in_every_precision(tmp_path, dtype):
    state = {key: t.to(dtype) for key, t in reference().items()}
    read_motion(sd15.save(state, tmp_path / "live2diff.ckpt"))


@pytest.mark.parametrize(
    "table", [torch.zeros(1, 24, 32), sd15.position_table(24, 32).roll(1, 0)[None]]
)
def test_other_positions_are_refused(tmp_path, table):
    path = sd15.save(reference() | {TABLE: table}, tmp_path / "live2diff.ckpt")
    with pytest.raises(WeightsValueError, match="not the sinusoidal table"):
        read_motion(path)


NOT_A_TABLE = [
    torch.ones(3),
    torch.ones(1, 24, 31),
    torch.ones(0, 24, 32),
    sd15.position_table(24, 32)[None].repeat(2, 1, 1),
    sd15.position_table(32, 32)[None],
    sd15.position_table(24, 64)[None],
    torch.full((1, 24, 32), torch.nan),
]


@pytest.mark.parametrize("table", NOT_A_TABLE)
def test_a_table_of_no_sense_is_refused(tmp_path, table):
    path = sd15.save(reference() | {TABLE: table}, tmp_path / "live2diff.ckpt")
    with pytest.raises(WeightsError, match=r"pos_encoder\.pe"):
        read_motion(path)


def test_another_kind_of_file_is_named(tmp_path):
    path = sd15.save(sd15.checkpoint(), tmp_path / "live2diff.ckpt")
    with pytest.raises(WeightsKindError, match=r"Stable Diffusion 1\.5 checkpoint.*motion weights"):
        read_motion(path)


def test_nan_is_refused(tmp_path):
    path = sd15.save(reference() | {QUERY: torch.full((32, 32), torch.nan)}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsValueError, match="NaN or infinite"):
        attach(path)


# ---- conversion


def test_a_conversion_holds_every_key_and_loads_to_the_same_network(tmp_path):
    torch.save(parallel(reference()), tmp_path / "live2diff.ckpt")
    target = tmp_path / "live2diff.safetensors"
    assert convert_motion(tmp_path / "live2diff.ckpt", target) == len(reference())
    assert same(open_tensors(target).read(), reference())
    assert same(beside(attach(target)), beside(sd15.tiny_unet()))


def test_a_conversion_can_be_read_by_whom_other_files_can(tmp_path):
    source = sd15.save(reference(), tmp_path / "live2diff.ckpt")
    (tmp_path / "plain").touch()
    convert_motion(source, tmp_path / "out.safetensors")
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "out.safetensors")}
    assert len(modes) == 1


def test_a_conversion_names_its_source(tmp_path):
    source = sd15.save(reference(), tmp_path / "live2diff.ckpt")
    convert_motion(source, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"format": "live2diff-motion", "source_sha256": sha256(source)}


def test_a_conversion_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    source = sd15.save(reference() | {QUERY: torch.full((32, 32), torch.inf)}, tmp_path / "a.ckpt")
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"old")
    with pytest.raises(WeightsValueError):
        convert_motion(source, target)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "out.safetensors"]


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_a_conversion_of_an_incomplete_file_is_refused(tmp_path, change):
    state = reference()
    if change == "missing":
        del state[DOWN + "proj_in.bias"]
    else:
        state[DOWN + "gate"] = torch.ones(3)
    with pytest.raises(WeightsKeyError, match=f"1 {change}"):
        convert_motion(sd15.save(state, tmp_path / "a.ckpt"), tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_conversion_takes_tied_and_eight_bit_tensors(tmp_path):
    state = reference()
    state[DOWN + "proj_in.bias"] = state[DOWN + "proj_out.bias"] = torch.ones(32)
    state[QUERY] = state[QUERY].to(torch.float8_e4m3fn)
    torch.save(state, tmp_path / "a.ckpt")
    convert_motion(tmp_path / "a.ckpt", tmp_path / "out.safetensors")
    got = open_tensors(tmp_path / "out.safetensors").read()
    assert torch.equal(got[QUERY].float(), state[QUERY].float())


def test_a_network_with_half_its_attentions_is_not_complete(tmp_path):
    state = {k: t for k, t in reference().items() if ".1.to_" not in k and ".norms.1" not in k}
    state = {k: t for k, t in state.items() if "attention_blocks.1" not in k}
    with pytest.raises(WeightsKeyError, match="missing"):
        attach(sd15.save(state, tmp_path / "live2diff.ckpt"))


def test_a_conversion_is_written_as_safetensors_only(tmp_path):
    source = sd15.save(reference(), tmp_path / "a.ckpt")
    with pytest.raises(WeightsFormatError, match=r"must end in \.safetensors"):
        convert_motion(source, tmp_path / "out.ckpt")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    source = sd15.save(reference(), tmp_path / "a.ckpt")
    with pytest.raises(WeightsFormatError, match="cannot be written"):
        convert_motion(source, tmp_path / "no" / "out.safetensors")
