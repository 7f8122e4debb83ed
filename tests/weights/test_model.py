"""Whole models from parts: every container runs a stream, LoRAs change it, errors name files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny

import live2diff_core
from live2diff_core.config import StepSelection, StreamConfig
from live2diff_core.errors import (
    ConfigError,
    WeightsError,
    WeightsKindError,
    WeightsMissingError,
)
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.inspect import Kind
from live2diff_core.weights.model import load_adapter, load_model
from live2diff_core.weights.spec import LoraSpec, ModelSpec
from tests import sd15
from tests.checkpoints import LORAS, MODELS, write_pickle, write_safetensors
from tests.tiny import distance, make_frames, same

SIZE = 32
STEPS = StepSelection((20, 35))
LAYER = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with everything that a tiny Stable Diffusion 1.5 needs."""
    folder: Path = tmp_path_factory.mktemp("models")
    sd15.save(sd15.checkpoint(), folder / "checkpoints" / "single.safetensors")
    sd15.save(sd15.checkpoint(), folder / "checkpoints" / "pickle.ckpt")
    sd15.save_folder(folder / "checkpoints" / "folder")
    sd15.save(sd15.tiny_unet().spatial.state_dict(), folder / "checkpoints" / "unet.safetensors")
    sd15.save(sd15.reference_motion(sd15.tiny_unet()), folder / "live2diff.ckpt")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderTiny().save_pretrained(folder / "vae_approx" / "taesd")
        down, up = torch.randn(4, 32), torch.randn(32, 4)
    lora = {f"lora_unet_{LAYER}.lora_down.weight": down, f"lora_unet_{LAYER}.lora_up.weight": up}
    sd15.save(lora, folder / "loras" / "mine.safetensors")
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    lora = {
        f"{text}.lora_down.weight": torch.ones(1, sd15.TEXT),
        f"{text}.lora_up.weight": torch.ones(4 * sd15.TEXT, 1),
    }
    sd15.save(lora, folder / "loras" / "words.safetensors")
    return folder


@pytest.fixture(scope="module")
def spec(models: Path) -> ModelSpec:
    return ModelSpec(
        "single", depth="structure", steps=STEPS, models=models, width=SIZE, height=SIZE
    )


@pytest.fixture(scope="module")
def model(spec: ModelSpec) -> TranslationModel:
    return load_model(spec)


def stream(model: TranslationModel, prompt: str = "a cat") -> list[live2diff_core.Session]:
    config = StreamConfig(SIZE, SIZE, model.defaults.steps)
    with Session(model, config, prompt) as session:
        return list(translate(session, make_frames(11, SIZE, SIZE)))


