"""Prompt travel: keys, what lies between them, and embeddings on the way."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from live2diff_core.errors import ConfigError, PromptError
from live2diff_core.frames import Frame
from live2diff_core.models.text import TextEncoder, blend
from live2diff_core.stream.session import Session
from live2diff_core.stream.timeline import (
    EncodedTimeline,
    Mix,
    PromptTimeline,
    Travel,
    encode_timeline,
    parse_timeline,
)
from live2diff_core.stream.translate import translate
from tests.tiny import (
    distance,
    make_frames,
    reference,
    same,
    stream_config,
    tiny_model,
)

STYLES = tiny_model().text
FREE = TextEncoder(STYLES.tokenizer, STYLES.model)
FRAMES = PromptTimeline(((0, "ink"), (48, "neon"), (50, "chalk")))


class Counting(TextEncoder):
    """Remembers what it was asked to encode."""

    def __init__(self):
        super().__init__(STYLES.tokenizer, STYLES.model)
        self.asked = []

    def encode(self, prompt):
        self.asked.append(prompt)
        return super().encode(prompt)


# ---- where a frame is


@pytest.mark.parametrize(
    ("index", "mix"),
    [
        (0, Mix("ink", "ink", 0)),
        (12, Mix("ink", "neon", 0.25)),
        (47, Mix("ink", "neon", 47 / 48)),
        (48, Mix("neon", "neon", 0)),
        (49, Mix("neon", "chalk", 0.5)),
        (50, Mix("chalk", "chalk", 0)),
        (9999, Mix("chalk", "chalk", 0)),
    ],
)
def test_a_frame_lies_between_the_keys_around_it(index, mix):
    assert FRAMES.at(index, timestamp=1e6) == mix


def test_the_first_prompt_holds_before_its_key():
    assert PromptTimeline(((5, "ink"), (6, "neon"))).at(2, 0.0) == Mix("ink", "ink", 0)


def test_seconds_go_by_the_timestamp():
    travel = PromptTimeline(((1, "ink"), (3, "neon")), "seconds")
    assert travel.at(10_000, 1.5) == Mix("ink", "neon", 0.25)
    assert travel.at(0, 3.0) == Mix("neon", "neon", 0)


def test_one_prompt_holds_for_ever():
    assert PromptTimeline(((7, "ink"),)).at(0, 0.0) == Mix("ink", "ink", 0)


def test_weights_grow_evenly_from_key_to_key():
    weights = [FRAMES.at(i, 0.0).weight for i in range(48)]
    assert all(b - a == pytest.approx(1 / 48) for a, b in pairwise(weights))


def test_keys_are_put_in_order():
    assert PromptTimeline(((48, "neon"), (50, "chalk"), (0, "ink"))) == FRAMES


# ---- as text


@pytest.mark.parametrize(
    ("text", "keys", "unit"),
    [
        ("0: ink; 48: neon", ((0, "ink"), (48, "neon")), "frames"),
        ("48:neon;0:ink;", ((0, "ink"), (48, "neon")), "frames"),
        ("0: ink\n48: neon\n", ((0, "ink"), (48, "neon")), "frames"),
        ("0s: ink; 1.5s: neon", ((0, "ink"), (1.5, "neon")), "seconds"),
        ("0: ink; 4 s: neon", ((0, "ink"), (4, "neon")), "seconds"),
        ("0s: ink; 4: neon", ((0, "ink"), (4, "neon")), "frames"),
        ("0s: ink", ((0, "ink"),), "seconds"),
        ("0:", ((0, ""),), "frames"),
        (
            "0: (ink:1.2), a 16:9 view; old; 4s: b: c",
            ((0, "(ink:1.2), a 16:9 view; old"), (4, "b: c")),
            "seconds",
        ),
    ],
)
def test_a_timeline_is_read(text, keys, unit):
    assert parse_timeline(text) == PromptTimeline(keys, unit)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no prompt"),
        ("ink", "begins with 'ink'"),
        ("-4: ink", "begins with '-4: ink'"),
        ("ink; 48: neon", "begins with 'ink'"),
        ("1.5: ink", "1.5 frames"),
        ("0: ink; 48: neon; 4s: chalk", "frames or seconds, not both"),
        ("4: ink; 4: neon", "two prompts at 4 frames"),
    ],
)
def test_what_is_no_timeline_is_refused(text, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_timeline(text)


@pytest.mark.parametrize("time", [-1, float("nan"), float("inf")])
def test_a_key_outside_of_time_is_refused(time):
    with pytest.raises(ConfigError, match="has a key at"):
        PromptTimeline(((time, "ink"),), "seconds")


def test_an_unknown_unit_is_refused():
    with pytest.raises(ConfigError, match="'hours'"):
        PromptTimeline(((0, "ink"),), "hours")


# ---- embeddings


def test_keys_show_their_prompts_exactly_and_the_way_between_is_their_blend():
    travel = PromptTimeline(((0, "ink cat"), (8, "neon city")))
    encoded = encode_timeline(FREE, travel)
    first, second = FREE.encode("ink cat"), FREE.encode("neon city")
    assert torch.equal(encoded.embed(travel.at(0, 0.0)), first)
    assert torch.equal(encoded.at(0, 0.0), first)
    assert torch.equal(encoded.embed(travel.at(8, 0.0)), second)
    torch.testing.assert_close(encoded.embed(travel.at(2, 0.0)), blend(first, second, 0.25))


def test_all_embeddings_of_a_timeline_have_one_length():
    travel = PromptTimeline(((0, "ink"), (2, "cat " * 20), (4, "neon")))
    encoded = encode_timeline(FREE, travel)
    shapes = {encoded.embed(travel.at(i, 0.0)).shape for i in range(6)}
    assert shapes == {FREE.encode("cat " * 20).shape}


def test_each_prompt_is_encoded_once():
    counting = Counting()
    travel = PromptTimeline(((0, "ink"), (2, "neon"), (4, "ink"), (6, "neon")))
    encoded = encode_timeline(counting, travel)
    for i in range(8):
        encoded.embed(travel.at(i, 0.0))
    assert counting.asked == ["ink", "neon"]


def test_a_prompt_that_the_model_does_not_know_is_refused_before_the_travel():
    with pytest.raises(PromptError, match="oil"):
        encode_timeline(STYLES, PromptTimeline(((0, "ink"), (100, "oil"))))


def test_a_prompt_without_an_embedding_is_refused():
    with pytest.raises(ConfigError, match="lacks the embedding of its prompt 'neon'"):
        EncodedTimeline(FRAMES, {"ink": torch.zeros(1, 8, 16), "chalk": torch.zeros(1, 8, 16)})


@pytest.mark.parametrize("other", [(1, 16, 16), (1, 8, 12), (2, 8, 16)])
def test_embeddings_of_different_shapes_are_refused(other):
    shapes = {"ink": (1, 8, 16), "neon": other, "chalk": (1, 8, 16)}
    with pytest.raises(ConfigError, match=r"one shape, got .*\(1, 8, 16\).* align_embeddings"):
        EncodedTimeline(FRAMES, {prompt: torch.zeros(shape) for prompt, shape in shapes.items()})


def test_an_embedding_that_no_key_names_is_left_alone():
    embeddings = {"ink": torch.zeros(1, 8, 16), "else": torch.zeros(1, 16, 16)}
    assert (
        EncodedTimeline(PromptTimeline(((0, "ink"),)), embeddings).at(0, 0.0) is embeddings["ink"]
    )


# ---- travelling


def travelled(timeline: PromptTimeline, count: int = 40) -> tuple[list[Frame], int]:
    """Frames of a stream along a timeline, and how often it was re-primed; its model has no text
    encoder.
    """
    encoded = encode_timeline(STYLES, timeline)
    model = replace(tiny_model(), text_encoder=None)
    session = Session(model, stream_config(noise="fixed"), encoded.at(0, 0.0))
    frames = list(translate(session, make_frames(count), Travel(session, encoded).before))
    return frames, session.stats.reprimes


def test_a_timeline_of_one_prompt_changes_nothing():
    frames, _ = travelled(PromptTimeline(((0, "ink"), (20, "ink"))), 20)
    assert same(frames, reference(20, stream_config(noise="fixed")))


def test_a_travel_goes_from_one_prompt_to_the_other_and_stays_there():
    frames, reprimes = travelled(PromptTimeline(((10, "ink"), (26, "neon"))))
    assert [frame.index for frame in frames] == list(range(40))
    ink, neon = (
        [reference(40, stream_config(noise="fixed"), prompt)[i] for i in range(40)]
        for prompt in ("ink", "neon")
    )
    assert same(frames[:9], ink[:9])
    nearer = [
        distance([ours], [end]) < distance([ours], [start])
        for ours, start, end in zip(frames, ink, neon, strict=True)
    ]
    assert not any(nearer[:12])
    assert all(nearer[26:])
    assert reprimes == 2  # each time the ring had passed, and on arrival


def test_a_travel_may_begin_on_the_way():
    """A session that shows what the timeline has at its next frame goes on as if it had always."""
    encoded = encode_timeline(STYLES, PromptTimeline(((0, "ink"), (10, "ink"), (11, "neon"))))
    session = Session(tiny_model(), stream_config(noise="fixed"), encoded.at(14, 0.0))
    travel = Travel(session, encoded, 14)
    frames = make_frames(20)
    session.warmup(frames[:8])
    for frame in frames[14:]:
        travel.before(frame)
        session.push([frame])
    assert session.stats.reprimes == 0


def test_two_keys_side_by_side_are_a_cut():
    frames, reprimes = travelled(PromptTimeline(((0, "ink"), (19, "ink"), (20, "neon"))))
    cut = reference(40, stream_config(noise="fixed"))
    assert same(frames[:18], cut[:18])
    assert distance(frames[20:], cut[20:]) > 1e-4
    assert reprimes == 1


def test_seconds_are_those_of_the_frames():
    ours, _ = travelled(PromptTimeline(((0.4, "ink"), (1.04, "neon")), "seconds"))
    theirs, _ = travelled(PromptTimeline(((10, "ink"), (26, "neon"))))
    assert distance(ours, theirs) < 1e-3
