"""The page of `live2diff serve` in a real browser, from its camera to its canvas."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Browser, Page, expect

from tests.cli.serving import Serving, serving
from tests.comfy.browser import chromium
from tests.comfy.install import NO_CHROMIUM, find_chromium
from tests.filming import CAMERA, eventually

pytestmark = pytest.mark.anyio

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
# As in a hidden tab, where no video frame calls anybody; `waiting` are those who wait for one.
HIDE = """() => {
    const { prototype } = HTMLVideoElement;
    const { requestVideoFrameCallback, cancelVideoFrameCallback } = prototype;
    window.waiting = new Set();
    prototype.requestVideoFrameCallback = () => {
        const handle = 1e6 + window.waiting.size;
        window.waiting.add(handle);
        return handle;
    };
    prototype.cancelVideoFrameCallback = function (handle) {
        if (!window.waiting.delete(handle)) cancelVideoFrameCallback.call(this, handle);
    };
    window.setHidden = (hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    };
    window.giveFrames = () => Object.assign(prototype, { requestVideoFrameCallback });
    for (const hidden of [true, false, true, false, true]) setHidden(hidden);
}"""
# A server in the page, which answers a change, and then says that it shows. `asked` is what it was
# asked for, and whether no change was being made; `breakLine` cuts the line instead of an answer.
FAKE = """() => {
    window.asked = [];
    window.breakLine = false;
    window.WebSocket = class extends EventTarget {
        static OPEN = 1;
        readyState = 1;
        constructor() {
            super();
            setTimeout(() => this.onopen());
        }
        say(message) {
            this.onmessage({ data: JSON.stringify(message) });
        }
        send(text) {
            const { type, changes, request } = JSON.parse(text);
            if (type === "hello") this.say({ type: "stream", stream: "s" });
            if (type !== "control") return;
            window.asked.push({ changes, isFirst: !window.changing });
            if (window.breakLine) {
                window.breakLine = false;
                return setTimeout(() => this.onclose());
            }
            this.answer(request, changes);
        }
        answer(request, changes) {
            const atOnce = "panic" in changes;
            const effect = atOnce ? "now" : "re-prime";
            const effects = Object.fromEntries(Object.keys(changes).map((n) => [n, effect]));
            if (!atOnce) window.changing = true;
            const answer = { type: "answer", request, frame: 5, effects, refused: {} };
            setTimeout(() => this.say(answer), 20);
            if (!atOnce) setTimeout(() => this.show(), 60);
        }
        show() {
            window.changing = false;
            this.say({ type: "event", event: "changed", frame: 5, message: "" });
        }
        close() {}
    };
}"""
OPEN_FAKE = """async () => {
    const { LiveSocket } = await import("./page/live.js");
    window.answers = [];
    const stream = { role: "controller", stream: "s", key: "k", frames: true };
    const onAnswer = (answer, changes) => window.answers.push(changes);
    window.live = new LiveSocket({ ...stream, onAnswer });
    const open = new Promise((resolve) => setTimeout(resolve, 10));
    live.connect();
    await open;
}"""
FOLDER = os.environ.get("LIVE2DIFF_SCREENSHOTS")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Serving]:
    if find_chromium() is None:
        pytest.skip(NO_CHROMIUM)
    folder = tmp_path_factory.mktemp("serve")
    with serving(folder, "--prompt", "nightvision", "--size", "128x96") as running:
        yield running


@pytest.fixture(scope="module")
async def browser(server: Serving) -> AsyncIterator[Browser]:
    async with chromium(*CAMERA) as running:
        await server.has_begun()
        yield running


@pytest.fixture
async def page(browser: Browser, server: Serving) -> AsyncIterator[Page]:
    opened = await browser.new_page(viewport={"width": 1280, "height": 800})
    errors: list[str] = []
    opened.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    await opened.goto(server.address)
    yield opened
    await opened.close()
    assert errors == []


@asynccontextmanager
async def filming(page: Page, server: Serving) -> AsyncIterator[None]:
    """The camera runs, and is let go of."""
    await page.get_by_role("button", name="Start camera").click()
    await eventually(lambda: gets_frames(server))
    yield
    await page.get_by_role("button", name="Stop").click()
    await page.wait_for_function("() => document.querySelector('#camera').srcObject === null")
    await eventually(server.is_empty)


async def gets_frames(server: Serving, more_than: int = 0) -> bool:
    return await server.frames_in() > more_than


async def colour(page: Page) -> np.ndarray:
    return np.array((await page.evaluate(LOOK))["mean"])


async def test_a_camera_is_translated_until_it_is_stopped(page: Page, server: Serving) -> None:
    async with filming(page, server):

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
        (stream,) = await server.streams()
        assert stream["state"] == "running"
        assert stream["frames_out"] > 0

        prompt = page.get_by_label("Prompt")
        await prompt.fill("comic")
        await prompt.blur()
        await eventually(is_red)
        if FOLDER:
            await page.screenshot(path=Path(FOLDER) / "serve.png")


async def test_a_hidden_tab_goes_on_sending(page: Page, server: Serving) -> None:
    async with filming(page, server):
        await page.evaluate(HIDE)
        before = await server.frames_in()
        await eventually(lambda: gets_frames(server, before + 5))
        assert await page.evaluate("() => window.waiting.size") == 0
        await page.evaluate("() => setHidden(false)")
        assert await page.evaluate("() => window.waiting.size") == 1
        await page.evaluate("() => { setHidden(true); giveFrames(); setHidden(false); }")
        before = await server.frames_in()
        await eventually(lambda: gets_frames(server, before + 5))


async def test_a_camera_without_permission_says_what_to_do(page: Page) -> None:
    await page.evaluate(
        """() => {
            const refuse = () => Promise.reject(new DOMException("no", "NotAllowedError"));
            navigator.mediaDevices.getUserMedia = refuse;
        }"""
    )
    await page.get_by_role("button", name="Start camera").click()
    await expect(page.get_by_role("alert")).to_contain_text("allow it beside the address")
    await expect(page.get_by_role("button", name="Start camera")).to_be_enabled()


async def test_of_a_dragged_slider_few_values_are_sent_and_the_last_one_counts(page: Page) -> None:
    await page.evaluate(FAKE)
    await page.evaluate(OPEN_FAKE)
    await page.evaluate(
        """async () => {
            for (let value = 1; value <= 60; value++) {
                live.steer({ strength: value, seed: 7 });
                await new Promise((resolve) => setTimeout(resolve, 5));
            }
        }"""
    )
    await page.wait_for_function("() => window.answers.at(-1)?.strength === 60")
    asked = await page.evaluate("() => window.asked")
    assert asked[0]["changes"] == {"strength": 1, "seed": 7}
    assert asked[-1]["changes"] == {"strength": 60, "seed": 7}
    assert 2 < len(asked) < 20
    assert all(each["isFirst"] for each in asked)


async def test_panic_does_not_wait_for_another_change(page: Page) -> None:
    await page.evaluate(FAKE)
    await page.evaluate(OPEN_FAKE)
    await page.evaluate("() => { live.steer({ strength: 1 }); live.steer({ panic: true }); }")
    await page.wait_for_function("() => window.answers.length === 2")
    asked = await page.evaluate("() => window.asked.map(({ changes }) => changes)")
    assert asked == [{"strength": 1}, {"panic": True}]
    assert not await page.evaluate("() => window.asked[1].isFirst")


async def test_what_a_broken_line_kept_back_is_sent_afterwards(page: Page) -> None:
    await page.evaluate(FAKE)
    await page.evaluate(OPEN_FAKE)
    await page.evaluate(
        """() => {
            window.breakLine = true;
            live.steer({ strength: 1, seed: 7 });
            live.steer({ strength: 2 });
        }"""
    )
    await page.wait_for_function("() => window.answers.length === 1")
    assert await page.evaluate("() => window.answers") == [{"strength": 2, "seed": 7}]
