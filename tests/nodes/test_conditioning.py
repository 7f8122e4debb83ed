"""A CONDITIONING that a stream cannot follow is refused by name."""

import pytest
import torch

from live2diff_core.errors import PromptError
from tests.pack import pack_module

read_prompt = pack_module("nodes.conditioning").read_prompt
EMBEDDING = torch.ones(1, 77, 16)


def test_the_embedding_is_taken_as_it_is() -> None:
    found = read_prompt([[EMBEDDING, {"pooled_output": None, "mask": None}]], 16)
    assert found.embedding is EMBEDDING
    assert found.timeline is None


@pytest.mark.parametrize(
    ("conditioning", "words"),
    [
        ([], "has 0 entries"),
        ([[EMBEDDING, {}], [EMBEDDING, {}]], "has 2 entries"),
        ([[EMBEDDING, {"area": (8, 8, 0, 0)}]], "has an area"),
        ([[EMBEDDING, {"mask": EMBEDDING}]], "has a mask"),
        ([[EMBEDDING, {"control": object()}]], "has a ControlNet"),
        ([[EMBEDDING, {"start_percent": 0.0, "end_percent": 0.5}]], "has a range of timesteps"),
        ([[torch.ones(1, 77, 32), {}]], r"\(1, 77, 32\), the model takes \(1, tokens, 16\)"),
        ([[torch.ones(2, 77, 16), {}]], r"is \(2, 77, 16\)"),
    ],
)
def test_what_a_stream_cannot_follow_is_named(conditioning, words) -> None:
    with pytest.raises(PromptError, match=words):
        read_prompt(conditioning, 16)
