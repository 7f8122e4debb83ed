"""What the project promises about itself: its dependencies, its licence, its version, its tests."""

import os
import re
import socket
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import live2diff_core

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
DEPENDENCIES = [Requirement(line) for line in LINES if not line.startswith("#")]
EXTRAS = [Requirement(r) for rs in PROJECT["optional-dependencies"].values() for r in rs]


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    wrong = [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)]
    assert wrong == [], "a constraint is a name and a public version, nothing else"
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in pins)}


def capped(requirements: list[Requirement]) -> list[str]:
    return [str(r) for r in requirements if any(s.operator != ">=" for s in r.specifier)]


def test_capped_finds_every_kind_of_pin() -> None:
    pins = ["a==1", "a<2", "a~=1.0", "a>=1,<2", "a<=2", "a===1"]
    assert len(capped([Requirement(pin) for pin in pins])) == len(pins)
    assert capped([Requirement("a"), Requirement("a>=1")]) == []


def test_no_dependency_is_pinned() -> None:
    assert capped(DEPENDENCIES + EXTRAS) == []


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_the_host_decides_on_shared_libraries(name: str) -> None:
    (found,) = [r for r in DEPENDENCIES if r.name == name]
    assert str(found.specifier) == ""


def test_every_dependency_has_a_development_version() -> None:
    needed = {canonicalize_name(r.name) for r in DEPENDENCIES + EXTRAS} - {PROJECT["name"]}
    assert needed - constraints().keys() == set()


def test_development_runs_on_one_torch() -> None:
    assert constraints()["torch"] == "2.13.0"


def test_every_file_of_the_package_is_installed_with_it() -> None:
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = tables["setuptools"]["package-data"]["live2diff_core"]
    package = ROOT / "live2diff_core"
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {p for p in files - installed if p.suffix != ".py"} == set()


def test_the_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == {"file": "LICENSE"}
    assert text.split()[:5] == ["Apache", "License", "Version", "2.0,", "January"]
    assert "9. Accepting Warranty or Additional Liability." in text


def test_the_version_is_said_once() -> None:
    assert PROJECT["version"] == live2diff_core.__version__


def test_the_hub_is_offline() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
@pytest.mark.parametrize("host", ["192.0.2.1", "example.org"])
def test_a_test_that_tries_the_network_fails(method: str, host: str) -> None:
    with (
        socket.socket() as outside,
        pytest.raises(AssertionError, match="tried to reach the network"),
    ):
        getattr(outside, method)((host, 80))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_computer_can_be_reached(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect((host, server.getsockname()[1]))
