"""Bases in every container: what comes out is what went in, and strict both ways."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

from live2diff_core.errors import (
    WeightsFormatError,
    WeightsKeyError,
    WeightsKindError,
    WeightsMissingError,
    WeightsValueError,
)
from live2diff_core.models.autoencoder import Autoencoder
from live2diff_core.weights.base import (
    diffusers_unet_config,
    open_base,
    unet_config,
    unet_from_ldm,
)
from live2diff_core.weights.component import component
from live2diff_core.weights.files import TensorInfo
from live2diff_core.weights.ldm import ldm_keys
from tests import sd15

CPU = torch.device("cpu")
SHAPES = Path(__file__).parent.parent / "data" / "reference_shapes.json"
CONFIGURED = (
    "block_out_channels",
    "down_block_types",
    "up_block_types",
    "layers_per_block",
    "cross_attention_dim",
    "in_channels",
    "out_channels",
)


@dataclass(frozen=True)
class Loaded:
    unet: UNet2DConditionModel
    text: CLIPTextModel | None
    autoencoder: Autoencoder | None


def load(path: Path, dtype: torch.dtype = torch.float32) -> Loaded:
    base = open_base(path)
    loaders = (base.load_unet, base.load_text, base.load_autoencoder)
    return Loaded(*(loader(CPU, dtype) for loader in loaders))


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def full_size() -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=768)


def wider() -> UNet2DConditionModel:
    """Another depth and other widths than the tiny network's."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            block_out_channels=(32, 64, 96),
            layers_per_block=3,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=48,
        )


def infos(state: dict[str, Tensor]) -> dict[str, TensorInfo]:
    return {key: TensorInfo(tuple(t.shape), t.dtype) for key, t in state.items()}


# ---- names and sizes


@pytest.mark.parametrize("unet", [full_size(), wider(), sd15.tiny_unet().spatial])
def test_settings_are_read_from_the_tensors_under_both_names(unet):
    original = {
        key.removeprefix(sd15.UNET_PREFIX): t for key, t in sd15.original_unet(unet).items()
    }
    for config in (
        unet_config(infos(original), "x"),
        diffusers_unet_config(infos(unet.state_dict()), "x"),
    ):
        assert {n: config[n] for n in CONFIGURED} == {n: unet.config[n] for n in CONFIGURED}


def test_all_686_original_names_lead_to_the_networks_own_keys_and_shapes():
    unet = full_size()
    original = sd15.original_unet(unet)
    table = ldm_keys(unet.state_dict())
    shapes = {
        table[key.removeprefix(sd15.UNET_PREFIX)]: list(t.shape) for key, t in original.items()
    }
    assert len(original) == 686
    assert shapes == json.loads(SHAPES.read_text())["sd15"]


@pytest.mark.parametrize("unet", [full_size(), wider(), sd15.tiny_unet().spatial])
def test_original_names_are_those_that_diffusers_own_converter_knows(unet):
    table = ldm_keys(unet.state_dict())
    moved = convert_ldm_unet_checkpoint({sd15.UNET_PREFIX + key: key for key in table}, unet.config)
    assert {old: new for new, old in moved.items() if old is not None} == table


# ---- containers


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [("model.safetensors", False), ("model.ckpt", False), ("model.ckpt", True)],
)
def test_a_single_file_gives_unet_and_text_encoder(tmp_path, name, wrapped):
    state = sd15.checkpoint()
    if wrapped:
        torch.save({"state_dict": state, "global_step": 7}, tmp_path / name)
    else:
        sd15.save(state, tmp_path / name)
    base = load(tmp_path / name)
    assert same(base.unet.state_dict(), sd15.tiny_unet().spatial.state_dict())
    assert base.text is not None
    assert same(base.text.state_dict(), sd15.tiny_clip().state_dict())
    assert base.autoencoder is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_file_of_any_precision_is_loaded_in_the_one_asked_for(tmp_path, dtype):
    state = {key: t.to(dtype) for key, t in sd15.checkpoint().items()}
    base = load(sd15.save(state, tmp_path / "a.safetensors"), torch.float16)
    own = base.unet.state_dict()
    assert {t.dtype for t in own.values()} == {torch.float16}
    expected = state[sd15.UNET_PREFIX + "out.2.bias"].half()
    assert torch.equal(own["conv_out.bias"], expected)


