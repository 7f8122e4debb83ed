"""The nodes' help pages."""

import ast
import json
import re
from functools import cache

import pytest

from tests.nodes.pages import CLASSES, PACK, extension, fixed_options, specs, texts
from tests.pack import ROOT, pack_module


def page(name: str, language: str = "en") -> str:
    path = ROOT / "web" / "docs" / name / f"{language}.md"
    return path.read_text(encoding="utf-8")


def rows(text: str) -> dict[str, str]:
    """Rows of a help page's tables that begin with a name in code."""
    return {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)`.*$", text, re.MULTILINE)}


def test_every_node_has_a_help_page():
    pages = {path.parent.name for path in (ROOT / "web" / "docs").glob("*/en.md")}
    assert pages == CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_help_names_every_input_and_output(name):
    text = page(name)
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", text, re.MULTILINE))
    assert text.startswith(f"# {PACK.NODE_DISPLAY_NAME_MAPPINGS[name]}\n")
    assert {"Inputs", "Outputs", "Example", "Troubleshooting"} <= sections.keys()
    assert rows(sections["Inputs"]).keys() == specs(CLASSES[name]).keys()
    assert rows(sections["Outputs"]).keys() == set(CLASSES[name].RETURN_NAMES)


@pytest.mark.parametrize("name", CLASSES)
def test_help_gives_the_range_of_every_widget(name):
    said = rows(page(name))
    for given, (kind, options) in specs(CLASSES[name]).items():
        assert [o for o in fixed_options(given, kind) if f"`{o}`" not in said[given]] == []
        if "min" in options and given != "seed":
            assert f"{options['min']:g} to {options['max']:g}" in said[given]


def test_a_help_page_with_a_missing_row_is_noticed():
    text = "| `width` | is there |\n| ` height` | is not |\ntext about `steps`\n"
    assert rows(text).keys() == {"width"}


@cache
def said_by_the_code() -> str:
    """Every text in the sources, with gaps where values are filled in."""
    files = (*(ROOT / "nodes").rglob("*.py"), *(ROOT / "live2diff_core").rglob("*.py"))
    nodes = [node for f in files for node in ast.walk(ast.parse(f.read_text(encoding="utf-8")))]
    parts = [node.values for node in nodes if isinstance(node, ast.JoinedStr)]
    parts += [[node] for node in nodes if isinstance(node, ast.Constant)]
    said = ["".join(str(getattr(part, "value", "")) for part in text) for text in parts]
    return "\n".join((*said, *texts("en", "main").values()))


def quoted(text: str) -> list[str]:
    """What a help page's table of trouble says of messages, without the values in them: of each
    piece the last three words, as it may begin with a value, too.
    """
    _, trouble = text.split("\n## Troubleshooting\n")
    cells = re.findall(r"^\| (.+?) \|", trouble, re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"\*([^*]+)\*", cell)]
    pieces = [p for m in messages for p in re.split(r"\.\.\.|[\d.]+|['():,]", m)]
    return [" ".join(piece.split()[-3:]) for piece in pieces if len(piece.split()) > 2]


@pytest.mark.parametrize("name", CLASSES)
def test_help_quotes_messages_that_there_are(name):
    assert [words for words in quoted(page(name)) if words not in said_by_the_code()] == []


def test_a_message_that_nothing_says_is_noticed():
    text = "\n## Troubleshooting\n| message |\n| *the camera ... is on strike today* | Wait. |\n"
    assert quoted(text) == ["on strike today"]
    assert quoted(text)[0] not in said_by_the_code()


def test_help_of_live_names_what_an_administrator_sets():
    hub = pack_module("nodes.hub")
    assert rows(page("Live2DiffLive")).keys() >= {hub.TOKEN, hub.ORIGINS, hub.LIMITS}


def test_help_of_live_names_every_button_and_the_key_of_panic():
    text = page("Live2DiffLive")
    said = texts("en", "main")
    names = [name.removesuffix("Tip") for name in said if name.endswith("Tip")]
    buttons = [said[name] for name in names if name != "/live2diff/latency"]
    assert [button for button in buttons if f"| **{button}**" not in text] == []
    (key,) = re.findall(r"the key is (\w+)", said["/live2diff/panicTip"])
    assert f"**Panic**, key **{key}**" in text
    assert f'"{key}"' in extension()


# ---- other languages

HEADING = re.compile(r"^#+ ", re.MULTILINE)
CODE = re.compile(r"`[^`\n]+`")
DIGITS = re.compile(r"\d+")


def skeleton(text: str) -> dict[str, object]:
    """What a translation keeps."""
    prose = CODE.sub("", text)
    return {
        "headings": [match.group() for match in HEADING.finditer(text)],
        "rows": list(rows(text)),
        "table": sum(line.startswith("|") for line in text.splitlines()),
        "code": sorted(set(CODE.findall(text))),
        "numbers": sorted(set(DIGITS.findall(prose))),
    }


@pytest.mark.parametrize("language", ["zh", "ja"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_translated_page_says_as_much_under_the_nodes_own_name(name, language):
    text, english = page(name, language), page(name)
    names = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    assert text.startswith(f"# {names[name]['display_name']}\n")
    assert skeleton(text) == skeleton(english)
    assert sum(ord(letter) > 0x2E7F for letter in text) > 0.15 * len(text)


def test_a_translation_that_leaves_something_out_is_noticed():
    whole = "# A\n\n| `x` | from 1 to 5 |\n"
    for part in ("# A\n", "# A\n| `x` | to 5 |\n", "# A\n\n| `y` | from 1 to 5 |\n"):
        assert skeleton(part) != skeleton(whole)
