"""A live workflow that runs in ComfyUI, as the program knows it that has queued it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from examples.comfyui_client import Client, ComfyUIError, Workflow, files_of
from live2diff_core.live.picture import decode_picture
from live2diff_core.live.protocol import FrameHeader
from tests.comfy.graphs import HEIGHT, WIDTH
from tests.live.wire import Talk

LIMIT = 300  # seconds after which a test fails instead of waiting for ever
PAUSE = 0.05  # seconds between two looks: the server answers 20 requests a second
BEGUN, ENDED = "live2diff.stream", "live2diff.ended"
KEY = "X-Live2Diff-Key"
MESSAGE_LIMIT = 64 * 1024 * 1024  # bytes
SMALL = {"width": WIDTH, "height": HEIGHT}


def small(path: Path) -> Workflow:
    """A live workflow at a size for tests."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    for entry in workflow.values():
        inputs = entry["inputs"]
        inputs.update({name: SMALL[name] for name in SMALL.keys() & inputs.keys()})
    return workflow


class Live:
    """What can be done with the stream. told: what ComfyUI said, with its kind.

    outputs: what the workflow reported, once it has ended.
    """

    def __init__(self, client: Client, http: aiohttp.ClientSession) -> None:
        self.client, self.http = client, http
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.outputs: dict[str, Any] = {}
        self._begun = asyncio.Event()

    @property
    def place(self) -> dict[str, Any]:
        """What the event says of the stream."""
        return next(data for kind, data in self.told if kind == BEGUN)

    @property
    def stream(self) -> str:
        return self.place["stream"]

    @property
    def key(self) -> str:
        return self.place["key"]

    def ends(self) -> list[dict[str, Any]]:
        """Events that the stream has ended."""
        return [data for kind, data in self.told if kind == ENDED]

    # ---- over HTTP

    async def ask(self, method: str, key: str | None = None, **how: Any) -> tuple[int, str]:
        """A request about the stream; its status and what it says. how: of aiohttp."""
        headers = {KEY: self.key if key is None else key, **how.pop("headers", {})}
        address = f"/live2diff/streams/{self.stream}"
        async with self.http.request(method, address, headers=headers, **how) as answer:
            return answer.status, await answer.text()

    async def change(self, **changes: object) -> dict[str, Any]:
        status, text = await self.ask("POST", json=changes)
        assert status == 200, text
        return json.loads(text)

    async def stop(self) -> None:
        assert (await self.ask("DELETE"))[0] == 204

    async def figures(self) -> dict[str, Any]:
        """Of the one stream that runs."""
        async with self.http.get("/live2diff/streams") as answer:
            (figures,) = (await answer.json())["streams"]
        return figures

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the stream's figures are so."""
        async with asyncio.timeout(LIMIT):
            while not condition(figures := await self.figures()):
                await asyncio.sleep(PAUSE)
        return figures

    # ---- over its socket

    @asynccontextmanager
    async def talk(self, **headers: str) -> AsyncIterator[Talk]:
        """A connection that has said nothing yet."""
        connect = self.http.ws_connect(
            "/live2diff/socket", headers=headers, max_msg_size=MESSAGE_LIMIT
        )
        async with connect as socket:
            yield Talk(socket)

    @asynccontextmanager
    async def viewer(self) -> AsyncIterator[Talk]:
        async with self.talk() as talk:
            await talk.hello("viewer", stream=self.stream)
            yield talk

    @asynccontextmanager
    async def steering(self, role: str) -> AsyncIterator[Talk]:
        """A source or a controller."""
        async with self.talk() as talk:
            await talk.hello(role, stream=self.stream, key=self.key)
            await talk.hear("stream")
            yield talk

    # ---- its workflow

    async def listen(self, prompt_id: str) -> None:
        async for kind, data in self.client.events(prompt_id):
            self.told.append((kind, data))
            if kind == BEGUN:
                self._begun.set()
        (entry,) = (await self.client.get(f"/history/{prompt_id}")).values()
        assert entry["status"]["status_str"] == "success"
        self.outputs = entry["outputs"]

    async def begin(self, prompt_id: str) -> None:
        """Raises what ends the workflow before there is a stream."""
        self._listening = asyncio.create_task(self.listen(prompt_id))
        begun = asyncio.create_task(self._begun.wait())
        try:
            async with asyncio.timeout(LIMIT):
                either = {begun, self._listening}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            begun.cancel()
        if not self._begun.is_set():
            await self._listening
            raise AssertionError("the workflow has ended, and there was no stream")

    async def end(self) -> list[dict[str, str]]:
        """Wait for the end of the workflow; its files in the output folder. Raises what a node
        raised.
        """
        async with asyncio.timeout(LIMIT):
            await self._listening
        return [file for file in files_of(self.outputs) if file["type"] == "output"]

    async def let_go(self, prompt_id: str) -> None:
        """Whatever it does: nothing is left of it for the next test."""
        if not self._listening.done():
            await self.client.cancel(prompt_id)
            await asyncio.wait({self._listening}, timeout=LIMIT)
        self._listening.cancel()
        (ended,) = await asyncio.gather(self._listening, return_exceptions=True)
        assert ended is None or isinstance(ended, ComfyUIError), ended


@asynccontextmanager
async def playing(
    client: Client, workflow: Workflow, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Live]:
    """A stream that has begun; its workflow is cancelled if it runs in the end. headers: of all
    requests about it. Raises what ends the workflow before.
    """
    async with aiohttp.ClientSession(f"http://{client.server}", headers=headers) as http:
        live = Live(client, http)
        prompt_id = await client.queue(workflow)
        try:
            await live.begin(prompt_id)
            yield live
        finally:
            await live.let_go(prompt_id)


async def shown(talk: Talk, count: int) -> list[tuple[FrameHeader, np.ndarray]]:
    """The next pictures that a client gets, (h, w, 3)."""
    pictures = [await talk.picture() for _ in range(count)]
    return [(header, _decode(header, data)) for header, data in pictures]


def _decode(header: FrameHeader, data: memoryview) -> np.ndarray:
    return decode_picture(header, data).movedim(0, -1).numpy()
