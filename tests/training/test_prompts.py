"""Prompts: every style can be read, each prompt names its own, strange words do no harm."""

import random

import pytest

from live2diff_core.training.bundled import bundled_config
from live2diff_core.training.prompts import (
    ADJECTIVES,
    FILLERS,
    NOUNS,
    TEMPLATES,
    draw_prompt,
    make_tokenizer,
)
from live2diff_core.training.styles import STYLES
from live2diff_core.weights.bundled import END, PAD, START, UNKNOWN

PHRASES = [phrase for style in STYLES.values() for phrase in style.phrases]
TOKENIZER = make_tokenizer()
DRAWS = 300


def tokens(prompt: str) -> list[str]:
    return TOKENIZER.encode(prompt).tokens


def draws(name: str, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [draw_prompt(STYLES[name], rng) for _ in range(DRAWS)]


# ---- the vocabulary


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_phrase_is_read_without_an_unknown_word(phrase):
    read = tokens(phrase)
    assert UNKNOWN not in read
    assert len(read) >= len(phrase.split()) + 2


def test_every_word_of_a_template_is_known():
    templates = [t.format(style="ink", noun="cat", adjective="old") for t in TEMPLATES]
    for words in (*templates, *NOUNS, *ADJECTIVES, *FILLERS):
        assert UNKNOWN not in tokens(words)


def test_no_two_phrases_read_alike():
    assert len({tuple(tokens(phrase)) for phrase in PHRASES}) == len(PHRASES)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("ink", ["ink"]),
        ("", []),
        ("A Beautiful INK Drawing", ["a", "beautiful", "ink", "drawing"]),
        ("neon, city; night!", ["neon", "city", "night"]),
        ("a zyxwv in ink", ["a", UNKNOWN, "in", "ink"]),
        ("neon 4k 東京", ["neon", UNKNOWN]),
        (f"{UNKNOWN} in ink", [UNKNOWN, "in", "ink"]),
    ],
)
def test_a_prompt_is_its_words_between_start_and_end(prompt, words):
    assert tokens(prompt) == [START, *words, END]


def test_special_tokens_come_first_and_words_follow():
    first = [TOKENIZER.id_to_token(number) for number in range(4)]
    assert first == [PAD, START, END, UNKNOWN]
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(TOKENIZER.get_vocab_size()))


def test_the_vocabulary_is_the_same_every_time():
    assert make_tokenizer().to_str() == TOKENIZER.to_str()


# ---- prompts that are drawn


@pytest.mark.parametrize("name", STYLES)
def test_a_drawn_prompt_names_its_own_style_alone(text, name):
    for prompt in draws(name):
        assert text.named_styles(prompt) == [name], prompt


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_names_its_own_style_alone(text, phrase):
    (owner,) = (name for name, style in STYLES.items() if phrase in style.phrases)
    assert text.named_styles(phrase) == [owner]


@pytest.mark.parametrize("word", [*NOUNS, *ADJECTIVES, *FILLERS])
def test_a_free_word_names_no_style(text, word):
    assert text.named_styles(word) == []


def test_a_seed_draws_the_same_prompts_and_another_seed_others():
    assert draws("ink", 1) == draws("ink", 1)
    assert draws("ink", 1) != draws("ink", 2)


@pytest.mark.parametrize("name", STYLES)
def test_drawn_prompts_vary_and_use_every_phrase(name):
    drawn = draws(name)
    assert len(set(drawn)) > DRAWS / 3
    for phrase in STYLES[name].phrases:
        assert any(phrase in prompt for prompt in drawn)


def test_about_one_word_in_fifteen_is_unknown_and_no_other():
    drawn = [prompt for name in STYLES for prompt in draws(name)]
    unknown = sum(prompt.count(UNKNOWN) for prompt in drawn)
    assert unknown == sum(tokens(prompt).count(UNKNOWN) for prompt in drawn)
    words = sum(len(prompt.split()) for prompt in drawn)
    assert 1 / 30 < unknown / words < 1 / 15


def test_nothing_of_a_template_is_left_over():
    for name in STYLES:
        assert not any("{" in prompt or "}" in prompt for prompt in draws(name))


def test_the_longest_prompt_fits_into_the_model():
    room = bundled_config()["text"]["max_position_embeddings"]
    longest = max(PHRASES, key=lambda phrase: len(tokens(phrase)))
    for template in TEMPLATES:
        prompt = template.format(style=longest, noun="night", adjective="old")
        assert len(tokens(prompt)) <= room


def test_strange_words_do_no_harm(text):
    room = bundled_config()["text"]["max_position_embeddings"]
    embedding = text.encode("Zyxwv 4k, ultra-hd: ink! #trending")
    assert embedding.shape == (1, room, 16)
    assert embedding.isfinite().all()
