"""The published styles as data, and errors in a style's file."""

import pytest

from live2diff_core.config import NoiseScheduleConfig, StepSelection
from live2diff_core.errors import ConfigError
from live2diff_core.schedule import make_schedule
from live2diff_core.weights.spec import LoraSpec, ModelSpec
from live2diff_core.weights.styles import find_style, load_styles, missing, read_style

FELTED = (25, 34, 43)
MINIMAL = """
title = "Test"
base = "base.safetensors"
prompt = "a {} of test"
[steps]
t_index = [1, 2]
"""


def test_the_seven_published_styles_are_there():
    published = {"arknight", "disney-pixar", "felted", "moxin", "origami", "pixart", "toonyou"}
    assert load_styles().keys() == published


@pytest.mark.parametrize("name", sorted(load_styles()))
def test_every_style_can_be_run(name):
    style = load_styles()[name]
    schedule = make_schedule(NoiseScheduleConfig(), style.steps, "cpu")
    assert schedule.steps == len(style.steps.indices)
    assert style.prompt("a dancer").count("a dancer") == 1
    files = {style.base, *(lora.file for lora in style.loras)}
    assert files == style.sources.keys()


def test_a_style_has_the_numbers_of_its_publication():
    style = find_style("felted")
    assert style.base == "revAnimated_v2RebirthVAE.safetensors"
    assert style.steps == StepSelection(FELTED)
    assert style.loras == (LoraSpec("kFeltedReV.safetensors", 1.0, 1.0),)
    assert style.prompt("a cat") == "masterpiece, best quality, felted, a cat,"
    assert find_style("moxin").loras[0].unet == 0.7


def test_a_style_brings_its_parts_and_keeps_what_was_asked_for_beside():
    spec = find_style("felted").spec(ModelSpec(loras=(LoraSpec("mine"),), width=256))
    names = [lora.file for lora in spec.loras]
    assert names == ["lcm-lora-sdv1-5", "kFeltedReV.safetensors", "mine"]
    assert (spec.base, spec.clip_skip, spec.width) == (find_style("felted").base, 3, 256)


def test_an_unknown_style_lists_those_there_are():
    with pytest.raises(ConfigError, match="no such style: felt; there are arknight, "):
        find_style("felt")


def test_a_style_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    style = find_style(str(path))
    assert (style.name, style.clip_skip, style.loras) == ("mine", 1, ())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title", "titel", "unknown entries: titel"),
        ("{} of", "of", "no {} for the words"),
        ("t_index", "t_indices", "t_indices"),
        ("[1, 2]", "[2, 1]", "must ascend"),
        ("[1, 2]", "3", "'int'"),
        ("[steps]", "", "unknown entries: t_index"),
        ('"base', "base", "cannot be read as a style"),
    ],
)
def test_a_mistake_in_a_style_is_named(tmp_path, old, new, message):
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_style(path)


def test_a_missing_style_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.toml cannot be read"):
        find_style(str(tmp_path / "no.toml"))


def test_missing_files_are_listed_with_where_to_get_them(tmp_path):
    style = find_style("felted")
    absent = missing(style, style.spec(ModelSpec(models=tmp_path)))
    parts = ["base", "motion", "autoencoder", "depth", "lora", "lora"]
    assert [one.part for one in absent] == parts
    assert all(one.source and one.source.startswith("https://") for one in absent)
    folders = ["checkpoints", "live2diff", "vae_approx", "depth", "loras", "loras"]
    assert [one.folder for one in absent] == [tmp_path / folder for folder in folders]


def test_what_is_there_is_not_missing(tmp_path):
    style = find_style("felted")
    for file in ("checkpoints/" + style.base, "live2diff.ckpt", "vae_approx/taesd_encoder.pth"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    assert [one.part for one in missing(style, style.spec(ModelSpec(models=tmp_path)))] == [
        "depth",
        "lora",
        "lora",
    ]
