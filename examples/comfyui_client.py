"""Run an API workflow in a ComfyUI from outside, and fetch what it made.

    python examples/comfyui_client.py workflows/api/quickstart.json --prompt ink --output out/

Needs aiohttp only, which ComfyUI has itself.
"""

import argparse
import asyncio
import json
import logging
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

logger = logging.getLogger(__name__)

Workflow = dict[str, dict[str, Any]]  # what "Export (API)" saves: node id -> class_type and inputs
VIDEO_NODES = ("LoadVideo", "Live2DiffExampleVideo")
FRAME_LIMIT = 64 * 1024 * 1024  # bytes of one message; previews come over the same socket


class ComfyUIError(Exception):
    """A workflow did not run to its end."""


class PromptRefused(ComfyUIError):
    """ComfyUI found a mistake before it ran anything."""


class PromptFailed(ComfyUIError):
    """A node raised an error."""


class PromptInterrupted(ComfyUIError):
    """Someone stopped it."""


class Client:
    """One client of a ComfyUI, with a WebSocket of its own."""

    def __init__(self, server: str) -> None:
        """server: host:port."""
        self.server = server
        self.id = uuid.uuid4().hex

    async def __aenter__(self) -> "Client":
        async with AsyncExitStack() as undo:
            session = aiohttp.ClientSession(f"http://{self.server}")
            self._http = await undo.enter_async_context(session)
            connect = self._http.ws_connect(f"/ws?clientId={self.id}", max_msg_size=FRAME_LIMIT)
            self._socket = await undo.enter_async_context(connect)
            self._connection = undo.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.aclose()

    async def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """What a route answers."""
        async with self._http.get(path) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def post(self, path: str, body: dict[str, Any] | None = None) -> str:
        """Ask a route to do something, such as /interrupt; what it says."""
        async with self._http.post(path, json=body or {}) as answer:
            answer.raise_for_status()
            return await answer.text()

    async def upload(self, path: Path) -> str:
        """Put a picture or a video into ComfyUI's input folder; its name there."""
        with path.open("rb") as file:
            form = aiohttp.FormData()
            form.add_field("image", file, filename=path.name)
            form.add_field("overwrite", "true")
            async with self._http.post("/upload/image", data=form) as answer:
                answer.raise_for_status()
                return (await answer.json())["name"]

    async def queue(self, workflow: Workflow) -> str:
        """Queue a workflow; its prompt id. Raises PromptRefused."""
        order = {"prompt": workflow, "client_id": self.id}
        async with self._http.post("/prompt", json=order) as answer:
            reply = await answer.json()
        if "error" in reply:
            raise PromptRefused(refusal(reply, workflow))
        if reply["node_errors"]:
            logger.warning("a part of the workflow is left out:\n%s", refusal(reply, workflow))
        return reply["prompt_id"]

    async def cancel(self, prompt_id: str) -> None:
        """Take a workflow out of the queue, or stop it if it runs."""
        await self.post("/queue", {"delete": [prompt_id]})
        await self.post("/interrupt", {"prompt_id": prompt_id})

    async def events(self, prompt_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(type, data) of each message about a prompt, or about none, until it has ended.

        Raises PromptFailed or PromptInterrupted once it has.
        """
        trouble: ComfyUIError | None = None
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue  # a preview
            event = json.loads(message.data)
            kind, data = event["type"], event["data"]
            if data.get("prompt_id", prompt_id) != prompt_id:
                continue
            if kind == "execution_error":
                said = data["exception_message"].strip()
                trouble = PromptFailed(f"{data['node_type']} ({data['node_id']}): {said}")
            elif kind == "execution_interrupted":
                trouble = PromptInterrupted(f"interrupted in {data['node_type']}")
            yield kind, data
            if kind == "executing" and data["node"] is None:
                break
        else:
            raise ComfyUIError(f"{self.server} closed the connection")
        if trouble:
            raise trouble

    async def run(
        self, workflow: Workflow, on_progress: Callable[[str, int, int], None] | None = None
    ) -> dict[str, Any]:
        """Run a workflow; what its output nodes report, by node id.

        on_progress: gets the node's class, what is done and of how much. Raises ComfyUIError.
        """
        prompt_id = await self.queue(workflow)
        async for kind, data in self.events(prompt_id):
            if kind == "progress" and on_progress:
                on_progress(
                    workflow[data["node"]]["class_type"], int(data["value"]), int(data["max"])
                )
        return (await self.get(f"/history/{prompt_id}"))[prompt_id]["outputs"]

    async def fetch(self, outputs: dict[str, Any], folder: Path) -> list[Path]:
        """Download every file of a run's outputs."""
        folder.mkdir(parents=True, exist_ok=True)
        return [await self._download(file, folder) for file in files_of(outputs)]

    async def _download(self, file: dict[str, str], folder: Path) -> Path:
        query = {key: file[key] for key in ("filename", "subfolder", "type")}
        target = folder / file["filename"]
        async with self._http.get("/view", params=query) as answer:
            answer.raise_for_status()
            with target.open("wb") as out:
                async for part in answer.content.iter_chunked(1 << 20):
                    out.write(part)
        return target


def files_of(outputs: dict[str, Any]) -> list[dict[str, str]]:
    """The files among what output nodes report; it may also be text or flags."""
    values = [value for node in outputs.values() for value in node.values()]
    items = [item for value in values for item in value]
    return [item for item in items if isinstance(item, dict) and "filename" in item]


def refusal(reply: dict[str, Any], workflow: Workflow) -> str:
    """ComfyUI's answer to a workflow that cannot run, a line for each mistake."""
    lines = []
    for node_id, mistakes in (reply.get("node_errors") or {}).items():
        node = workflow[node_id]["class_type"]
        for error in mistakes["errors"]:
            lines.append(f"{node} ({node_id}): {error['message']}: {error['details']}")
    if not lines:
        error = reply["error"]
        lines = [error if isinstance(error, str) else f"{error['message']}: {error['details']}"]
    return "\n".join(lines)


def set_everywhere(workflow: Workflow, name: str, value: Any) -> None:  # noqa: ANN401 - JSON
    """Set an input in every node that has it as a widget. Raises ComfyUIError if none has."""
    having = [node["inputs"] for node in workflow.values() if name in node["inputs"]]
    widgets = [inputs for inputs in having if not isinstance(inputs[name], list)]
    if not widgets:
        raise ComfyUIError(f"no node of this workflow has a widget {name!r}")
    for inputs in widgets:
        inputs[name] = value


def set_video(workflow: Workflow, name: str) -> None:
    """Let every node that brings a video bring this one. Raises ComfyUIError if there is none."""
    bringing = [node for node in workflow.values() if node["class_type"] in VIDEO_NODES]
    if not bringing:
        raise ComfyUIError(f"this workflow has no {' or '.join(VIDEO_NODES)}")
    for node in bringing:
        node.update(class_type="LoadVideo", inputs={"file": name})


def show_progress(node: str, done: int, total: int) -> None:
    """One line that is written over."""
    print(f"\r{node}: {done}/{total}", end="\n" if done == total else "", flush=True)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run an API workflow in ComfyUI.")
    parser.add_argument("workflow", type=Path, help="a workflow saved by Export (API)")
    parser.add_argument("--server", default="127.0.0.1:8188", help="host:port")
    parser.add_argument("--prompt", help="the text of the CLIP Text Encode nodes")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--input", type=Path, help="a video to upload and translate")
    parser.add_argument("--output", type=Path, default=Path("."), help="a folder")
    return parser.parse_args()


async def main(options: argparse.Namespace) -> None:
    """Change the workflow as told, run it and fetch its files. Raises ComfyUIError."""
    workflow: Workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
    if options.prompt is not None:
        set_everywhere(workflow, "text", options.prompt)
    if options.seed is not None:
        set_everywhere(workflow, "seed", options.seed)
    async with Client(options.server) as client:
        if options.input is not None:
            set_video(workflow, await client.upload(options.input))
        outputs = await client.run(workflow, show_progress)
        for path in await client.fetch(outputs, options.output):
            print(path)


if __name__ == "__main__":
    try:
        asyncio.run(main(read_arguments()))
    except (ComfyUIError, aiohttp.ClientError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
