"""Depth networks load from original and transformers files, whole and exactly, or not at all."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DPTForDepthEstimation
from transformers.utils import logging as transformers_logging

from live2diff_core.errors import (
    WeightsFormatError,
    WeightsKeyError,
    WeightsKindError,
    WeightsMissingError,
    WeightsValueError,
)
from live2diff_core.weights.depth import from_midas, from_tensors, load_depth
from tests.networks import (
    CPU,
    DEPTH_SIDE,
    pictures,
    recorded,
    seeded,
    tiny_depth,
    tiny_dpt_config,
)

KINDS = ["dpt", "depth_anything"]
WEIGHTS = "model.safetensors"
MIDAS_KEY = "pretrained.model.patch_embed.backbone.stem.conv.weight"
LATERAL = "neck.fusion_stage.layers.0.residual_layer1."  # built and never run


def load(path: Path, dtype: torch.dtype = torch.float32):
    return load_depth(path, CPU, dtype)


def save(folder: Path, kind: str) -> Path:
    """A transformers folder, as `save_pretrained` writes the published ones."""
    tiny_depth(kind).save_pretrained(folder)
    return folder


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def folder(tmp_path, kind) -> Path:
    return save(tmp_path / "model", kind)


def change_config(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def change_weights(folder: Path, change) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)


# ---- MiDaS's own names


def in_midas_names(model: Any) -> dict[str, Tensor]:
    """The tensors of transformers' DPT-hybrid under the names that MiDaS gives to their places."""
    state: dict[str, Tensor] = {}

    def put(name: str, module: nn.Module) -> None:
        state.update({f"{name}.{key}": tensor for key, tensor in module.named_parameters()})

    start, vit = model.dpt.embeddings, "pretrained.model"
    bit, stem = start.backbone.bit, f"{vit}.patch_embed.backbone"
    state |= {f"{vit}.cls_token": start.cls_token, f"{vit}.pos_embed": start.position_embeddings}
    put(f"{stem}.stem.conv", bit.embedder.convolution)
    put(f"{stem}.stem.norm", bit.embedder.norm)
    for s, stage in enumerate(bit.encoder.stages):
        for b, block in enumerate(stage.layers):
            put(f"{stem}.stages.{s}.blocks.{b}", block)
    put(f"{vit}.patch_embed.proj", start.projection)
    for n, layer in enumerate(model.dpt.encoder.layer):
        own = layer.attention.attention
        for key in ("weight", "bias"):
            parts = [getattr(linear, key) for linear in (own.query, own.key, own.value)]
            state[f"{vit}.blocks.{n}.attn.qkv.{key}"] = torch.cat(parts)
        put(f"{vit}.blocks.{n}.attn.proj", layer.attention.output.dense)
        put(f"{vit}.blocks.{n}.norm1", layer.layernorm_before)
        put(f"{vit}.blocks.{n}.norm2", layer.layernorm_after)
        put(f"{vit}.blocks.{n}.mlp.fc1", layer.intermediate.dense)
        put(f"{vit}.blocks.{n}.mlp.fc2", layer.output.dense)
    put(f"{vit}.norm", model.dpt.layernorm)
    put(f"{vit}.head", nn.Linear(2, 3))  # the classifier: in the file, not in the network
    stage = model.neck.reassemble_stage
    for n in (3, 4):
        put(f"pretrained.act_postprocess{n}.0.project.0", stage.readout_projects[n - 1][0])
        put(f"pretrained.act_postprocess{n}.3", stage.layers[n - 1].projection)
    put("pretrained.act_postprocess4.4", stage.layers[3].resize)
    for n in (1, 2, 3, 4):
        fusion, scratch = model.neck.fusion_stage.layers[4 - n], f"scratch.refinenet{n}"
        put(f"scratch.layer{n}_rn", model.neck.convs[n - 1])
        put(f"{scratch}.out_conv", fusion.projection)
        for unit, layer in ((1, fusion.residual_layer1), (2, fusion.residual_layer2)):
            put(f"{scratch}.resConfUnit{unit}.conv1", layer.convolution1)
            put(f"{scratch}.resConfUnit{unit}.conv2", layer.convolution2)
    put("scratch.output_conv", model.head.head)
    return {key: tensor.detach().clone() for key, tensor in state.items()}


