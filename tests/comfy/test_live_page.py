"""Live streams in ComfyUI's own page: a camera goes in, its translation is seen and steered."""

import os
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from live2diff_core.live.pattern import read_counter
from tests.comfy.browser import RUN_BUTTON, SIZE, FrontEnd, chromium
from tests.comfy.install import NO_CHROMIUM, ROOT, find_chromium
from tests.comfy.server import ComfyServer
from tests.filming import (
    CAMERA,
    FILMING,
    RECORD,
    TRACKS,
    eventually,
    greenness,
    pictures,
    resident_at_rest,
    state_of,
)

pytestmark = pytest.mark.anyio

WEBCAM, PATTERN = (
    ROOT / "workflows" / f"live2diff-live-{n}.json" for n in ("webcam", "test-pattern")
)
SIDE = 256  # pixels, of a picture whose number can be read
FASTER = 60  # frames a second: more than the engine can do here
ENOUGH = 40  # pictures
ROUNDS = 8
SLACK = 2  # threads that the server's own pools may still begin; of three rounds three stay
CANVAS = ".live2diff-picture"
FOLDER = os.environ.get("LIVE2DIFF_SCREENSHOTS")

LIVE = """() => {
    const node = app.graph.nodes.find(({ type }) => type === "Live2DiffLive");
    const panel = node.widgets.find(({ name }) => name === "live").element;
    const text = (part) => panel.querySelector(`.live2diff-${part}`).textContent;
    return { state: text("state"), message: text("message") };
}"""
TYPE = """(text) => {
    const node = app.graph.nodes.find(({ type }) => type === "Live2DiffLive");
    const { element } = node.widgets.find(({ name }) => name === "prompt");
    element.value = text;
    element.dispatchEvent(new InputEvent("input", { bubbles: true }));
}"""
PRESS = """(label) => {
    const buttons = [...document.querySelectorAll(".live2diff button")];
    buttons.find((button) => button.textContent === label).click();
}"""
REMOVE = """(name) => {
    const node = app.graph.nodes.find(({ type }) => type === name);
    app.graph.remove(node);
}"""


# The Live node in a subgraph whose inputs stand for its prompt and its seed.
WRAP = """async () => {
    const live = app.graph.nodes.find(({ type }) => type === "Live2DiffLive");
    const { subgraph, node } = app.graph.convertToSubgraph(new Set([live]));
    const inner = subgraph.nodes.find(({ type }) => type === "Live2DiffLive");
    for (const name of ["prompt", "seed"]) {
        const slot = inner.inputs.find(({ widget }) => widget?.name === name);
        if (slot.link == null) subgraph.addInput(name, slot.type).connect(slot, inner);
    }
    window.wrapped = { node, inner };
}"""
WRAPPED_MESSAGE = """() => {
    const { element } = wrapped.inner.widgets.find(({ name }) => name === "live");
    return element.querySelector(".live2diff-message").textContent;
}"""
SET_WRAPPED = """([name, value]) => {
    const widget = wrapped.node.widgets.find((each) => each.name === name);
    widget.value = value;
    widget.callback?.(value);
}"""
SIZES = """() => [...document.querySelectorAll(".live2diff-picture canvas")]
    .map((canvas) => [canvas.offsetWidth, canvas.offsetHeight])"""
SELECT = """(name) => {
    app.canvas.deselectAll();
    app.canvas.selectNode(app.graph.nodes.find(({ type }) => type === name));
}"""
FOLDED = """() => {
    const { widgets } = app.graph.nodes.find(({ type }) => type === "Live2DiffLive");
    const buttons = [...document.querySelectorAll(".live2diff button")];
    return {
        button: !buttons.find(({ textContent }) => textContent === "More settings").hidden,
        widgets: widgets.filter(({ options }) => options?.advanced).map(({ hidden }) => !!hidden),
    };
}"""
SET_RENDERER = "(on) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
DRAWN = 500  # milliseconds that a page takes to lay a panel out


@pytest.fixture(scope="module")
async def browser():
    if find_chromium() is None:
        pytest.skip(NO_CHROMIUM)
    async with chromium(*CAMERA) as running:
        yield running


