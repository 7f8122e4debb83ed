"""A client that does wrong is answered, and no other one notices."""

import asyncio
import json
import struct

import pytest
import torch
from aiohttp import WSServerHandshakeError

from live2diff_core.frames import Frame
from live2diff_core.live.protocol import HEADER, FrameHeader, pack_frame
from live2diff_core.live.streams import Limits
from tests.live.test_picture import png_header
from tests.live.wire import (
    HEIGHT,
    WIDTH,
    Site,
    message_of,
    site,
    until,
    works,
)

pytestmark = pytest.mark.anyio


def frame_with(place: int, data: bytes) -> bytes:
    frame = message_of(0)
    return frame[:place] + data + frame[place + len(data) :]


GIANT = png_header(20_000, 20_000)
FAULTS = {
    "garbage": (b"\xff" * 500, ("bad_frame", 4003)),
    "nothing": (b"", ("bad_frame", 4003)),
    "half a header": (message_of(0)[: HEADER.size // 2], ("bad_frame", 4003)),
    "half a frame": (message_of(0)[:-20], ("wrong_length", None)),
    "another version": (frame_with(4, b"\2"), ("unknown_version", 4001)),
    "a length that lies": (frame_with(28, struct.pack("<I", 2**31)), ("wrong_length", None)),
    "a giant PNG": (
        pack_frame(FrameHeader("jpeg", 0, 0, WIDTH, HEIGHT), GIANT),
        ("bad_picture", None),
    ),
    "a giant size": (
        pack_frame(FrameHeader("jpeg", 0, 0, 20_000, 20_000), GIANT),
        ("too_large", None),
    ),
    "text for a picture": ("iVBORw0KGgo=", ("bad_message", None)),
    "a list": ("[1]", ("bad_message", None)),
    "a second hello": (
        json.dumps({"type": "hello", "version": 1, "role": "source"}),
        ("out_of_order", 4002),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_answered_and_nobody_else_notices(
    here: Site, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent, (code, closed) = FAULTS[fault]
    stream, key = here.stream()
    other, _ = here.stream()
    async with here.viewer(other) as witness:
        async with here.source(stream, key) as source:
            if isinstance(sent, bytes):
                await source.socket.send_bytes(sent)
            else:
                await source.socket.send_str(sent)
            assert await source.refused() == (code, closed)
            if closed is None:
                await source.socket.send_bytes(message_of(9))
                assert (await asyncio.to_thread(stream.step)).index == 9
        async with here.source(stream, key) as source:
            await source.socket.send_bytes(message_of(10))
            assert (await asyncio.to_thread(stream.step)).index == 10
        await works(other, witness, 1)
    assert not caplog.records


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (b"\0" * 100, ("out_of_order", 4002)),
        ('{"type": "control", "changes": {}}', ("out_of_order", 4002)),
        ('{"type": "hello", "version": 99, "role": "source"}', ("unknown_version", 4001)),
        ("garbage", ("bad_message", None)),
    ],
)
async def test_hello_comes_first(here: Site, first: str | bytes, code: tuple) -> None:
    stream, _ = here.stream()
    async with here.talk() as talk:
        if isinstance(first, bytes):
            await talk.socket.send_bytes(first)
        else:
            await talk.socket.send_str(first)
        assert await talk.refused() == code
        if code[1] is None:
            await talk.hello("viewer", stream=stream.id)


async def test_who_says_nothing_is_sent_home() -> None:
    async with site(Limits(hello_seconds=0.01)) as here, here.talk() as talk:
        assert await talk.refused() == ("timeout", 4009)


async def test_a_message_beyond_the_limit_ends_the_connection_unread() -> None:
    async with site(Limits(message_bytes=1000)) as here:
        stream, key = here.stream()
        async with here.source(stream, key) as source:
            await source.socket.send_bytes(bytes(2000))
            assert await source.gone() == 1009
        async with here.viewer(stream) as viewer:
            await works(stream, viewer, 1)


async def test_too_many_messages_end_the_connection() -> None:
    async with site(Limits(messages_per_second=5)) as here:
        stream, key = here.stream()
        async with here.source(stream, key) as source, here.viewer(stream) as viewer:
            for index in range(20):
                await source.socket.send_bytes(message_of(index))
            assert await source.refused() == ("rate", 4007)
            await works(stream, viewer, 1)


async def vanish(here: Site, *pieces: bytes) -> None:
    """Open a socket by hand, send pieces of messages, and break the line."""
    url = here.client.make_url("/live2diff/socket")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        f"GET {url.path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readline()
    for piece in pieces:
        writer.write(piece)
    await writer.drain()
    writer.transport.abort()


def websocket_frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame with a mask of zeros."""
    return struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, len(payload)) + bytes(4) + payload


async def test_a_client_that_vanishes_mid_frame_is_forgotten(
    here: Site, caplog: pytest.LogCaptureFixture
) -> None:
    stream, key = here.stream()
    hello = {"type": "hello", "version": 1, "role": "source", "stream": stream.id, "key": key}
    async with here.viewer(stream) as viewer:
        await vanish(
            here,
            websocket_frame(1, json.dumps(hello).encode()),
            websocket_frame(2, message_of(0)),
            websocket_frame(2, message_of(1))[:-40],
        )
        await until(lambda: [count for _, count in here.hub.list()] == [1])
        await works(stream, viewer, 1)
    assert not caplog.records


async def test_a_hundred_connections_at_once_leave_the_server_answering() -> None:
    async with site() as here:
        stream, _ = here.stream()
        async with here.viewer(stream) as viewer:

            async def connect() -> int:
                try:
                    async with here.talk() as talk:
                        await talk.hello("viewer", stream=stream.id)
                        return 101
                except WSServerHandshakeError as error:
                    return error.status

            statuses = await asyncio.gather(*(connect() for _ in range(100)))
            assert statuses.count(101) == 39  # the burst, less the viewer
            assert statuses.count(429) == 61
            await works(stream, viewer, 1)
            here.clock.now += 1
            async with here.viewer(stream) as another:
                await works(stream, another, 2)


async def test_no_more_sockets_than_the_limit() -> None:
    async with site(Limits(sockets=2)) as here, here.talk(), here.talk():
        with pytest.raises(WSServerHandshakeError) as caught:
            async with here.talk():
                pass
        assert caught.value.status == 503


async def test_no_more_clients_than_the_limit_of_a_stream() -> None:
    async with site(Limits(clients=1)) as here:
        stream, _ = here.stream()
        async with here.viewer(stream) as viewer:
            async with here.talk() as talk:
                await talk.hello("viewer", stream=stream.id)
                assert await talk.refused() == ("limit", 4006)
            async with here.client.get(f"/live2diff/mjpeg/{stream.id}") as answer:
                assert answer.status in (406, 503)
            await works(stream, viewer, 1)


async def test_a_reader_that_reads_nothing_holds_nobody_up() -> None:
    async with site() as here:
        stream, _ = here.stream()
        rgb = torch.zeros(3, 512, 1024, dtype=torch.uint8)
        async with here.talk() as slow, here.viewer(stream) as viewer:
            await slow.say("hello", version=1, role="viewer", stream=stream.id)
            await until(lambda: stream.relay.readers == 2)
            slow.socket._response.connection.transport.pause_reading()
            for index in range(40):  # 60 MB, more than all buffers on the way
                stream.relay.write(Frame(rgb, index, index / 25))
                assert (await viewer.picture())[0].index == index
            slow.socket._response.connection.transport.resume_reading()
            seen = []
            while not seen or seen[-1] < 39:
                seen.append((await slow.picture())[0].index)
            assert seen == sorted(set(seen))
            assert len(seen) < 40
