"""One ComfyUI for all of these tests."""

from collections.abc import AsyncIterator, Iterator

import pytest

from examples.comfyui_client import Client
from tests.comfy.install import NOT_FOUND, comfyui_folder
from tests.comfy.pictures import Clip, make_clip
from tests.comfy.server import ComfyServer, start_server


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    if comfyui_folder() is None:
        pytest.skip(NOT_FOUND)
    running = start_server(tmp_path_factory.mktemp("comfyui"))
    yield running
    running.stop()


@pytest.fixture
async def client(server: ComfyServer) -> AsyncIterator[Client]:
    async with Client(server.address) as connected:
        yield connected


@pytest.fixture(scope="session")
def clip(server: ComfyServer) -> Clip:
    """A short clip in ComfyUI's input folder."""
    return make_clip(server.base / "input" / "clip.mp4", 16)


@pytest.fixture(scope="session")
def long_clip(server: ComfyServer) -> Clip:
    return make_clip(server.base / "input" / "long_clip.mp4", 50)