@pytest.fixture
async def page(server: ComfyServer, browser) -> AsyncIterator[FrontEnd]:
    front_end = FrontEnd(await browser.new_page(viewport=SIZE))
    await front_end.open(server.url)
    yield front_end
    await front_end.page.request.post(f"{server.url}/interrupt")  # what a test left behind
    await front_end.page.close()
    await eventually(lambda: is_idle(server))
    assert front_end.our_errors == []


async def is_idle(server: ComfyServer) -> bool:
    queue = server.get_json("/queue")
    return not queue["queue_running"] and not streams(server)


def streams(server: ComfyServer) -> list[dict[str, Any]]:
    return server.get_json("/live2diff/streams")["streams"]


async def begin(page: FrontEnd, path: Path, **widgets: Any) -> None:
    """Open a workflow, press Run, and wait for the first pictures."""
    await page.load(path)
    if not FOLDER:
        widgets = {"width": SIDE, "height": SIDE, **widgets}
    await page.set_widgets(**widgets)
    await page.page.evaluate(RECORD, CANVAS)
    await page.page.evaluate(TRACKS)
    await page.page.locator(RUN_BUTTON).first.click()
    await pictures(page.page, 3)


async def look(page: FrontEnd) -> dict[str, str]:
    return await page.page.evaluate(LIVE)


async def stop(page: FrontEnd, server: ComfyServer) -> None:
    await page.page.evaluate(PRESS, "Stop")
    await eventually(lambda: is_idle(server))


async def test_numbers_come_out_in_order_and_a_prompt_shows_from_the_frame_that_is_told(
    page: FrontEnd, server: ComfyServer
) -> None:
    await begin(page, PATTERN, prompt="ink", rate=FASTER, fit="stretch")
    before = await pictures(page.page, ENOUGH)
    await page.page.evaluate(TYPE, "nightvision")

    async def first_of_the_change() -> int | None:
        message = (await look(page))["message"]
        return int(message.split()[2]) if message.startswith("from frame") else None

    first = await eventually(first_of_the_change)
    after = await pictures(page.page, ENOUGH)
    numbered = [(read_counter(rgb), rgb) for rgb in (*before, *after)]
    read = [(number, rgb) for number, rgb in numbered if number is not None]
    assert len(read) > 0.9 * len(numbered)
    assert all(one < next_one for (one, _), (next_one, _) in pairwise(read))
    (stream,) = streams(server)
    assert stream["dropped_total"] > 0
    old = [greenness(rgb) for number, rgb in read if number < first]
    new = [greenness(rgb) for number, rgb in read if number >= first]
    assert len(old) >= ENOUGH / 2
    assert len(new) >= ENOUGH / 2
    assert max(old) < 10 < 20 < min(new)
    await stop(page, server)
    assert (await look(page))["state"] == "the stream has ended"


