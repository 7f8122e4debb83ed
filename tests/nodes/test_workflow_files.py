"""The workflows, apps and blueprints of the pack: whole, valid, translated."""

import re
from itertools import combinations

import cv2
import pytest

from live2diff_core.errors import Live2DiffError
from tests.nodes.pages import CLASSES, FILES, read, specs
from tests.nodes.workflows import (
    ANYTHING,
    API,
    APP,
    APPS,
    NOTES,
    PICTURE_LIMIT,
    TITLE,
    UI,
    WIDGETS,
    api_twin,
    names,
    signature,
)
from tests.pack import ROOT, pack_module

SizedNode = pack_module("nodes.inputs").SizedNode


def widget_values(node) -> dict[str, object]:
    """Widgets of a node in a UI workflow, without those that the page adds for itself."""
    kinds = signature(node["type"])[0]
    values, found = list(node.get("widgets_values", [])), {}
    for name, kind in kinds.items():
        if kind in WIDGETS:
            found[name] = values.pop(0)
            if name == "seed":
                assert values.pop(0) == "fixed"
    assert values in ([], ["image"])  # the upload button of Load Video
    return found


def prompt_of(graph) -> dict[str, dict]:
    """A UI workflow as a prompt: node -> class and inputs."""
    links, prompt = {link[0]: link for link in graph["links"]}, {}
    for node in graph["nodes"]:
        if node["type"] not in NOTES:
            linked = {i["name"]: links[i["link"]] for i in node["inputs"] if i["link"]}
            inputs = {name: [str(link[1]), link[2]] for name, link in linked.items()}
            inputs = {**widget_values(node), **inputs}
            prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def problems(prompt) -> list[str]:
    """What ComfyUI would say of a prompt."""
    return [
        f"{number} {node['class_type']}: {problem}"
        for number, node in prompt.items()
        for problem in node_problems(prompt, node)
    ]


def node_problems(prompt, node):
    kinds = signature(node["class_type"])[0]
    yield from (f"no input {name}" for name in node["inputs"].keys() - kinds.keys())
    for name, value in node["inputs"].items():
        if isinstance(value, list):
            given = signature(prompt[value[0]]["class_type"])[1][value[1]]
            if kinds[name] not in (given, ANYTHING):
                yield f"{name} takes {kinds[name]}, not {given}"
    if node["class_type"] in CLASSES:
        yield from own_problems(CLASSES[node["class_type"]], node["inputs"])


def own_problems(cls, inputs):
    required = cls.INPUT_TYPES()["required"]
    yield from (f"{name} is missing" for name in required.keys() - inputs.keys())
    known = specs(cls).keys() & inputs.keys()
    widgets = {k: inputs[k] for k in known if not isinstance(inputs[k], list)}
    yield from (f"{k} is {v!r}" for k, v in widgets.items() if not takes(k, v, *specs(cls)[k]))
    if issubclass(cls, SizedNode):
        try:
            cls().check_lazy_status(**{"frames": None, **widgets})
        except Live2DiffError as error:
            yield str(error)


def takes(name: str, value, kind, options) -> bool:
    """Whether a widget has this value."""
    if isinstance(kind, list):
        return name in FILES or value in kind
    if kind in ("INT", "FLOAT"):
        return options["min"] <= value <= options["max"]
    return isinstance(value, {"STRING": str, "BOOLEAN": bool}[kind])


def test_the_workflows_are_there():
    assert names(UI) == [
        "live2diff-live-screen-share",
        "live2diff-live-screen",
        "live2diff-live-server-camera",
        "live2diff-live-socket",
        "live2diff-live-test-pattern",
        "live2diff-live-video",
        "live2diff-live-webcam.app",
        "live2diff-live-webcam",
        "live2diff-measure",
        "live2diff-per-frame-sampler",
        "live2diff-prompt-travel",
        "live2diff-quickstart.app",
        "live2diff-quickstart",
        "live2diff-sd15-lcm-lora",
    ]
    assert sorted({api_twin(path) for path in UI}) == API


@pytest.mark.parametrize("path", APPS, ids=names(APPS))
def test_an_app_is_its_workflow_with_some_of_its_widgets(path):
    graph, whole = read(path), read(path.with_name(path.name.replace(APP, "", 1)))
    assert graph["nodes"] == whole["nodes"]
    assert graph["extra"]["linearMode"] is True
    nodes = {node["id"]: node["type"] for node in graph["nodes"]}
    shown = graph["extra"]["linearData"]
    for number, widget, *_ in shown["inputs"]:
        assert widget in signature(nodes[number])[0]
    (output,) = shown["outputs"]
    assert nodes[output] in ("Live2DiffLive", "SaveVideo")


@pytest.mark.parametrize("path", API, ids=names(API))
def test_a_prompt_can_be_queued(path):
    assert problems(read(path)) == []


@pytest.mark.parametrize("path", UI, ids=names(UI))
def test_a_workflow_and_its_prompt_are_one_graph(path):
    twin = read(api_twin(path))
    assert prompt_of(read(path)) == {
        number: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for number, node in twin.items()
    }


