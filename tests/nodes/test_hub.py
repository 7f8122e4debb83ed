"""The streams of ComfyUI's server: names that last, who may come in, what the routes answer."""

import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from live2diff_core.errors import ConfigError
from live2diff_core.live.paths import ROUTES
from tests.live.wire import FakeStream, Talk
from tests.pack import ROOT, pack_module

host, routes = pack_module("nodes.host"), pack_module("nodes.routes")
BEYOND, HERE = ["0.0.0.0", "::"], ["127.0.0.1"]
SITE = "https://friend.example"

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    """What ComfyUI keeps from start to start."""
    for name in ("LIVE2DIFF_TOKEN", "LIVE2DIFF_ORIGINS", "LIVE2DIFF_LIMITS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host, "user_folder", lambda: tmp_path)
    return tmp_path


def started() -> ModuleType:
    """The hub of a ComfyUI that has just been started."""
    spec = importlib.util.find_spec(pack_module("nodes.hub").__name__)
    hub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hub)
    return hub


def names(hub: ModuleType) -> tuple[str, ...]:
    return hub.stream_id("us", "7", ""), hub.stream_key("us", "7"), hub.derived("token")


# ---- names


def test_names_are_the_same_after_the_next_start() -> None:
    assert names(started()) == names(started())


def test_names_tell_clients_nodes_and_uses_apart() -> None:
    hub = started()
    made = [
        hub.stream_id("us", "7", ""),
        hub.stream_id("them", "7", ""),
        hub.stream_id("us", "8", ""),
        hub.stream_id(None, "7", ""),
        hub.stream_id("us", "7", "stage"),
        hub.stream_key("us", "7"),
        hub.stream_key("them", "7"),
        hub.stream_key(None, "7"),
        hub.derived("token"),
    ]
    assert len(set(made)) == len(made)
    assert {len(name) for name in made} == {32}  # 192 bits


def test_a_view_of_ones_own_is_the_same_to_all_and_its_key_is_not() -> None:
    hub = started()
    assert hub.stream_id("us", "7", "stage") == hub.stream_id("them", "8", "stage")
    assert hub.stream_id("us", "7", "stage") != hub.stream_id("us", "7", "foyer")
    assert hub.stream_key("us", "7") != hub.stream_key("them", "8")


def test_the_secret_is_made_once_and_is_for_its_owner_alone(folder: Path) -> None:
    names(started())
    (path,) = folder.iterdir()
    first = path.read_bytes()
    assert len(first) == 32
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    names(started())
    assert [*folder.iterdir()] == [path]
    assert path.read_bytes() == first


def test_another_server_has_other_names(tmp_path: Path, monkeypatch) -> None:
    ours = names(started())
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(host, "user_folder", lambda: other)
    assert not set(ours) & set(names(started()))


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_secret_that_was_not_written_whole_is_none(folder: Path, content: bytes) -> None:
    """As after a full disk: everybody can guess the names of an empty secret."""
    (folder / "live2diff.secret").write_bytes(content)
    first = names(started())
    (folder / "live2diff.secret").write_bytes(content)
    assert not set(first) & set(names(started()))


def test_a_folder_that_cannot_be_written_to_is_a_warning(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(host, "user_folder", lambda: tmp_path / "file")
    hub = started()
    assert names(hub) == names(hub)
    assert caplog.text.count("change with the next start") == 1
    assert not set(names(hub)) & set(names(started()))


def test_outside_comfyui_names_last_as_long_as_the_program(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(host, "user_folder", lambda: None)
    hub = started()
    assert names(hub) == names(hub) != names(started())
    assert [*folder.iterdir()] == []


# ---- who may come in


def test_on_this_computer_no_token_is_needed(caplog) -> None:
    policy = started().policy()
    assert (policy.host, policy.token, policy.origins) == ("127.0.0.1", None, frozenset())
    assert caplog.text == ""


@pytest.mark.parametrize("given", [None, ""])
def test_a_server_for_others_has_a_token_and_says_so(monkeypatch, caplog, given) -> None:
    monkeypatch.setattr(host, "listens_on", lambda: BEYOND)
    if given is not None:
        monkeypatch.setenv("LIVE2DIFF_TOKEN", given)
    hub = started()
    policy = hub.policy()
    assert not policy.is_local
    assert policy.token == started().derived("token")  # a cookie lasts over a start
    assert caplog.text.count(f"/live2diff/?token={policy.token}") == 1
    assert "0.0.0.0, ::" in caplog.text


def test_the_environments_token_counts_and_stands_in_no_log(monkeypatch, caplog) -> None:
    monkeypatch.setattr(host, "listens_on", lambda: BEYOND)
    monkeypatch.setenv("LIVE2DIFF_TOKEN", "a-token-of-the-test")
    assert started().policy().token == "a-token-of-the-test"
    assert "a-token" not in caplog.text


def test_one_address_beyond_is_enough_for_a_token(monkeypatch) -> None:
    monkeypatch.setattr(host, "listens_on", lambda: ["127.0.0.1", "192.168.1.2"])
    policy = started().policy()
    assert policy.host == "192.168.1.2"
    assert policy.token is not None


def test_the_environment_is_heard(monkeypatch) -> None:
    monkeypatch.setenv("LIVE2DIFF_ORIGINS", f" {SITE}  http://a.example:81 ")
    monkeypatch.setenv("LIVE2DIFF_LIMITS", "streams=2, linger_seconds=0")
    hub = started()
    assert hub.policy().origins == {SITE, "http://a.example:81"}
    assert (hub.streams().limits.streams, hub.streams().limits.linger_seconds) == (2, 0)
    assert hub.streams() is hub.streams()
    assert hub.server() is hub.server()


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("LIVE2DIFF_ORIGINS", "friend.example", "policy"),
        ("LIVE2DIFF_TOKEN", "short", "policy"),
        ("LIVE2DIFF_LIMITS", "streams=0", "streams"),
        ("LIVE2DIFF_LIMITS", "stream=2", "streams"),
    ],
)
def test_what_cannot_be_is_said(monkeypatch, name: str, value: str, what: str) -> None:
    monkeypatch.setenv(name, value)
    hub = started()
    for _ in range(2):  # it is not forgotten
        with pytest.raises(ConfigError):
            getattr(hub, what)()
        with pytest.raises(ConfigError):
            hub.server()


