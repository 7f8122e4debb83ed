"""Prompts that name a style in free wording, and the vocabulary that reads them."""

import random
import re

from tokenizers import Tokenizer

from ..weights.bundled import END, PAD, START, UNKNOWN, word_tokenizer
from .styles import STYLES, Style

TEMPLATES = (
    "{style}",
    "{style}",
    "{style} style",
    "in {style} style",
    "a {noun} in {style} style",
    "a {adjective} {noun}, {style}",
    "{style} of a {adjective} {noun}",
    "{style} of {noun} and {noun}",
    "the {noun} as {style}",
    "{adjective} {style}",
    "make it {adjective} like a {style} picture, {adjective}",
    "masterpiece, best quality, {style}, {noun}",
    "a video of my {noun} drawn as {style}, please",
    "{noun}, {noun}, {style} look",
)
# fmt: off
NOUNS = (
    "portrait", "face", "man", "woman", "person", "girl", "boy", "child", "people", "crowd",
    "dancer", "singer", "band", "hand", "hands", "cat", "dog", "horse", "bird", "rabbit",
    "animal", "street", "city", "house", "building", "room", "kitchen", "window", "door", "car",
    "bus", "train", "bicycle", "bridge", "tree", "forest", "flower", "garden", "mountain",
    "sea", "beach", "sky", "cloud", "river", "night", "day", "table", "chair", "cup", "coffee",
    "book", "screen", "stage", "show", "concert", "scene", "landscape", "picture", "video",
    "frame",
)
# fmt: on
# fmt: off
ADJECTIVES = (
    "beautiful", "dark", "bright", "bold", "soft", "old", "new", "young", "happy", "sad",
    "detailed", "simple", "clean", "high", "dynamic", "dramatic", "vivid", "quiet", "fast",
    "slow", "big", "small", "funny", "strange", "colourful", "colorful", "cinematic", "live",
)
# fmt: on
# fmt: off
FILLERS = (
    "a", "an", "the", "of", "in", "as", "and", "with", "my", "your", "like", "make", "it", "on",
    "at", "style", "look", "please",
)
# fmt: on


def draw_prompt(style: Style, rng: random.Random) -> str:
    """A prompt that names the style; one word in fifteen is one that no vocabulary knows."""
    text = re.sub(r"\{noun\}", lambda _: rng.choice(NOUNS), rng.choice(TEMPLATES))
    text = re.sub(r"\{adjective\}", lambda _: rng.choice(ADJECTIVES), text)
    phrase = rng.choice(style.phrases)
    words = [
        UNKNOWN if rng.random() < 1 / 15 and "{" not in word else word for word in text.split()
    ]
    return " ".join(words).replace("{style}", phrase)


def make_tokenizer() -> Tokenizer:
    """A word-level tokenizer over the phrases of all styles and the words of the templates."""
    phrases = [phrase for style in STYLES.values() for phrase in style.phrases]
    text = " ".join((*phrases, *TEMPLATES, *NOUNS, *ADJECTIVES, *FILLERS))
    words = sorted(set(re.findall(r"[a-z]+", re.sub(r"\{[a-z]+\}", " ", text.lower()))))
    special = [PAD, START, END, UNKNOWN]
    vocabulary = {word: index for index, word in enumerate(special + words)}
    return word_tokenizer(vocabulary)