@pytest.mark.parametrize(
    ("said", "prediction"),
    [(None, "epsilon"), ("epsilon", "epsilon"), ("v", "v_prediction"), ("sample", "sample")],
)
def test_what_the_network_predicts_is_what_the_base_says(tmp_path, said, prediction):
    file = tmp_path / "a.safetensors"
    metadata = {} if said is None else {"modelspec.prediction_type": said}
    state = {key: tensor.contiguous() for key, tensor in sd15.checkpoint().items()}
    save_file(state, file, metadata=metadata)
    assert open_base(file).prediction == prediction
    sd15.save_folder(tmp_path / "folder")
    assert open_base(tmp_path / "folder").prediction == "epsilon"
    scheduler = tmp_path / "folder" / "scheduler" / "scheduler_config.json"
    scheduler.parent.mkdir()
    written = {} if said is None else {"prediction_type": prediction}
    scheduler.write_text(json.dumps(written))
    assert open_base(tmp_path / "folder").prediction == prediction
    scheduler.write_text(json.dumps({"prediction_type": "flow"}))
    with pytest.raises(WeightsKindError, match=r"predicts 'flow'; known are epsilon, v,"):
        _ = open_base(tmp_path / "folder").prediction


def test_a_unet_alone_in_original_names_is_a_base_with_or_without_their_prefix(tmp_path):
    state = sd15.original_unet(sd15.tiny_unet().spatial)
    bare = {key.removeprefix(sd15.UNET_PREFIX): tensor for key, tensor in state.items()}
    for name, tensors in (("a", state), ("b", bare)):
        base = load(sd15.save(tensors, tmp_path / f"{name}.safetensors"))
        assert same(base.unet.state_dict(), sd15.tiny_unet().spatial.state_dict())


def test_a_unet_alone_in_diffusers_names_is_a_base_without_the_rest(tmp_path):
    state = sd15.tiny_unet().spatial.state_dict()
    base = load(sd15.save(state, tmp_path / "unet.safetensors"))
    assert same(base.unet.state_dict(), state)
    assert (base.text, base.autoencoder) == (None, None)


def test_a_unet_is_made_of_tensors_in_original_names_without_a_copy():
    state = sd15.original_unet(sd15.tiny_unet().spatial)
    tensors = {key.removeprefix(sd15.UNET_PREFIX): t.clone() for key, t in state.items()}
    unet = unet_from_ldm(tensors, "the tensors", CPU, torch.float32)
    assert same(unet.state_dict(), sd15.tiny_unet().spatial.state_dict())
    assert unet.conv_out.bias.data_ptr() == tensors["out.2.bias"].data_ptr()


def test_tensors_of_no_unet_are_refused_under_the_name_given():
    with pytest.raises(WeightsKindError, match="the tensors holds no Stable Diffusion"):
        unet_from_ldm({"out.2.bias": torch.ones(4)}, "the tensors", CPU, torch.float32)


def test_a_diffusers_folder_gives_the_same(tmp_path):
    base = load(sd15.save_folder(tmp_path / "folder"))
    assert same(base.unet.state_dict(), sd15.tiny_unet().spatial.state_dict())
    assert base.text is not None
    assert same(base.text.state_dict(), sd15.tiny_clip().state_dict())


def test_the_loaded_network_computes_what_the_written_one_does(tmp_path):
    base = load(sd15.save(sd15.checkpoint(), tmp_path / "a.ckpt"))
    x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, sd15.TEXT)
    ours, theirs = (
        unet(x, torch.tensor([3, 700]), text).sample
        for unet in (base.unet, sd15.tiny_unet().spatial)
    )
    assert torch.equal(ours, theirs)


# ---- what is wrong with a file


def broken(tmp_path: Path, change: dict[str, Tensor | None]) -> Path:
    state = sd15.checkpoint() | {k: v for k, v in change.items() if v is not None}
    for key, value in change.items():
        if value is None:
            del state[key]
    return sd15.save(state, tmp_path / "broken.safetensors")


def test_a_missing_key_is_named(tmp_path):
    path = broken(tmp_path, {sd15.UNET_PREFIX + "middle_block.0.in_layers.2.bias": None})
    with pytest.raises(WeightsKeyError, match=r"1 missing \(mid_block\.resnets\.0\.conv1\.bias"):
        load(path)