def build_midas(state: dict[str, Tensor]):
    config = tiny_dpt_config()
    return from_tensors(DPTForDepthEstimation, config, from_midas(state), "file", torch.float32)


def test_midas_names_give_the_network_of_transformers_exactly():
    theirs = tiny_depth("dpt")
    ours = build_midas(in_midas_names(theirs))
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(t, expected[key]) for key, t in ours.state_dict().items())
    rgb = pictures(2, DEPTH_SIDE, DEPTH_SIDE)
    depth = ours(rgb).predicted_depth
    assert torch.equal(depth, theirs(rgb).predicted_depth)
    assert depth.std() > 0.01


def test_the_full_size_file_gives_what_midas_own_code_gave(tmp_path):
    record = recorded("midas_dpt_hybrid.json")
    state = seeded(record["shapes"])
    state["scratch.output_conv.4.bias"].fill_(record["output_bias"])  # all of it above 0
    path = tmp_path / "dpt_hybrid_384.pt"
    torch.save(state, path)
    network = load(path)
    path.unlink()  # a quarter of a gigabyte
    with torch.inference_mode():
        depth = network(pictures(1, 384, 384))
    got, expected = depth[0, 0, ::48, ::48].flatten(), torch.tensor(record["depth"])
    assert expected.std() > 1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-3)


def drop(state):
    del state["scratch.output_conv.2.bias"]


def add(state):
    state["scratch.extra"] = torch.zeros(1)


def reshape(state):
    state["scratch.output_conv.2.bias"] = torch.zeros(7)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (drop, r"1 missing \(head\.head\.2\.bias\)"),
        (add, r"1 unexpected \(scratch\.extra\)"),
        (reshape, r"1 of another shape \(head\.head\.2\.bias: expected \(32,\), got \(7,\)\)"),
    ],
)
def test_a_midas_file_that_does_not_fit_is_refused(spoil, reason):
    state = in_midas_names(tiny_depth("dpt"))
    spoil(state)
    with pytest.raises(WeightsKeyError, match=f"file does not fit this network: {reason}"):
        build_midas(state)


