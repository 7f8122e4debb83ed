"""A run that the user stops."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from examples.comfyui_client import Client, PromptInterrupted, Workflow
from tests.comfy.graphs import sampler, translation, warmed_up
from tests.comfy.pictures import Clip, pictures
from tests.comfy.server import ComfyServer

pytestmark = pytest.mark.anyio

SOON = 5.0  # seconds


async def interrupt(client: Client, workflow: Workflow) -> float:
    """Stop a run once a node has told of progress; the seconds it took."""
    prompt_id, asked = await client.queue(workflow), 0.0
    with pytest.raises(PromptInterrupted):
        async for kind, data in client.events(prompt_id):
            if kind == "progress" and data["value"] > 0 and not asked:
                asked = time.monotonic()
                await client.post("/interrupt")
    return time.monotonic() - asked


async def test_a_video_is_stopped_in_the_middle(
    client: Client, server: ComfyServer, clip: Clip, long_clip: Clip, tmp_path: Path
) -> None:
    undisturbed = await pictures(client, await client.run(translation(clip.name)), tmp_path)
    files = server.temp_files

    async with asyncio.timeout(60):
        assert await interrupt(client, translation(long_clip.name, seed=1)) < SOON
    assert server.temp_files <= files, "the broken run left a file"
    queue = await client.get("/queue")
    assert queue == {"queue_running": [], "queue_pending": []}

    after = await pictures(client, await client.run(translation(clip.name)), tmp_path)
    assert np.array_equal(after, undisturbed)


async def test_a_stopped_sampler_ends_its_session(
    client: Client, clip: Clip, long_clip: Clip, tmp_path: Path
) -> None:
    short = {**warmed_up(long_clip.name), **sampler(8, 4, flush=True)}
    undisturbed = await pictures(client, await client.run(short), tmp_path)

    await interrupt(client, {**warmed_up(long_clip.name), **sampler(8, 40)})
    sessions = (await client.get("/live2diff/sessions"))["sessions"]
    assert [s for s in sessions if s["node"] == "sampler"] == []

    other_name = {**short, "sampler_save": {**short["sampler_save"]}}
    other_name["sampler_save"]["inputs"] = {"images": ["sampler", 0], "filename_prefix": "again"}
    after = await pictures(client, await client.run(other_name), tmp_path)
    assert np.array_equal(after, undisturbed)
