"""Which ComfyUI is found, and what its Python is said to lack."""

import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.comfy import install, setup_comfyui
from tests.comfy.install import Environment, comfyui_folder, own_python
from tests.comfy.server import require_dependencies

ALL = {
    Requirement(line).name.replace("_", "-"): "99"
    for line in install.REQUIREMENTS.read_text().splitlines()
    if line and not line.startswith("#")
}


def make_comfyui(folder: Path) -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(install, "ROOT", tmp_path / "elsewhere")
    return tmp_path


def test_the_named_comfyui_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_comfyui(home / "comfy" / "ComfyUI")
    named = make_comfyui(home / "named")
    monkeypatch.setenv("COMFYUI_PATH", str(named))
    assert comfyui_folder() == named


def test_a_named_folder_without_comfyui_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_comfyui(home / "comfy" / "ComfyUI")
    monkeypatch.setenv("COMFYUI_PATH", str(home / "named"))
    with pytest.raises(FileNotFoundError, match="named: there is no ComfyUI"):
        comfyui_folder()


def test_then_the_one_at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    around = make_comfyui(home / "around")
    monkeypatch.setattr(install, "ROOT", around / "custom_nodes" / "pack")
    assert comfyui_folder() == around
    at_home = make_comfyui(home / "comfy" / "ComfyUI")
    assert comfyui_folder() == at_home


def test_none_is_found(home: Path) -> None:
    assert comfyui_folder() is None


def test_only_an_own_environment_is_added_to(home: Path) -> None:
    folder = make_comfyui(home / "comfy" / "ComfyUI")
    assert own_python(folder) is None
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert own_python(folder) == python


def environment(version: str = "3.11.7", **changes: str | None) -> Environment:
    installed = {**ALL, **changes}
    kept = {name: number for name, number in installed.items() if number is not None}
    return Environment(Path("/comfy/python"), version, kept)


def names(missing: list[Requirement]) -> list[str]:
    return [wanted.name for wanted in missing]


def test_nothing_is_missing() -> None:
    assert environment().missing() == []


def test_what_is_absent_or_too_old_is_missing() -> None:
    assert names(environment(einops=None, av="12.0").missing()) == ["einops", "av"]


def test_a_requirement_of_an_old_python_is_missing_there_only() -> None:
    assert names(environment(tomli=None).missing()) == []
    assert names(environment("3.10.2", tomli=None).missing()) == ["tomli"]


def test_any_package_with_cv2_will_do() -> None:
    without = environment(**{"opencv-python-headless": None})
    assert names(without.missing()) == ["opencv-python-headless"]
    other = environment(**{"opencv-python-headless": None, "opencv-python": "4.10"})
    assert other.missing() == []


def test_the_error_names_the_command() -> None:
    with pytest.raises(
        RuntimeError, match=r"lacks einops: run .*--python /comfy/python install einops"
    ):
        require_dependencies(environment(einops=None))


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    subprocess.run(["git", *identity, "-C", folder, *words], check=True, capture_output=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with two versions, of which the first has a tag."""
    folder = make_comfyui(tmp_path / "source")
    (folder / "comfy" / "kept.py").touch()
    git(folder, "init")
    for version in ("v1", "v2"):
        (folder / "main.py").write_text(version)
        git(folder, "add", ".")
        git(folder, "commit", "-m", version)
        git(folder, "tag", version)
    return folder


@pytest.mark.parametrize(("ref", "expected"), [(None, "v2"), ("v1", "v1"), ("HEAD~1", "v1")])
def test_a_comfyui_is_cloned_at_a_version(
    source: Path, tmp_path: Path, ref: str | None, expected: str
) -> None:
    setup_comfyui.clone(str(source), ref, tmp_path / "made")
    assert (tmp_path / "made" / "main.py").read_text() == expected


def test_a_file_that_a_mirror_left_out_is_named(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = subprocess.run(
        ["git", "-C", source, "ls-tree", "HEAD", "main.py"], capture_output=True, text=True
    )
    blob = listed.stdout.split()[2]
    (source / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    setup_comfyui.clone(str(source), None, tmp_path / "made")
    assert (tmp_path / "made" / "comfy" / "kept.py").is_file()
    assert "main.py" in caplog.text
