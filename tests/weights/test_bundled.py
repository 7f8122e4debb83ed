"""A bundled model is written and read back whole, or refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from live2diff_core.config import AttentionWindow, StepSelection
from live2diff_core.errors import WeightsError, WeightsFormatError, WeightsKeyError
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.bundled import CONFIG, TOKENIZER, WEIGHTS, load_bundled, save_bundled
from tests.tiny import STYLES, make_frames, make_parts, same, stream_config, tiny_config


@pytest.fixture
def saved(tmp_path):
    """A directory with a tiny bundled model."""
    config = tiny_config()
    save_bundled(tmp_path / "model", make_parts(config), config)
    return tmp_path / "model"


def run(model: TranslationModel, prompt: str = "ink"):
    settings = stream_config(2, window=AttentionWindow(2, 2))
    return list(translate(Session(model, settings, prompt), make_frames(6)))


def weights_of(model: TranslationModel) -> dict[str, torch.Tensor]:
    modules = {"unet": model.unet, "text": model.text.model, "autoencoder": model.autoencoder}
    return {
        f"{name}.{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }


def test_what_is_loaded_is_what_was_saved_rounded_to_half(saved):
    parts = make_parts(tiny_config())
    loaded = weights_of(load_bundled(saved))
    assert loaded.keys() == parts.modules().state_dict().keys()
    for key, tensor in parts.modules().state_dict().items():
        assert torch.equal(loaded[key], tensor.half().float()), key


def test_the_file_is_in_half_precision(saved):
    stored = load_file(saved / WEIGHTS)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    values = sum(tensor.numel() for tensor in stored.values())
    assert (saved / WEIGHTS).stat().st_size < 2 * values + 200 * len(stored)


def test_saving_what_was_loaded_gives_the_same_files(saved, tmp_path):
    config = json.loads((saved / CONFIG).read_text())
    parts = make_parts(config)
    parts.modules().load_state_dict(weights_of(load_bundled(saved)))
    save_bundled(tmp_path / "again", parts, config)
    for name in (WEIGHTS, CONFIG, TOKENIZER):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_two_loads_translate_alike_and_prompts_differ(saved):
    first, second = load_bundled(saved), load_bundled(saved)
    assert same(run(first), run(second))
    assert not same(run(first), run(second, "neon"))


def test_nothing_but_the_files_decides(saved):
    torch.manual_seed(1)
    first = weights_of(load_bundled(saved))
    torch.manual_seed(2)
    second = weights_of(load_bundled(saved))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_settings_come_from_the_configuration(saved):
    model = load_bundled(saved)
    assert model.name == "tiny"
    assert model.schedule.prediction == "sample"
    assert model.text.styles == {name: tuple(phrases) for name, phrases in STYLES.items()}
    assert model.defaults.steps == StepSelection(strength=0.8, steps=2)
    assert model.depth.surround == 0.2
    model.check_size(model.defaults.width, model.defaults.height)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_model_computes_in_the_dtype_that_was_asked_for(saved, dtype):
    model = load_bundled(saved, dtype=dtype)
    assert model.dtype == dtype
    assert {tensor.dtype for tensor in weights_of(model).values()} == {dtype}


def test_the_model_is_ready_to_run_and_not_to_train(saved):
    model = load_bundled(saved)
    modules = (model.unet, model.text.model, model.autoencoder)
    assert not any(module.training for module in modules)
    assert not any(p.requires_grad for module in modules for p in module.parameters())


# ---- refused


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, TOKENIZER])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(WeightsFormatError, match=name):
        load_bundled(saved)


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(WeightsFormatError, match="holds no bundled model"):
        load_bundled(tmp_path)


@pytest.mark.parametrize("content", ["version https://git-lfs.github.com/spec/v1", ""])
@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_text_in_place_of_a_file_is_refused(saved, name, content):
    (saved / name).write_text(content)
    with pytest.raises(WeightsFormatError):
        load_bundled(saved)


@pytest.mark.parametrize("kept", [4, 100, -1])
def test_a_truncated_weights_file_is_refused(saved, kept):
    path = saved / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsFormatError, match=WEIGHTS):
        load_bundled(saved)


def drop(state):
    state.pop("autoencoder.scale")


def add(state):
    state["unet.extra"] = torch.zeros(1)


def reshape(state):
    state["autoencoder.scale"] = torch.ones(3)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(drop, "1 missing .autoencoder.scale"), (add, "1 unexpected"), (reshape, "got .3,")],
)
def test_weights_of_another_model_are_refused(saved, spoil, reason):
    state = load_file(saved / WEIGHTS)
    spoil(state)
    save_file(state, saved / WEIGHTS)
    with pytest.raises(WeightsKeyError, match=reason):
        load_bundled(saved)


def test_a_configuration_of_another_model_is_refused(saved):
    config = json.loads((saved / CONFIG).read_text())
    config["unet"]["block_out_channels"] = [32, 64]
    (saved / CONFIG).write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="of another shape"):
        load_bundled(saved)
