"""State between prompts: streams of several clients, nodes and runs stay apart, and are let go."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from examples.comfyui_client import Client, Workflow
from tests.comfy.graphs import nothing_of_ours, sampler, warmed_up
from tests.comfy.pictures import Clip, pictures
from tests.comfy.server import ComfyServer

pytestmark = pytest.mark.anyio

FIRST, SECOND = (8, 9, 10, 11), (15, 13, 12, 14)  # frames of the clip, in the order of two streams
ROUNDS = 6


class Stream:
    """A client that sends one frame a prompt; the last one flushes."""

    def __init__(self, client: Client, clip: Clip, folder: Path, **settings: object) -> None:
        self.client, self.clip, self.folder, self.settings = client, clip, folder, settings
        self.seen: list[np.ndarray] = []

    def workflow(self, frame: int, last: bool) -> Workflow:
        start = warmed_up(self.clip.name, **self.settings)
        return {**start, **sampler(frame, flush=last)}

    async def send(self, frame: int, last: bool = False) -> None:
        outputs = await self.client.run(self.workflow(frame, last))
        if outputs:
            self.seen.append(await pictures(self.client, outputs, self.folder))

    async def send_all(self, frames: Sequence[int]) -> np.ndarray:
        for frame in frames:
            await self.send(frame, last=frame == frames[-1])
        return self.result

    @property
    def result(self) -> np.ndarray:
        return np.concatenate(self.seen)


async def open_sessions(client: Client) -> list[dict]:
    return (await client.get("/live2diff/sessions"))["sessions"]


async def close_sessions(client: Client) -> int:
    return json.loads(await client.post("/live2diff/sessions/close"))["closed"]


async def test_one_frame_a_prompt_is_the_same_as_all_at_once(
    client: Client, clip: Clip, tmp_path: Path
) -> None:
    at_once = {**warmed_up(clip.name), **sampler(8, 4, flush=True)}
    expected = await pictures(client, await client.run(at_once), tmp_path)
    assert len(expected) == len(FIRST)
    assert np.array_equal(await Stream(client, clip, tmp_path).send_all(FIRST), expected)


async def test_two_clients_with_the_same_graph_do_not_mix(
    client: Client, server: ComfyServer, clip: Clip, tmp_path: Path
) -> None:
    first_alone = await Stream(client, clip, tmp_path).send_all(FIRST)
    async with Client(server.address) as other:
        second_alone = await Stream(other, clip, tmp_path).send_all(SECOND)
        streams = Stream(client, clip, tmp_path), Stream(other, clip, tmp_path)
        for ours, theirs in zip(FIRST, SECOND, strict=True):
            await streams[0].send(ours, last=ours == FIRST[-1])
            await streams[1].send(theirs, last=theirs == SECOND[-1])
    assert np.array_equal(streams[0].result, first_alone)
    assert np.array_equal(streams[1].result, second_alone)


async def test_two_clients_that_begin_with_the_same_frames_do_not_mix(
    client: Client, server: ComfyServer, clip: Clip, tmp_path: Path
) -> None:
    common = FIRST[:2]
    alone = await Stream(client, clip, tmp_path).send_all([*common, *SECOND])
    async with Client(server.address) as other:
        streams = Stream(client, clip, tmp_path), Stream(other, clip, tmp_path)
        for frame in common:
            for stream in streams:
                await stream.send(frame)
        await streams[0].send(FIRST[-1], last=True)
        together = await streams[1].send_all(SECOND)
    assert np.array_equal(together, alone)


async def test_two_samplers_on_one_warm_up_do_not_mix(
    client: Client, clip: Clip, tmp_path: Path
) -> None:
    alone = {
        first: await pictures(
            client,
            await client.run({**warmed_up(clip.name), **sampler(first, 4, flush=True)}),
            tmp_path,
        )
        for first in (8, 12)
    }
    both = {
        **warmed_up(clip.name),
        **sampler(8, 4, "left", flush=True),
        **sampler(12, 4, "right", flush=True),
    }
    outputs = await client.run(both)
    for name, first in (("left", 8), ("right", 12)):
        side = {name: outputs[f"{name}_save"]}
        assert np.array_equal(await pictures(client, side, tmp_path), alone[first])


async def test_a_changed_widget_begins_a_new_stream(
    client: Client, clip: Clip, tmp_path: Path
) -> None:
    fresh = await Stream(client, clip, tmp_path, seed=3).send_all(FIRST)
    await client.run(nothing_of_ours())
    await Stream(client, clip, tmp_path, seed=4).send(SECOND[0])
    assert np.array_equal(await Stream(client, clip, tmp_path, seed=3).send_all(FIRST), fresh)


async def test_a_session_is_listed_with_what_it_did(
    client: Client, clip: Clip, tmp_path: Path
) -> None:
    await close_sessions(client)
    stream = Stream(client, clip, tmp_path, seed=5)
    await stream.send(8)
    await stream.send(9)
    (session,) = await open_sessions(client)
    assert session["client"] == client.id
    assert session["node"] == "sampler"
    assert (session["frames_in"], session["in_flight"]) == (10, 1)
    assert session["frames_out"] == 9
    assert session["state_bytes"] > 0
    assert await close_sessions(client) == 1
    assert await open_sessions(client) == []


async def test_a_prompt_without_the_stream_lets_it_go(
    client: Client, clip: Clip, tmp_path: Path
) -> None:
    await Stream(client, clip, tmp_path, seed=6).send(8)
    assert len(await open_sessions(client)) == 1
    await client.run(nothing_of_ours())
    assert await open_sessions(client) == []


async def test_memory_comes_back(
    client: Client, server: ComfyServer, clip: Clip, tmp_path: Path
) -> None:
    async def one_round(seed: int) -> int:
        await Stream(client, clip, tmp_path, seed=seed, width=192, height=192).send(8)
        (session,) = await open_sessions(client)
        await close_sessions(client)
        return session["state_bytes"]

    for seed in range(2):
        state = await one_round(seed)
    await client.run(nothing_of_ours())
    before = server.resident_bytes()
    for seed in range(2, 2 + ROUNDS):
        await one_round(seed)
    await client.run(nothing_of_ours())
    kept = (server.resident_bytes() - before) / state
    assert kept < ROUNDS / 4, f"{kept:.1f} states of {state / 2**20:.0f} MiB stayed"