# ---- routes


@asynccontextmanager
async def comfyui(hub: ModuleType) -> AsyncIterator[TestClient]:
    """A server with the pack's routes, as ComfyUI adds them."""
    table = web.RouteTableDef()
    routes.add(table)
    application = web.Application()
    application.add_routes(table)
    async with TestClient(TestServer(application)) as client:
        yield client
    hub.streams().close()


@pytest.fixture
async def hub(monkeypatch) -> ModuleType:
    fresh = started()
    monkeypatch.setattr(routes, "hub", fresh)
    return fresh


async def test_the_live_routes_answer(hub: ModuleType) -> None:
    stream = FakeStream("a-stream", kind="jpeg")
    key = hub.streams().add(stream, "a-key")
    one, mine = "/live2diff/streams/a-stream", {"X-Live2Diff-Key": key}
    async with comfyui(hub) as client:
        talk = Talk(await client.ws_connect("/live2diff/socket"))
        await talk.hello("viewer", stream=stream.id)
        stream.show(3)
        assert (await talk.picture())[0].index == 3
        for path in ("streams", "metrics", "view/a-stream", "page/live.js"):
            async with client.get(f"/live2diff/{path}") as answer:
                assert answer.status == 200, path
        async with client.get("/live2diff/", allow_redirects=False) as answer:
            assert answer.status == 302
        async with client.post(one, json={"prompt": "ink"}, headers=mine) as answer:
            assert (await answer.json())["frame"] == 7
        async with client.delete(one) as answer:
            assert answer.status == 403
        async with client.delete(one, headers=mine) as answer:
            assert answer.status == 204
        assert await talk.gone() == 1000
    await hub.server().close()
    assert stream.closed


async def test_another_site_ends_nothing(hub: ModuleType, monkeypatch) -> None:
    monkeypatch.setenv("LIVE2DIFF_ORIGINS", SITE)
    stream = FakeStream()
    key = hub.streams().add(stream)
    evil = {"Origin": "https://evil.example", "X-Live2Diff-Key": key}
    async with comfyui(hub) as client:
        async with client.delete(f"/live2diff/streams/{stream.id}", headers=evil) as answer:
            assert answer.status == 403
        close = "/live2diff/sessions/close"
        async with client.post(close, headers=evil) as answer:
            assert answer.status == 403
        for allowed in ({}, {"Origin": SITE}, {"Origin": str(client.make_url("")).rstrip("/")}):
            async with client.post(close, headers=allowed) as answer:
                assert await answer.json() == {"closed": 0}
        assert not stream.closed


@pytest.mark.parametrize("listens", [HERE, BEYOND])
async def test_what_cannot_be_costs_no_other_node(hub: ModuleType, monkeypatch, listens) -> None:
    """The pack is imported all the same, and its other routes answer."""
    monkeypatch.setattr(host, "listens_on", lambda: listens)
    monkeypatch.setenv("LIVE2DIFF_TOKEN", "short")
    async with comfyui(hub) as client, client.get("/live2diff/sessions") as answer:
        assert answer.status == 200


PROGRAM = f"""
import sys
from types import ModuleType, SimpleNamespace
from aiohttp import web
server = sys.modules["server"] = ModuleType("server")
table = web.RouteTableDef()
server.PromptServer = SimpleNamespace(
    instance=SimpleNamespace(routes=table, add_on_prompt_handler=lambda handler: None)
)
from tests.pack import load_pack
load_pack()
heavy = {{"diffusers", "transformers", "accelerate", "cv2", "av"}} & sys.modules.keys()
print(sorted(heavy), "live2diff_core.live.server" in sys.modules)
wanted = {set(ROUTES.values())!r}
print(wanted <= {{(route.method, route.path) for route in table}})
"""


def test_comfyui_starts_fast_with_the_routes() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == ["[] False", "True"]


def test_what_runs_when_comfyui_ends_is_closed(monkeypatch) -> None:
    """So that a recording is whole."""
    ends: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", ends.append)
    streams, stream = started().streams(), FakeStream()
    streams.add(stream)
    for end in ends:
        end()
    assert stream.closed
    assert streams.list() == []
