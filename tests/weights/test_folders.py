"""Folders: pipelines, components, shards and loose files are told by their weights."""

import json
from pathlib import Path

import pytest

from live2diff_core.errors import WeightsFormatError, WeightsMissingError
from live2diff_core.weights.identity import identify
from live2diff_core.weights.inspect import Kind, inspect
from live2diff_core.weights.kinds import ABOUT
from tests import checkpoints as files
from tests.checkpoints import CASES, TABLES, kohya, tensor_file
from tests.checkpoints import write_component as component


def pipeline(folder: Path, network: str, shapes: files.Shapes):
    """A diffusers folder with the parts of Stable Diffusion, as far as they tell."""
    component(folder / network, shapes, {"_class_name": "Network"})
    component(folder / "vae", TABLES["vae"], {"_class_name": "AutoencoderKL"})
    component(folder / "text_encoder", files.text_model(768), {}, "model.safetensors")
    (folder / "scheduler").mkdir()
    parts = {"_class_name": "Pipeline", network: [], "vae": [], "text_encoder": [], "scheduler": []}
    (folder / "model_index.json").write_text(json.dumps(parts), encoding="utf-8")


@pytest.mark.parametrize(
    ("network", "case", "kind"),
    [
        ("unet", "SD 1.5, diffusers' names", Kind.SD15),
        ("unet", "inpainting, diffusers' names", Kind.SD15_INPAINTING),
        ("transformer", "Flux", Kind.FLUX),
    ],
)
def test_a_diffusers_folder_is_what_its_network_is(tmp_path, network, case, kind):
    shapes = CASES[case][1]
    pipeline(tmp_path / "model", network, shapes)
    found = inspect(tmp_path / "model")
    assert found.kind is kind
    assert found.path == tmp_path / "model"
    assert found.container == "diffusers folder"
    assert f"holds {', '.join(sorted([network, 'vae', 'text_encoder']))}" in found.details
    parts = (shapes, TABLES["vae"], files.text_model(768))
    assert found.parameters == sum(identify(tensor_file(part)).parameters for part in parts)


def test_sd15_as_a_folder_is_called_a_checkpoint_that_a_base_can_be(tmp_path):
    pipeline(tmp_path / "model", "unet", TABLES["unet"])
    found = inspect(tmp_path / "model")
    assert (found.title, found.use) == ("Stable Diffusion 1.5 checkpoint", "base")


def test_a_diffusers_folder_without_its_network_is_incomplete(tmp_path):
    pipeline(tmp_path / "model", "unet", TABLES["unet"])
    (tmp_path / "model/unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsMissingError, match="without weights of its unet"):
        inspect(tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["model.fp16.safetensors", "pytorch_model.bin", "adapter_model.safetensors"]
)
def test_a_component_folder_is_what_its_weights_are(tmp_path, name):
    config = {"model_type": "clip_text_model", "hidden_size": 768}
    component(tmp_path / "text", files.text_model(768), config, name)
    found = inspect(tmp_path / "text")
    assert found.kind is Kind.CLIP_TEXT
    assert "model_type: clip_text_model" in found.details


def test_full_precision_comes_before_half(tmp_path):
    component(tmp_path / "vae", TABLES["vae16"], {}, "model.fp16.safetensors")
    files.write_safetensors(tmp_path / "vae/model.safetensors", TABLES["vae"])
    assert inspect(tmp_path / "vae").kind is Kind.VAE


def shards(folder: Path, shapes: files.Shapes) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    owners = {key: names[i % 2] for i, key in enumerate(shapes)}
    folder.mkdir()
    for name in names:
        mine = {key: shape for key, shape in shapes.items() if owners[key] == name}
        files.write_safetensors(folder / name, mine)
    index = {"metadata": {}, "weight_map": owners}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def test_shards_are_one_model(tmp_path):
    shards(tmp_path / "clip", files.text_model(768))
    found = inspect(tmp_path / "clip")
    assert found.kind is Kind.CLIP_TEXT
    assert found.parameters == identify(tensor_file(files.text_model(768))).parameters


def test_a_missing_shard_is_named(tmp_path):
    shards(tmp_path / "clip", files.text_model(768))
    (tmp_path / "clip/model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsMissingError, match=r"lacks 1 of 2 files \(model-00002-of-00002"):
        inspect(tmp_path / "clip")


@pytest.mark.parametrize(
    "index",
    ["{", "[]", "{}", '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": 1}}', "[" * 9999],
)
def test_a_damaged_index_is_refused(tmp_path, index):
    shards(tmp_path / "clip", files.text_model(768))
    (tmp_path / "clip/model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(WeightsFormatError, match=r"index\.json"):
        inspect(tmp_path / "clip")


def test_two_halves_of_taesd_are_one_autoencoder(tmp_path):
    files.write_pickle(tmp_path / "taesd_encoder.pth", files.taesd_encoder())
    files.write_pickle(tmp_path / "taesd_decoder.pth", files.taesd_decoder())
    found = inspect(tmp_path)
    assert found.kind is Kind.TAESD
    assert found.title == ABOUT[Kind.TAESD].name


def test_a_folder_of_one_file_is_that_file(tmp_path):
    files.write_safetensors(tmp_path / "anything.safetensors", kohya(files.SD15))
    found = inspect(tmp_path)
    assert (found.kind, found.path) == (Kind.LORA_SD15, tmp_path)


def test_a_folder_of_several_models_asks_for_one(tmp_path):
    for name in "abcde":
        files.write_safetensors(tmp_path / f"{name}.safetensors", {"emb_params": (1, 768)})
    with pytest.raises(WeightsFormatError, match=r"holds 5 files that are no one model \(a\.safe"):
        inspect(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsMissingError, match=r"holds no weights: expected model_index\.json"):
        inspect(tmp_path)


def test_a_damaged_file_in_a_folder_is_named(tmp_path):
    component(tmp_path / "vae", TABLES["vae"], {})
    path = tmp_path / "vae/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsFormatError, match=r"diffusion_pytorch_model\.safetensors cannot be"):
        inspect(tmp_path / "vae")
