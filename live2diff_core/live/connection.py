"""One client on its WebSocket: what it says, what it is told, the pictures that go either way."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, TypeVar

from aiohttp import WSMsgType, web
from torch import Tensor

from ..errors import Live2DiffError
from ..stream.spec import Clock
from .access import RateLimit
from .bell import Bell
from .credit import Credit
from .inbox import Inbox
from .picture import decode_picture
from .protocol import (
    KINDS,
    VERSION,
    Configure,
    Control,
    End,
    FrameHeader,
    Hello,
    ProtocolError,
    Role,
    read_text,
    to_text,
    unpack_frame,
)
from .streams import LiveStream, Streams

T = TypeVar("T", Hello, Configure)

NORMAL = 1000
CHANGES = 16  # that may wait for those before them; a client that sends more waits itself
AT_ONCE = frozenset({"pause", "freeze", "passthrough", "panic"})
OUTBOX = 64  # events that may wait for a slow client
MOST_BEHIND = 1  # pictures that wait for a client that gets all, while it may send
CREDIT_SECONDS = 0.05  # until credit is looked at again where no picture comes out


class Connection:
    """Talks with one client until one of the two ends it; see docs/protocol.md.

    trusted: whether it may feed and steer. patient: threads for what may take long. fed: id of the
    stream that the client brought frames to. Belongs to the loop that it is made on.
    """

    fed: str | None = None

    def __init__(
        self,
        socket: web.WebSocketResponse,
        hub: Streams,
        trusted: bool,
        patient: Executor,
        clock: Clock,
    ) -> None:
        self._socket, self._hub, self._trusted = socket, hub, trusted
        self._patient = patient
        self._clock, self._loop = clock, asyncio.get_running_loop()
        self._rate = RateLimit(hub.limits.messages_per_second, clock)
        self._dismissed: asyncio.Future[ProtocolError | None] = self._loop.create_future()
        self._outbox: deque[str] = deque(maxlen=OUTBOX)
        self._posted, self._arrived = Bell(), Bell()
        self._changes: asyncio.Queue[Control] = asyncio.Queue(CHANGES)
        self._sent = 0  # sequence number of the last picture

    async def run(self) -> None:
        """Talk to the end."""
        talk = self._loop.create_task(self._talk())
        try:
            ends: set[asyncio.Future[Any]] = {talk, self._dismissed}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            talk.cancel()
            (ended,) = await asyncio.gather(talk, return_exceptions=True)
        reason = self._dismissed.result() if self._dismissed.done() else None
        with suppress(ConnectionResetError):
            await self._part(ended if isinstance(ended, Exception) else reason)

    async def _talk(self) -> None:
        """Until the stream ends. Raises ProtocolError, ConnectionResetError where the client has
        gone.
        """
        hello = await self._greet()
        stream = await self._find(hello)
        with self._hub.joined(stream.id, self, hello.role == "source"):
            await self._stay(stream, hello)

    async def _part(self, reason: BaseException | None) -> None:
        """Say why, and close. reason: None where the stream has ended."""
        if reason is None:
            await self._say("event", event="ended", message="this stream has ended", frame=None)
            await self._socket.close()
        elif isinstance(reason, ProtocolError):
            await self._socket.send_str(reason.text())
            await self._socket.close(code=reason.closes or NORMAL)
        else:
            raise reason

    # ---- what the hub calls, on any thread

    def post(self, text: str) -> None:
        """Send a JSON message."""
        self._outbox.append(text)
        self._posted.ring()

    def dismiss(self, error: ProtocolError | None) -> None:
        """End the connection."""
        with suppress(RuntimeError):  # a loop that has been closed
            self._loop.call_soon_threadsafe(self._dismiss, error)

    def _dismiss(self, error: ProtocolError | None) -> None:
        if not self._dismissed.done():
            self._dismissed.set_result(error)

    # ---- getting acquainted

    async def _greet(self) -> Hello:
        hello = await self._expect(Hello)
        limits = self._hub.limits
        await self._say(
            "hello",
            version=VERSION,
            role=hello.role,
            kinds=KINDS,
            limits={
                "message_bytes": limits.message_bytes,
                "picture_pixels": limits.picture_pixels,
                "messages_per_second": limits.messages_per_second,
            },
        )
        return hello

    async def _find(self, hello: Hello) -> LiveStream:
        if hello.role != "viewer" and not self._trusted:
            raise ProtocolError("forbidden", f"a {hello.role} needs the token of this server")
        key = None
        if hello.stream is None:
            if hello.role != "source" or not self._hub.opens:
                raise ProtocolError("no_such_stream", "name the stream and its key")
            stream, key = await self._open()
        elif hello.role == "viewer":
            stream = self._hub.get(hello.stream)
        else:
            stream = self._hub.unlock(hello.stream, hello.key)
        if hello.role == "source":
            self.fed = stream.id
        await self._say("stream", **_describe(stream), **({"key": key} if key else {}))
        return stream

    async def _open(self) -> tuple[LiveStream, str]:
        """A new stream, as soon as the client asks for one that can be."""
        while True:
            configure = await self._expect(Configure)
            try:
                return await self._loop.run_in_executor(
                    self._patient, self._hub.open, configure.settings
                )
            except ProtocolError:
                raise
            except Live2DiffError as error:
                await self._tell(ProtocolError("refused", str(error)))

    async def _expect(self, wanted: type[T]) -> T:
        """The message that must come next; errors that keep the connection are told."""
        while True:
            try:
                seconds = self._hub.limits.hello_seconds
                message = await asyncio.wait_for(self._receive(), seconds)
                read = read_text(message) if isinstance(message, str) else None
            except asyncio.TimeoutError as error:
                name = wanted.__name__.lower()
                raise ProtocolError("timeout", f"no {name} came in time") from error
            except ProtocolError as error:
                await self._tell(error)
            else:
                if isinstance(read, wanted):
                    return read
                name = wanted.__name__.lower()
                raise ProtocolError("out_of_order", f"expected {name} before anything else")

    # ---- being there

    async def _stay(self, stream: LiveStream, hello: Hello) -> None:
        role = hello.role
        work = [self._listen(stream, role), self._pass_on(), self._report(stream)]
        work.append(
            self._show(stream, hello.wants_all) if hello.wants_frames else stream.relay.end()
        )
        if role == "source" and stream.inbox is not None:
            self._credit = Credit(stream.statistics(), hello.window, self._clock)
            work.append(self._grant(stream, hello.wants_all))
        steering = self._loop.create_task(self._steer(stream))
        tasks = {steering, *(self._loop.create_task(each) for each in work)}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            made = self._loop.create_task(self._changes.join())  # though the client may have gone
            tasks.add(made)
            await asyncio.wait({made, steering}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, stream: LiveStream, role: Role) -> None:
        while True:
            message = await self._receive()
            if isinstance(message, bytes):
                await self._answered(self._take(stream, role, message))
            else:
                await self._answered(self._answer(stream, role, message))

    async def _answered(self, work: Coroutine[None, None, None]) -> None:
        """Do it; what it raises is told."""
        try:
            await work
        except ProtocolError as error:
            await self._tell(error)
        except Live2DiffError as error:
            await self._tell(ProtocolError("refused", str(error)))

    async def _steer(self, stream: LiveStream) -> None:
        """Make changes one after another, beside the frames that come in."""
        while True:
            message = await self._changes.get()
            with suppress(ConnectionResetError):  # the listener knows that the client has gone
                await self._answered(self._control(stream, message))
            self._changes.task_done()

    async def _take(self, stream: LiveStream, role: Role, message: bytes) -> None:
        """Bring a frame to the stream."""
        inbox = self._inbox(stream, role)
        self._credit.came()
        try:
            rgb, header = await asyncio.to_thread(self._read, message)
            dropped = inbox.dropped
            self._credit.lost(inbox.put(rgb, header.timestamp, header.index) - dropped)
        except ProtocolError:
            self._credit.lost(1)
            raise
        finally:
            self._arrived.ring()

    def _read(self, message: bytes) -> tuple[Tensor, FrameHeader]:
        header, payload = unpack_frame(message)
        return decode_picture(header, payload, self._hub.limits.picture_pixels), header

    def _inbox(self, stream: LiveStream, role: Role) -> Inbox:
        if role != "source":
            raise ProtocolError("not_allowed", f"a {role} brings no frames")
        if stream.inbox is None:
            raise ProtocolError("not_allowed", "this stream has a source of its own")
        return stream.inbox

    async def _answer(self, stream: LiveStream, role: Role, text: str) -> None:
        message = read_text(text)
        if isinstance(message, Hello):
            raise ProtocolError("out_of_order", "hello was said before")
        if isinstance(message, Configure):
            raise ProtocolError("not_allowed", "the stream is there already: send control")
        if isinstance(message, End):
            self._inbox(stream, role).end()
        elif role == "viewer":
            raise ProtocolError("not_allowed", "a viewer steers nothing")
        elif message.changes.keys() <= AT_ONCE:  # they pass those that take their time
            await self._control(stream, message)
        else:
            await self._changes.put(message)

    async def _control(self, stream: LiveStream, message: Control) -> None:
        answer = await self._loop.run_in_executor(self._patient, stream.control, message.changes)
        await self._say("answer", request=message.request, **answer.as_dict())

    async def _show(self, stream: LiveStream, every: bool) -> None:
        """Send the newest picture, or the next of all that come from now on, whenever the one
        before has left, until the stream ends.
        """
        relay = stream.relay
        self._sent = relay.sequence if every else 0
        with relay.reading(every):
            while (picture := await relay.wait(self._sent, every)) is not None:
                await self._socket.send_bytes(picture.message)
                self._sent = picture.sequence
                if every:
                    self._arrived.ring()

    async def _grant(self, stream: LiveStream, every: bool) -> None:
        """Say how many frames may have been sent by now, whenever that grows. A client that gets
        every picture may send when it has taken what came out.
        """
        told = 0
        while True:
            bells = self._arrived.listening(), stream.relay.bell.listening()
            with bells[0] as arrived, bells[1] as written:
                until = self._credit.until(stream.statistics())
                behind = stream.relay.sequence - self._sent if every else 0
                if until > told and behind <= MOST_BEHIND:
                    told = until
                    await self._say("credit", until=until)
                pause = CREDIT_SECONDS if self._credit.waits else None
                await asyncio.wait(
                    {arrived, written}, timeout=pause, return_when=asyncio.FIRST_COMPLETED
                )

    async def _report(self, stream: LiveStream) -> None:
        while True:
            await self._say(
                "statistics", **stream.statistics().as_dict(), missed=stream.relay.missed
            )
            await asyncio.sleep(self._hub.limits.statistics_seconds)

    async def _pass_on(self) -> None:
        """Send what the hub posts."""
        while True:
            with self._posted.listening() as posted:
                while self._outbox:
                    await self._socket.send_str(self._outbox.popleft())
                await posted

    # ---- messages

    async def _receive(self) -> str | bytes:
        """Raises ConnectionResetError when the client has gone, ProtocolError (rate)."""
        message = await self._socket.receive()
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            raise ConnectionResetError("the client closed the connection")
        if not self._rate.take():
            raise ProtocolError("rate", "too many messages a second")
        data: str | bytes = message.data
        return data

    async def _say(self, kind: str, **fields: object) -> None:
        await self._socket.send_str(to_text(kind, **fields))

    async def _tell(self, error: ProtocolError) -> None:
        """Tell an error that keeps the connection; raises any other."""
        if error.closes is not None:
            raise error
        await self._socket.send_str(error.text())


def _describe(stream: LiveStream) -> dict[str, object]:
    """A stream to its clients, with the size of the pictures that it wants."""
    about: dict[str, object] = {
        "stream": stream.id,
        "name": stream.name,
        "view": f"view/{stream.id}",
    }
    if stream.inbox is None:
        return about
    return about | {"width": stream.inbox.info.width, "height": stream.inbox.info.height}
