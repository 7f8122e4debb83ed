"""A CONDITIONING that a stream cannot follow is refused by name."""

import pytest
import torch

from live2diff_core.errors import PromptError
from live2diff_core.stream.timeline import EncodedTimeline, parse_timeline
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


def timeline(text="0: a; 8: b", **changes):
    """A CONDITIONING of Prompt Travel."""
    embeddings = {"a": EMBEDDING, "b": 2 * EMBEDDING, **changes}
    return EncodedTimeline(parse_timeline(text), embeddings)


def travelling(encoded):
    return [[encoded.at(0, 0.0), {"live2diff_timeline": encoded}]]


def test_a_timeline_that_was_changed_afterwards_is_refused() -> None:
    encoded = timeline()
    assert read_prompt(travelling(encoded), 16).timeline is encoded
    with pytest.raises(PromptError, match="changed after Prompt Travel"):
        read_prompt([[0.5 * EMBEDDING, {"live2diff_timeline": encoded}]], 16)


def test_prompts_are_compared_by_what_they_say() -> None:
    plain = [[EMBEDDING, {}]], [[EMBEDDING.clone().double(), {}]], [[2 * EMBEDDING, {}]]
    one, again, other = (read_prompt(conditioning, 16) for conditioning in plain)
    assert one.is_same(again)
    assert not one.is_same(other)
    travels = [timeline(), timeline(), timeline("0: a; 9: b"), timeline(b=3 * EMBEDDING)]
    first, same, *different = (read_prompt(travelling(encoded), 16) for encoded in travels)
    assert first.is_same(same)
    assert not any(first.is_same(prompt) for prompt in [*different, one])
    assert torch.allclose(first.at(4), first.timeline.at(4, 0.0))
