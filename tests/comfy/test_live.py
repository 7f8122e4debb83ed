"""Live streams in ComfyUI: what they show, how they are steered, how they end."""

import asyncio
import json
import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch

from examples.comfyui_client import Client, PromptFailed, PromptInterrupted
from examples.socket_client import Client as SocketClient
from examples.socket_client import Frame
from live2diff_core.live.pattern import read_counter
from tests.comfy.graphs import (
    HEIGHT,
    WIDTH,
    live,
    nothing_of_ours,
    pattern,
    program,
    recorded,
)
from tests.comfy.install import ROOT
from tests.comfy.lives import BEGUN, LIMIT, Live, playing, shown, small
from tests.comfy.pictures import RATE, Clip, decode, difference
from tests.comfy.server import ComfyServer

pytestmark = pytest.mark.anyio

API = ROOT / "workflows" / "api"
COUNTED = {"width": 192, "height": 192, "fit": "stretch"}  # of a picture whose number can be read
FEW = 12  # pictures
ROUNDS = 8  # more than the threads that a server keeps to answer with
STEPS, CACHE = 4, 49 * 2**20  # bytes that a stream of so many steps holds
TRANSLATED = 8.0  # of 255; encoding alone changes a picture by less than 2
CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}  # which ComfyUI itself does not look at
NOT_THERE = {
    "live_server_camera": ({"device": "no such camera"}, "no such camera"),
    "live_screen": ({"monitor": 16}, "screen|monitor"),
}


def in_order(indices: list[int]) -> bool:
    return all(before < after for before, after in pairwise(indices))


def frames_of(clip: Clip) -> Iterator[Frame]:
    return (Frame(rgb, i, i / RATE) for i, rgb in enumerate(clip.frames))


async def feed(stream: Live, clip: Clip) -> list[Frame]:
    """Send a clip as a program does, and end; what came back."""
    back: list[Frame] = []
    address = stream.client.server
    async with SocketClient(address, stream=stream.stream, key=stream.key) as source:
        await source.translate(frames_of(clip), {}, back.append)
    return back


# ---- what comes out


async def test_each_frame_comes_out_once_in_order_with_its_own_number(client: Client) -> None:
    workflow = live(pattern(192, 160), "blueprint", **COUNTED)
    async with playing(client, workflow) as stream, stream.viewer() as viewer:
        pictures = await shown(viewer, FEW)
    indices = [header.index for header, _ in pictures]
    assert in_order(indices)
    counters = [read_counter(torch.from_numpy(rgb).movedim(-1, 0)) for _, rgb in pictures]
    readable = [(i, n) for i, n in zip(indices, counters, strict=True) if n is not None]
    assert len(readable) > FEW / 2
    assert all(index == number for index, number in readable)


@pytest.mark.parametrize("name", ["live_test_pattern", "live_video"])
async def test_a_workflow_with_a_source_of_the_server_runs_until_it_is_stopped(
    client: Client, server: ComfyServer, name: str
) -> None:
    async with playing(client, small(API / f"{name}.json")) as stream:
        assert stream.place["feed"] is None
        async with stream.viewer() as viewer:
            pictures = await shown(viewer, FEW)
            await stream.stop()
            assert await viewer.gone() == 1000
        files = await stream.end()
    assert {rgb.shape for _, rgb in pictures} == {(HEIGHT, WIDTH, 3)}
    assert in_order([header.index for header, _ in pictures])
    assert [end["text"] for end in stream.ends()] == [""]
    if name == "live_video":
        (file,) = files
        assert (file["subfolder"], file["type"]) == ("live2diff", "output")
        film = decode(server.base / "output" / "live2diff" / file["filename"])
        assert film.shape[1:] == (HEIGHT, WIDTH, 3)
        assert len(film) >= FEW


