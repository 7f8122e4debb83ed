"""live2diff plan: what is needed, what is free, what would fit."""

import argparse
import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from live2diff_core.cli import plan
from live2diff_core.errors import ConfigError, FrameSizeError, WeightsMissingError
from live2diff_core.weights import plan as memory
from live2diff_core.weights.budget import StreamSize, estimate, model_footprint, sd15_footprint
from live2diff_core.weights.bundled import load_bundled


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    plan.add_command(parser.add_subparsers())
    options = parser.parse_args(["plan", "--device", "cpu", *arguments])
    return int(options.run(options))


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    status = run("--json", *arguments)
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert status == (0 if facts["fits"] else 1)
    return facts


@pytest.fixture
def give(monkeypatch):
    """Set the free memory."""
    return lambda free: monkeypatch.setattr(memory, "free_memory", lambda _: int(free))


@pytest.mark.parametrize("vae", ["taesd", "sd"])
def test_the_figures_are_those_of_the_budget(capsys, give, vae):
    give(100e9)
    facts = planned(capsys, "--size", "512x768", "--steps", "2", "--dtype", "float16", "--vae", vae)
    expected = estimate(sd15_footprint(torch.float16, vae), StreamSize(512, 768, 2))
    assert facts["bytes"] == {
        "weights": expected.weights,
        "adapters": 0,
        "cache": expected.cache,
        "activations": expected.activations,
        "runtime": 0,
        "total": expected.total,
    }
    assert (facts["size"], facts["steps"], facts["dtype"]) == ("512x768", 2, "float16")
    assert facts["prompt_change_bytes"] == expected.cache


def test_without_options_it_is_what_a_model_is_loaded_with(capsys, give):
    give(100e9)
    facts = planned(capsys)
    shown = ("size", "steps", "branches", "dtype", "device")
    assert [facts[name] for name in shown] == ["512x512", 3, 1, "float32", "cpu"]


def test_full_guidance_doubles_the_rows(capsys, give):
    give(100e9)
    one, both = planned(capsys), planned(capsys, "--guidance", "full")
    assert both["bytes"]["activations"] == 2 * one["bytes"]["activations"]
    assert both["bytes"]["cache"] > 1.9 * one["bytes"]["cache"]
    assert planned(capsys, "--guidance", "self")["bytes"] == one["bytes"]


def test_a_lora_adds_the_weights_that_it_changes(capsys, give, tmp_path):
    give(100e9)
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    state = {f"{layer}.lora_down.weight": torch.zeros(4, 1280)}
    save_file(state | {f"{layer}.lora_up.weight": torch.zeros(1280, 4)}, tmp_path / "a.safetensors")
    facts = planned(capsys, "--lora", str(tmp_path / "a.safetensors"))
    assert facts["bytes"]["adapters"] == 4 * 1280 * 1280


def test_the_bundled_model_is_planned_as_it_is(capsys):
    facts = planned(capsys, "--model", "bundled")
    model = load_bundled()
    stream = StreamSize(model.defaults.width, model.defaults.height, 2)
    assert facts["size"] == f"{stream.width}x{stream.height}"
    assert facts["bytes"]["total"] == estimate(model_footprint(model), stream).total
    assert facts["fits"]


def test_a_compiled_step_of_the_bundled_model_packs_its_network(capsys):
    plain = planned(capsys, "--model", "bundled")["bytes"]
    packed = planned(capsys, "--model", "bundled", "--runtime", "compile")["bytes"]
    network = sum(parameter.nbytes for parameter in load_bundled().unet.parameters())
    assert packed == plain | {"runtime": network, "total": plain["total"] + network}


def test_a_runtime_that_the_device_lacks_is_refused():
    with pytest.raises(ConfigError, match="replays CUDA graphs and the model is on cpu"):
        run("--runtime", "graph")


def test_what_does_not_fit_says_what_would(capsys, give):
    give(8e9)
    facts = planned(capsys, "--steps", "4", "--dtype", "float16")
    assert not facts["fits"]
    assert (facts["largest_size"], facts["largest_steps"]) == ("384x384", 2)
    give(1e9)
    facts = planned(capsys)
    assert (facts["largest_size"], facts["largest_steps"]) == (None, None)


def test_a_change_of_the_prompt_may_need_more_than_is_free(capsys, give):
    give(9e9)
    facts = planned(capsys, "--dtype", "float16")
    assert facts["fits"]
    assert not facts["prompt_change_fits"]


@pytest.mark.parametrize(
    ("free", "status", "lines"),
    [
        (30e9, 0, ["fits", "most steps at 512x512: 8"]),
        (8e9, 1, ["does not fit", "largest size in this shape with 4 steps: 384x384"]),
        (1e9, 1, ["does not fit", "most steps at 512x512: none"]),
    ],
)
def test_the_table_names_every_part(capsys, give, free, status, lines):
    give(free)
    assert run("--steps", "4", "--dtype", "float16") == status
    shown = capsys.readouterr().out
    parts = {"weights": 3.05, "cache": 6.11, "activations": 0.59, "together": 9.75}
    for label, count in {**parts, "free": free / 1e9}.items():
        row = next(line for line in shown.splitlines() if f"│ {label} " in line)
        assert f"{count:.2f} GB" in row
    assert set(lines) <= set(shown.splitlines())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--size", "500x512"], FrameSizeError),
        (["--steps", "9"], ConfigError),
        (["--steps", "0"], ConfigError),
        (["--lora", "nowhere"], WeightsMissingError),
        (["--model", "bundled", "--vae", "sd"], ConfigError),
        (["--model", "bundled", "--lora", "a"], ConfigError),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments, error):
    with pytest.raises(error):
        run(*arguments)
