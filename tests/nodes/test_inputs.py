"""Widgets that are wrong are named before a run."""

import inspect
import re

import pytest

from live2diff_core.config import StepSelection
from live2diff_core.errors import ConfigError
from tests.nodes.graph import MAPPINGS, SETTINGS
from tests.pack import pack_module

inputs = pack_module("nodes.inputs")
COMPUTING = pack_module("nodes.hosted").Computing()
NODES = [MAPPINGS["Live2DiffWarmup"], MAPPINGS["Live2DiffTranslateVideo"]]
WIDGETS = {"width": 256, "height": 192, "steps": 2, "denoise": 0.6, "t_index": ""}


@pytest.mark.parametrize("node", NODES)
def test_good_widgets_pass_and_ask_for_the_model(node) -> None:
    for change in ({}, {"t_index": "30, 36,42", "denoise": 0.02}):
        given = {**WIDGETS, **change}
        assert node.VALIDATE_INPUTS(t_index=given["t_index"]) is True
        assert node().check_lazy_status(**given) == ["model", "conditioning"]


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 500}, "width must be a multiple of 64 from 64 to 2048, got 500.*nearest is 512"),
        ({"height": 0}, "height must .* nearest is 64"),
        ({"height": 4096}, "height must .* nearest is 2048"),
        ({"t_index": "30,x"}, "t_index is numbers"),
        ({"steps": 9}, "steps must be 1 to 8"),
        ({"denoise": 0.02, "steps": 4}, "raise the strength or lower the steps"),
        ({"denoise": 1.5}, "at most 1"),
    ],
)
def test_wrong_widgets_are_explained_before_a_model_is_asked_for(node, change, words) -> None:
    with pytest.raises(ConfigError, match=words):
        node().check_lazy_status(**{**WIDGETS, **change})


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize(
    ("t_index", "words"),
    [
        ("30,x", "t_index is numbers"),
        ("42,30", "must ascend"),
        ("30,99", r"must lie in 0\.\.49"),
    ],
)
def test_wrong_steps_are_explained_before_a_run(node, t_index, words) -> None:
    assert re.search(words, node.VALIDATE_INPUTS(t_index=t_index))


@pytest.mark.parametrize("node", NODES)
def test_linked_steps_are_left_to_the_run(node) -> None:
    assert node.VALIDATE_INPUTS(t_index=None) is True


def test_a_check_before_the_run_names_one_input() -> None:
    """ComfyUI shows its answer once for each input that it names."""
    for name, node in MAPPINGS.items():
        if check := getattr(node, "VALIDATE_INPUTS", None):
            assert len(inspect.signature(check).parameters) == 1, name


def test_the_timeline_is_read_before_a_run() -> None:
    travel = MAPPINGS["Live2DiffPromptTravel"]
    assert travel.VALIDATE_INPUTS(timeline="0: ink; 8: neon") is True
    assert "begins with" in travel.VALIDATE_INPUTS(timeline="ink then neon")


def test_t_index_overrides_steps_and_denoise() -> None:
    assert inputs.step_selection({**SETTINGS, "t_index": "30,36"}) == StepSelection((30, 36))
    chosen = StepSelection(strength=0.6, steps=2)
    assert inputs.step_selection({**SETTINGS, "t_index": "  "}) == chosen


def test_a_run_checks_the_size_again() -> None:
    with pytest.raises(ConfigError, match="width"):
        inputs.stream_config({**SETTINGS, "t_index": "", "width": 100}, COMPUTING)


def test_seeds_that_others_draw_are_taken() -> None:
    largest = inputs.stream_config({**SETTINGS, "t_index": "", "seed": 2**64 - 1}, COMPUTING)
    assert largest.seed == 2**63 - 1