async def test_a_workflow_that_a_program_feeds_gives_back_every_frame(
    client: Client, clip: Clip
) -> None:
    async with playing(client, small(API / "live_socket.json")) as stream:
        assert stream.place["feed"]["shows"] == "program"
        back = await feed(stream, clip)
        assert await stream.end() == []  # with the program's end
    assert [frame.index for frame in back] == list(range(len(clip.frames)))
    pictures = np.stack([frame.rgb for frame in back])
    assert difference(pictures, clip.frames) > TRANSLATED


@pytest.mark.parametrize("format", ["mp4", "webm", "mkv"])
async def test_a_recording_has_all_that_was_shown(
    client: Client, server: ComfyServer, clip: Clip, format: str
) -> None:
    async with playing(client, recorded(live(program()), format)) as stream:
        back = await feed(stream, clip)
        (file,) = await stream.end()
    film = decode(server.base / "output" / file["filename"])
    assert file["filename"].endswith(format)
    assert len(film) == len(back) == len(clip.frames)
    assert difference(film, np.stack([frame.rgb for frame in back])) < TRANSLATED


@pytest.mark.parametrize("name", NOT_THERE)
async def test_a_source_that_is_not_there_is_told_and_waited_for(client: Client, name: str) -> None:
    widgets, reason = NOT_THERE[name]
    workflow = small(API / f"{name}.json")
    (source,) = (entry for entry in workflow.values() if widgets.keys() <= entry["inputs"].keys())
    source["inputs"].update(widgets)
    async with playing(client, workflow) as stream:
        figures = await stream.until(lambda now: now["error"] is not None)
        assert re.search(reason, figures["error"], re.IGNORECASE)
        assert len((await client.get("/queue"))["queue_running"]) == 1
        await stream.stop()
        assert await stream.end() == []
    assert re.search(reason, stream.ends()[0]["text"], re.IGNORECASE)


async def test_a_program_that_sends_nothing_is_told_of_and_may_come_late(
    client: Client, clip: Clip
) -> None:
    async with playing(client, live(program())) as stream:
        async with stream.steering("controller") as controller:
            lost = await controller.hear("event")
            assert lost["event"] == "source lost"
            assert "check that it sends" in lost["message"]
            back = await feed(stream, clip)
            assert (await controller.hear("event"))["event"] == "source back"
        await stream.end()
    assert len(back) > 0


# ---- steering


async def test_another_prompt_shows_from_the_frame_on_that_is_answered(
    client: Client, clip: Clip
) -> None:
    async def brightness(prompt: str) -> float:
        async with playing(client, live(program(), prompt)) as stream:
            return float(np.mean([frame.rgb for frame in await feed(stream, clip)]))

    ink, neon = await brightness("ink"), await brightness("neon")
    assert abs(ink - neon) > TRANSLATED
    async with playing(client, live(pattern(), "neon")) as stream, stream.viewer() as viewer:
        before = [rgb.mean() for _, rgb in await shown(viewer, FEW)]
        answer = await stream.change(prompt="ink")
        assert (answer["effects"], answer["refused"]) == ({"prompt": "re-prime"}, {})
        while (picture := await viewer.picture())[0].index < answer["frame"]:
            pass
        after = [rgb.mean() for _, rgb in await shown(viewer, FEW)]
    assert picture[0].index >= answer["frame"]
    assert (np.mean(after) - np.mean(before)) * (ink - neon) > 0
    assert abs(np.mean(after) - np.mean(before)) > abs(ink - neon) / 2


async def test_what_cannot_be_is_refused_and_the_stream_goes_on(client: Client) -> None:
    async with playing(client, live(pattern())) as stream, stream.viewer() as viewer:
        answer = await stream.change(prompt="a castle", strength=0.3)
        assert re.search("ink.*nightvision", answer["refused"]["prompt"])
        assert in_order([header.index for header, _ in await shown(viewer, FEW)])


async def test_a_prompt_without_a_style_fails_with_the_styles(client: Client) -> None:
    with pytest.raises(PromptFailed, match=r"Live2DiffLive \(live\): .*ink.*nightvision"):
        async with playing(client, live(pattern(), "a castle")):
            pass
    assert await client.get("/live2diff/streams") == {"streams": []}


