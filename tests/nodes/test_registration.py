"""What ComfyUI reads from the classes before anything runs."""

import subprocess
import sys
from itertools import chain

import pytest

from tests.nodes.graph import MAPPINGS
from tests.pack import ROOT, load_pack

CLASSES = sorted(MAPPINGS.items())
NAMES = {
    "Live2DiffApply",
    "Live2DiffBrowserCamera",
    "Live2DiffBundledModel",
    "Live2DiffExampleVideo",
    "Live2DiffLive",
    "Live2DiffMetrics",
    "Live2DiffPlan",
    "Live2DiffPromptTravel",
    "Live2DiffRecord",
    "Live2DiffSampler",
    "Live2DiffScreen",
    "Live2DiffServerCamera",
    "Live2DiffSocketSource",
    "Live2DiffSpeed",
    "Live2DiffTestPattern",
    "Live2DiffTranslateVideo",
    "Live2DiffVideoSource",
    "Live2DiffWarmup",
}
TYPES = {
    "LIVE2DIFF_MODEL",
    "LIVE2DIFF_STREAM",
    "LIVE2DIFF_SOURCE",
    "LIVE2DIFF_RECORD",
    "MODEL",
    "DA3_MODEL",
    "CLIP",
    "VAE",
    "CONDITIONING",
    "IMAGE",
    "VIDEO",
    "STRING",
    "INT",
    "FLOAT",
    "BOOLEAN",
}


def inputs(node):
    declared = node.INPUT_TYPES()
    return chain(*(declared.get(kind, {}).items() for kind in ("required", "optional")))


def test_the_pack_names_its_nodes() -> None:
    pack = load_pack()
    assert set(pack.NODE_CLASS_MAPPINGS) == NAMES
    assert set(pack.NODE_DISPLAY_NAME_MAPPINGS) == NAMES
    assert pack.WEB_DIRECTORY == "./web"
    assert (ROOT / pack.WEB_DIRECTORY).is_dir()


@pytest.mark.parametrize(("name", "node"), CLASSES)
def test_a_node_says_what_it_is(name, node) -> None:
    assert node.CATEGORY.startswith("Live2Diff/")
    assert len(node.DESCRIPTION) > 40
    assert callable(getattr(node, node.FUNCTION))
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)
    assert set(node.RETURN_TYPES) <= TYPES
    assert all(node.OUTPUT_TOOLTIPS)


@pytest.mark.parametrize(("name", "node"), CLASSES)
def test_every_input_is_explained_and_bounded(name, node) -> None:
    for key, (kind, options) in inputs(node):
        assert isinstance(kind, list) or kind in TYPES, key
        assert options["tooltip"].strip(), key
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"], key
        if isinstance(kind, list):
            assert kind and options.get("default", kind[0]) in kind, key


def test_what_a_type_carries_comes_from_a_node_and_goes_to_one() -> None:
    given = {kind for _, node in CLASSES for kind in node.RETURN_TYPES}
    taken = {kind for _, node in CLASSES for _, (kind, _) in inputs(node) if type(kind) is str}
    own = {kind for kind in TYPES if kind.startswith("LIVE2DIFF_")}
    assert own == own & given & taken


@pytest.mark.parametrize(("name", "node"), CLASSES)
def test_the_id_of_a_node_is_a_plain_string(name, node) -> None:
    hidden = node.INPUT_TYPES().get("hidden", {})
    assert hidden in ({}, {"unique_id": "UNIQUE_ID"})


def test_importing_the_pack_leaves_the_heavy_libraries_out() -> None:
    program = (
        "import sys; from tests.pack import load_pack; load_pack();"
        "print(sorted({'diffusers', 'transformers', 'accelerate', 'cv2'} & sys.modules.keys()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
