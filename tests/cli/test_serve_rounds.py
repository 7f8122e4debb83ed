"""`live2diff serve` with a camera that starts and stops again and again, in a real browser."""

from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from live2diff_core.live.pattern import read_counter
from tests.cli.serving import serving
from tests.comfy.browser import chromium
from tests.comfy.install import NO_CHROMIUM, find_chromium
from tests.filming import (
    CAMERA,
    FILMING,
    RECORD,
    TRACKS,
    counting_camera,
    eventually,
    greenness,
    pictures,
    resident_at_rest,
    state_of,
)

pytestmark = pytest.mark.anyio

SIZE = (320, 256)  # pixels; a number can be read in the pictures, and a cache weighs
FPS, SECONDS = 20, 20  # of the film, which the camera repeats
ENOUGH = 12  # pictures of one round
ROUNDS = 6


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.skipif(find_chromium() is None, reason=NO_CHROMIUM)
async def test_rounds_show_a_camera_in_order_and_leave_nothing(tmp_path: Path) -> None:
    camera = counting_camera(tmp_path / "camera.y4m", *SIZE, FPS, SECONDS)
    options = ["--prompt", "nightvision", "--size", "{}x{}".format(*SIZE)]
    threads, resident = [], []
    with serving(tmp_path, *options) as server:
        await server.has_begun()
        process = psutil.Process(server.process)
        async with chromium(*CAMERA, camera) as browser:
            page = await browser.new_page()
            await page.goto(server.address)
            await page.evaluate(RECORD, "#output")
            await page.evaluate(TRACKS)
            for _ in range(ROUNDS):
                await page.get_by_role("button", name="Start camera").click()
                shown = await pictures(page, ENOUGH)
                await page.get_by_role("button", name="Stop").click()
                await eventually(server.is_empty)
                read = [number for rgb in shown if (number := read_counter(rgb)) is not None]
                assert len(read) > 0.9 * len(shown)
                assert sum(one >= after for one, after in pairwise(read)) <= 1  # it begins anew
                assert min(map(greenness, shown)) > 20
                assert await page.evaluate(FILMING) == 0
                threads.append(process.num_threads())
                resident.append(await resident_at_rest(process))
    # The pool of the event loop may grow by some threads; one that stays is there of every round.
    assert threads[-1] < threads[0] + ROUNDS - 1, threads
    assert resident[-1] < resident[0] + state_of(*SIZE) / 2, resident
