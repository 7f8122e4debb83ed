"""The nodes' help pages."""

import ast
import re
from functools import cache

import pytest

from tests.nodes.pages import CLASSES, PACK, extension, fixed_options, specs, texts
from tests.pack import ROOT, pack_module


def rows(text: str) -> dict[str, str]:
    """Rows of a help page's tables that begin with a name in code."""
    return {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)`.*$", text, re.MULTILINE)}


def test_every_node_has_a_help_page():
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_help_names_every_input_and_output(name):
    text = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", text, re.MULTILINE))
    assert text.startswith(f"# {PACK.NODE_DISPLAY_NAME_MAPPINGS[name]}\n")
    assert {"Inputs", "Outputs", "Example", "Troubleshooting"} <= sections.keys()
    assert rows(sections["Inputs"]).keys() == specs(CLASSES[name]).keys()
    assert rows(sections["Outputs"]).keys() == set(CLASSES[name].RETURN_NAMES)


@pytest.mark.parametrize("name", CLASSES)
def test_help_gives_the_range_of_every_widget(name):
    said = rows((ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8"))
    for given, (kind, options) in specs(CLASSES[name]).items():
        assert [o for o in fixed_options(given, kind) if f"`{o}`" not in said[given]] == []
        if "min" in options and given != "seed":
            assert f"{options['min']:g} to {options['max']:g}" in said[given]


def test_a_help_page_with_a_missing_row_is_noticed():
    page = "| `width` | is there |\n| ` height` | is not |\ntext about `steps`\n"
    assert rows(page).keys() == {"width"}


@cache
def said_by_the_code() -> str:
    """Every text in the sources, with gaps where values are filled in."""
    files = (*(ROOT / "nodes").rglob("*.py"), *(ROOT / "live2diff_core").rglob("*.py"))
    nodes = [node for f in files for node in ast.walk(ast.parse(f.read_text(encoding="utf-8")))]
    parts = [node.values for node in nodes if isinstance(node, ast.JoinedStr)]
    parts += [[node] for node in nodes if isinstance(node, ast.Constant)]
    said = ["".join(str(getattr(part, "value", "")) for part in text) for text in parts]
    return "\n".join((*said, *texts("en", "main").values()))


def quoted(page: str) -> list[str]:
    """What a help page's table of trouble says of messages, without the values in them: of each
    piece the last three words, as it may begin with a value, too.
    """
    _, trouble = page.split("\n## Troubleshooting\n")
    cells = re.findall(r"^\| (.+?) \|", trouble, re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"\*([^*]+)\*", cell)]
    pieces = [p for m in messages for p in re.split(r"\.\.\.|[\d.]+|['():,]", m)]
    return [" ".join(piece.split()[-3:]) for piece in pieces if len(piece.split()) > 2]


@pytest.mark.parametrize("name", CLASSES)
def test_help_quotes_messages_that_there_are(name):
    page = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert [words for words in quoted(page) if words not in said_by_the_code()] == []


def test_a_message_that_nothing_says_is_noticed():
    page = "\n## Troubleshooting\n| message |\n| *the camera ... is on strike today* | Wait. |\n"
    assert quoted(page) == ["on strike today"]
    assert quoted(page)[0] not in said_by_the_code()


def test_help_of_live_names_what_an_administrator_sets():
    hub = pack_module("nodes.hub")
    page = (ROOT / "web" / "docs" / "Live2DiffLive.md").read_text(encoding="utf-8")
    assert rows(page).keys() >= {hub.TOKEN, hub.ORIGINS, hub.LIMITS}


def test_help_of_live_names_every_button_and_the_key_of_panic():
    page = (ROOT / "web" / "docs" / "Live2DiffLive.md").read_text(encoding="utf-8")
    said = texts("en", "main")
    names = [name.removesuffix("Tip") for name in said if name.endswith("Tip")]
    buttons = [said[name] for name in names if name != "/live2diff/latency"]
    assert [button for button in buttons if f"| **{button}**" not in page] == []
    (key,) = re.findall(r"the key is (\w+)", said["/live2diff/panicTip"])
    assert f"**Panic**, key **{key}**" in page
    assert f'"{key}"' in extension()
