"""What people see of the pack besides its Python and help: translations and settings."""

import re

import pytest

from tests.nodes.pages import (
    CLASSES,
    NONE,
    PACK,
    extension,
    fixed_options,
    flat,
    read,
    specs,
    texts,
)
from tests.pack import ROOT, pack_module

LANGUAGES = ("en", "zh", "ja")
NAMES = {"Live2Diff", "VAE", "CLIP"}  # that are the same in every language
CORE_CATEGORIES = {"conditioning", "model", "video"}  # of ComfyUI's, which it translates itself


# ---- translations


def english_of_the_nodes() -> dict[str, dict]:
    """What the classes say, in the form of nodeDefs.json."""
    nodes = {}
    for name, cls in CLASSES.items():
        outputs = zip(cls.RETURN_NAMES, cls.OUTPUT_TOOLTIPS, strict=True)
        nodes[name] = {
            "display_name": PACK.NODE_DISPLAY_NAME_MAPPINGS[name],
            "description": cls.DESCRIPTION,
            "inputs": {n: {"name": n, "tooltip": o["tooltip"]} for n, (_, o) in specs(cls).items()},
            "outputs": {str(i): {"name": n, "tooltip": t} for i, (n, t) in enumerate(outputs)},
        }
    return nodes


def test_english_is_what_the_nodes_say():
    assert texts("en", "nodeDefs") == flat(english_of_the_nodes())


@pytest.mark.parametrize("file", ["nodeDefs", "main", "commands", "settings"])
@pytest.mark.parametrize("language", ["zh", "ja"])
def test_every_text_is_translated(language, file):
    english, translated = texts("en", file), texts(language, file)
    assert translated.keys() == english.keys()
    cjk = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
    assert {k: v for k, v in translated.items() if v not in NAMES and not cjk.search(v)} == {}


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_translations_keep_the_names_of_options(language):
    told = texts(language, "nodeDefs")
    for name, cls in CLASSES.items():
        for given, (kind, _) in specs(cls).items():
            tooltip = told[f"/{name}/inputs/{given}/tooltip"]
            options = [option for option in fixed_options(given, kind) if option != NONE]
            assert [option for option in options if option not in tooltip] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_holds_what_the_translator_reads_as_code(language):
    files = ("nodeDefs", "main", "commands", "settings")
    told = [text for file in files for text in texts(language, file).values()]
    assert [text for text in told if re.search(r"[{}|@]", text)] == []


def test_settings_and_commands_are_those_of_the_extension():
    script = extension()
    ids = {i.replace(".", "_") for i in re.findall(r'\bid: "([\w.]+)"', script)}
    settings, commands = (read(ROOT / "locales/en" / f"{f}.json") for f in ("settings", "commands"))
    assert ids == settings.keys() | commands.keys()
    told = [v for f in ("settings", "commands") for k, v in texts("en", f).items()]
    assert [text for text in told if f'"{text}"' not in script] == []


def test_words_of_the_page_are_those_of_the_translations():
    script = (ROOT / "web" / "words.js").read_text(encoding="utf-8")
    told = dict(re.findall(r'^  (\w+):\s+"([^"]*)",$', script, re.MULTILINE))
    assert told == read(ROOT / "locales" / "en" / "main.json")["live2diff"]


def test_categories_and_menus_are_named_in_the_translations():
    named = read(ROOT / "locales" / "en" / "main.json")
    categories = {part for cls in CLASSES.values() for part in cls.CATEGORY.split("/")}
    assert categories - CORE_CATEGORIES - named["nodeCategories"].keys() == set()
    found = re.findall(r'\bcategory: \["Live2Diff", "(\w+)"', extension())
    assert set(found) - named["settingsCategories"].keys() == set()
    labels = set(texts("en", "commands").values())
    assert labels - named["menuLabels"].keys() == set()


def test_defaults_of_the_settings_are_those_of_the_nodes():
    setting = r'\bid: "([\w.]+)"(?:(?!\bid: ).)*?\bdefaultValue: (\S+),'
    found = dict(re.findall(setting, extension(), re.DOTALL))
    source = pack_module("nodes.video_source")
    assert found == {
        "Live2Diff.DevicePolicy": '"auto"',
        "Live2Diff.SessionLimit": str(pack_module("nodes.registry").SESSION_LIMIT),
        source.REMOTE: "false",
        source.PRIVATE: "false",
    }
