"""Settings of a training run: the example is sound, and what is wrong is named with its place."""

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import get_type_hints

import pytest

from live2diff_core.errors import ConfigError
from live2diff_core.training.config import (
    DataPart,
    ModelPart,
    NoisePart,
    OptimisationPart,
    TrainConfig,
    ValidationPart,
    read_config,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_motion.toml"

SMALLEST = """
directory = "runs/x"
[model]
base = "bundled"
[data]
source = "procedural"
prompt = ""
width = 64
height = 32
[optimisation]
steps = 7
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_smallest_file_leaves_the_rest_at_its_defaults(tmp_path):
    config = read_config(written(tmp_path, SMALLEST))
    assert config == TrainConfig(
        ModelPart("bundled"),
        DataPart("procedural", 64, 32, prompt=""),
        OptimisationPart(7),
        Path("runs/x"),
    )
    assert config.validation is None


def test_the_example_is_read_as_it_stands():
    config = read_config(EXAMPLE)
    assert (config.model.base, config.data.source) == ("bundled", "procedural")


def test_every_setting_that_the_example_shows_exists_and_every_one_is_shown():
    parts = get_type_hints(TrainConfig) | {"validation": ValidationPart}
    names: dict[str, set[str]] = {"": set()}
    section = ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"(?:# )?\[(\w+)\]", line):
            section = found[1]
            names[section] = set()
        elif found := re.match(r"(?:# )?(\w+) = ", line):
            names[section].add(found[1])
    tables = {name for name, kind in parts.items() if is_dataclass(kind)}
    assert names.pop("") == parts.keys() - tables
    assert names == {name: {f.name for f in fields(parts[name])} for name in tables}


def test_the_validation_that_the_example_shows_is_taken(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.touch()
    head, mark, rest = EXAMPLE.read_text(encoding="utf-8").partition("# [validation]")
    lines = [line.removeprefix("# ") for line in (mark + rest).splitlines()]
    text = "\n".join([head, *lines]).replace("some/clip.mp4", str(clip))
    shown = read_config(written(tmp_path, text)).validation
    assert shown is not None
    assert (shown.clips, shown.prompt) == ((clip,), "neon")


def test_every_kind_of_value_arrives_as_its_own(tmp_path):
    more = "accumulation = 3\nlearning_rate = 1\nrecompute = true\n[noise]\ntimesteps = [20, 700]"
    config = read_config(written(tmp_path, SMALLEST + more))
    assert config.optimisation == OptimisationPart(7, 1.0, accumulation=3, recompute=True)
    assert isinstance(config.optimisation.learning_rate, float)
    assert config.noise == NoisePart(timesteps=(20, 700))


WRONG = [
    ("seed = 1", "sead = 1", "unknown entries sead; there are "),
    ("steps = 7", "steps = 7\nlr = 1", r"unknown entries optimisation\.lr; there are .*learning_"),
    ("steps = 7", "", r"optimisation\.steps must be given"),
    ('base = "bundled"', "", r"model\.base must be given"),
    ("[optimisation]\nsteps = 7", "", "optimisation must be given"),
    ("steps = 7", "steps = 7.5", r"optimisation\.steps is a whole number, got 7\.5"),
    ("steps = 7", "steps = true", r"optimisation\.steps is a whole number, got True"),
    ("steps = 7", "steps = 0", r"optimisation\.steps must be at least 1, got 0"),
    ("steps = 7", 'steps = 7\nprecision = "half"', "precision is 'no' or 'bf16' or 'fp16', got"),
    ("steps = 7", 'steps = 7\nlearning_rate = "1e-4"', "learning_rate is a number, got '1e-4'"),
    ("steps = 7", "steps = 7\nrecompute = 1", "recompute is true or false, got 1"),
    ("steps = 7", "steps = 7\nclip = 0", r"optimisation\.clip must be above 0"),
    ("steps = 7", "steps = 7\n[noise]\ntimesteps = [1]", r"noise\.timesteps is a list of 2"),
    ("steps = 7", "steps = 7\n[noise]\ntimesteps = [9, 3]", "two numbers that rise"),
    ("steps = 7", 'steps = 7\n[noise]\ntimesteps = ["a", 3]', r"timesteps\[0\] is a whole number"),
    ("steps = 7", "steps = 7\n[noise]\nfixed_share = 2", "fixed_share: 0 to 1"),
    ('prompt = ""', "", r"procedural clips have no captions: give data\.prompt"),
    ("width = 64", "width = 64\nframes = 16", r"data\.frames must be above 16 .*got 16"),
    ("width = 64", "width = 64\nstride = 0", r"data\.stride must be at least 1"),
    ('base = "bundled"', 'base = "bundled"\nvae = "sd"', "base bundled takes no vae"),
    ('base = "bundled"', 'base = "random"\nclip_skip = 2', "base random takes no clip_skip"),
    ("[data]", "[data", "cannot be read as TOML"),
    ('[model]\nbase = "bundled"', 'model = "bundled"', "model is a table, got 'bundled'"),
    ('directory = "runs/x"', "directory = 3", "directory is a path, got 3"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG, ids=[new for _, new, _ in WRONG])
def test_what_is_wrong_is_named_with_its_place(tmp_path, old, new, message):
    text = "seed = 1" + SMALLEST
    assert old in text
    path = written(tmp_path, text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as raised:
        read_config(path)
    assert str(raised.value).startswith(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read as TOML"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": ()}, "names no video"),
        ({"clips": (Path("none.mp4"),)}, r"there is no file none\.mp4"),
        ({"every": 0}, r"validation\.every must be at least 1"),
        ({"strength": 0.0}, "strength must be above 0"),
        ({"steps": 9}, "steps must be 1 to 8"),
        ({"loras": ("felt:0.7.1",)}, "a LoRA is NAME"),
    ],
)
def test_a_validation_that_could_not_run_is_refused_before_training(tmp_path, change, message):
    clip = tmp_path / "a.mp4"
    clip.touch()
    sound = ValidationPart((clip,), "neon", 5)
    with pytest.raises(ConfigError, match=message):
        replace(sound, **change)


def test_two_validation_clips_of_one_name_would_overwrite_each_other(tmp_path):
    clips = (tmp_path / "a.mp4", tmp_path / "b" / "a.mp4")
    clips[1].parent.mkdir()
    for clip in clips:
        clip.touch()
    with pytest.raises(ConfigError, match="share a name"):
        ValidationPart(clips, "neon", 5)
