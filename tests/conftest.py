"""No test reaches the network: the hub is offline and sockets connect to this computer only.

With several processes, the tests that share a running ComfyUI stay in one of them.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.comfy.install import NO_CHROMIUM, NOT_FOUND, comfyui_folder, find_chromium

# The same examples on every run, and no time limit that a busy computer could miss.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")


def pytest_report_header() -> list[str]:
    try:
        comfyui = comfyui_folder() or f"skipped, {NOT_FOUND}"
    except FileNotFoundError as error:
        comfyui = str(error)
    return [f"ComfyUI: {comfyui}", f"browser: {find_chromium() or f'skipped, {NO_CHROMIUM}'}"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    # Groups by mark (--dist loadgroup) are ignored with pytest 9.2, without a word.
    from xdist.scheduler import LoadScopeScheduling

    class OneProcessForComfyUI(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "comfyui" if nodeid.startswith("tests/comfy/") else nodeid

    return OneProcessForComfyUI(config, log)


def _is_local(family: int, address: Any) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = address[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if not _is_local(self.family, address):
            raise AssertionError(f"a test tried to reach the network: {address!r}")
        return connect(self, address)

    return guarded


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        yield
