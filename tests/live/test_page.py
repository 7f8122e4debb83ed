"""The files of the pages: each is served, and what they load is there."""

import re

import pytest

from live2diff_core.live.server import FILES, PAGE

TEXTS = {name: (PAGE / name).read_text(encoding="utf-8") for name in FILES}
# What a script imports or starts, and what a page links to.
LOADED = re.compile(r'(?:from "|URL\("|src="(?:\.\./)?page|href="(?:\.\./)?page)\.?/([\w.]+)"')


def test_every_file_of_the_pages_is_served() -> None:
    assert {path.name for path in PAGE.iterdir()} == FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_loads_is_served(name: str) -> None:
    assert set(LOADED.findall(TEXTS[name])) <= FILES.keys()


def test_what_is_loaded_is_seen() -> None:
    seen = {name: set(LOADED.findall(text)) for name, text in TEXTS.items()}
    assert {"style.css", "index.js"} == seen["index.html"]
    assert {"camera.js", "live.js"} == seen["index.js"]
    assert {"ticks.js"} == seen["camera.js"]
    assert {"style.css", "view.js"} == seen["view.html"]
