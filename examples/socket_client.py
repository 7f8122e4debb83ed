"""Translate a video file over a socket, as docs/protocol.md describes it.

    live2diff serve --prompt "an ink drawing"
    python examples/socket_client.py clip.mp4 --prompt "neon lights" --output translated.mp4

Needs aiohttp, av and pillow.
"""

import argparse
import asyncio
import io
import json
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np
from PIL import Image

VERSION = 1
GONE = 404  # HTTP's
HEADER = struct.Struct("<4sBBHQdHHI")
MAGIC = b"L2DF"
KINDS = ("jpeg", "webp", "raw")
MESSAGE_LIMIT = 64 * 1024 * 1024  # bytes
TICKS = 90_000  # of a second, in the video that is written
REMEMBERED = 10_000  # latencies


class ServerError(Exception):
    """What the server refused, with its code."""


@dataclass(frozen=True)
class Frame:
    """A picture, (h, w, 3) uint8, with the sender's index and its time in seconds."""

    rgb: np.ndarray
    index: int
    timestamp: float


def pack(frame: Frame, quality: int = 90) -> bytes:
    """A frame as a binary message, in JPEG."""
    picture = io.BytesIO()
    Image.fromarray(frame.rgb).save(picture, "JPEG", quality=quality)
    height, width = frame.rgb.shape[:2]
    place = frame.index, frame.timestamp, width, height, picture.tell()
    return HEADER.pack(MAGIC, VERSION, KINDS.index("jpeg"), 0, *place) + picture.getvalue()


def unpack(message: bytes) -> Frame:
    """A binary message as a frame. Raises ServerError."""
    magic, version, kind, _, index, timestamp, width, height, length = HEADER.unpack_from(message)
    payload = message[HEADER.size :]
    if (magic, version) != (MAGIC, VERSION) or len(payload) != length:
        raise ServerError(f"expected a frame of version {VERSION}, got {message[:8]!r}")
    if KINDS[kind] == "raw":
        rgb = np.frombuffer(payload, np.uint8).reshape(height, width, 3)
    else:
        rgb = np.asarray(Image.open(io.BytesIO(payload)).convert("RGB"))
    return Frame(rgb, index, timestamp)


