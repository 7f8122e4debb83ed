"""Every API workflow of the pack through the headless client."""

import json
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from examples.comfyui_client import (
    Client,
    PromptRefused,
    Workflow,
    files_of,
    set_everywhere,
    set_video,
)
from tests.comfy import lives
from tests.comfy.graphs import HEIGHT, WIDTH, node
from tests.comfy.install import ROOT
from tests.comfy.lives import playing
from tests.comfy.pictures import RATE, Clip, decode, difference
from tests.comfy.server import ComfyServer

pytestmark = pytest.mark.anyio

FILES = sorted(ROOT.glob("workflows/api/*.json"))
NEEDS_FILES, RUNS_ON = "Live2DiffApply", "Live2DiffLive"
WARM_UP = 8  # frames that the sampler does not give
TRANSLATED = 8.0  # of 255; encoding alone changes a picture by less than 2


def load(path: Path) -> Workflow:
    return json.loads(path.read_text(encoding="utf-8"))


def has(path: Path, class_type: str) -> bool:
    return any(node["class_type"] == class_type for node in load(path).values())


SMALL = {"width": WIDTH, "height": HEIGHT, "scale_by": 1}
OTHERS = [path for path in FILES if has(path, NEEDS_FILES)]
LIVE = [path for path in FILES if has(path, RUNS_ON)]
BUNDLED = [path for path in FILES if path not in OTHERS + LIVE]


def small(path: Path, video: str, seed: int) -> Workflow:
    workflow = load(path)
    set_video(workflow, video)
    set_everywhere(workflow, "seed", seed)
    for entry in workflow.values():
        inputs = entry["inputs"]
        inputs.update({name: SMALL[name] for name in SMALL.keys() & inputs.keys()})
    return workflow


def run_client(workflow: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "examples/comfyui_client.py", f"workflows/api/{workflow}.json"]
    return subprocess.run([*program, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


async def video_of(client: Client, workflow: Workflow, folder: Path) -> Path:
    """The one file that a run leaves in the output folder; pictures for the page are beside it."""
    results = await client.run(workflow)
    outputs = {
        name: shown
        for name, shown in results.items()
        if {file["type"] for file in files_of({name: shown})} == {"output"}
    }
    assert len(files_of(outputs)) == 1
    (path,) = await client.fetch(outputs, folder)
    return path


def test_there_are_workflows_of_all_kinds() -> None:
    assert len(BUNDLED) >= 3
    assert len(OTHERS) >= 1
    assert len(LIVE) >= 7
    for_people = {
        path.stem.removeprefix("live2diff-").removesuffix(".app")
        for path in ROOT.glob("workflows/*.json")
    }
    assert for_people == {path.stem.replace("_", "-") for path in FILES}


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
async def test_a_workflow_translates_a_video(
    client: Client, clip: Clip, tmp_path: Path, path: Path
) -> None:
    async def run(seed: int) -> Path:
        return await video_of(client, small(path, clip.name, seed), tmp_path)

    file, first_frame = await run(1), WARM_UP if has(path, "Live2DiffSampler") else 0
    first, given = decode(file), clip.frames[first_frame:]
    assert first.shape == (len(given), HEIGHT, WIDTH, 3)
    assert difference(first, given) > TRANSLATED
    with av.open(str(file)) as container:
        assert container.streams.video[0].average_rate == RATE
        assert len(container.streams.audio) == (first_frame == 0)
    assert difference(decode(await run(2)), first) > 0
    assert np.array_equal(decode(await run(1)), first)


@pytest.mark.parametrize("path", LIVE, ids=lambda path: path.stem)
async def test_a_live_workflow_runs_until_it_is_stopped(client: Client, path: Path) -> None:
    async with playing(client, lives.small(path)) as stream:
        assert len((await client.get("/queue"))["queue_running"]) == 1
        assert await stream.change(prompt="neon")
        await stream.stop()
        await stream.end()
    assert (await client.get("/queue"))["queue_running"] == []


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
async def test_a_workflow_without_its_files_is_refused(
    client: Client, server: ComfyServer, clip: Clip, path: Path
) -> None:
    workflow = load(path)
    set_video(workflow, clip.name)
    with pytest.raises(PromptRefused) as caught:
        await client.queue(workflow)
    named = [
        value
        for node in workflow.values()
        for value in node["inputs"].values()
        if isinstance(value, str) and Path(value).suffix in (".safetensors", ".ckpt")
    ]
    assert len(named) >= 2
    assert [name for name in named if name not in str(caught.value)] == []
    assert str(server.base / "models" / "live2diff") in str(caught.value)


def test_the_client_runs_as_a_program(server: ComfyServer, clip: Clip, tmp_path: Path) -> None:
    words = ["--server", server.address, "--input", str(clip.path), "--prompt", "ink", "--seed"]
    ended = run_client("quickstart", *words, "5", "--output", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert f"Live2DiffTranslateVideo: {len(clip.frames)}/{len(clip.frames)}" in ended.stdout
    file = Path(ended.stdout.splitlines()[-1])
    assert file.parent == tmp_path
    assert len(decode(file)) == len(clip.frames)


def test_the_program_says_what_is_wrong(server: ComfyServer, clip: Clip) -> None:
    ended = run_client("quickstart", "--server", server.address, "--prompt", "a castle")
    assert ended.returncode == 1
    assert re.search("^PromptFailed: .*ink.*nightvision", ended.stderr, re.MULTILINE)


async def test_the_example_clip_keeps_its_length_in_the_cores_nodes(
    client: Client, tmp_path: Path
) -> None:
    workflow = {
        "example": node("Live2DiffExampleVideo"),
        "parts": node("GetVideoComponents", video=["example", 0]),
        "whole": node("CreateVideo", images=["parts", 0], audio=["parts", 1], fps=["parts", 2]),
        "save": node(
            "SaveVideo", video=["whole", 0], filename_prefix="core", format="auto", codec="auto"
        ),
    }
    with av.open(str(await video_of(client, workflow, tmp_path))) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        seconds = [float(stream.duration * stream.time_base) for stream in (picture, sound)]
    assert seconds[0] == pytest.approx(seconds[1], abs=0.1)


async def test_an_uploaded_video_is_what_a_workflow_gets(
    client: Client, server: ComfyServer, clip: Clip, tmp_path: Path
) -> None:
    own = tmp_path / "own name.mp4"
    own.write_bytes(clip.path.read_bytes())
    name = await client.upload(own)
    assert (server.base / "input" / name).read_bytes() == clip.path.read_bytes()
