"""Run a live workflow in a ComfyUI without its page, and feed it a video file.

    python examples/comfyui_live.py clip.mp4 --prompt ink --then neon --after 60 --output live.mp4

The workflow has a Live2Diff Socket Source; ComfyUI says which stream it has become. Needs aiohttp,
av and pillow, which ComfyUI has itself.
"""

import argparse
import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import av
import comfyui_client
import numpy as np
import socket_client
from comfyui_client import ComfyUIError, Workflow, set_everywhere
from socket_client import Frame, ServerError, VideoWriter, read_video

BEGUN = "live2diff.stream"  # an event that tells a stream's id and key
TROUBLES = ("source lost", "source back", "engine failed", "engine back")
SOURCE = "Live2DiffSocketSource"
WORKFLOW = Path(__file__).resolve().parent.parent / "workflows" / "api" / "live_socket.json"


class Show:
    """What comes back: counted, written to a file, and another prompt in the middle."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._writer = VideoWriter(options.output) if options.output else None
        self._then, self._after = options.then, options.after
        self._last = -1
        self.count = 0
        self._is_time = asyncio.Event()

    def take(self, frame: Frame) -> None:
        """A translated frame."""
        if frame.index <= self._last:
            return  # a picture that stands in for a frame
        self._last = frame.index
        self.count += 1
        if self.count == self._after:
            self._is_time.set()
        if self._writer:
            self._writer.write(frame)
        print(f"\rframe {frame.index}", end="", flush=True)

    def hear(self, said: dict[str, Any]) -> None:
        """A message of the server."""
        if said["type"] == "answer" and said["refused"]:
            print("\nrefused:", "; ".join(said["refused"].values()), file=sys.stderr)
        elif said["type"] == "answer":
            print(f"\n{self._then} from frame {said['frame']} on")
        elif said["type"] == "event" and said["event"] in TROUBLES:
            print(f"\n{said['event']}: {said['message']}", file=sys.stderr)

    async def change(self, client: socket_client.Client) -> None:
        """Change the prompt when it is time."""
        await self._is_time.wait()
        if self._then is not None:
            await client.control(prompt=self._then)

    def close(self) -> None:
        """Finish the file."""
        if self._writer:
            self._writer.close()


async def feed(client: socket_client.Client, options: argparse.Namespace) -> None:
    """Send the video and take what comes back, to the end; then the stream ends, too.

    Raises ServerError.
    """
    show = Show(options)
    changing = asyncio.create_task(show.change(client))
    try:
        await client.translate(read_video(options.input), {}, show.take, show.hear)
    finally:
        changing.cancel()
        show.close()
        with suppress(aiohttp.ClientError):  # where it is refused, the workflow is cancelled
            await client.stop()
        print(f"\r{show.count} frames came back", f"in {options.output}" if options.output else "")
    if client.latencies:
        p50, p95 = np.percentile(client.latencies, (50, 95)) * 1000
        print(f"latency p50 {p50:.0f} ms, p95 {p95:.0f} ms")


async def wait_for_stream(
    comfyui: comfyui_client.Client, prompt_id: str, begun: "asyncio.Future[dict[str, Any]]"
) -> None:
    """Tell where the stream is, and wait for the end of the workflow. Raises ComfyUIError."""
    async for kind, data in comfyui.events(prompt_id):
        if kind == BEGUN and not begun.done():
            begun.set_result(data)


async def play(comfyui: comfyui_client.Client, prompt_id: str, options: argparse.Namespace) -> None:
    """Feed the stream of a workflow that is queued. Raises ComfyUIError, ServerError."""
    begun = asyncio.get_running_loop().create_future()
    ending = asyncio.create_task(wait_for_stream(comfyui, prompt_id, begun))
    try:
        await asyncio.wait({begun, ending}, return_when=asyncio.FIRST_COMPLETED)
        if begun.done():
            place = begun.result()
            print(f"to look at: http://{options.server}/live2diff/{place['view']}")
            to = options.server, options.token, options.window, place["stream"], place["key"]
            async with socket_client.Client(*to) as client:
                await feed(client, options)
        await ending
    finally:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    if not begun.done():
        raise ComfyUIError("the workflow has ended, and there was no live stream")


def read_workflow(options: argparse.Namespace) -> Workflow:
    """The workflow with its prompt. Raises ComfyUIError."""
    workflow: Workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
    if SOURCE not in {node["class_type"] for node in workflow.values()}:
        raise ComfyUIError(f"this workflow has no {SOURCE}, which a program can feed")
    if options.prompt is not None:
        set_everywhere(workflow, "prompt", options.prompt)
    return workflow


async def main(options: argparse.Namespace) -> None:
    """Run the workflow as told. Raises ComfyUIError, ServerError."""
    workflow = read_workflow(options)
    async with comfyui_client.Client(options.server) as comfyui:
        prompt_id = await comfyui.queue(workflow)
        async with AsyncExitStack() as undo:  # after Ctrl-C, too: Live would wait for ever
            undo.push_async_callback(comfyui.cancel, prompt_id)
            await play(comfyui, prompt_id, options)
            undo.pop_all()


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Feed a video file to a live workflow of ComfyUI.")
    parser.add_argument("input", type=Path, help="a video")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW, help="saved by Export (API)")
    parser.add_argument("--server", default="127.0.0.1:8188", help="host:port")
    parser.add_argument(
        "--token",
        default=os.environ.get("LIVE2DIFF_TOKEN"),
        help="of a ComfyUI that listens to other computers (default: LIVE2DIFF_TOKEN)",
    )
    parser.add_argument("--prompt", help="what to see (default: as the workflow says)")
    parser.add_argument("--then", help="another prompt in the middle")
    parser.add_argument("--after", type=int, default=60, help="so many frames")
    parser.add_argument("--window", type=int, default=1, help="frames on their way, 1 to 16")
    parser.add_argument("--output", type=Path, help="an .mp4 (default: only count the frames)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        asyncio.run(main(read_arguments()))
    except KeyboardInterrupt:
        sys.exit("stopped")
    except (ComfyUIError, ServerError, aiohttp.ClientError, av.FFmpegError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
