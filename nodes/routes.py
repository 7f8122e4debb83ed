"""What the pack answers on ComfyUI's server: its sessions, its live streams, its workflows as
templates, and its help.
"""

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..live2diff_core.errors import ConfigError
from ..live2diff_core.live.paths import ROUTES
from . import host, hub
from .registry import SESSIONS, session_limit

if TYPE_CHECKING:
    from ..live2diff_core.stream.registry import OpenSession
    from .sessions import DirectedSession


logger = logging.getLogger(__name__)

PACK = Path(__file__).parent.parent
ENGLISH, NOTE, APP = "en", "MarkdownNote", ".app"


def add(routes: Any) -> None:  # noqa: ANN401 - aiohttp's table
    """Add the routes to ComfyUI's table."""
    _add_sessions(routes)
    _add_live(routes)
    _add_templates(routes)
    _add_help(routes)


def _add_live(routes: Any) -> None:  # noqa: ANN401 - aiohttp's table
    """Add the routes of live streams; what answers them is made when the first one is asked for."""
    from aiohttp import web

    if not hub.is_local():
        _tell_token()
    for name, (method, path) in ROUTES.items():

        @routes.route(method, path)
        async def live(request: web.Request, name: str = name) -> web.StreamResponse:
            server = await asyncio.to_thread(hub.server)
            return await server.handlers[name](request)


def _tell_token() -> None:
    """Say in the console what the token is; what is wrong with it costs the other nodes nothing."""
    try:
        hub.policy()
    except ConfigError as error:
        logger.error("live streams are off: %s", error)


def _add_help(routes: Any) -> None:  # noqa: ANN401 - aiohttp's table
    """Serve each node's help page in the user's language, in English to all others.

    The front-end asks for the page in its language first, then for one without a language.
    """
    from aiohttp import web

    for folder in sorted((PACK / "web" / "docs").iterdir()):
        top = f"/extensions/{PACK.name}/docs/{folder.name}"

        async def page(request: web.Request, folder: Path = folder) -> web.FileResponse:
            pages = {path.stem: path for path in folder.glob("*.md")}
            language = request.match_info.get("language", ENGLISH)
            return web.FileResponse(pages.get(language, pages[ENGLISH]))

        routes.get(f"{top}.md")(page)
        routes.get(f"{top}/{{language}}.md")(page)


def _add_templates(routes: Any) -> None:  # noqa: ANN401 - aiohttp's table
    """Serve each workflow, in the user's language, and its picture by its whole name.

    ComfyUI lists those of every folder that may hold workflows, but serves one folder alone; where
    there are `examples` and `workflows`, the first.
    """
    from aiohttp import web

    for path in sorted((PACK / "workflows").glob("*.j*")):

        @routes.get(f"/workflow_templates/{PACK.name}/{path.name}")
        async def template(_: web.Request, path: Path = path) -> web.StreamResponse:
            if path.suffix != ".json":
                return web.FileResponse(path)
            return web.json_response(await asyncio.to_thread(translated, path))


def translated(path: Path) -> dict[str, Any]:
    """A workflow with its notes and titles in the language of the settings, if it is ours."""
    workflow: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    known = PACK / "locales" / Path(str(host.setting("Comfy.Locale", ENGLISH))).name
    words = known / "workflows.json"
    if not words.is_file():
        return workflow
    texts = json.loads(words.read_text(encoding="utf-8"))
    for titled in (*workflow["groups"], *workflow["nodes"]):
        if "title" in titled:
            titled["title"] = texts["titles"].get(titled["title"], titled["title"])
    for node in workflow["nodes"]:
        if node["type"] == NOTE:
            node["widgets_values"] = [texts["notes"][path.stem.removesuffix(APP)]]
    return workflow


def _add_sessions(routes: Any) -> None:  # noqa: ANN401 - aiohttp's table
    from aiohttp import web

    @routes.get("/live2diff/sessions")
    async def sessions(_: web.Request) -> web.Response:
        listed = [describe(opened) for opened in SESSIONS.snapshot()]
        return web.json_response({"sessions": listed, "limit": session_limit()})

    @routes.post("/live2diff/sessions/close")
    async def close(request: web.Request) -> web.Response:
        policy = await asyncio.to_thread(hub.policy)
        policy.check_host(request)
        policy.check_origin(request)
        return web.json_response({"closed": await asyncio.to_thread(SESSIONS.close_all)})


def describe(opened: "OpenSession[DirectedSession]") -> dict[str, Any]:
    """An open session for JSON; bytes are those of its cache and rows."""
    client, node = opened.key
    return {
        "client": client,
        "node": node,
        "model": opened.session.model.name,
        "size": opened.session.config.size_text,
        "frames_in": opened.frames_in,
        "frames_out": opened.frames_out,
        "in_flight": opened.in_flight,
        "busy": opened.busy,
        "state_bytes": opened.state_bytes,
    }
