"""What the shared options mean: sizes, steps, models, devices."""

import argparse
from dataclasses import replace

import pytest
import torch

from live2diff_core.cli.options import (
    add_model_options,
    add_overlap_option,
    add_stream_options,
    load_model,
    model_spec,
    parse_indices,
    parse_size,
    select_steps,
    size_for,
    stream_config,
)
from live2diff_core.config import Guidance, StepSelection
from live2diff_core.errors import ConfigError, WeightsMissingError
from live2diff_core.models.translator import ModelDefaults, TranslationModel
from live2diff_core.weights.spec import LoraSpec, ModelSpec
from live2diff_core.weights.styles import find_style
from tests.tiny import steps_of, tiny_model

DEFAULT = StepSelection(strength=0.6, steps=2)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    add_stream_options(parser)
    add_overlap_option(parser)
    parser.set_defaults(size=None)
    return parser.parse_args(arguments)


def larger_model() -> TranslationModel:
    """The tiny model with the default size of the bundled one, in steps of 8 pixels."""
    return replace(tiny_model(), defaults=ModelDefaults(192, 160, steps_of(2)))


# ---- sizes and numbers


@pytest.mark.parametrize(
    ("text", "size"), [("192x160", (192, 160)), ("24X16", (24, 16)), ("08x8", (8, 8))]
)
def test_a_size_is_width_and_height(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "192", "192x", "x160", "1.5x2", "-8x8", "8x8x8", "8 x 8"]
)
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(argparse.ArgumentTypeError, match="WIDTHxHEIGHT, such as 192x160"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "indices"), [("20,35", (20, 35)), ("7", (7,)), (" 1, 2 ,3", (1, 2, 3))]
)
def test_indices_are_numbers_with_commas(text, indices):
    assert parse_indices(text) == indices


@pytest.mark.parametrize("text", ["", "20,", ",20", "a,b", "-1,3", "1;2", "1.5"])
def test_what_is_no_list_of_indices_is_refused_with_an_example(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such as 20,35"):
        parse_indices(text)


SHAPES = [(1280, 720), (640, 272), (640, 480), (192, 144), (500, 500), (1080, 1920), (30, 20)]


@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_the_default_size_keeps_shape_and_area_and_is_a_multiple(width, height):
    model = larger_model()
    ours = size_for(width, height, model)
    model.check_size(*ours)
    assert ours[0] / ours[1] == pytest.approx(width / height, rel=0.07)
    assert ours[0] * ours[1] == pytest.approx(192 * 160, rel=0.1)


@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_the_default_size_turns_with_the_picture(width, height):
    model = larger_model()
    assert size_for(height, width, model) == size_for(width, height, model)[::-1]


@pytest.mark.parametrize(("width", "height"), [(192, 160), (1920, 1600), (96, 80)])
def test_a_picture_of_the_models_own_shape_gets_its_size(width, height):
    assert size_for(width, height, larger_model()) == (192, 160)


@pytest.mark.parametrize(("width", "height"), [(9000, 1), (1, 9000)])
def test_no_side_vanishes_in_a_very_long_picture(width, height):
    model = larger_model()
    model.check_size(*size_for(width, height, model))


# ---- steps


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ([], DEFAULT),
        (["--strength", "0.4"], StepSelection(strength=0.4, steps=2)),
        (["--steps", "4"], StepSelection(strength=0.6, steps=4)),
        (["--steps", "1", "--strength", "1"], StepSelection(strength=1.0, steps=1)),
        (["--t-index", "20,35"], StepSelection(t_index=(20, 35))),
    ],
)
def test_what_is_not_given_is_the_models_default(arguments, steps):
    assert select_steps(parsed(*arguments), DEFAULT) == steps


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--t-index", "20,35", "--strength", "0.5"], "leave strength and steps out"),
        (["--t-index", "20,35", "--steps", "2"], "leave strength and steps out"),
        (["--t-index", "35,20"], "must ascend"),
        (["--t-index", "20,50"], "0..49"),
        (["--strength", "0"], "strength must be above 0"),
        (["--steps", "9"], "steps must be 1 to 8"),
    ],
)
def test_steps_that_contradict_or_exceed_are_refused(arguments, reason):
    with pytest.raises(ConfigError, match=reason):
        select_steps(parsed(*arguments), DEFAULT)


