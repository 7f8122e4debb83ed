"""For tests of the server: a stream without an engine, and a client that speaks the protocol."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import torch
from aiohttp import ClientWebSocketResponse, WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from live2diff_core.errors import ConfigError
from live2diff_core.frames import Frame
from live2diff_core.live.access import Policy
from live2diff_core.live.controls import Answer
from live2diff_core.live.inbox import Inbox
from live2diff_core.live.picture import encode_picture
from live2diff_core.live.protocol import CLOSES, FrameHeader, Kind, pack_frame, unpack_frame
from live2diff_core.live.relay import Relay
from live2diff_core.live.server import Server, add_routes
from live2diff_core.live.statistics import Ledger, LiveStatistics
from live2diff_core.live.streams import Limits, Settings, Streams, new_id

WIDTH, HEIGHT = 8, 6
PATIENCE = 10  # seconds after which a test fails instead of waiting for ever

TOKEN = "a-token-of-the-test"
MANY = Limits(requests_per_second=1000)


class Clock:
    """Time that stands still until it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeStream:
    """A stream whose engine is the test: `step` passes one frame through."""

    def __init__(
        self, stream_id: str | None = None, kind: Kind = "raw", feeds: bool = True
    ) -> None:
        self.id = stream_id or new_id()
        self.name = "fake"
        self.inbox = Inbox(WIDTH, HEIGHT) if feeds else None
        self.relay = Relay(kind=kind)
        self.changes: list[Mapping[str, object]] = []
        self.closed = False
        self._ledger = Ledger(Clock())

    def control(self, changes: Mapping[str, object]) -> Answer:
        if "broken" in changes:
            raise ConfigError("this cannot be")
        self.changes.append(changes)
        return Answer(7, {name: "now" for name in changes if name != "bad"}, {"bad": "no"})

    def statistics(self) -> LiveStatistics:
        return self._ledger.snapshot("running", None)

    def close(self) -> None:
        self.closed = True
        if self.inbox is not None:
            self.inbox.close()
        self.relay.close()

    def show(self, index: int = 0, brightness: int = 0) -> None:
        """A picture comes out."""
        rgb = torch.full((3, HEIGHT, WIDTH), brightness, dtype=torch.uint8)
        self.relay.write(Frame(rgb, index, index / 25))

    def step(self) -> Frame:
        """The engine takes the oldest frame that waits, inverts it and shows it."""
        assert self.inbox is not None
        frame = next(iter(self.inbox))
        self._ledger.came()
        self._ledger.took("wait", 0.0)
        self.relay.write(Frame(255 - frame.rgb, frame.index, frame.timestamp))
        self._ledger.showed(0.0)
        return frame


def message_of(index: int, brightness: int = 0, kind: Kind = "raw") -> bytes:
    """A frame as a client sends it."""
    rgb = torch.full((3, HEIGHT, WIDTH), brightness, dtype=torch.uint8)
    header = FrameHeader(kind, index, index / 25, WIDTH, HEIGHT)
    return pack_frame(header, encode_picture(rgb, kind))


class UsersServer(TestServer):
    """As aiohttp runs it outside tests: a handler goes on when its client has gone."""

    async def _make_runner(self, **settings: Any) -> web.BaseRunner:
        return await super()._make_runner(**settings | {"handler_cancellation": False})


class Talk:
    """One WebSocket, as a client sees it."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    async def say(self, kind: str, **fields: object) -> None:
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def hello(self, role: str, **fields: object) -> dict[str, Any]:
        """Say hello; what the server says of itself."""
        await self.say("hello", version=1, role=role, **fields)
        return await self.hear("hello")

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next JSON message of a type; pictures and other messages are passed over."""
        while True:
            message = await self._next()
            assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), (kind, message, self.heard)
            if message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                self.heard.append(said)
                if said["type"] == kind:
                    return said

    async def picture(self) -> tuple[FrameHeader, memoryview]:
        """The next picture; messages are passed over."""
        while True:
            message = await self._next()
            assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
            if message.type is WSMsgType.BINARY:
                return unpack_frame(message.data)

    async def refused(self) -> tuple[str, int | None]:
        """The next error's code, and the code that the server closes with, if it does."""
        code = (await self.hear("error"))["code"]
        if CLOSES[code] is None:
            return code, None
        while (message := await self._next()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            pass
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED), message
        return code, self.socket.close_code

    async def gone(self) -> int | None:
        """Wait for the end; its code."""
        while (await self._next()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            pass
        return self.socket.close_code

    async def _next(self) -> Any:
        return await asyncio.wait_for(self.socket.receive(), PATIENCE)


class Site:
    """A server on this computer, with a hub."""

    def __init__(self, client: TestClient, hub: Streams, server: Server, clock: Clock) -> None:
        self.client, self.hub, self.server, self.clock = client, hub, server, clock

    @asynccontextmanager
    async def talk(self, **headers: str) -> AsyncIterator[Talk]:
        async with self.client.ws_connect("/live2diff/socket", headers=headers) as socket:
            yield Talk(socket)

    @asynccontextmanager
    async def viewer(self, stream: FakeStream) -> AsyncIterator[Talk]:
        async with self.talk() as talk:
            await talk.hello("viewer", stream=stream.id)
            await talk.hear("statistics")
            yield talk

    @asynccontextmanager
    async def source(self, stream: FakeStream, key: str, window: int = 1) -> AsyncIterator[Talk]:
        async with self.talk() as talk:
            await talk.hello("source", stream=stream.id, key=key, window=window)
            await talk.hear("credit")
            yield talk

    def stream(self, **settings: Any) -> tuple[FakeStream, str]:
        """A stream that is running, and its key."""
        stream = FakeStream(**settings)
        return stream, self.hub.add(stream)


def opener(made: list[FakeStream]) -> Callable[[str, Settings], FakeStream]:
    """Opens streams for clients, and notes them."""

    def open_stream(stream_id: str, settings: Settings) -> FakeStream:
        if settings.get("prompt") == "nonsense":
            raise ConfigError("no such style")
        made.append(FakeStream(stream_id))
        return made[-1]

    return open_stream


@asynccontextmanager
async def site(
    limits: Limits | None = None,
    policy: Policy | None = None,
    opener: Callable[[str, Settings], FakeStream] | None = None,
) -> AsyncIterator[Site]:
    """A server that runs, and is closed."""
    clock, hub = Clock(), Streams(limits, opener)
    application = web.Application()
    server = add_routes(application, hub, policy or Policy(), clock)
    async with TestClient(UsersServer(application)) as client:
        yield Site(client, hub, server, clock)


async def until(condition: Callable[[], bool]) -> None:
    """Let everything run until a condition holds."""

    async def turn() -> None:
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turn(), PATIENCE)


async def works(stream: FakeStream, viewer: Talk, index: int) -> None:
    """A stream still reaches its viewer."""
    stream.show(index)
    while (await viewer.picture())[0].index != index:
        pass
