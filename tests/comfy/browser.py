"""ComfyUI's front-end in a headless Chromium, as a user has it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import ConsoleMessage, Error, Page, async_playwright
from playwright.async_api import TimeoutError as PlaywrightTimeout

from tests.comfy.install import find_chromium

SIZE = {"width": 1600, "height": 900}
SECONDS = 1000.0  # of playwright's milliseconds
START_LIMIT, LOOK_LIMIT = 300 * SECONDS, 120 * SECONDS
RUN_LIMIT, TOUR = 600, 5 * SECONDS  # seconds, milliseconds

# The button itself in newer front-ends, around it in older ones.
RUN_BUTTON = 'button[data-testid="queue-button"], [data-testid="queue-button"] button'
READY = "window.app?.vueAppReady && window.app.graph && window.app.extensionManager?.workflow"
MISSING_TYPES = """() => app.graph.nodes
    .filter((node) => !(node.type in LiteGraph.registered_node_types))
    .map((node) => node.type)"""
UNLINKED = """() => app.graph.nodes.flatMap((node) => {
    const required = Object.keys(node.constructor.nodeData?.input?.required ?? {});
    const linked = new Set(node.inputs?.filter((i) => i.link != null).map((i) => i.name));
    const widgets = new Set(node.widgets?.map((widget) => widget.name));
    return required
        .filter((name) => !linked.has(name) && !widgets.has(name))
        .map((name) => `${node.type}.${name}`);
})"""
SET_WIDGETS = """(values) => {
    for (const widget of app.graph.nodes.flatMap((node) => node.widgets ?? []))
        if (widget.name in values) widget.value = values[widget.name];
}"""
SIZE_WIDGETS = """() => {
    const widgets = app.graph.nodes.flatMap((node) => node.widgets ?? []);
    const find = (name) => widgets.find((widget) => widget.name === name)?.value;
    return ["width", "height"].map((side) => find(side) * (find("scale_by") ?? 1));
}"""
# Kept in the page before the run begins, so that no event is missed.
WATCH = """() => {
    const ends = ["execution_success", "execution_error", "execution_interrupted"];
    window.runEnded = new Promise((resolve) => {
        for (const end of ends)
            app.api.addEventListener(end, ({ detail }) => resolve([end, detail]), { once: true });
    });
}"""
# Only the workflow that was opened last stays open.
LOAD = """async ([graph, name]) => {
    await app.loadGraphData(graph, true, true, name);
    const store = app.extensionManager.workflow;
    for (const open of [...store.openWorkflows])
        if (open !== store.activeWorkflow) await store.closeWorkflow(open);
}"""
# Sizes of the pictures and videos in the nodes that show results, 0 while they load; a video goes
# to its middle, and is not ready before it is there.
RESULTS = """() => {
    const showing = app.graph.nodes.filter((node) => node.constructor.nodeData?.output_node);
    const drawn = (node) => {
        const element = document.querySelector(`[data-node-id="${node.id}"]`);
        if (LiteGraph.vueNodesMode && element) return [element];
        return (node.widgets ?? []).map((widget) => widget.element).filter(Boolean);
    };
    const find = (tag, type) => showing
        .flatMap(drawn)
        .flatMap((element) => [element, ...element.querySelectorAll(tag)])
        .filter((element) => element instanceof type);
    const films = find("video", HTMLVideoElement);
    for (const film of films)
        if (!film.currentTime && film.duration) film.currentTime = film.duration / 2;
    const isThere = (film) => film.readyState > 1 && !film.seeking && film.currentTime > 0;
    const images = LiteGraph.vueNodesMode
        ? find("img", HTMLImageElement)
        : showing.flatMap((node) => node.imgs ?? []);
    return [
        ...images.map((i) => [i.naturalWidth, i.naturalHeight]),
        ...films.map((film) => (isThere(film) ? [film.videoWidth, film.videoHeight] : [0, 0])),
    ];
}"""
ALL_LOADED = f"""(count) => {{
    const all = ({RESULTS})();
    return all.length >= count && all.every((size) => size[0]);
}}"""
# The front-end looks for a page in the user's language first.
HELP_IN_A_LANGUAGE = re.compile(r"404 .*/docs/Live2Diff\w+/\w+\.md$")


@dataclass
class FrontEnd:
    """An open page and all that its console said was wrong."""

    page: Page
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(LOOK_LIMIT)
        self.page.on("console", self._heard)
        self.page.on("pageerror", self._thrown)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} at {message.location['url']}")

    def _thrown(self, error: Error) -> None:
        self.errors.append(f"{error.message}\n{error.stack}")

    @property
    def our_errors(self) -> list[str]:
        """Those that name the pack, or come from its scripts."""
        ours = [error for error in self.errors if "live2diff" in error.lower()]
        return [error for error in ours if not HELP_IN_A_LANGUAGE.search(error)]

    async def open(self, url: str) -> None:
        await self.page.goto(url)
        await self.page.wait_for_function(READY, timeout=START_LIMIT)
        await self.page.locator(RUN_BUTTON).first.wait_for(timeout=START_LIMIT)

    async def load(self, path: Path) -> None:
        """Open a workflow as the template browser does."""
        graph = json.loads(path.read_text(encoding="utf-8"))
        await self.page.evaluate(LOAD, [graph, path.stem])
        await self.command("Comfy.Canvas.FitView")

    async def missing_types(self) -> list[str]:
        return await self.page.evaluate(MISSING_TYPES)

    async def unlinked_required(self) -> list[str]:
        """Required inputs, `Class.name`, that are neither linked nor a widget."""
        return await self.page.evaluate(UNLINKED)

    async def set_widgets(self, **values: Any) -> None:
        """Set widgets in every node that has one of these names."""
        await self.page.evaluate(SET_WIDGETS, values)

    async def size(self) -> tuple[int, int]:
        """Width and height of the result as the widgets say it."""
        width, height = await self.page.evaluate(SIZE_WIDGETS)
        return width, height

    async def run(self) -> tuple[str, dict[str, Any]]:
        """Click Run once; the event that ended the run, and what it says."""
        await self.page.evaluate(WATCH)
        async with self.page.expect_response(
            lambda answer: answer.url.endswith("/prompt") and answer.request.method == "POST"
        ) as waiting:
            await self.page.locator(RUN_BUTTON).first.click()
        answer = await waiting.value
        if not answer.ok:
            return "refused", await answer.json()
        return await self.ended()

    async def ended(self) -> tuple[str, dict[str, Any]]:
        """The event that ends the run that is watched, and what it says."""
        async with asyncio.timeout(RUN_LIMIT):
            end, detail = await self.page.evaluate("() => window.runEnded")
        return end, detail

    async def results(self, count: int = 1) -> list[tuple[int, int]]:
        """Width and height of every picture and video that the last nodes show, once so many are
        loaded.
        """
        await self.page.wait_for_function(ALL_LOADED, arg=count, timeout=LOOK_LIMIT)
        return [tuple(size) for size in await self.page.evaluate(RESULTS)]

    async def dismiss_tour(self) -> None:
        """Close what App mode says at its first opening, where it says something."""
        with suppress(PlaywrightTimeout):
            await self.page.get_by_role("button", name="Skip").first.click(timeout=TOUR)

    async def command(self, name: str) -> None:
        await self.page.evaluate("(name) => app.extensionManager.command.execute(name)", name)

    async def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=path)


@asynccontextmanager
async def chromium(*switches: str) -> AsyncIterator[Any]:
    """A running browser; root needs it without a sandbox."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", *switches]
        )
        yield browser
        await browser.close()