def test_nan_is_refused():
    state = in_midas_names(tiny_depth("dpt"))
    state["scratch.output_conv.0.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(WeightsValueError, match=r"head\.head\.0\.weight"):
        build_midas(state)


@pytest.mark.parametrize(
    ("key", "shape", "named"),
    [
        ("pretrained.model.blocks.0.attn.relative_position_bias_table", (4, 2), "BEiT"),
        ("decoder.conv_in.weight", (512, 4, 3, 3), "VAE"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, key, shape, named):
    torch.save({key: torch.zeros(shape)}, tmp_path / "file.pt")
    with pytest.raises(WeightsKindError, match=rf"file\.pt is .*{named}.*expected .*MiDaS"):
        load(tmp_path / "file.pt")


# ---- transformers' folders


def test_a_folder_gives_the_network_of_transformers_exactly(folder, kind):
    theirs, network = tiny_depth(kind), load(folder)
    assert type(network.model) is type(theirs)
    rgb = pictures(1, *network.input_size(60, 60))
    assert torch.equal(network.model(rgb).predicted_depth, theirs(rgb).predicted_depth)
    assert not any(p.requires_grad for p in network.parameters())
    assert not network.model.training


def test_names_of_published_files_are_older_than_those_of_the_modules(tmp_path):
    keys = load_file(save(tmp_path, "depth_anything") / WEIGHTS).keys()
    assert "backbone.encoder.layer.0.attention.attention.query.weight" in keys
    assert "backbone.embeddings.mask_token" in keys


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_network_computes_in_the_dtype_that_was_asked_for(folder, dtype):
    change_config(folder, dtype="float32")
    network = load(folder, dtype)
    assert {p.dtype for p in network.parameters()} == {dtype}


def as_pickle(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def as_half(folder):
    state = {key: tensor.half() for key, tensor in load_file(folder / WEIGHTS).items()}
    save_file(state, folder / "model.fp16.safetensors")
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize("rewrite", [as_pickle, as_half])
def test_other_containers_hold_the_same(folder, kind, rewrite):
    rewrite(folder)
    expected = tiny_depth(kind).state_dict()
    got = load(folder).model.state_dict()
    assert got.keys() == expected.keys()
    for key, tensor in got.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-3, atol=1e-4)


def test_what_is_never_run_may_be_missing(folder, kind):
    before = load(folder)

    def forget(state):
        for key in [key for key in state if key.startswith((LATERAL, "backbone.embeddings.mask"))]:
            del state[key]

    change_weights(folder, forget)
    rgb = pictures(1, 40, 60)
    assert torch.equal(load(folder)(rgb), before(rgb))


def test_a_file_without_its_folder_says_what_it_lacks(folder, tmp_path):
    alone = tmp_path / "alone" / WEIGHTS
    alone.parent.mkdir()
    alone.write_bytes((folder / WEIGHTS).read_bytes())
    with pytest.raises(WeightsMissingError, match=r"needs its config\.json beside it"):
        load(alone)


def test_anything_else_may_not(folder):
    change_weights(folder, lambda state: state.pop("neck.convs.2.weight"))
    with pytest.raises(WeightsKeyError, match=r"model\.safetensors .* 1 missing \(neck\.convs\.2"):
        load(folder)


def test_a_key_of_another_network_is_unexpected(folder):
    change_weights(folder, lambda state: state.update(extra=torch.zeros(1)))
    with pytest.raises(WeightsKeyError, match=r"1 unexpected \(extra\)"):
        load(folder)


def test_nothing_is_printed(folder, capfd, caplog):
    change_weights(folder, lambda state: state.pop("neck.convs.2.weight"))
    bar, level = (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
    )
    with caplog.at_level(logging.WARNING), pytest.raises(WeightsKeyError):
        load(folder)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert transformers_logging.is_progress_bar_enabled() == bar
    assert transformers_logging.get_verbosity() == level


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": None, "use_pretrained_backbone": False, "torch_dtype": "float32"},
        {"backbone": "facebook/dinov2-base", "use_pretrained_backbone": True},
        {"backbone": "resnet18", "use_timm_backbone": True, "use_pretrained_backbone": True},
    ],
)
def test_no_backbone_is_fetched(folder, kind, settings):
    change_config(folder, **settings)
    assert load(folder).model.state_dict().keys() == tiny_depth(kind).state_dict().keys()


def test_a_backbone_that_is_elsewhere_does_not_fit(folder):
    change_config(folder, backbone="facebook/dinov2-base", backbone_config=None)
    with pytest.raises(WeightsKeyError, match="does not fit this network"):
        load(folder)


# ---- refused folders


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "zoedepth"}, "holds zoedepth, expected dpt"),
        ({"model_type": None, "_class_name": "AutoencoderKL"}, "holds AutoencoderKL"),
        ({"model_type": None}, "holds a nameless network"),
        ({"depth_estimation_type": "metric"}, "estimates metric depth"),
        ({"backbone_config": {"model_type": "swinv2"}}, "backbone of kind swinv2, expected"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "is quantised"),
    ],
)
def test_another_network_is_named(folder, settings, reason):
    change_config(folder, **settings)
    with pytest.raises(WeightsKindError, match=reason):
        load(folder)


def test_a_dpt_that_is_no_hybrid_is_refused(tmp_path):
    folder = save(tmp_path, "dpt")

    def patchwise(state):
        for key in [key for key in state if ".backbone.bit." in key]:
            del state[key]

    change_weights(folder, patchwise)
    with pytest.raises(WeightsKindError, match="expected a DPT-hybrid"):
        load(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"neck_hidden_sizes": "many"},
        {"backbone_config": 3},
        {"fusion_hidden_size": -1},
        {"reassemble_factors": [4]},
        {"dtype": [1]},
    ],
)
def test_settings_that_describe_no_network_are_refused(folder, settings):
    change_config(folder, **settings)
    with pytest.raises((WeightsFormatError, WeightsKeyError), match="model"):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "version https://git-lfs"])
def test_text_in_place_of_settings_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(WeightsFormatError, match=r"config\.json"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsMissingError, match=name):
        load(folder)