class Client:
    """A source of a stream on a server. Use it once, as an async context.

    latencies: seconds from sending a frame to having it back, of the newest frames.
    """

    def __init__(
        self,
        server: str,
        token: str | None = None,
        window: int = 1,
        stream: str | None = None,
        key: str | None = None,
    ) -> None:
        """server: host:port. window: frames on their way; with 1 none is dropped. stream, key: of
        one that is there already; None for one of its own.
        """
        self._window, self.stream, self._key = window, stream, key
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._server, self._headers = f"http://{server}", headers
        self._credit = asyncio.Semaphore(0)
        self._until = 0
        self._sent: dict[int, float] = {}  # when, by index
        self.latencies: deque[float] = deque(maxlen=REMEMBERED)
        self.figures: dict[str, Any] = {}

    async def __aenter__(self) -> "Client":
        async with AsyncExitStack() as undo:
            session = aiohttp.ClientSession(self._server, headers=self._headers)
            self._http = await undo.enter_async_context(session)
            connect = self._http.ws_connect("/live2diff/socket", max_msg_size=MESSAGE_LIMIT)
            self._socket = await undo.enter_async_context(connect)
            self._connection = undo.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.aclose()

    async def translate(
        self,
        frames: Iterator[Frame],
        settings: dict[str, Any],
        on_frame: Callable[[Frame], None],
        on_message: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        """Send all frames, as fast as the server takes them; translated ones go to `on_frame`.

        settings: of a stream of its own. on_message: gets what the server says. Raises ServerError.
        """
        place = {"stream": self.stream, "key": self._key}
        wanted = {"window": self._window, "frames": "all"}
        await self._say("hello", version=VERSION, role="source", **wanted, **place)
        if self.stream is None:
            await self._say("configure", settings=settings)
        sending = asyncio.create_task(self._send(frames))
        hearing = asyncio.create_task(self._listen(on_frame, on_message))
        try:
            await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not isinstance(sending.exception(), ConnectionError):
                sending.result()  # raises what is wrong with the frames
            await hearing
        finally:
            for task in (sending, hearing):
                task.cancel()
            await asyncio.gather(sending, hearing, return_exceptions=True)
        if sending.cancelled() or sending.exception():
            raise ServerError("the server closed the connection before the last frame was sent")

    async def control(self, **changes: object) -> None:
        """Change parameters; the answer comes as a message."""
        await self._say("control", changes=changes)

    async def stop(self) -> None:
        """End the stream, if it has not ended."""
        address, headers = f"/live2diff/streams/{self.stream}", {"X-Live2Diff-Key": self._key or ""}
        async with self._http.delete(address, headers=headers) as answer:
            if answer.status != GONE:
                answer.raise_for_status()

    async def _send(self, frames: Iterator[Frame]) -> None:
        while (frame := await asyncio.to_thread(next, frames, None)) is not None:
            await self._credit.acquire()
            self._sent[frame.index] = time.monotonic()
            await self._socket.send_bytes(pack(frame))
        await self._say("end")

    async def _listen(
        self, on_frame: Callable[[Frame], None], on_message: Callable[[dict[str, Any]], None]
    ) -> None:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                on_frame(self._came_back(unpack(message.data)))
            else:
                on_message(self._hear(json.loads(message.data)))

    def _came_back(self, frame: Frame) -> Frame:
        sent = self._sent.get(frame.index)
        if sent is not None:
            self.latencies.append(time.monotonic() - sent)
        self._sent = {index: at for index, at in self._sent.items() if index > frame.index}
        return frame

    def _hear(self, said: dict[str, Any]) -> dict[str, Any]:
        if said["type"] == "error":
            raise ServerError(f"{said['code']}: {said['message']}")
        if said["type"] == "statistics":
            self.figures = said
        if said["type"] == "stream":
            self.stream, self._key = said["stream"], said.get("key", self._key)
        if said["type"] == "credit":
            for _ in range(said["until"] - self._until):
                self._credit.release()
            self._until = said["until"]
        return said

    async def _say(self, kind: str, **fields: object) -> None:
        await self._socket.send_json({"type": kind, **fields})


def read_video(path: Path) -> Iterator[Frame]:
    """The frames of a video file."""
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            yield Frame(frame.to_ndarray(format="rgb24"), index, frame.time or 0.0)


class VideoWriter:
    """An H.264 file that takes the size of its first frame."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path), "w")
        self._stream: Any = None

    def write(self, frame: Frame) -> None:
        """Add a frame at its time."""
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=25)
            self._stream.height, self._stream.width = frame.rgb.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.rgb), format="rgb24")
        picture.pts, picture.time_base = round(frame.timestamp * TICKS), Fraction(1, TICKS)
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Translate a video file over a socket.")
    parser.add_argument("input", type=Path)
    parser.add_argument("--server", default="127.0.0.1:8190", help="host:port")
    parser.add_argument("--token", help="of a server that asks for one")
    parser.add_argument("--prompt", help="what to see (default: as the server was started)")
    parser.add_argument("--strength", type=float, help="how far from the input, above 0 to 1")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--window", type=int, default=1, help="frames on their way, 1 to 16")
    parser.add_argument("--output", type=Path, help="an .mp4 (default: only count the frames)")
    return parser.parse_args(arguments)


async def main(options: argparse.Namespace) -> None:
    """Translate as told. Raises ServerError."""
    given = {name: getattr(options, name) for name in ("prompt", "strength", "seed")}
    settings = {name: value for name, value in given.items() if value is not None}
    writer = VideoWriter(options.output) if options.output else None
    indices: list[int] = []

    def take(frame: Frame) -> None:
        if indices and frame.index <= indices[-1]:
            return  # a picture that stands in for a frame
        indices.append(frame.index)
        print(f"\rframe {frame.index}", end="", flush=True)
        if writer:
            writer.write(frame)

    try:
        async with Client(options.server, options.token, options.window) as client:
            await client.translate(read_video(options.input), settings, take)
    finally:
        if writer:
            writer.close()
    print(f"\r{len(indices)} frames came back", f"in {options.output}" if writer else "")


if __name__ == "__main__":
    try:
        asyncio.run(main(read_arguments()))
    except (ServerError, aiohttp.ClientError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