@pytest.mark.parametrize("path", UI, ids=names(UI))
def test_links_join_what_they_say(path):
    graph = read(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for number, source, out, target, into, kind in graph["links"]:
        output, given = nodes[source]["outputs"][out], nodes[target]["inputs"][into]
        assert number in output["links"] and number == given["link"]
        assert kind == output["type"] == signature(nodes[source]["type"])[1][out]
        assert given["type"] == signature(nodes[target]["type"])[0][given["name"]]
        assert given["type"] in (kind, ANYTHING)
    assert graph["version"] == 0.4
    assert graph["last_node_id"] == max(nodes)


@pytest.mark.parametrize("path", UI, ids=names(UI))
def test_nothing_lies_on_anything_else(path):
    boxes = [
        (x, y - TITLE, x + width, y + height)
        for (x, y), (width, height) in ((n["pos"], n["size"]) for n in read(path)["nodes"])
    ]
    for (l1, t1, r1, b1), (l2, t2, r2, b2) in combinations(boxes, 2):
        assert r1 <= l2 or r2 <= l1 or b1 <= t2 or b2 <= t1


@pytest.mark.parametrize("path", UI, ids=names(UI))
def test_a_note_says_what_to_do_in_five_lines(path):
    (note,) = (node for node in read(path)["nodes"] if node["type"] in NOTES)
    assert re.findall(r"^## (\d)\. ", note["widgets_values"][0], re.MULTILINE) == list("12345")
    assert "`" not in note["widgets_values"][0]  # which Nodes 2.0 shows dark on dark


@pytest.mark.parametrize("path", UI, ids=names(UI))
def test_a_workflow_has_a_picture(path):
    picture = path.with_suffix(".jpg")
    assert picture.stat().st_size < PICTURE_LIMIT
    height, width, _ = cv2.imread(str(picture)).shape
    assert height == width >= 512


WRONG = [
    {"width": 200},
    {"steps": 9},
    {"noise": "pink"},
    {"t_index": "42,30"},
    {"model": ["3", 0]},
    {"size": 1},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_wrong_prompts_are_noticed(wrong):
    prompt = read(ROOT / "workflows" / "api" / "quickstart.json")
    (node,) = (n for n in prompt.values() if n["class_type"] == "Live2DiffTranslateVideo")
    node["inputs"].update(wrong)
    assert problems(prompt) != []


LIVE = {
    "model": ["1", 0],
    "clip": ["1", 1],
    "source": ["2", 0],
    "prompt": "ink",
    "width": 256,
    "height": 192,
    "steps": 2,
    "denoise": 0.6,
    "seed": 0,
    "noise": "fixed",
    "fit": "crop",
    "lora": "of the user.safetensors",
}
WRONG_LIVE = [{"height": 200}, {"t_index": "42,30"}, {"max_rate": 241}, {"on_failure": "panic"}]


@pytest.mark.parametrize("wrong", WRONG_LIVE, ids=lambda wrong: next(iter(wrong)))
def test_what_is_wrong_beside_the_users_files_is_noticed(wrong):
    assert list(own_problems(CLASSES["Live2DiffLive"], LIVE)) == []
    assert list(own_problems(CLASSES["Live2DiffLive"], LIVE | wrong)) != []


def test_a_missing_link_is_noticed():
    prompt = read(ROOT / "workflows" / "api" / "quickstart.json")
    (node,) = (n for n in prompt.values() if n["class_type"] == "Live2DiffTranslateVideo")
    del node["inputs"]["model"]
    assert len(problems(prompt)) == 1


# ---- workflows in other languages


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_notes_and_titles_of_workflows_are_translated(language):
    words = read(ROOT / "locales" / language / "workflows.json")
    graphs = {path.stem: read(path) for path in UI if path not in APPS}
    assert words["notes"].keys() == graphs.keys()
    titled = [t for graph in graphs.values() for t in (*graph["groups"], *graph["nodes"])]
    assert words["titles"].keys() == {t["title"] for t in titled if "title" in t}
    for stem, note in words["notes"].items():
        (english,) = (n["widgets_values"][0] for n in graphs[stem]["nodes"] if n["type"] in NOTES)
        assert re.findall(r"^#+ (?:\d\. )?", note, re.M) == re.findall(
            r"^#+ (?:\d\. )?", english, re.M
        )
        assert re.findall(r"\*.+?\*", note) == re.findall(r"\*.+?\*", english)
        assert re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", note)


@pytest.mark.parametrize("locale", ["zh", "ja", "fr", "../../web", 7, None])
def test_a_template_comes_in_the_language_of_the_settings(monkeypatch, locale):
    routes, host = pack_module("nodes.routes"), pack_module("nodes.host")
    chosen = {} if locale is None else {"Comfy.Locale": locale}
    monkeypatch.setattr(host, "setting", lambda name, default: chosen.get(name, default))
    path = ROOT / "workflows" / "live2diff-live-webcam.app.json"
    given, english = routes.translated(path), read(path)
    is_english = locale not in ("zh", "ja")
    assert (given == english) == is_english
    assert [n["type"] for n in given["nodes"]] == [n["type"] for n in english["nodes"]]
    assert given["links"] == english["links"]
    assert all(
        (one["title"] == other["title"]) == is_english
        for one, other in zip(given["groups"], english["groups"], strict=True)
    )


# ---- blueprints of subgraphs

BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.mark.parametrize("path", BLUEPRINTS, ids=names(BLUEPRINTS))
def test_a_blueprint_is_one_node_whose_sliders_are_those_inside(path):
    graph = read(path)
    (outer,), (inner,) = graph["nodes"], graph["definitions"]["subgraphs"]
    assert (outer["type"], inner["name"], outer["title"]) == (inner["id"], path.stem, path.stem)
    assert inner["description"].endswith(".")
    assert inner["category"].split("/")[0] == "Live2Diff"
    nodes = {node["id"]: node for node in inner["nodes"]}
    links = {link["id"]: link for link in inner["links"]}
    for given in inner["inputs"]:
        for link in (links[number] for number in given["linkIds"]):
            node = nodes[link["target_id"]]
            target = node["inputs"][link["target_slot"]]
            assert given["name"] == target["name"]
            assert target["type"] == signature(node["type"])[0][target["name"]] == given["type"]
    named = [given["name"] for given in inner["inputs"]]
    assert {"width", "height", "steps", "denoise", "seed"} < set(named)
    assert [given["name"] for given in outer["inputs"]] == named
