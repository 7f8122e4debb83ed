"""Streams that clients open, leave and come back to."""

import asyncio

import pytest

from live2diff_core.live.streams import Limits
from tests.live.wire import (
    MANY,
    FakeStream,
    Site,
    message_of,
    opener,
    site,
    until,
)

pytestmark = pytest.mark.anyio


async def test_a_client_opens_a_stream_of_its_own() -> None:
    made: list[FakeStream] = []
    async with site(MANY, opener=opener(made)) as here, here.talk() as source:
        await source.hello("source")
        await source.say("configure", settings={"prompt": "nonsense"})
        assert await source.refused() == ("refused", None)
        await source.say("configure", settings={"prompt": "ink"})
        said = await source.hear("stream")
        assert said["stream"] == made[0].id
        assert here.hub.unlock(said["stream"], said["key"]) is made[0]
        await source.socket.send_bytes(message_of(0))
        await asyncio.to_thread(made[0].step)
        assert (await source.picture())[0].index == 0


async def test_a_stream_ends_a_while_after_its_client_has_gone() -> None:
    made: list[FakeStream] = []
    limits = Limits(linger_seconds=0)
    async with site(limits, opener=opener(made)) as here:
        async with here.talk() as source:
            await source.hello("source")
            await source.say("configure", settings={})
            await source.hear("credit")
            assert not made[0].closed
        await until(lambda: made[0].closed)
        assert here.hub.list() == []


async def test_a_line_that_breaks_again_has_the_whole_while_again() -> None:
    made: list[FakeStream] = []
    async with site(Limits(linger_seconds=0.8), opener=opener(made)) as here:
        async with here.talk() as source:
            await source.hello("source")
            await source.say("configure", settings={})
            key = (await source.hear("stream"))["key"]
            await source.hear("credit")
        (stream,) = made
        await asyncio.sleep(0.6)
        async with here.talk() as source:
            await source.hello("source", stream=stream.id, key=key)
            await source.hear("credit")
        await asyncio.sleep(0.5)  # the first while is over
        assert not stream.closed
        await until(lambda: stream.closed)


async def test_a_stream_that_its_client_ended_is_removed_at_once() -> None:
    made: list[FakeStream] = []
    async with site(opener=opener(made)) as here, here.talk() as source:
        await source.hello("source")
        await source.say("configure", settings={})
        await source.hear("credit")
        made[0].relay.close()
        assert await source.gone() == 1000
        await until(lambda: made[0].closed)
        assert here.hub.list() == []


async def test_a_stream_whose_client_has_gone_is_removed_when_it_ends() -> None:
    made: list[FakeStream] = []
    async with site(opener=opener(made)) as here:
        async with here.talk() as source:
            await source.hello("source")
            await source.say("configure", settings={})
            await source.hear("credit")
            await source.say("end")
        (stream,) = made
        await until(lambda: here.hub.is_abandoned(stream.id))
        assert not stream.closed
        stream.relay.close()  # its last frame has come out
        await until(lambda: stream.closed)
        assert here.hub.list() == []


async def test_a_client_that_comes_back_finds_its_stream() -> None:
    made: list[FakeStream] = []
    async with site(MANY, opener=opener(made)) as here:
        async with here.talk() as source:
            await source.hello("source")
            await source.say("configure", settings={})
            said = await source.hear("stream")
        async with here.source(made[0], said["key"]) as again:
            await again.socket.send_bytes(message_of(4))
            assert (await asyncio.to_thread(made[0].step)).index == 4
    assert made[0].closed  # with the server


async def test_a_source_that_comes_back_replaces_the_line_that_hangs(here: Site) -> None:
    stream, key = here.stream()
    async with here.source(stream, key) as hanging, here.source(stream, key) as again:
        assert await hanging.refused() == ("replaced", 4008)
        await again.socket.send_bytes(message_of(4))
        assert (await asyncio.to_thread(stream.step)).index == 4


async def test_no_more_streams_than_the_limit() -> None:
    made: list[FakeStream] = []
    async with site(Limits(streams=1), opener=opener(made)) as here:
        for code in (None, ("limit", 4006)):
            async with here.talk() as source:
                await source.hello("source")
                await source.say("configure", settings={})
                if code is None:
                    await source.hear("credit")
                else:
                    assert await source.refused() == code
    assert len(made) == 1
