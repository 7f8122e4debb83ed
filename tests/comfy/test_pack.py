"""What ComfyUI knows of the pack once it has started: nodes, words, help, templates, scripts."""

import re
from typing import Any

import pytest

from tests.comfy.install import ROOT
from tests.comfy.server import PACK, ComfyServer

CLASSES = [
    "Live2DiffBundledModel",
    "Live2DiffApply",
    "Live2DiffSpeed",
    "Live2DiffWarmup",
    "Live2DiffSampler",
    "Live2DiffTranslateVideo",
    "Live2DiffPromptTravel",
    "Live2DiffMetrics",
    "Live2DiffPlan",
    "Live2DiffExampleVideo",
    "Live2DiffLive",
    "Live2DiffBrowserCamera",
    "Live2DiffServerCamera",
    "Live2DiffVideoSource",
    "Live2DiffScreen",
    "Live2DiffTestPattern",
    "Live2DiffSocketSource",
    "Live2DiffRecord",
]
LANGUAGES = ["en", "zh", "ja"]
LONGEST_IMPORT = 5.0  # seconds; a busy computer takes several times what a free one does
NUMBERS = ("INT", "FLOAT")

Info = dict[str, Any]


@pytest.fixture(scope="session")
def nodes(server: ComfyServer) -> dict[str, Info]:
    every = server.get_json("/object_info")
    return {name: every[name] for name in every if name.startswith("Live2Diff")}


@pytest.fixture(scope="session")
def words(server: ComfyServer) -> dict[str, dict[str, Any]]:
    return server.get_json("/i18n")


def inputs_of(info: Info) -> dict[str, tuple[Any, Info]]:
    """Type and options of each input that a user sees."""
    shown = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in shown.items()}


def import_line(log: str) -> str:
    """ComfyUI's line about the pack, without the level that newer ones begin with."""
    (line,) = re.findall(rf"^(?:\x1b\[.*?m *)? *([\d.]+ seconds.*{PACK})$", log, re.MULTILINE)
    return line


def test_the_pack_is_imported_without_error(server: ComfyServer) -> None:
    assert "IMPORT FAILED" not in import_line(server.log)


def test_the_pack_starts_fast(server: ComfyServer) -> None:
    line = import_line(server.log)
    assert float(line.split()[0]) < LONGEST_IMPORT, line


def test_every_node_is_there(nodes: dict[str, Info]) -> None:
    assert sorted(nodes) == sorted(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_node_says_what_it_is(nodes: dict[str, Info], name: str) -> None:
    info = nodes[name]
    assert info["display_name"].startswith("Live2Diff ")
    assert info["description"].endswith(".")
    assert re.fullmatch(r"Live2Diff/(model|stream|video|conditioning|live)", info["category"])


@pytest.mark.parametrize("name", CLASSES)
def test_every_input_and_output_has_a_tooltip(nodes: dict[str, Info], name: str) -> None:
    info = nodes[name]
    silent = [key for key, (_, options) in inputs_of(info).items() if not options.get("tooltip")]
    assert silent == []
    tips = info["output_tooltips"]
    assert len(tips) == len(info["output"]) == len(info["output_name"])
    assert all(tips)


@pytest.mark.parametrize("name", CLASSES)
def test_numbers_have_sensible_limits(nodes: dict[str, Info], name: str) -> None:
    for key, (kind, options) in inputs_of(nodes[name]).items():
        if kind in NUMBERS:
            assert options["min"] <= options["default"] <= options["max"], key
            reach = (options["default"] - options["min"]) / options.get("step", 1)
            assert reach == pytest.approx(round(reach), abs=1e-6), key


@pytest.mark.parametrize("name", CLASSES)
def test_a_default_is_one_of_its_choices(nodes: dict[str, Info], name: str) -> None:
    for key, (kind, options) in inputs_of(nodes[name]).items():
        if isinstance(kind, list) and "default" in options:
            assert options["default"] in kind, key


def test_the_scripts_are_served_once(server: ComfyServer) -> None:
    ours = [path for path in server.get_json("/extensions") if "live2diff" in path.lower()]
    web = ROOT / "web"
    scripts = [path.relative_to(web).as_posix() for path in web.rglob("*.js")]
    assert sorted(ours) == sorted(f"/extensions/{PACK}/{name}" for name in scripts)
    registering = [path for path in ours if b"registerExtension" in server.get(path)]
    assert registering == [f"/extensions/{PACK}/live2diff.js"]


@pytest.mark.parametrize("name", CLASSES)
def test_a_node_has_a_help_page(server: ComfyServer, name: str) -> None:
    top = f"/extensions/{PACK}/docs/{name}"
    english = server.get(f"{top}/en.md").decode()
    assert english.startswith("# Live2Diff ")
    assert server.get(f"{top}.md").decode() == server.get(f"{top}/fr.md").decode() == english
    for language in ("zh", "ja"):
        assert server.get(f"{top}/{language}.md").decode() != english


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", CLASSES)
def test_a_node_is_translated(
    nodes: dict[str, Info], words: dict[str, Any], name: str, language: str
) -> None:
    entry = words[language]["nodeDefs"][name]
    assert entry["display_name"]
    assert entry["description"]
    inputs = inputs_of(nodes[name])
    translated = entry.get("inputs", {})
    assert translated.keys() == inputs.keys()
    assert all(word["name"] and word["tooltip"] for word in translated.values())
    outputs = entry["outputs"]
    assert sorted(outputs) == [str(index) for index in range(len(nodes[name]["output"]))]
    assert all(word["name"] and word["tooltip"] for word in outputs.values())


def test_the_english_words_are_those_of_the_nodes(
    nodes: dict[str, Info], words: dict[str, Any]
) -> None:
    for name, info in nodes.items():
        entry = words["en"]["nodeDefs"][name]
        assert entry["display_name"] == info["display_name"]
        assert entry["description"] == info["description"]
        for key, (_, options) in inputs_of(info).items():
            assert entry["inputs"][key]["tooltip"] == options["tooltip"], (name, key)
        tips = [entry["outputs"][str(i)]["tooltip"] for i in range(len(info["output"]))]
        assert tips == list(info["output_tooltips"]), name


def test_the_workflows_are_templates_with_a_picture(server: ComfyServer) -> None:
    listed = server.get_json("/workflow_templates")[PACK]
    assert sorted(listed) == sorted(path.stem for path in ROOT.glob("workflows/*.json"))
    assert len(listed) >= 4
    for name in listed:
        place = f"/api/workflow_templates/{PACK}/{name}"
        assert server.get_json(f"{place}.json")["nodes"]
        assert server.get(f"{place}.jpg").startswith(b"\xff\xd8")
