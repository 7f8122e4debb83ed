"""The server: who may do what, what a client is told, and that no client harms another."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator

import pytest
import torch
from aiohttp import WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from live2diff_core.errors import ConfigError
from live2diff_core.frames import Frame
from live2diff_core.live.access import Policy, RateLimit, is_loopback
from live2diff_core.live.picture import decode_picture
from live2diff_core.live.protocol import HEADER, FrameHeader, pack_frame
from live2diff_core.live.server import FILES, PAGE, add_routes
from live2diff_core.live.streams import Limits, Settings, Streams
from tests.live.test_picture import png_header
from tests.live.wire import HEIGHT, WIDTH, Clock, FakeStream, Site, Talk, message_of, site, until

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-test"
MANY = Limits(requests_per_second=1000)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def here() -> AsyncIterator[Site]:
    async with site(MANY) as running:
        yield running


async def works(stream: FakeStream, viewer: Talk, index: int) -> None:
    """A stream still reaches its viewer."""
    stream.show(index)
    while (await viewer.picture())[0].index != index:
        pass


# ---- pictures and messages


async def test_a_frame_goes_in_and_its_translation_comes_back(here: Site) -> None:
    stream, key = here.stream()
    async with here.source(stream, key) as source, here.viewer(stream) as viewer:
        await source.socket.send_bytes(message_of(5, brightness=40))
        frame = await asyncio.to_thread(stream.step)
        assert (frame.index, frame.timestamp, int(frame.rgb[0, 0, 0])) == (5, 0.2, 40)
        for talk in (source, viewer):
            header, payload = await talk.picture()
            assert header == FrameHeader("raw", 5, 0.2, WIDTH, HEIGHT)
            rgb = decode_picture(header, payload)
            assert torch.equal(rgb, torch.full_like(rgb, 215))


async def test_a_change_is_answered_with_its_frame(here: Site) -> None:
    stream, key = here.stream()
    async with here.talk() as talk:
        await talk.hello("controller", stream=stream.id, key=key)
        await talk.say("control", changes={"prompt": "ink", "bad": 1}, request=3)
        assert await talk.hear("answer") == {
            "type": "answer",
            "request": 3,
            "frame": 7,
            "effects": {"prompt": "now"},
            "refused": {"bad": "no"},
        }
        assert stream.changes == [{"prompt": "ink", "bad": 1}]
        await talk.say("control", changes={"broken": True})
        assert await talk.refused() == ("refused", None)


async def test_the_server_introduces_itself(here: Site) -> None:
    stream, _ = here.stream()
    async with here.talk() as talk:
        hello = await talk.hello("viewer", stream=stream.id)
        assert (hello["version"], hello["role"], hello["kinds"]) == (
            1,
            "viewer",
            ["jpeg", "webp", "raw"],
        )
        assert hello["limits"]["picture_pixels"] == 4096 * 4096
        said = await talk.hear("stream")
        assert said["view"] == f"view/{stream.id}"
        assert "key" not in said


async def test_statistics_come_by_themselves() -> None:
    async with site(Limits(statistics_seconds=0.001)) as here:
        stream, _ = here.stream()
        async with here.viewer(stream) as viewer:
            stream.show()
            said = await viewer.hear("statistics")
            assert (said["state"], said["frames_in"]) == ("running", 0)
            assert "missed" in said


async def test_what_happens_to_a_stream_is_told_to_its_clients_alone(here: Site) -> None:
    stream, _ = here.stream()
    other, _ = here.stream()
    async with here.viewer(stream) as viewer, here.viewer(other) as another:
        await asyncio.to_thread(here.hub.publish, stream.id, "source lost", "it is gone")
        assert await viewer.hear("event") == {
            "type": "event",
            "event": "source lost",
            "message": "it is gone",
            "frame": None,
        }
        await works(other, another, 1)
        assert not [said for said in another.heard if said["type"] == "event"]


async def test_a_stream_that_ends_sends_its_clients_home(here: Site) -> None:
    stream, _ = here.stream()
    other, _ = here.stream()
    async with here.viewer(stream) as viewer, here.viewer(other) as another:
        assert await asyncio.to_thread(here.hub.remove, stream.id)
        assert (await viewer.hear("event"))["event"] == "ended"
        assert await viewer.gone() == 1000
        assert stream.closed
        await works(other, another, 1)


async def test_a_source_says_that_it_has_ended(here: Site) -> None:
    stream, key = here.stream()
    async with here.source(stream, key) as source, here.viewer(stream) as viewer:
        await viewer.say("end")
        assert await viewer.refused() == ("not_allowed", None)
        await source.socket.send_bytes(message_of(0))
        await source.say("end")
        await asyncio.to_thread(stream.step)
        assert (await source.picture())[0].index == 0
        assert await asyncio.to_thread(lambda: next(iter(stream.inbox), None)) is None
        stream.relay.close()  # as the runner does
        for talk in (source, viewer):
            assert (await talk.hear("event"))["event"] == "ended"
            assert await talk.gone() == 1000


# ---- credit


async def test_credit_grows_when_the_engine_takes_a_frame(here: Site) -> None:
    stream, key = here.stream()
    async with here.talk() as source:
        await source.hello("source", stream=stream.id, key=key)
        assert (await source.hear("credit"))["until"] == 1
        for index in range(3):
            await source.socket.send_bytes(message_of(index))
            await asyncio.to_thread(stream.step)
            assert (await source.hear("credit"))["until"] == index + 2
    assert stream.inbox.dropped == 0


async def test_who_sends_more_loses_the_oldest_and_is_told(here: Site) -> None:
    stream, key = here.stream()
    async with here.source(stream, key) as source:
        for index in range(5):
            await source.socket.send_bytes(message_of(index))
        await until(lambda: stream.inbox.dropped == 3)
        assert [stream.step().index for _ in range(2)] == [3, 4]
        while (await source.hear("credit"))["until"] < 6:
            pass


async def test_a_wider_window_lets_more_frames_travel(here: Site) -> None:
    stream, key = here.stream()
    async with here.talk() as source:
        await source.hello("source", stream=stream.id, key=key, window=4)
        assert (await source.hear("credit"))["until"] == 4


async def test_a_frame_that_cannot_be_read_costs_no_credit(here: Site) -> None:
    stream, key = here.stream()
    async with here.source(stream, key) as source:
        await source.socket.send_bytes(message_of(0)[:-1])
        assert await source.refused() == ("wrong_length", None)
        assert (await source.hear("credit"))["until"] == 2


# ---- streams of clients


def opener(made: list[FakeStream]):
    def open_stream(stream_id: str, settings: Settings) -> FakeStream:
        if settings.get("prompt") == "nonsense":
            raise ConfigError("no such style")
        made.append(FakeStream(stream_id))
        return made[-1]

    return open_stream


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


# ---- who may what


async def test_no_stream_without_its_key(here: Site) -> None:
    stream, _ = here.stream()
    _, other_key = here.stream()
    for role in ("source", "controller"):
        for key in (None, "", other_key, "\ud800"):
            async with here.talk() as talk:
                await talk.hello(role, stream=stream.id, key=key)
                assert await talk.refused() == ("forbidden", 4004)
    one = f"/live2diff/streams/{stream.id}"
    for headers in ({}, {"X-Live2Diff-Key": other_key}):
        async with here.client.post(one, json={"panic": True}, headers=headers) as answer:
            assert answer.status == 403
        async with here.client.delete(one, headers=headers) as answer:
            assert answer.status == 403
    assert stream.changes == []
    assert not stream.closed


async def test_no_id_is_given_away(here: Site) -> None:
    stream, key = here.stream()
    for path in ("streams", "metrics"):
        async with here.client.get(f"/live2diff/{path}") as answer:
            text = await answer.text()
            assert answer.status == 200
            assert stream.id not in text
            assert key not in text
            assert "fake-" in text


@pytest.mark.parametrize("role", ["viewer", "controller", "source"])
async def test_an_unknown_stream_is_none(here: Site, role: str) -> None:
    async with here.talk() as talk:
        await talk.hello(role, stream="guessed", key="guessed")
        assert await talk.refused() == ("no_such_stream", 4005)
    async with here.talk() as talk:
        await talk.hello(role)
        assert await talk.refused() == ("no_such_stream", 4005)


async def test_a_role_does_what_is_its_own(here: Site) -> None:
    stream, key = here.stream()
    async with here.viewer(stream) as viewer:
        await viewer.say("control", changes={"panic": True})
        assert await viewer.refused() == ("not_allowed", None)
        await viewer.socket.send_bytes(message_of(0))
        assert await viewer.refused() == ("not_allowed", None)
        await works(stream, viewer, 1)
    async with here.talk() as controller:
        await controller.hello("controller", stream=stream.id, key=key)
        await controller.socket.send_bytes(message_of(0))
        assert await controller.refused() == ("not_allowed", None)
        await controller.say("configure", settings={})
        assert await controller.refused() == ("not_allowed", None)
    assert stream.changes == []


async def test_a_stream_with_a_source_of_its_own_takes_no_frames(here: Site) -> None:
    stream, key = here.stream(feeds=False)
    async with here.talk() as source:
        await source.hello("source", stream=stream.id, key=key)
        await source.socket.send_bytes(message_of(0))
        assert await source.refused() == ("not_allowed", None)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::1"},
    ],
)
async def test_other_sites_have_no_say(here: Site, headers: dict[str, str]) -> None:
    stream, key = here.stream()
    one = f"/live2diff/streams/{stream.id}"
    headers = {**headers, "X-Live2Diff-Key": key}
    with pytest.raises(WSServerHandshakeError) as caught:
        async with here.talk(**headers):
            pass
    assert caught.value.status == 403
    for method, path in (
        ("POST", one),
        ("DELETE", one),
        ("GET", "/live2diff/streams"),
        ("GET", "/live2diff/metrics"),
    ):
        async with here.client.request(method, path, json={}, headers=headers) as answer:
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
    assert not stream.closed


async def test_the_own_page_and_allowed_origins_may(here: Site) -> None:
    own = str(here.client.make_url("")).rstrip("/")
    async with here.talk(Origin=own):
        pass
    policy = Policy(origins=frozenset({"https://friend.example"}))
    async with site(MANY, policy) as there, there.talk(Origin="https://friend.example"):
        pass


async def test_a_token_is_asked_of_everybody_but_viewers() -> None:
    async with site(MANY, Policy("0.0.0.0", TOKEN)) as here:
        stream, key = here.stream()
        for path in ("", "streams", "metrics"):
            async with here.client.get(f"/live2diff/{path}") as answer:
                assert answer.status == 401
        async with here.talk() as talk:
            await talk.hello("source", stream=stream.id, key=key)
            assert await talk.refused() == ("forbidden", 4004)
        async with here.viewer(stream) as viewer:
            await works(stream, viewer, 1)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with here.client.get("/live2diff/streams", headers=bearer) as answer:
            assert answer.status == 200
        async with here.talk(**bearer) as talk:
            await talk.hello("controller", stream=stream.id, key=key)
            await talk.hear("stream")
        wrong = {"Authorization": f"Bearer {TOKEN}x"}
        async with here.client.get("/live2diff/streams", headers=wrong) as answer:
            assert answer.status == 401


async def test_the_page_trades_the_token_for_a_cookie() -> None:
    async with site(MANY, Policy("0.0.0.0", TOKEN)) as here:
        page = "/live2diff/"
        async with here.client.get(page, params={"token": "wrong"}) as answer:
            assert answer.status == 401
        async with here.client.get(page, params={"token": TOKEN}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, page)
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        value = {"Cookie": cookie.partition(";")[0]}
        async with here.client.get(page, headers=value) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.168.1.2", "example.org", "::"])
def test_a_bind_beyond_this_computer_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="give it a token"):
        Policy(host)
    Policy(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_computer_needs_none(host: str) -> None:
    assert Policy(host).is_local
    assert not is_loopback(host + ".example")


@pytest.mark.parametrize(
    "settings", [{"token": "short"}, {"token": "ä" * 20}, {"origins": frozenset({"friend"})}]
)
def test_a_policy_that_cannot_be_is_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        Policy(**settings)


def test_a_rate_has_a_burst_and_fills_up_again() -> None:
    clock = Clock()
    limit = RateLimit(10, clock)
    assert [limit.take("a") for _ in range(21)] == [True] * 20 + [False]
    assert limit.take("b")
    clock.now += 0.125
    assert [limit.take("a") for _ in range(2)] == [True, False]
    clock.now += 100
    assert sum(limit.take("a") for _ in range(100)) == 20


def test_a_rate_remembers_no_more_keys_than_it_should() -> None:
    limit = RateLimit(1, Clock())
    for number in range(5000):
        limit.take(str(number))
    assert len(limit._left) == 1024


# ---- faults


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


# ---- HTTP


async def test_changes_and_the_end_over_http(here: Site) -> None:
    stream, key = here.stream()
    one, headers = f"/live2diff/streams/{stream.id}", {"X-Live2Diff-Key": key}
    async with here.client.post(one, json={"prompt": "ink", "bad": 1}, headers=headers) as answer:
        assert await answer.json() == {
            "frame": 7,
            "effects": {"prompt": "now"},
            "refused": {"bad": "no"},
        }
    async with here.client.delete(one, headers=headers) as answer:
        assert answer.status == 204
    assert stream.closed
    async with here.client.post(one, json={}, headers=headers) as answer:
        assert answer.status == 404
        assert (await answer.json())["code"] == "no_such_stream"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"a": {}}', "application/json", 400),
        (b" " * 70_000, "application/json", 413),
        (b'{"broken": 1}', "application/json", 409),
    ],
)
async def test_a_body_that_is_no_change(here: Site, body: bytes, kind: str, status: int) -> None:
    stream, key = here.stream()
    headers = {"X-Live2Diff-Key": key, "Content-Type": kind}
    one = f"/live2diff/streams/{stream.id}"
    async with here.client.post(one, data=body, headers=headers) as answer:
        assert answer.status == status
    assert stream.changes == []


async def test_the_list_has_the_figures(here: Site) -> None:
    stream, _ = here.stream()
    async with here.viewer(stream), here.client.get("/live2diff/streams") as answer:
        (told,) = (await answer.json())["streams"]
    assert (told["clients"], told["state"], told["frames_out"]) == (1, "running", 0)


async def test_metrics_are_those_of_every_stream(here: Site) -> None:
    here.stream()
    here.stream()
    async with here.client.get("/live2diff/metrics") as answer:
        lines = (await answer.text()).splitlines()
    assert sum(line.startswith("live2diff_frames_in_total{") for line in lines) == 2


async def test_mjpeg_shows_pictures_to_the_end(here: Site) -> None:
    stream, _ = here.stream(kind="jpeg")
    async with here.client.get(f"/live2diff/mjpeg/{stream.id}") as answer:
        kind = answer.headers["Content-Type"]
        assert kind == "multipart/x-mixed-replace; boundary=live2diff"
        for index in range(3):
            stream.show(index, brightness=index)
            assert await answer.content.readline() == b"--live2diff\r\n"
            assert await answer.content.readline() == b"Content-Type: image/jpeg\r\n"
            length = int((await answer.content.readline()).split()[1])
            await answer.content.readline()
            data = await answer.content.readexactly(length)
            rgb = decode_picture(FrameHeader("jpeg", 0, 0, WIDTH, HEIGHT), memoryview(data))
            assert abs(int(rgb[0, 0, 0]) - index) <= 2
            await answer.content.readline()
        await asyncio.to_thread(here.hub.remove, stream.id)
        assert await answer.content.read() == b""


async def test_mjpeg_shows_jpeg_only(here: Site) -> None:
    stream, _ = here.stream(kind="webp")
    async with here.client.get(f"/live2diff/mjpeg/{stream.id}") as answer:
        assert answer.status == 406
    async with here.client.get("/live2diff/mjpeg/other") as answer:
        assert answer.status == 404


async def test_a_watcher_that_left_is_noticed_without_a_picture() -> None:
    async with site(Limits(heartbeat_seconds=0.01)) as here:
        stream, _ = here.stream(kind="jpeg")
        stream.show()
        async with here.client.get(f"/live2diff/mjpeg/{stream.id}") as answer:
            await answer.content.readline()
            assert stream.relay.readers == 1
        await until(lambda: stream.relay.readers == 0)
        assert [count for _, count in here.hub.list()] == [0]


# ---- pages


@pytest.mark.parametrize("path", ["", "view/any", *(f"page/{name}" for name in FILES)])
async def test_pages_are_closed_to_foreign_code(here: Site, path: str) -> None:
    async with here.client.get(f"/live2diff/{path}") as answer:
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert await answer.text()


def test_every_file_of_the_page_is_served() -> None:
    assert {path.name for path in PAGE.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", ["../server.py", "..%2fserver.py", "other.js", "%2e%2e"])
async def test_no_other_file_is_served(here: Site, name: str) -> None:
    url = URL(f"{here.client.make_url('/live2diff/page')}/{name}", encoded=True)
    async with here.client.session.get(url) as answer:
        assert answer.status == 404


async def test_the_address_without_a_slash_leads_to_the_page(here: Site) -> None:
    async with here.client.get("/live2diff", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/live2diff/")


async def test_a_table_of_routes_is_as_good_as_an_application() -> None:
    table, hub = web.RouteTableDef(), Streams(MANY)
    server = add_routes(table, hub, Policy())
    stream = FakeStream()
    hub.add(stream)
    application = web.Application()
    application.add_routes(table)
    async with TestClient(TestServer(application)) as client:
        talk = Talk(await client.ws_connect("/live2diff/socket"))
        await talk.hello("viewer", stream=stream.id)
        await talk.hear("statistics")
        _, code = await asyncio.gather(server.close(), talk.gone())
        assert code == 1000
    assert stream.closed


async def test_the_server_closes_with_its_application() -> None:
    async with site(MANY) as here:
        stream, key = here.stream()
        source = await here.client.ws_connect("/live2diff/socket")
        await Talk(source).hello("source", stream=stream.id, key=key)
    assert stream.closed
    while (await source.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        pass
    assert source.closed