async def test_comfyui_answers_while_a_stream_runs(client: Client) -> None:
    workflow = live(pattern(), width=192, height=192)
    async with playing(client, workflow) as stream, stream.viewer() as viewer:
        async with asyncio.timeout(LIMIT):
            for _ in range(FEW):
                await viewer.picture()
                assert len((await client.get("/queue"))["queue_running"]) == 1


# ---- how it ends


async def test_an_interrupt_ends_it(client: Client) -> None:
    async with playing(client, live(pattern())) as stream, stream.viewer() as viewer:
        await shown(viewer, 1)
        await client.post("/interrupt")
        with pytest.raises(PromptInterrupted):
            await stream.end()
        assert await viewer.gone() == 1000
        assert (await stream.ask("DELETE"))[0] == 404
    assert len(stream.ends()) == 1
    assert await client.get("/live2diff/streams") == {"streams": []}


async def test_nothing_is_left_of_streams_that_have_ended(
    client: Client, server: ComfyServer
) -> None:
    async def rounds(count: int) -> tuple[int, int, int]:
        """Threads, descriptors and bytes after so many runs; every other one is interrupted."""
        for turn in range(count):
            workflow = live(pattern(), steps=STEPS)
            async with playing(client, workflow) as stream, stream.viewer() as viewer:
                await shown(viewer, 1)
                if turn % 2:
                    await stream.stop()
                    await stream.end()
        await client.run(nothing_of_ours())
        return server.threads(), server.descriptors(), server.resident_bytes()

    before, after = await rounds(2), await rounds(ROUNDS)
    threads, descriptors, memory = (b - a for a, b in zip(before, after, strict=True))
    assert threads < ROUNDS
    assert descriptors < ROUNDS
    assert memory / CACHE < ROUNDS / 2


# ---- whose it is


async def test_the_next_run_is_found_at_the_same_place(client: Client, server: ComfyServer) -> None:
    async def place(who: Client) -> tuple[str, str]:
        async with playing(who, live(pattern())) as stream:
            return stream.stream, stream.key

    ours = await place(client)
    assert await place(client) == ours
    async with Client(server.address) as other:
        theirs = await place(other)
    assert len({*ours, *theirs}) == 4


async def test_another_client_neither_sees_nor_steers_it(
    client: Client, server: ComfyServer
) -> None:
    async with Client(server.address) as other, playing(client, live(pattern())) as stream:
        prompt_id = await other.queue(nothing_of_ours())
        for method in ("POST", "DELETE"):
            status, _ = await stream.ask(method, key="a guess", json={"prompt": "neon"})
            assert status == 403
        for role in ("source", "controller"):
            async with stream.talk() as talk:
                await talk.hello(role, stream=stream.stream, key="a guess")
                assert await talk.refused() == ("forbidden", 4004)
        paths = ("/live2diff/streams", "/live2diff/sessions", "/queue", "/history", "/prompt")
        told = json.dumps([await other.get(path) for path in paths])
        assert "frames_out" in told
        assert stream.stream not in told
        assert stream.key not in told
        await stream.stop()
        await stream.end()
        heard = [kind async for kind, _ in other.events(prompt_id)]
    assert "executing" in heard
    assert [kind for kind in heard if "live2diff" in kind] == []
    assert len([kind for kind, _ in stream.told if kind == BEGUN]) >= 1


@pytest.mark.parametrize("origin", [{"Origin": "https://example.org"}, CROSS_SITE])
async def test_pages_of_other_sites_are_refused(client: Client, origin: dict[str, str]) -> None:
    async with playing(client, live(pattern())) as stream, stream.viewer() as viewer:
        for method in ("POST", "DELETE"):
            status, _ = await stream.ask(method, headers=origin, json={"pause": True})
            assert status == 403
        for method, path in (("GET", "socket"), ("POST", "sessions/close")):
            request = stream.http.request(method, f"/live2diff/{path}", headers=origin)
            async with request as answer:
                assert answer.status == 403
        assert in_order([header.index for header, _ in await shown(viewer, FEW)])
