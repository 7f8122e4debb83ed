"""`live2diff serve` in a process of its own, and what it says about its streams."""

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.comfy.server import free_port
from tests.filming import eventually

COMMAND = "from live2diff_core.cli import main; raise SystemExit(main())"


@dataclass(frozen=True)
class Serving:
    """A running server. address: of its page."""

    address: str
    process: int

    async def has_begun(self) -> None:
        await eventually(lambda: asyncio.to_thread(self._answers))

    async def streams(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._streams)

    async def is_empty(self) -> bool:
        return await self.streams() == []

    async def frames_in(self) -> int:
        return sum(stream["frames_in"] for stream in await self.streams())

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.address, timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def _streams(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.address}streams", timeout=5) as answer:
            return json.load(answer)["streams"]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Serving]:
    """`live2diff serve` with these options, until the end; its log lies in the folder."""
    port = free_port()
    command = [sys.executable, "-c", COMMAND, "serve", "--port", str(port), *options]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield Serving(f"http://127.0.0.1:{port}/live2diff/", process.pid)
        finally:
            process.terminate()
