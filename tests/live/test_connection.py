"""Who gets frames: every role may ask for them, or do without."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from threading import Event, Semaphore

import pytest
from aiohttp import web

from live2diff_core.live.controls import Answer
from tests.live.wire import FakeStream, Site, message_of, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("role", "frames", "gets"),
    [
        ("viewer", None, True),
        ("viewer", True, True),
        ("viewer", False, False),
        ("source", None, True),
        ("source", True, True),
        ("source", False, False),
        ("controller", None, False),
        ("controller", True, True),
        ("controller", False, False),
    ],
)
async def test_frames_go_to_who_wants_them(
    here: Site, role: str, frames: bool | None, gets: bool
) -> None:
    stream, key = here.stream()
    asked = {} if frames is None else {"frames": frames}
    async with here.talk() as talk:
        await talk.hello(role, stream=stream.id, key=key, **asked)
        await talk.hear("statistics")
        assert stream.relay.readers == int(gets)
        stream.show(4)
        if gets:
            assert (await talk.picture())[0].index == 4
        here.hub.publish(stream.id, "reset", "heard in any case")
        assert (await talk.hear("event"))["event"] == "reset"


async def test_a_controller_that_watches_still_steers_and_brings_nothing(here: Site) -> None:
    stream, key = here.stream()
    async with here.talk() as talk:
        await talk.hello("controller", stream=stream.id, key=key, frames=True)
        await talk.say("control", changes={"prompt": "ink"}, request=1)
        assert (await talk.hear("answer"))["frame"] == 7
        stream.show(2)
        assert (await talk.picture())[0].index == 2
        await talk.say("end")
        assert await talk.refused() == ("not_allowed", None)


@pytest.mark.parametrize("role", ["source", "controller"])
async def test_who_wants_no_pictures_is_told_of_the_end(here: Site, role: str) -> None:
    stream, key = here.stream()
    async with here.talk() as talk:
        await talk.hello(role, stream=stream.id, key=key, frames=False)
        await talk.hear("statistics")
        stream.relay.close()  # as the runner does
        assert (await talk.hear("event"))["event"] == "ended"
        assert await talk.gone() == 1000


async def test_a_change_that_takes_its_time_holds_no_frame_up_and_no_panic(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, key = here.stream()
    control, merged = stream.control, Event()

    def slow(changes: Mapping[str, object]) -> Answer:
        if "prompt" in changes:
            assert merged.wait(10)
        return control(changes)

    monkeypatch.setattr(stream, "control", slow)
    async with here.source(stream, key) as source:
        await source.say("control", changes={"prompt": "ink"}, request=1)
        await source.say("control", changes={"seed": 3}, request=2)
        await source.socket.send_bytes(message_of(0))
        await asyncio.to_thread(stream.step)
        assert (await source.picture())[0].index == 0
        await source.say("control", changes={"panic": True}, request=3)
        assert (await source.hear("answer"))["request"] == 3
        merged.set()
        assert [(await source.hear("answer"))["request"] for _ in range(2)] == [1, 2]


async def test_changes_to_many_streams_that_take_their_time_hold_no_frame_up(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than the loop has threads for pictures."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    compiled, begun = Event(), Semaphore(0)

    def compiling(_: FakeStream, changes: Mapping[str, object]) -> Answer:
        begun.release()
        assert compiled.wait(10)
        return Answer(7, dict.fromkeys(changes, "now"), {})

    stream, key = here.stream()
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(here.source(stream, key))
        monkeypatch.setattr(FakeStream, "control", compiling)
        others = [here.source(*here.stream()) for _ in range(4)]
        steering = [await stack.enter_async_context(other) for other in others]
        for talk in steering:
            await talk.say("control", changes={"prompt": "ink"})
        for _ in range(2):
            await until(lambda: begun.acquire(blocking=False))
        await source.socket.send_bytes(message_of(0))
        await asyncio.to_thread(stream.step)
        assert (await source.picture())[0].index == 0
        compiled.set()
        for talk in steering:
            await talk.hear("answer")


async def test_changes_are_made_though_the_client_leaves_at_once(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, key = here.stream()
    control = stream.control
    made: list[object] = []

    def slow(changes: Mapping[str, object]) -> Answer:
        time.sleep(0.2)
        made.extend(changes.values())
        return control(changes)

    monkeypatch.setattr(stream, "control", slow)
    async with here.talk() as talk:
        await talk.hello("controller", stream=stream.id, key=key, frames=False)
        await talk.hear("statistics")
        for request, words in enumerate(("ink", "neon", "chalk")):
            await talk.say("control", changes={"prompt": words}, request=request)
    await until(lambda: made == ["ink", "neon", "chalk"])


async def test_without_a_reader_nothing_is_encoded(here: Site) -> None:
    """So a page that shows its own picture costs the stream none."""
    stream, key = here.stream()
    async with here.talk() as talk:
        await talk.hello("source", stream=stream.id, key=key, frames=False)
        await talk.hear("credit")
        for index in range(3):
            stream.show(index)
        assert stream.relay.missed == 2


async def test_who_wants_all_frames_gets_those_that_come_out_at_once(here: Site) -> None:
    """As at the end of a stream, when the frames in flight come together."""
    stream, key = here.stream()
    stream.show(0)
    async with here.talk() as talk:
        await talk.hello("source", stream=stream.id, key=key, frames="all")
        await talk.hear("credit")
        for index in range(1, 9):
            stream.show(index)
        assert [(await talk.picture())[0].index for _ in range(8)] == list(range(1, 9))
    assert stream.relay.missed == 0


async def test_who_wants_all_frames_gets_no_credit_while_they_wait(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is stuck: what waits for it is bounded by what the client may send."""
    stream, key = here.stream()
    moves, send = asyncio.Event(), web.WebSocketResponse.send_bytes

    async def held(socket: web.WebSocketResponse, message: bytes) -> None:
        await moves.wait()
        await send(socket, message)

    monkeypatch.setattr(web.WebSocketResponse, "send_bytes", held)
    async with here.talk() as talk:
        await talk.hello("source", stream=stream.id, key=key, frames="all")
        await talk.hear("credit")
        for index in range(4):
            await talk.socket.send_bytes(message_of(index))
            await asyncio.to_thread(stream.step)
        here.hub.publish(stream.id, "reset", "so that there is something to hear")
        await talk.hear("event")
        assert max(said["until"] for said in talk.heard if said["type"] == "credit") <= 3
        moves.set()
        assert [(await talk.picture())[0].index for _ in range(4)] == [0, 1, 2, 3]
        while (await talk.hear("credit"))["until"] < 5:
            pass


async def test_frames_that_are_no_yes_or_no_are_refused(here: Site) -> None:
    stream, _ = here.stream()
    async with here.talk() as talk:
        await talk.say("hello", version=1, role="viewer", stream=stream.id, frames="yes")
        assert await talk.refused() == ("bad_message", None)
        await talk.hello("viewer", stream=stream.id, frames=True)  # it may say so again
