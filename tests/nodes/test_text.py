"""ComfyUI's CLIP as the reader of a stream's prompts."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from live2diff_core.config import Guidance
from live2diff_core.errors import ConfigError, PromptError
from live2diff_core.stream.session import Session
from tests.pack import pack_module
from tests.tiny import make_frames, same, stream_config, tiny_model, translated

HostTextEncoder = pack_module("nodes.text").HostTextEncoder
CHUNK, WIDTH = 3, 16  # tokens of a chunk, and channels


class Clip:
    """A CLIP whose prompts have a chunk for each word, filled with the word's length."""

    def __init__(self, settings: dict[str, Any] | None = None, entries: int = 1) -> None:
        self.settings, self.entries = settings or {}, entries
        self.read: list[str] = []

    def tokenize(self, text: str) -> list[str]:
        return text.split() or [""]

    def encode_from_tokens_scheduled(self, tokens: list[str]) -> list[list[Any]]:
        self.read.append(" ".join(tokens))
        chunks = [torch.full((1, CHUNK, WIDTH), float(len(word))) for word in tokens]
        return [[torch.cat(chunks, 1), dict(self.settings)] for _ in range(self.entries)]


class Settled:
    """Counts how often the networks were brought back."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


def reader(clip: Any, channels: int = WIDTH, settle: Any = None) -> Any:
    return HostTextEncoder(clip, channels, settle or Settled())


def chunks(embedding: Tensor) -> list[float]:
    """What each chunk of one prompt is filled with."""
    return embedding[::CHUNK, 0].tolist()


def test_a_prompt_is_read_as_the_clip_reads_it() -> None:
    clip = pack_module("nodes.bundled_model").BundledClip(tiny_model().text)
    ours, theirs = reader(clip), tiny_model().text
    for words in ("ink", "a neon city", ""):
        assert torch.equal(ours.encode(words), theirs.encode(words))
    assert torch.equal(ours.encode_batch(["ink", "neon"]), theirs.encode_batch(["ink", "neon"]))


def test_prompts_of_different_lengths_are_made_as_long_as_the_longest() -> None:
    both = reader(Clip()).encode_batch(["a quick fox", "ink"])
    assert both.shape == (2, 3 * CHUNK, WIDTH)
    assert [chunks(each) for each in both] == [[1, 5, 3], [3, 0, 0]]


def test_two_embeddings_are_aligned_by_the_same_empty_prompt() -> None:
    encoder = reader(Clip())
    first, second = encoder.align(encoder.encode("a fox"), encoder.encode("ink"))
    assert (chunks(first[0]), chunks(second[0])) == ([1, 3], [3, 0])


def test_equal_lengths_need_no_empty_prompt() -> None:
    clip = Clip()
    reader(clip).encode_batch(["ink", "neon"])
    assert clip.read == ["ink", "neon"]


def test_lengths_that_are_no_whole_chunks_are_refused() -> None:
    class Uneven(Clip):
        def encode_from_tokens_scheduled(self, tokens: list[str]) -> list[list[Any]]:
            ((embedding, settings),) = super().encode_from_tokens_scheduled(tokens)
            return [[embedding[:, : 4 if len(tokens) > 1 else CHUNK], settings]]

    with pytest.raises(ConfigError, match="cannot be aligned"):
        reader(Uneven()).encode_batch(["a fox", "ink"])


def test_networks_are_brought_back_after_every_use() -> None:
    settle = Settled()
    encoder = reader(Clip(), settle=settle)
    encoder.encode("ink")
    assert settle.count == 1
    encoder.encode_batch(["ink", "a fox"])
    assert settle.count == 4  # with the empty prompt


@pytest.mark.parametrize("broken", ["tokenize", "encode_from_tokens_scheduled"])
def test_networks_are_brought_back_even_where_the_clip_fails(monkeypatch, broken: str) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no memory")

    clip, settle = Clip(), Settled()
    monkeypatch.setattr(clip, broken, fail)
    with pytest.raises(RuntimeError, match="no memory"):
        reader(clip, settle=settle).encode("ink")
    assert settle.count == 1


@pytest.mark.parametrize(
    ("clip", "channels", "why"),
    [
        (Clip({"area": (8, 8, 0, 0)}), WIDTH, "an area"),
        (Clip({"mask": torch.ones(8, 8)}), WIDTH, "a mask"),
        (Clip({"start_percent": 0.0, "end_percent": 0.5}), WIDTH, "a range of timesteps"),
        (Clip({"hooks": object()}), WIDTH, "hooks"),
        (Clip(entries=2), WIDTH, "has 2 entries"),
        (Clip(entries=0), WIDTH, "has 0 entries"),
        (Clip(), 768, r"the model takes \(1, tokens, 768\).*CLIP that belongs to the model"),
    ],
)
def test_what_a_stream_cannot_follow_is_refused(clip: Clip, channels: int, why: str) -> None:
    with pytest.raises(PromptError, match=why):
        reader(clip, channels).encode("ink")


def test_it_serves_a_session_as_the_models_own_reader_does() -> None:
    clip = pack_module("nodes.bundled_model").BundledClip(tiny_model().text)
    config = stream_config(guidance=Guidance("full", 2.0, "neon lights"))
    with Session(replace(tiny_model(), text_encoder=reader(clip)), config, "ink") as session:
        assert same(session.warmup(make_frames(8)), translated(make_frames(8), config))


def test_a_variant_with_other_weights_reads_alike() -> None:
    clip = Clip()
    encoder = reader(clip)
    twin = encoder.with_model(torch.nn.Identity())
    assert torch.equal(twin.encode("a fox"), encoder.encode("a fox"))
    assert not list(encoder.parameters())  # they are ComfyUI's matter
