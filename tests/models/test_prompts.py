"""The syntax of prompts. Expected values are ComfyUI's unless a test says otherwise."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.errors import PromptError
from live2diff_core.models.prompts import pack, parse_weights, split_concepts

PLAIN = st.text(st.characters(exclude_characters="()\\\ufdd0\ufdd1"), min_size=1)
PIECES = st.sampled_from(["(", ")", r"\(", r"\)", ":", "1.2", ":0.5)", "a", " "])


def tokens(numbers, weight: float = 1.0) -> list[tuple[int, float]]:
    return [(number, weight) for number in numbers]


def joined(parts) -> list[tuple[int, float]]:
    return list(chain.from_iterable(parts))


# ---- weights


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("", []),
        ("a cat", [("a cat", 1)]),
        ("a (cat) here", [("a ", 1), ("cat", 1.1), (" here", 1)]),
        ("a (cat:1.3)", [("a ", 1), ("cat", 1.3)]),
        ("((cat))", [("cat", 1.21)]),
        ("(((cat)))", [("cat", 1.331)]),
        ("(a (b) c)", [("a ", 1.1), ("b", 1.21), (" c", 1.1)]),
        ("(a (b) c:2)", [("a ", 2), ("b", 2.2), (" c", 2)]),
        ("(a (b:0.5) c:2)", [("a ", 2), ("b", 0.5), (" c", 2)]),
        ("(cat: 1.5 )", [("cat", 1.5)]),
        ("(cat:-1)(dog:0)", [("cat", -1), ("dog", 0)]),
        ("(cat:.5)", [("cat", 0.5)]),
        ("(a:b:1.3)", [("a:b", 1.3)]),
        ("()", []),
    ],
)
def test_weights_are_read(prompt, parts):
    got = parse_weights(prompt)
    assert [text for text, _ in got] == [text for text, _ in parts]
    assert [weight for _, weight in got] == pytest.approx([weight for _, weight in parts])


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        (r"\(cat\)", [("(cat)", 1)]),
        (r"(\(cat\):1.5)", [("(cat)", 1.5)]),
        (r"(cat\)", [("(cat)", 1)]),
        (r"\cat", [(r"\cat", 1)]),
    ],
)
def test_escaped_parentheses_are_plain_ones(prompt, parts):
    assert parse_weights(prompt) == parts


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("(", [("(", 1)]),
        (")", [(")", 1)]),
        ("a (b", [("a ", 1), ("(b", 1)]),
        ("((a)", [("(a", 1.1)]),
        ("a) (b) (c)", [("a) (b) (c)", 1)]),
        ("a) (b (c)", [("a) (b ", 1), ("c", 1.1)]),
        ("(a))(b", [("a", 1.1), (")(b", 1)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        ("(1.2)", [("1.2", 1.1)]),
        ("(cat:)", [("cat:", 1.1)]),
        ("(cat:big)", [("cat:big", 1.1)]),
        ("((a:1.2) b)", [("a", 1.2), (" b", 1.1)]),
    ],
)
def test_what_makes_no_sense_is_taken_literally(prompt, parts):
    assert parse_weights(prompt) == [(text, pytest.approx(weight)) for text, weight in parts]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
def test_a_weight_that_is_no_finite_number_is_taken_literally(number):
    """Unlike ComfyUI, whose picture it would spoil."""
    assert parse_weights(f"(cat:{number})") == [(f"cat:{number}", pytest.approx(1.1))]


@given(PLAIN)
def test_a_prompt_without_parentheses_is_one_part(prompt):
    assert parse_weights(prompt) == [(prompt, 1)]


@given(st.lists(PIECES).map("".join))
def test_nothing_but_syntax_is_lost(prompt):
    kept = "".join(text for text, _ in parse_weights(prompt))
    assert kept.count("a") == prompt.count("a")
    assert kept.count(" ") == prompt.count(" ")


def test_deep_nesting_is_read():
    (part,) = parse_weights("(" * 2000 + "cat:0.5" + ")" * 2000)
    assert part == ("cat", 0.5)


# ---- concepts


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("a cat", [("a cat", False)]),
        ("embedding:bad", [("bad", True)]),
        ("a embedding:bad, b", [("a ", False), ("bad", True), (", b", False)]),
        ("Bad", [("bad", True)]),
        ("a EMBEDDING:BAD", [("a ", False), ("bad", True)]),
        ("bad-hand-5 bad", [("bad-hand-5", True), (" ", False), ("bad", True)]),
        ("v1.5 v1", [("v1.5", True), (" ", False), ("v1", True)]),
        ("badly unbad bad-ly v1.6", [("badly unbad bad-ly v1.6", False)]),
        ("bad. bad", [("bad", True), (". ", False), ("bad", True)]),
        ("no embedding: here", [("no embedding: here", False)]),
    ],
)
def test_concepts_are_found_as_whole_words(text, pieces):
    assert list(split_concepts(text, ["bad", "bad-hand-5", "v1", "v1.5"])) == pieces


@pytest.mark.parametrize("text", ["embedding:good", "a Embedding:badly, b", "embedding:bad.x"])
def test_an_unknown_concept_is_refused_with_those_that_are_known(text):
    with pytest.raises(PromptError, match=r"mbedding:(good|badly|bad\.x), .*known: bad, worse"):
        list(split_concepts(text, ["worse", "bad"]))


def test_without_concepts_none_is_known():
    with pytest.raises(PromptError, match="known: none"):
        list(split_concepts("embedding:bad", []))


# ---- chunks


def test_no_tokens_are_one_empty_chunk():
    assert pack([], 75) == [[]]
    assert pack([[]], 75) == [[]]


@pytest.mark.parametrize(("count", "chunks"), [(74, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_a_long_group_fills_chunk_after_chunk(count, chunks):
    packed = pack([tokens(range(count))], 75)
    assert len(packed) == chunks
    assert {len(chunk) for chunk in packed[:-1]} <= {75}
    assert joined(packed) == tokens(range(count))


def test_a_short_group_is_not_cut():
    first, second = tokens(range(70)), tokens(range(7), 1.2)
    assert pack([first, second], 75) == [first, second]


def test_a_group_of_eight_tokens_is_cut():
    first, second = tokens(range(70)), tokens(range(8), 1.2)
    assert pack([first, second], 75) == [first + second[:5], second[5:]]


def test_what_follows_fills_the_chunk_that_a_short_group_began():
    groups = [tokens(range(6)), tokens(range(3), 1.1), tokens(range(2)), tokens(range(4))]
    assert [len(chunk) for chunk in pack(groups, 8)] == [6, 5, 4]


def test_a_group_longer_than_a_small_chunk_is_cut():
    assert pack([tokens(range(2)), tokens(range(7))], 4) == [
        tokens([0, 1, 0, 1]),
        tokens([2, 3, 4, 5]),
        tokens([6]),
    ]


@given(st.lists(st.integers(0, 20)), st.integers(1, 12))
def test_chunks_hold_all_tokens_in_order(lengths, room):
    groups = [tokens(range(length), i) for i, length in enumerate(lengths)]
    packed = pack(groups, room)
    assert joined(packed) == joined(groups)
    assert all(len(chunk) <= room for chunk in packed)
