"""What the registry would publish: all that runs, nothing of the development, nothing forbidden."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomllib

from tests.release import ROOT, release_files, write_release

TABLES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LIMIT = 25_000_000  # bytes; the bundled model's weights are 19 of them
NEEDED = [
    "__init__.py",
    "nodes/host/__init__.py",
    "live2diff_core/weights/bundled/bundled.safetensors",
    "live2diff_core/live/page/live.js",
    "web/live2diff.js",
    "web/docs/Live2DiffLive/en.md",
    "workflows/live2diff-quickstart.json",
    "subgraphs/Live style.json",
    "locales/zh/nodeDefs.json",
    "assets/example.mp4",
    "examples/comfyui_live.py",
    "docs/protocol.md",
    "requirements.txt",
    "pyproject.toml",
    "README.md",
    "LICENSE",
]
DEVELOPMENT = ("tests/", "benchmarks/", ".ci/", "Makefile", "constraints.txt", "runs/")
IMPORT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location(
    "pack", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]]
)
sys.modules["pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
(model, _) = pack.NODE_CLASS_MAPPINGS["Live2DiffBundledModel"]().load()
print(len(pack.NODE_CLASS_MAPPINGS), model.model.name)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("release") / "node.zip")


def test_what_runs_is_in_it_and_what_is_for_development_is_not() -> None:
    files = release_files()
    assert [file for file in NEEDED if file not in files] == []
    assert [file for file in files if file.startswith(DEVELOPMENT)] == []


def test_it_is_small(archive: Path) -> None:
    assert archive.stat().st_size < LIMIT


def test_the_pack_runs_from_it_alone(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as whole:
        whole.extractall(tmp_path / "pack")
    program = [sys.executable, "-I", "-c", IMPORT, str(tmp_path / "pack")]
    ended = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("18 ")


def test_the_registry_finds_what_it_asks_for() -> None:
    project, comfy = TABLES["project"], TABLES["tool"]["comfy"]
    assert project["license"] == {"file": "LICENSE"}
    assert project["urls"]["Repository"].startswith("https://")
    assert "comfyui" not in project["name"].lower()
    assert {"PublisherId", "DisplayName", "Icon", "Banner", "requires-comfyui"} <= comfy.keys()
    for name in ("Icon", "Banner"):
        assert comfy[name].endswith("/assets/" + Path(comfy[name]).name)
        assert (ROOT / "assets" / Path(comfy[name]).name).is_file()
    assert any("NVIDIA CUDA" in classifier for classifier in project["classifiers"])


def forbidden(source: str) -> list[str]:
    """What the registry refuses: code that is made at run time, and installing packages."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] if node.func.id in ("eval", "exec", "compile") else []
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            found += [n for n in names if n.split(".")[0] in ("subprocess", "pip", "marshal")]
        if isinstance(node, ast.Attribute) and node.attr in ("system", "popen"):
            found += [f"os.{node.attr}"] if getattr(node.value, "id", "") == "os" else []
    return found


@pytest.mark.parametrize(
    "source",
    ["eval('1')", "exec(text)", "import subprocess", "from pip import main", "os.system('ls')"],
)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert forbidden(source) != []


def test_nothing_forbidden_runs() -> None:
    """The examples are programs of their own and not part of what ComfyUI runs."""
    code = [f for f in release_files() if f.endswith(".py") and not f.startswith("examples/")]
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in code}
    assert {file: forbidden(text) for file, text in texts.items() if forbidden(text)} == {}