def test_an_unexpected_key_is_named_although_diffusers_would_drop_it(tmp_path):
    path = broken(tmp_path, {sd15.UNET_PREFIX + "input_blocks.1.0.gate": torch.ones(3)})
    with pytest.raises(WeightsKeyError, match=r"1 unexpected .*gate"):
        load(path)


@pytest.mark.parametrize(
    "key",
    ["output_blocks.1.1.conv.bias", "output_blocks.1.1.conv.weight", "input_blocks.2.0.op.bias"],
)
def test_a_missing_sampler_is_an_error_of_ours(tmp_path, key):
    with pytest.raises((WeightsKeyError, WeightsKindError), match=r"broken\.safetensors"):
        load(broken(tmp_path, {sd15.UNET_PREFIX + key: None}))


def test_integers_in_the_place_of_weights_are_refused(tmp_path):
    key = sd15.UNET_PREFIX + "out.2.weight"
    path = broken(tmp_path, {key: torch.ones(4, sd15.WIDTHS[0], 3, 3, dtype=torch.int8)})
    with pytest.raises(WeightsKeyError, match=r"1 of integers .quantised.*conv_out\.weight"):
        load(path)


@pytest.mark.parametrize("before", ["module.", "diffusion_model."])
def test_what_is_put_before_the_keys_by_trainers_is_taken_off(tmp_path, before):
    state = sd15.original_unet(sd15.tiny_unet().spatial)
    if before == "module.":
        renamed = {before + key: tensor for key, tensor in state.items()}
    else:
        renamed = {before + k.removeprefix(sd15.UNET_PREFIX): t for k, t in state.items()}
    for name in ("a.safetensors", "a.ckpt"):
        base = load(sd15.save(renamed, tmp_path / name))
        assert same(base.unet.state_dict(), sd15.tiny_unet().spatial.state_dict())


def test_eight_bit_floats_are_widened(tmp_path):
    state = {key: t.to(torch.float8_e4m3fn) for key, t in sd15.checkpoint().items()}
    base = load(sd15.save(state, tmp_path / "a.safetensors"), torch.float16)
    expected = state[sd15.UNET_PREFIX + "out.2.weight"].half()
    assert torch.equal(base.unet.state_dict()["conv_out.weight"], expected)


def test_keys_beside_the_networks_are_ignored(tmp_path):
    path = broken(tmp_path, {"model_ema.decay": torch.ones(()), "betas": torch.ones(1000)})
    assert same(load(path).unet.state_dict(), sd15.tiny_unet().spatial.state_dict())


def test_a_tensor_of_another_shape_is_named_with_both(tmp_path):
    path = broken(tmp_path, {sd15.UNET_PREFIX + "out.2.bias": torch.ones(5)})
    with pytest.raises(WeightsKeyError, match=r"conv_out\.bias: expected \(4,\), got \(5,\)"):
        load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused(tmp_path, value):
    key = sd15.UNET_PREFIX + "time_embed.0.bias"
    damaged = sd15.checkpoint()[key].clone()
    damaged[3] = value
    with pytest.raises(WeightsValueError, match=r"NaN or infinite .*time_embedding\.linear_1"):
        load(broken(tmp_path, {key: damaged}))


def test_an_inpainting_checkpoint_is_named(tmp_path):
    key = sd15.UNET_PREFIX + "input_blocks.0.0.weight"
    path = broken(tmp_path, {key: torch.ones(sd15.WIDTHS[0], 9, 3, 3)})
    with pytest.raises(WeightsKindError, match=r"inpainting.*expected.*base"):
        load(path)


def test_a_folder_without_a_unet_says_what_a_folder_has(tmp_path):
    with pytest.raises(WeightsFormatError, match="no folder unet: expected a diffusers folder"):
        load(tmp_path)


def test_a_folder_without_weights_says_their_names(tmp_path):
    with pytest.raises(WeightsMissingError, match=r"diffusion_pytorch_model\.safetensors"):
        component(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"in_channels": "four"}'])
def test_a_broken_configuration_is_an_error_of_ours(tmp_path, text):
    folder = sd15.save_folder(tmp_path / "folder")
    (folder / "unet" / "config.json").write_text(text)
    with pytest.raises(
        (WeightsFormatError, WeightsKeyError), match=r"config\.json|does not fit|describe no"
    ):
        load(folder)
