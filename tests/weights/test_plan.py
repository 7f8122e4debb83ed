"""A plan as figures and in words."""

import pytest
import torch

from live2diff_core.errors import FrameSizeError
from live2diff_core.weights import plan
from live2diff_core.weights.budget import StreamSize, estimate, sd15_footprint
from live2diff_core.weights.plan import make_plan, plan_text

CPU, HALF = torch.device("cpu"), torch.float16
STREAM = StreamSize(512, 512, 4)
NEEDED = estimate(sd15_footprint(HALF, "taesd"), STREAM)


def planned(free: float, stream: StreamSize = STREAM) -> dict:
    return make_plan(sd15_footprint(HALF, "taesd"), stream, CPU, int(free))


@pytest.mark.parametrize("short", [0, 1])
def test_what_is_free_decides(short):
    facts = planned(NEEDED.total - short)
    assert facts["fits"] == (not short)
    assert facts["bytes"]["total"] == NEEDED.total
    assert facts["free_bytes"] == NEEDED.total - short
    assert planned(8e9)["largest_size"] == "384x384"


def test_sizes_are_proposed_out_of_those_that_may_be():
    facts = make_plan(sd15_footprint(HALF, "taesd"), STREAM, CPU, int(1e12), range(128, 1025, 128))
    assert facts["largest_size"] == "1024x1024"


def test_the_device_is_asked_where_nobody_knows_better(monkeypatch):
    monkeypatch.setattr(plan, "free_memory", lambda device: 7 if device == CPU else 0)
    assert make_plan(sd15_footprint(HALF, "taesd"), STREAM, CPU)["free_bytes"] == 7


def test_a_prompt_change_needs_the_cache_once_more():
    most = NEEDED.total + NEEDED.cache
    assert planned(most)["prompt_change_fits"]
    assert not planned(most - 1)["prompt_change_fits"]


def test_the_report_says_all_in_plain_lines():
    assert plan_text(planned(9.05e9)).splitlines() == [
        "512x512, 4 steps, float16 on cpu",
        "weights: 3.05 GB",
        "weights that LoRAs are merged into: 0.00 GB",
        "cache: 6.11 GB",
        "activations: 0.59 GB",
        "CUDA graphs and packed weights: 0.00 GB",
        "together: 9.75 GB",
        "free: 9.05 GB",
        "does not fit",
        "changing the prompt of a running stream takes its cache once more: does not fit",
        "largest size in this shape with 4 steps: 448x448",
        "most steps at 512x512: 3",
    ]


def test_the_report_says_where_nothing_fits():
    text = plan_text(planned(1e9, StreamSize(512, 512, 1)))
    assert text.endswith("with 1 step: none\nmost steps at 512x512: none")


def test_a_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(FrameSizeError, match="multiples of 64"):
        planned(8e9, StreamSize(500, 512, 2))