# ---- streams and models


@pytest.mark.parametrize(("arguments", "noise"), [([], "fresh"), (["--noise", "fixed"], "fixed")])
def test_noise_is_the_models_unless_it_is_given(arguments, noise):
    assert stream_config(parsed(*arguments), tiny_model(), (24, 16)).noise == noise


def test_every_stream_option_arrives():
    arguments = "--seed 7 --guidance full --guidance-scale 2.5 --negative blur --fit stretch"
    config = stream_config(parsed(*arguments.split()), tiny_model(), (32, 16))
    assert (config.width, config.height, config.seed, config.fit) == (32, 16, 7, "stretch")
    assert config.guidance == Guidance("full", 2.5, "blur")


def test_a_base_that_is_not_here_is_refused(tmp_path):
    with pytest.raises(WeightsMissingError, match=r"the base other is not here: put it into"):
        load_model(parsed("--model", "other", "--models", str(tmp_path)))


def test_without_options_the_model_is_the_bundled_one():
    assert model_spec(parsed()).base == "bundled"


def test_every_part_can_be_named(tmp_path):
    spec = model_spec(
        parsed(
            *("--model", "base", "--motion", "m", "--vae", "base", "--depth", "structure"),
            *("--text-encoder", "t", "--lora", "a:0.5", "--lora", "b:1:0", "--embedding", "e"),
            *("--clip-skip", "2", "--models", str(tmp_path), "--download"),
        )
    )
    assert spec == ModelSpec(
        base="base",
        motion="m",
        autoencoder="base",
        depth="structure",
        text_encoder="t",
        loras=(LoraSpec("a", 0.5, 0.5), LoraSpec("b", 1.0, 0.0)),
        embeddings=("e",),
        clip_skip=2,
        models=tmp_path,
        download=True,
    )


def test_a_style_whose_files_are_not_here_lists_them_all_with_their_sources(tmp_path):
    with pytest.raises(WeightsMissingError) as caught:
        load_model(parsed("--style", "felted", "--depth", "structure", "--models", str(tmp_path)))
    text = str(caught.value)
    assert text.startswith("style felted lacks 5 files: base revAnimated_v2RebirthVAE.safetensors")
    assert "depth" not in text
    assert f"(from https://civitai.com/api/download/models/86739) into {tmp_path / 'loras'}" in text


def test_a_style_gives_what_the_options_leave_open():
    spec = model_spec(parsed("--style", "felted", "--clip-skip", "1", "--lora", "mine"))
    style = find_style("felted")
    assert (spec.base, spec.steps, spec.clip_skip) == (style.base, style.steps, 1)
    assert [lora.file for lora in spec.loras][-2:] == ["kFeltedReV.safetensors", "mine"]


def test_steps_of_a_style_stay_unless_others_are_named():
    named = StepSelection((30, 36, 42))
    assert select_steps(parsed(), named) == named
    shorter = StepSelection(strength=0.6, inference_steps=4)
    assert select_steps(parsed("--steps", "1"), shorter).inference_steps == 4
    with pytest.raises(ConfigError, match=r"its timesteps \(30, 36, 42 of 50\): give --strength"):
        select_steps(parsed("--steps", "2"), named)


@pytest.mark.parametrize(
    "device",
    [
        "nonsense",
        "cuda:99",
        "xla",
        "",
        "hpu",
        "meta",
    ],
)
def test_a_device_that_is_not_there_is_refused_by_name(tiny, device):
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
        load_model(parsed("--device", device))


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        ([], torch.float32),
        (["--dtype", "float32"], torch.float32),
        (["--dtype", "bfloat16"], torch.bfloat16),
        (["--dtype", "float16"], torch.float16),
    ],
)
def test_a_cpu_computes_in_float32_unless_told_otherwise(tiny, arguments, dtype):
    model = load_model(parsed("--device", "cpu", *arguments))
    assert (model.name, model.device.type, model.dtype) == ("tiny", "cpu", dtype)
