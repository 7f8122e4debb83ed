"""The page of `live2diff serve` in a real browser, from its camera to its canvas."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Page

from tests.comfy.browser import chromium
from tests.comfy.install import NO_CHROMIUM, find_chromium
from tests.comfy.server import free_port

pytestmark = pytest.mark.anyio

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
# Mean colour (0..255) of what the canvas shows, and a number that changes with its picture.
LOOK = """() => {
    const canvas = document.querySelector('#output');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let sums = [0, 0, 0], print = 0;
    for (let i = 0; i < data.length; i += 4) {
        for (const c of [0, 1, 2]) sums[c] += data[i + c];
        print = (print * 31 + data[i + 1]) % 1000003;
    }
    return { mean: sums.map((sum) => sum / (data.length / 4)), print };
}"""
LIMIT, PAUSE = 60, 0.2  # seconds
FOLDER = os.environ.get("LIVE2DIFF_SCREENSHOTS")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    if find_chromium() is None:
        pytest.skip(NO_CHROMIUM)
    port = free_port()
    command = "from live2diff_core.cli import main; raise SystemExit(main())"
    options = ["serve", "--port", str(port), "--prompt", "nightvision", "--size", "128x96"]
    log = (tmp_path_factory.mktemp("serve") / "log").open("wb")
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-c", command, *options], stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        yield f"http://127.0.0.1:{port}/live2diff/"
        process.terminate()


@pytest.fixture(scope="module")
async def page(address: str) -> AsyncIterator[Page]:
    async with chromium(*CAMERA) as browser:
        opened = await browser.new_page(viewport={"width": 1280, "height": 800})
        errors: list[str] = []
        opened.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        opened.on("pageerror", lambda error: errors.append(str(error)))
        await eventually(lambda: asyncio.to_thread(answers, address))
        await opened.goto(address)
        yield opened
        assert errors == []


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def streams(address: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{address}streams", timeout=5) as answer:
        return json.load(answer)["streams"]


async def eventually(holds: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(LIMIT):
        while not (found := await holds()):
            await asyncio.sleep(PAUSE)
        return found


async def colour(page: Page) -> np.ndarray:
    return np.array((await page.evaluate(LOOK))["mean"])


async def test_a_camera_is_translated_until_it_is_stopped(page: Page, address: str) -> None:
    await page.get_by_role("button", name="Start camera").click()

    async def is_green() -> bool:
        red, green, blue = await colour(page)
        return bool(green > 1.5 * red and green > 1.5 * blue)

    async def is_red() -> bool:
        red, _, blue = await colour(page)
        return bool(red > 1.2 * blue and not await is_green())

    await eventually(is_green)
    prints = {(await page.evaluate(LOOK))["print"]}

    async def moves() -> bool:
        prints.add((await page.evaluate(LOOK))["print"])
        return len(prints) > 3

    await eventually(moves)
    (stream,) = await asyncio.to_thread(streams, address)
    assert stream["state"] == "running"
    assert stream["frames_out"] > 0

    prompt = page.get_by_label("Prompt")
    await prompt.fill("comic")
    await prompt.blur()
    await eventually(is_red)
    if FOLDER:
        await page.screenshot(path=Path(FOLDER) / "serve.png")

    await page.get_by_role("button", name="Stop").click()
    live = "() => document.querySelector('#camera').srcObject === null"
    await page.wait_for_function(live)

    async def none_left() -> bool:
        return await asyncio.to_thread(streams, address) == []

    await eventually(none_left)
