"""What live streams answer over HTTP, the same for ComfyUI's server and for `live2diff serve`."""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from ..errors import Live2DiffError
from ..stream.spec import Clock
from .access import COOKIE, Policy, RateLimit
from .connection import Connection
from .paths import ROUTES
from .protocol import Code, ProtocolError, Value, read_settings
from .relay import Encoded, Relay
from .statistics import prometheus
from .streams import LiveStream, Streams

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Guard = Callable[[web.Request], None]

KEY_HEADER = "X-Live2Diff-Key"
BODY_BYTES = 65_536
BOUNDARY = "live2diff"
CLOSE_SECONDS = 5
CHANGES_AT_ONCE = 2  # of one connection: one that takes its time, and one that passes it
PAGE = Path(__file__).parent / "page"
FILES = {
    "index.html": "text/html",
    "view.html": "text/html",
    "live.js": "text/javascript",
    "steering.js": "text/javascript",
    "camera.js": "text/javascript",
    "ticks.js": "text/javascript",
    "index.js": "text/javascript",
    "view.js": "text/javascript",
    "style.css": "text/css",
}
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
STATUS: dict[Code, int] = {
    "forbidden": 403,
    "no_such_stream": 404,
    "limit": 503,
    "bad_message": 400,
}


class Server:
    """Answers the requests of one hub, each by its handler's name in `paths.ROUTES`.

    What may take long (a stream that opens, a change to one that compiles) waits on threads of the
    server's own: pictures, and what the host does on the loop's, never queue behind it. close()
    ends its connections.
    """

    def __init__(self, hub: Streams, policy: Policy, clock: Clock = time.monotonic) -> None:
        self._hub, self._policy, self._clock = hub, policy, clock
        self._requests = RateLimit(hub.limits.requests_per_second, clock)
        most = CHANGES_AT_ONCE * hub.limits.sockets
        self._patient = ThreadPoolExecutor(most, "live2diff-patient")
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._closing = asyncio.Event()
        self._partings: dict[str, asyncio.Task[None]] = {}
        self.handlers = self._guard()

    def _guard(self) -> dict[str, Handler]:
        """Every route's handler with what is checked before it."""
        guarded = self._guarded
        own = self._check_origin, self._check_token
        return {
            "to_index": guarded(self._to_index),
            "index": guarded(self._index),
            "file": guarded(self._file),
            "view": guarded(self._view),
            "mjpeg": guarded(self._mjpeg),
            "socket": guarded(self._socket, self._check_origin),
            "list": guarded(self._list, *own),
            "metrics": guarded(self._metrics, *own),
            "change": guarded(self._change, *own),
            "stop": guarded(self._stop, *own),
        }

    async def close(self) -> None:
        """End every stream and connection."""
        self._closing.set()
        await self._patiently(self._hub.close)
        await asyncio.gather(*self._partings.values())
        for connection in self._connections:
            connection.dismiss(None)
        if self._connections:
            await asyncio.wait(self._connections.values(), timeout=CLOSE_SECONDS)
        await asyncio.to_thread(self._patient.shutdown)

    async def _patiently(self, work: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._patient, work, *given)

    # ---- who may

    def _check_origin(self, request: web.Request) -> None:
        self._policy.check_origin(request)

    def _check_token(self, request: web.Request) -> None:
        if not self._policy.knows(request):
            raise web.HTTPUnauthorized(
                text="this needs the server's token", headers={"WWW-Authenticate": "Bearer"}
            )

    def _guarded(self, handler: Handler, *guards: Guard) -> Handler:
        """Checks that come before every answer: host, rate, and those given."""

        async def answer(request: web.Request) -> web.StreamResponse:
            self._policy.check_host(request)
            if not self._requests.take(request.remote or ""):
                raise web.HTTPTooManyRequests(text="too many requests a second")
            for guard in guards:
                guard(request)
            try:
                return await handler(request)
            except ProtocolError as error:
                body = {"code": error.code, "message": str(error)}
                return web.json_response(body, status=STATUS[error.code])

        return answer

    # ---- pages

    async def _to_index(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"{request.rel_url.raw_path.rstrip('/')}/")

    async def _index(self, request: web.Request) -> web.StreamResponse:
        """The page. ?token= becomes a cookie, so that it stands in no history."""
        given = request.query.get("token")
        if given is not None and self._policy.is_token(given):
            found = web.HTTPFound(request.rel_url.raw_path)
            found.set_cookie(COOKIE, given, httponly=True, samesite="Strict", secure=request.secure)
            raise found
        self._check_token(request)
        if not self._hub.opens:
            raise web.HTTPFound("../")  # the host's own page
        return _page("index.html")

    async def _view(self, _: web.Request) -> web.StreamResponse:
        return _page("view.html")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in FILES:
            raise web.HTTPNotFound(text="there is no such file")
        return _page(name)

    # ---- streams

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        limits = self._hub.limits
        if len(self._connections) >= limits.sockets:
            raise web.HTTPServiceUnavailable(text="too many connections")
        socket = web.WebSocketResponse(
            heartbeat=limits.heartbeat_seconds, max_msg_size=limits.message_bytes, compress=False
        )
        connection = Connection(
            socket, self._hub, self._policy.knows(request), self._patient, self._clock
        )

        async def talk() -> None:
            await socket.prepare(request)
            await connection.run()

        running = self._connections[connection] = asyncio.create_task(talk())
        try:
            await running
        finally:
            del self._connections[connection]
            self._part(connection)
        return socket

    def _part(self, connection: Connection) -> None:
        """Keep a client's own stream for a while: the client may only have lost its line."""
        fed = connection.fed
        if fed is not None and self._hub.is_abandoned(fed):
            earlier = self._partings.pop(fed, None)  # of a line that broke before and came back
            if earlier is not None:
                earlier.cancel()
            ending = asyncio.create_task(self._end_if_abandoned(self._hub.get(fed)))
            self._partings[fed] = ending
            ending.add_done_callback(lambda _: self._forget(fed, ending))

    def _forget(self, fed: str, ending: asyncio.Task[None]) -> None:
        if self._partings.get(fed) is ending:
            del self._partings[fed]

    async def _end_if_abandoned(self, stream: LiveStream) -> None:
        ends = {asyncio.create_task(each) for each in (stream.relay.end(), self._closing.wait())}
        pause = self._hub.limits.linger_seconds
        try:
            await asyncio.wait(ends, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in ends:
                waiting.cancel()
        if self._hub.is_abandoned(stream.id):
            await self._patiently(self._hub.remove, stream.id)

    async def _mjpeg(self, request: web.Request) -> web.StreamResponse:
        stream = self._hub.get(request.match_info["id"])
        if stream.relay.kind != "jpeg":
            raise web.HTTPNotAcceptable(text=f"this stream is sent as {stream.relay.kind}")
        response = web.StreamResponse(
            headers={
                "Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}",
                "Cache-Control": "no-store",
            }
        )
        with self._hub.joined(stream.id, _Watcher()):
            await response.prepare(request)
            with suppress(ConnectionResetError):
                await _pour(stream.relay, response, self._hub.limits.heartbeat_seconds)
        return response

    async def _list(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"streams": [_describe(*each) for each in self._hub.list()]})

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        streams = {_label(stream): stream.statistics() for stream, _ in self._hub.list()}
        return web.Response(text=prometheus(streams), content_type="text/plain")

    async def _change(self, request: web.Request) -> web.StreamResponse:
        stream = self._unlocked(request)
        changes = await _settings(request)
        try:
            answer = await self._patiently(stream.control, changes)
        except Live2DiffError as error:
            raise web.HTTPConflict(text=str(error)) from error
        return web.json_response(answer.as_dict())

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        stream = self._unlocked(request)
        await self._patiently(self._hub.remove, stream.id)
        return web.Response(status=204)

    def _unlocked(self, request: web.Request) -> LiveStream:
        return self._hub.unlock(request.match_info["id"], request.headers.get(KEY_HEADER))


