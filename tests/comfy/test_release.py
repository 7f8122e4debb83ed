"""The archive of a release in a fresh ComfyUI."""

import zipfile
from pathlib import Path

import pytest

from examples.comfyui_client import Client
from tests.comfy.graphs import bundled, node
from tests.comfy.install import NOT_FOUND, comfyui_folder
from tests.comfy.server import start_server
from tests.comfy.test_pack import CLASSES, import_line
from tests.release import write_release

pytestmark = pytest.mark.anyio


async def test_a_release_is_imported_and_runs(tmp_path: Path) -> None:
    if comfyui_folder() is None:
        pytest.skip(NOT_FOUND)
    with zipfile.ZipFile(write_release(tmp_path / "node.zip")) as archive:
        archive.extractall(tmp_path / "pack")
    server = start_server(tmp_path / "comfyui", pack=tmp_path / "pack")
    try:
        assert "IMPORT FAILED" not in import_line(server.log)
        assert set(CLASSES) <= server.get_json("/object_info").keys()
        plan = node("Live2DiffPlan", model=["model", 0], width=256, height=192, steps=2)
        async with Client(server.address) as client:
            outputs = await client.run({**bundled(), "plan": plan})
        assert "256" in outputs["plan"]["text"][0]
    finally:
        server.stop()
