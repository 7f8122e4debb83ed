"""What people see of the pack besides its Python and help: translations, settings, workflows."""

import re
from itertools import combinations
from pathlib import Path

import cv2
import pytest

from live2diff_core.errors import Live2DiffError
from tests.nodes.pages import (
    CLASSES,
    FILES,
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

SizedNode = pack_module("nodes.inputs").SizedNode
LANGUAGES = ("en", "zh", "ja")
NAMES = {"Live2Diff", "VAE", "CLIP"}  # that are the same in every language
CORE_CATEGORIES = {"conditioning", "model", "video"}  # of ComfyUI's, which it translates itself
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
UI = sorted((ROOT / "workflows").glob("*.json"))
API = sorted((ROOT / "workflows" / "api").glob("*.json"))
NOTES = {"MarkdownNote": ({"text": "STRING"}, [])}
PICTURE_LIMIT = 60_000  # bytes
TITLE = 30  # pixels above a node
ANYTHING = "*"  # a type

# Nodes of ComfyUI: inputs in their order, and outputs.
CORE = {
    "CheckpointLoaderSimple": ({"ckpt_name": "COMBO"}, ["MODEL", "CLIP", "VAE"]),
    "CLIPTextEncode": ({"clip": "CLIP", "text": "STRING"}, ["CONDITIONING"]),
    "CreateVideo": ({"images": "IMAGE", "fps": "FLOAT", "audio": "AUDIO"}, ["VIDEO"]),
    "GetVideoComponents": ({"video": "VIDEO"}, ["IMAGE", "AUDIO", "FLOAT"]),
    "ImageBatch": ({"image1": "IMAGE", "image2": "IMAGE"}, ["IMAGE"]),
    "ImageFlip": ({"image": "IMAGE", "flip_method": "COMBO"}, ["IMAGE"]),
    "ImageFromBatch": ({"image": "IMAGE", "batch_index": "INT", "length": "INT"}, ["IMAGE"]),
    "ImageScaleBy": (
        {"image": "IMAGE", "upscale_method": "COMBO", "scale_by": "FLOAT"},
        ["IMAGE"],
    ),
    "LoadVideo": ({"file": "COMBO"}, ["VIDEO"]),
    "LoraLoader": (
        {
            "model": "MODEL",
            "clip": "CLIP",
            "lora_name": "COMBO",
            "strength_model": "FLOAT",
            "strength_clip": "FLOAT",
        },
        ["MODEL", "CLIP"],
    ),
    "PreviewAny": ({"source": ANYTHING}, []),
    "PreviewImage": ({"images": "IMAGE"}, []),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "STRING"}, []),
    "SaveVideo": (
        {"video": "VIDEO", "filename_prefix": "STRING", "format": "COMBO", "codec": "COMBO"},
        [],
    ),
    "VAELoader": ({"vae_name": "COMBO"}, ["VAE"]),
}


def type_name(kind) -> str:
    return "COMBO" if isinstance(kind, list) else kind


def signature(name: str) -> tuple[dict[str, str], list[str]]:
    """Inputs (name -> type, in order) and outputs of a node, ours or ComfyUI's."""
    if name in CLASSES:
        cls = CLASSES[name]
        return {n: type_name(kind) for n, (kind, _) in specs(cls).items()}, list(cls.RETURN_TYPES)
    return {**CORE, **NOTES}[name]


def api_twin(path: Path) -> Path:
    name = path.stem.removeprefix("live2diff-").replace("-", "_")
    return path.parent / "api" / f"{name}.json"


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


# ---- workflows


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


def names(paths):
    return [path.stem for path in paths]


def test_the_workflows_are_there():
    assert names(UI) == [
        "live2diff-live-screen-share",
        "live2diff-live-screen",
        "live2diff-live-server-camera",
        "live2diff-live-socket",
        "live2diff-live-test-pattern",
        "live2diff-live-video",
        "live2diff-live-webcam",
        "live2diff-measure",
        "live2diff-per-frame-sampler",
        "live2diff-prompt-travel",
        "live2diff-quickstart",
        "live2diff-sd15-lcm-lora",
    ]
    assert sorted(api_twin(path) for path in UI) == API


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
    assert re.findall(r"^(\d)\. ", note["widgets_values"][0], re.MULTILINE) == list("12345")


@pytest.mark.parametrize("path", UI, ids=names(UI))
def test_a_workflow_has_a_picture(path):
    picture = path.with_suffix(".jpg")
    assert picture.stat().st_size < PICTURE_LIMIT
    height, width, _ = cv2.imread(str(picture)).shape
    assert min(height, width) >= 256


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