class _Watcher:
    """A client that is told nothing: its pictures end with the stream."""

    def post(self, text: str) -> None:
        """It reads no messages."""

    def dismiss(self, error: ProtocolError | None) -> None:
        """Its relay has been closed."""


def add_routes(
    application: web.Application, hub: Streams, policy: Policy, clock: Clock = time.monotonic
) -> Server:
    """Add all routes to an application, with which they end."""
    server = Server(hub, policy, clock)
    for name, (method, path) in ROUTES.items():
        application.router.add_route(method, path, server.handlers[name])
    application.on_shutdown.append(lambda _: server.close())
    return server


def _page(name: str) -> web.Response:
    body = (PAGE / name).read_bytes()
    return web.Response(body=body, content_type=FILES[name], charset="utf-8", headers=PAGE_HEADERS)


async def _pour(relay: Relay, response: web.StreamResponse, pause: float) -> None:
    """Write pictures until the stream ends; one again where none came, to see who has left."""
    picture: Encoded | None = None
    with relay.reading():
        while True:
            after = picture.sequence if picture else 0
            with suppress(asyncio.TimeoutError):
                picture = await asyncio.wait_for(relay.wait(after), pause)
                if picture is None:
                    return
            if picture is not None:
                await response.write(_part_of(picture))


def _part_of(picture: Encoded) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.data)}"
    return f"{head}\r\n\r\n".encode() + picture.data + b"\r\n"


def _label(stream: LiveStream) -> str:
    """A name that tells streams apart and does not give their ids away."""
    return f"{stream.name}-{hashlib.sha256(stream.id.encode()).hexdigest()[:8]}"


def _describe(stream: LiveStream, clients: int) -> dict[str, object]:
    relay = stream.relay
    own = {"name": _label(stream), "clients": clients, "missed": relay.missed}
    return own | stream.statistics().as_dict()


async def _settings(request: web.Request) -> Mapping[str, Value]:
    """The changes in a request's body."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send changes as application/json")
    if request.content_length is None or request.content_length > BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(BODY_BYTES, request.content_length or 0)
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError) as error:
        raise ProtocolError("bad_message", f"changes are JSON: {error}") from error
    return read_settings(body)