def test_the_package_offers_what_its_readme_uses():
    assert live2diff_core.load_model is load_model
    for name in live2diff_core.__all__:
        assert getattr(live2diff_core, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        live2diff_core.nothing  # noqa: B018


def test_a_single_file_runs_a_stream(model):
    frames = stream(model)
    assert [frame.index for frame in frames] == list(range(11))
    assert all(frame.rgb.isfinite().all() for frame in frames)
    assert model.name == "single"


@pytest.mark.parametrize("base", ["pickle", "folder"])
def test_every_container_gives_the_same_stream(spec, model, base):
    assert same(stream(load_model(replace(spec, base=base))), stream(model))


def test_prompt_and_precision_matter(spec, model):
    frames = stream(model)
    assert distance(stream(model, "a dog in the rain"), frames) > 1e-4
    half = load_model(spec, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert 0 < distance(stream(half), frames) < 0.5


def test_a_lora_is_merged_at_its_strengths_and_leaves_the_model_without_it(spec, model):
    changed = load_model(replace(spec, loras=(LoraSpec("mine", 0.5),)))
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    lora = live2diff_core.weights.files.read_safetensors(spec.models / "loras/mine.safetensors")
    up, down = (lora[f"lora_unet_{LAYER}.lora_{side}.weight"] for side in ("up", "down"))
    expected = model.unet.spatial.state_dict()[key] + 0.5 * up @ down
    torch.testing.assert_close(changed.unet.spatial.state_dict()[key], expected)
    assert same(stream(changed.with_adapters([])), stream(model))


def test_a_lora_of_the_text_encoder_changes_the_words_alone(spec, model):
    changed = load_model(replace(spec, loras=(LoraSpec("words", 1.0, 0.5),)))
    assert changed.unet.spatial is changed.with_adapters([]).unet.spatial
    assert not torch.equal(changed.text.encode("a cat"), model.text.encode("a cat"))
    silent = load_model(replace(spec, loras=(LoraSpec("words", 1.0, 0.0),)))
    assert torch.equal(silent.text.encode("a cat"), model.text.encode("a cat"))


@pytest.mark.parametrize("part", [{"depth": "structure"}, {"clip_skip": 2}, {"embeddings": ("e",)}])
def test_the_bundled_model_takes_no_other_parts_than_loras(part):
    with pytest.raises(ConfigError, match=f"takes no {next(iter(part))}"):
        load_model(ModelSpec(**part))


def test_models_run_in_floating_point_alone(spec):
    with pytest.raises(ConfigError, match=r"not in torch\.int8"):
        load_model(spec, dtype=torch.int8)


def test_a_file_may_change_under_a_model_that_was_loaded_from_it(spec, model, tmp_path):
    path = tmp_path / "own.ckpt"
    path.write_bytes((spec.models / "checkpoints" / "pickle.ckpt").read_bytes())
    own = load_model(replace(spec, base=str(path)))
    with path.open("r+b") as file:
        file.truncate(100)
    assert same(stream(own), stream(model))


def test_two_embeddings_of_one_name_are_refused(spec, tmp_path):
    paths = [tmp_path / name / "learned_embeds.safetensors" for name in ("a", "b")]
    for path in paths:
        sd15.save({"<cat>": torch.ones(sd15.TEXT)}, path)
    with pytest.raises(ConfigError, match="two embeddings are called learned_embeds"):
        load_model(replace(spec, embeddings=tuple(map(str, paths))))


def test_an_embedding_is_a_word_of_the_prompt(spec, model, tmp_path):
    path = sd15.save({"<cat>": 3 * torch.ones(2, sd15.TEXT)}, tmp_path / "mycat.safetensors")
    with_cat = load_model(replace(spec, embeddings=(str(path),)))
    for prompt in ("a mycat", "a embedding:mycat"):
        assert not torch.equal(with_cat.text.encode(prompt), model.text.encode("a mycat"))
    assert torch.equal(with_cat.text.encode("a dog"), model.text.encode("a dog"))


# ---- what is missing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "nowhere"}, r"the base nowhere .*checkpoints"),
        ({"motion": "nowhere"}, r"the motion nowhere .*live2diff"),
        ({"autoencoder": "nowhere"}, r"the autoencoder nowhere .*vae"),
        ({"depth": "nowhere"}, r"the depth nowhere .*depth"),
        ({"loras": (LoraSpec("nowhere"),)}, r"the lora nowhere .*loras"),
        ({"embeddings": ("nowhere",)}, r"the embedding nowhere .*embeddings"),
        ({"autoencoder": "base"}, r"single\.safetensors brings no autoencoder"),
        ({"base": "unet"}, r"unet\.safetensors brings no text encoder"),
    ],
)
def test_a_missing_part_is_named_with_where_it_belongs(spec, change, message):
    with pytest.raises(WeightsMissingError, match=message):
        load_model(replace(spec, **change))


OTHER_BASES = {
    name: shapes
    for name, (kind, shapes) in MODELS.items()
    if kind not in (Kind.SD15, Kind.SD15_UNET)
}
OTHER_LORAS = {
    name: shapes
    for name, (kind, shapes) in LORAS.items()
    if kind not in (Kind.LORA_SD15, Kind.LORA)
}


@pytest.mark.parametrize("name", OTHER_BASES)
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_every_other_file_is_refused_as_a_base_with_what_it_is(spec, tmp_path, name, suffix):
    write = write_safetensors if suffix == "safetensors" else write_pickle
    path = write(tmp_path / f"x.{suffix}", OTHER_BASES[name])
    with pytest.raises(WeightsKindError, match=r"expected a Stable Diffusion 1\.5 checkpoint") as e:
        load_model(replace(spec, base=str(path)))
    assert str(e.value).startswith(f"{path} is a")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", OTHER_LORAS)
def test_every_other_lora_is_refused(spec, model, tmp_path, name):
    path = write_safetensors(tmp_path / "x.safetensors", OTHER_LORAS[name])
    with pytest.raises(WeightsKindError, match=r"x\.safetensors"):
        load_adapter(spec, LoraSpec(str(path)), model)


def test_a_lora_of_another_base_leaves_nothing_changed(spec, models, model):
    sdxl = "lora_te2_text_model_encoder_layers_0_mlp_fc1"
    wrong = {
        f"{sdxl}.lora_down.weight": torch.ones(1, 1280),
        f"{sdxl}.lora_up.weight": torch.ones(5120, 1),
    }
    sd15.save(wrong, models / "loras" / "xl.safetensors")
    with pytest.raises(WeightsError, match="XL"):
        load_model(replace(spec, loras=(LoraSpec("xl"),)))
