"""A plan as figures and in words; what is loaded already is not needed again."""

import pytest
import torch

from live2diff_core.errors import FrameSizeError
from live2diff_core.weights import plan
from live2diff_core.weights.budget import StreamSize, estimate, sd15_footprint
from live2diff_core.weights.plan import make_plan, plan_text

CPU, HALF = torch.device("cpu"), torch.float16
STREAM = StreamSize(512, 512, 4)
NEEDED = estimate(sd15_footprint(HALF, "taesd"), STREAM)
FITTING = ("fits", "prompt_change_fits", "largest_size", "largest_steps")


def planned(free: float, loaded: int = 0, stream: StreamSize = STREAM) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "free_memory", lambda _: int(free))
        return make_plan(sd15_footprint(HALF, "taesd"), stream, CPU, loaded)


@pytest.mark.parametrize("short", [0, 1])
def test_weights_on_the_device_are_not_needed_again(short):
    free = NEEDED.total - NEEDED.weights - short
    facts = planned(free, NEEDED.weights)
    assert facts["fits"] == (not short)
    assert not planned(free)["fits"]
    assert facts["bytes"]["total"] == NEEDED.total
    assert (facts["loaded_bytes"], facts["free_bytes"]) == (NEEDED.weights, free)


def test_what_would_fit_is_the_same_before_and_after_loading():
    before, after = planned(8e9), planned(8e9 - NEEDED.weights, NEEDED.weights)
    assert [before[name] for name in FITTING] == [after[name] for name in FITTING]
    assert before["largest_size"] == "384x384"


def test_a_prompt_change_needs_the_cache_once_more():
    most = NEEDED.total + NEEDED.cache
    assert planned(most)["prompt_change_fits"]
    assert not planned(most - 1)["prompt_change_fits"]


def test_the_report_says_all_in_plain_lines():
    assert plan_text(planned(6e9, 3_050_000_000)).splitlines() == [
        "512x512, 4 steps, float16 on cpu",
        "weights: 3.05 GB",
        "weights that LoRAs are merged into: 0.00 GB",
        "cache: 6.11 GB",
        "activations: 0.59 GB",
        "together: 9.75 GB",
        "loaded already: 3.05 GB",
        "free: 6.00 GB",
        "does not fit",
        "changing the prompt of a running stream takes its cache once more: does not fit",
        "largest size in this shape with 4 steps: 448x448",
        "most steps at 512x512: 3",
    ]


def test_the_report_of_a_model_that_is_not_loaded_says_nothing_of_loading():
    text = plan_text(planned(1e9, stream=StreamSize(512, 512, 1)))
    assert "loaded" not in text
    assert text.endswith("with 1 step: none\nmost steps at 512x512: none")


def test_a_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(FrameSizeError, match="multiples of 64"):
        planned(8e9, stream=StreamSize(500, 512, 2))
