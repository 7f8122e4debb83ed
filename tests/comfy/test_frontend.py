"""The workflows, the settings and the help in ComfyUI's own page."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pytest
from playwright.async_api import TimeoutError as PlaywrightTimeout

from tests.comfy.browser import SIZE, WATCH, FrontEnd, chromium
from tests.comfy.graphs import HEIGHT, WIDTH
from tests.comfy.install import NO_CHROMIUM, ROOT, find_chromium
from tests.comfy.server import PACK, ComfyServer

pytestmark = pytest.mark.anyio

TEMPLATES = sorted(ROOT.glob("workflows/*.json"))
FILES = [path for path in TEMPLATES if not path.stem.endswith(".app")]
APP = ROOT / "workflows" / "live2diff-quickstart.app.json"
# Without files of the user's, and with an end.
BUNDLED = [
    path
    for path in FILES
    if not re.search("Live2Diff(Apply|Live)", path.read_text(encoding="utf-8"))
]
QUICK_START = "live2diff-quickstart"
CHARTS = {"live2diff-measure": [(1000, 740)]}  # pictures beside the translation
SLACK = 2  # pixels
# Boxes as they are drawn, [left, top, right, bottom]: of nodes, and of groups below their titles.
BOXES = """() => {
    const { ds, canvas } = app.canvas;
    const drawn = (node) => {
        const element = document.querySelector(`[data-node-id="${node.id}"]`);
        if (!LiteGraph.vueNodesMode || !element) {
            const [[x, y], [width, height]] = [node.pos, node.size];
            return [x, y - 30, x + width, y + height];
        }
        const [box, page] = [element.getBoundingClientRect(), canvas.getBoundingClientRect()];
        const left = (box.left - page.left) / ds.scale - ds.offset[0];
        const top = (box.top - page.top) / ds.scale - ds.offset[1];
        return [left, top, left + box.width / ds.scale, top + box.height / ds.scale];
    };
    const around = ({ pos: [x, y], size: [width, height] }) => [x, y + 24, x + width, y + height];
    return {
        nodes: app.graph.nodes.map((node) => [node.type, drawn(node)]),
        groups: app.graph.groups.map((group) => [group.title, around(group)]),
    };
}"""
HAS_APPS = "() => 'initialMode' in app.extensionManager.workflow.activeWorkflow"
CLICKS, CLICK_LIMIT, DRAWN = 6, 10_000, 1_000  # ms
OPENED = """(name) => app.extensionManager.workflow.activeWorkflow.filename.startsWith(name)
    && app.graph.nodes.length > 0"""
# Where screenshots go; with it workflows run as they are, as docs/ shows them.
# Without it they are small, and take few frames where a node takes them out of a batch.
FOLDER = os.environ.get("LIVE2DIFF_SCREENSHOTS")


@pytest.fixture(scope="module")
async def browser():
    if find_chromium() is None:
        pytest.skip(NO_CHROMIUM)
    async with chromium() as running:
        yield running


@pytest.fixture(scope="module")
async def page(server: ComfyServer, browser) -> AsyncIterator[FrontEnd]:
    front_end = FrontEnd(await browser.new_page(viewport=SIZE))
    await front_end.open(server.url)
    yield front_end
    await front_end.page.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(FOLDER) if FOLDER else tmp_path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_workflow_opens_whole(page: FrontEnd, pictures: Path, path: Path) -> None:
    await page.load(path)
    assert await page.missing_types() == []
    assert await page.unlinked_required() == []
    await page.screenshot(pictures / f"{path.stem}-opened.png")
    assert page.our_errors == []


def overlap(one: list[float], other: list[float]) -> bool:
    left, top = max(one[0], other[0]), max(one[1], other[1])
    return left + SLACK < min(one[2], other[2]) and top + SLACK < min(one[3], other[3])


def is_inside(one: list[float], other: list[float]) -> bool:
    begins = all(mine + SLACK >= others for mine, others in zip(one[:2], other[:2], strict=True))
    return begins and all(a <= b + SLACK for a, b in zip(one[2:], other[2:], strict=True))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_nothing_overlaps_and_groups_hold_their_nodes(page: FrontEnd, path: Path) -> None:
    await page.load(path)
    await page.page.wait_for_timeout(DRAWN)
    boxes = await page.page.evaluate(BOXES)
    for kind in ("nodes", "groups"):
        for (name, one), (beside, other) in combinations(boxes[kind], 2):
            assert not overlap(one, other), (name, beside)
    for name, box in boxes["nodes"]:
        meeting = [(title, group) for title, group in boxes["groups"] if overlap(box, group)]
        assert [title for title, group in meeting if not is_inside(box, group)] == [], name
        assert len(meeting) == (0 if name == "MarkdownNote" else 1), name


@pytest.fixture
async def own_page(server: ComfyServer, browser) -> AsyncIterator[FrontEnd]:
    """Of one test: what opens as an app leaves the page so."""
    front_end = FrontEnd(await browser.new_page(viewport=SIZE))
    await front_end.open(server.url)
    yield front_end
    await front_end.page.close()


async def test_an_app_shows_its_widgets_and_its_result(own_page: FrontEnd, pictures: Path) -> None:
    if not await own_page.page.evaluate(HAS_APPS):
        pytest.skip("this front-end has no App mode")
    await own_page.load(APP)
    await own_page.page.get_by_test_id("linear-run-button").wait_for()
    await own_page.dismiss_tour()
    if not FOLDER:
        await own_page.set_widgets(width=WIDTH, height=HEIGHT)
    await own_page.page.evaluate(WATCH)
    await own_page.page.get_by_role("button", name="Run", exact=True).last.click()
    end, detail = await own_page.ended()
    assert end == "execution_success", detail
    await own_page.page.locator("video:visible").first.wait_for()
    await own_page.screenshot(pictures / "app.png")
    assert own_page.our_errors == []


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
async def test_a_workflow_runs_by_its_button(page: FrontEnd, pictures: Path, path: Path) -> None:
    await page.load(path)
    if not FOLDER:
        await page.set_widgets(width=WIDTH, height=HEIGHT, scale_by=1, length=8)
    end, detail = await page.run()
    assert end == "execution_success", detail
    expected = [*CHARTS.get(path.stem, []), await page.size()]
    assert await page.results(len(expected)) == expected
    await page.screenshot(pictures / f"{path.stem}.png")
    assert page.our_errors == []


async def test_a_node_has_its_help_in_the_page(page: FrontEnd, pictures: Path) -> None:
    await page.load(BUNDLED[0])
    await page.page.evaluate(
        """() => {
            const node = app.graph.nodes.find((n) => n.type.startsWith("Live2Diff"));
            app.canvas.selectNode(node);
        }"""
    )
    await page.page.get_by_test_id("info-button").click()
    await page.page.locator(".node-help-content h1").wait_for()
    await page.screenshot(pictures / "help.png")
    assert page.our_errors == []


async def test_the_settings_and_the_command_are_there(page: FrontEnd) -> None:
    read = "(name) => app.extensionManager.setting.get(name)"
    assert await page.page.evaluate(read, "Live2Diff.DevicePolicy") == "auto"
    assert await page.page.evaluate(read, "Live2Diff.SessionLimit") == 4
    async with page.page.expect_response(lambda a: a.url.endswith("/live2diff/sessions/close")):
        await page.command("Live2Diff.CloseSessions")
    assert page.our_errors == []


async def open_pack(page: FrontEnd) -> None:
    """Choose the pack in the browser of templates, which takes no click while it is being drawn."""
    first = page.page.get_by_test_id(f"template-workflow-{TEMPLATES[0].stem}")
    for _ in range(CLICKS):
        await page.page.locator("[role=dialog]").get_by_text(PACK, exact=True).first.click()
        with suppress(PlaywrightTimeout):
            return await first.wait_for(timeout=CLICK_LIMIT)
    raise AssertionError(f"{CLICKS} clicks on {PACK} showed no template")


async def test_a_template_opens_from_the_browser_of_templates(
    page: FrontEnd, pictures: Path
) -> None:
    await page.command("Comfy.BrowseTemplates")
    await open_pack(page)
    await page.page.get_by_test_id(f"template-workflow-{TEMPLATES[0].stem}").hover()
    for path in TEMPLATES:
        card = page.page.get_by_test_id(f"template-workflow-{path.stem}")
        for _ in range(CLICKS):  # more of them are drawn as one scrolls down
            if await card.count():
                break
            await page.page.mouse.wheel(0, SIZE["height"])
            await page.page.wait_for_timeout(DRAWN)
        await card.scroll_into_view_if_needed()  # pictures are loaded when they are looked at
        await card.locator("img").first.wait_for()
    await page.screenshot(pictures / "templates.png")
    await page.page.get_by_test_id(f"template-workflow-{QUICK_START}").click()
    await page.page.wait_for_function(OPENED, arg=QUICK_START)
    assert await page.missing_types() == []
    assert page.our_errors == []