async def test_a_camera_is_seen_translated_and_released(
    page: FrontEnd, server: ComfyServer
) -> None:
    await begin(page, WEBCAM, prompt="nightvision")
    assert await page.page.evaluate(FILMING) == 1
    shown = await pictures(page.page, ENOUGH // 2)
    assert min(map(greenness, shown)) > 20
    changes = [(a.float() - b.float()).abs().mean() for a, b in pairwise(shown)]
    assert sum(change > 0.5 for change in changes) > len(changes) / 2
    (stream,) = streams(server)
    assert stream["frames_in"] >= len(shown)

    async def has_figures() -> bool:
        return "ms" in (await look(page))["state"]

    await eventually(has_figures)
    if FOLDER:
        await page.page.evaluate(TYPE, "neon")
        await pictures(page.page, 2 * ENOUGH)
        await page.screenshot(Path(FOLDER) / "live.png")
    await stop(page, server)
    assert await page.page.evaluate(FILMING) == 0


async def test_a_page_that_is_loaded_anew_finds_its_stream(
    page: FrontEnd, server: ComfyServer
) -> None:
    await begin(page, WEBCAM)
    await page.page.reload()
    await page.open(server.url)
    await page.page.evaluate(RECORD, CANVAS)
    await pictures(page.page, 5)
    await stop(page, server)


@pytest.mark.parametrize("name", ["Live2DiffLive", "Live2DiffBrowserCamera"])
async def test_the_camera_is_released_when_a_node_is_removed(
    page: FrontEnd, server: ComfyServer, name: str
) -> None:
    await begin(page, WEBCAM)
    await page.page.evaluate(REMOVE, name)

    async def is_released() -> bool:
        return await page.page.evaluate(FILMING) == 0

    await eventually(is_released)
    if name == "Live2DiffBrowserCamera":
        assert len(streams(server)) == 1
        await stop(page, server)


async def test_rounds_leave_no_threads_and_no_memory(page: FrontEnd, server: ComfyServer) -> None:
    process = psutil.Process(server.process.pid)
    threads, sizes = [], []
    for _ in range(ROUNDS):
        await begin(page, WEBCAM)
        await pictures(page.page, ENOUGH // 2)
        await stop(page, server)
        threads.append(process.num_threads())
        sizes.append(await resident_at_rest(process))
    assert min(threads[-3:]) <= max(threads[:3]) + SLACK
    assert min(sizes[-3:]) < max(sizes[:3]) + state_of(SIDE, SIDE) / 2, sizes


async def test_sliders_that_a_subgraph_promotes_steer(page: FrontEnd, server: ComfyServer) -> None:
    await page.load(PATTERN)
    await page.set_widgets(width=SIDE, height=SIDE, prompt="ink", fit="stretch")
    await page.page.evaluate(WRAP)
    await page.page.evaluate(RECORD, CANVAS)
    await page.page.locator(RUN_BUTTON).first.click()
    before = await pictures(page.page, ENOUGH // 2)
    assert max(map(greenness, before)) < 10
    for name, value in (("prompt", "nightvision"), ("seed", 77)):
        await page.page.evaluate(SET_WRAPPED, [name, value])

        async def is_told() -> bool:
            return (await page.page.evaluate(WRAPPED_MESSAGE)).startswith("from frame")

        await eventually(is_told)
    after = await pictures(page.page, ENOUGH)
    assert greenness(after[-1]) > 20
    assert len(streams(server)) == 1
    await page.page.request.post(f"{server.url}/interrupt")
    await eventually(lambda: is_idle(server))


async def test_the_picture_keeps_its_size_when_the_panel_of_properties_shows_its_node(
    page: FrontEnd,
) -> None:
    await page.load(WEBCAM)
    toggle = page.page.get_by_label("Toggle properties panel").last
    if not await toggle.count():
        pytest.skip("this front-end has no such panel")
    before = await page.page.evaluate(SIZES)
    for name in ("Live2DiffLive", "Live2DiffBrowserCamera"):
        await page.page.evaluate(SELECT, name)
        await toggle.click()
        await page.page.wait_for_timeout(DRAWN)
        await page.page.get_by_label("Toggle properties panel").last.click()
        await page.page.wait_for_timeout(DRAWN)
        await page.page.evaluate("() => app.canvas.deselectAll()")
        await page.page.wait_for_timeout(DRAWN)
        assert await page.page.evaluate(SIZES) == before


async def test_rarely_needed_widgets_are_folded_by_us_where_comfyui_does_not(
    page: FrontEnd,
) -> None:
    own = await page.page.evaluate("() => LiteGraph.vueNodesMode ?? null")
    await page.load(WEBCAM)
    assert len((await page.page.evaluate(FOLDED))["widgets"]) > 3
    if own is None:
        pytest.skip("this front-end has one renderer")
    for is_on in (not own, own):
        await page.page.evaluate(SET_RENDERER, is_on)
        await page.page.wait_for_timeout(DRAWN)
        found = await page.page.evaluate(FOLDED)
        assert set(found["widgets"]) == {found["button"]}
        if is_on:
            assert not found["button"]


async def test_a_second_tab_says_that_its_run_waits(
    page: FrontEnd, server: ComfyServer, browser
) -> None:
    await begin(page, PATTERN)
    second = FrontEnd(await browser.new_page(viewport=SIZE))
    await second.open(server.url)
    await second.load(PATTERN)
    assert (await look(second))["state"] == "press Run to start"
    await second.page.locator(RUN_BUTTON).first.click()

    async def waits() -> bool:
        return (await look(second))["state"].startswith("queued: ")

    await eventually(waits)
    await page.page.evaluate(PRESS, "Stop")

    async def runs() -> bool:
        return (await look(second))["state"].startswith("running")

    await eventually(runs)
    await second.page.evaluate(PRESS, "Stop")
    await eventually(lambda: is_idle(server))
    await second.page.close()
