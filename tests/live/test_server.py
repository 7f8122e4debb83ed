"""The server: what a client is told, streams of clients, HTTP and pages."""

import asyncio

import pytest
import torch
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from live2diff_core.live.access import Policy
from live2diff_core.live.paths import ROUTES
from live2diff_core.live.picture import decode_picture
from live2diff_core.live.protocol import FrameHeader
from live2diff_core.live.server import FILES, PAGE, Server
from live2diff_core.live.streams import Limits, Streams
from tests.live.wire import (
    HEIGHT,
    MANY,
    WIDTH,
    FakeStream,
    Site,
    Talk,
    message_of,
    opener,
    site,
    until,
    works,
)

pytestmark = pytest.mark.anyio


# ---- pictures and messages


async def test_a_frame_goes_in_and_its_translation_comes_back(here: Site) -> None:
    stream, key = here.stream()
    async with here.source(stream, key) as source, here.viewer(stream) as viewer:
        await source.socket.send_bytes(message_of(5, brightness=40))
        frame = await asyncio.to_thread(stream.step)
        assert (frame.index, frame.timestamp, int(frame.rgb[0, 0, 0])) == (5, 0.2, 40)
        for talk in (source, viewer):
            header, payload = await talk.picture()
            assert header == FrameHeader("raw", 5, 0.2, WIDTH, HEIGHT)
            rgb = decode_picture(header, payload)
            assert torch.equal(rgb, torch.full_like(rgb, 215))


async def test_a_change_is_answered_with_its_frame(here: Site) -> None:
    stream, key = here.stream()
    async with here.talk() as talk:
        await talk.hello("controller", stream=stream.id, key=key)
        await talk.say("control", changes={"prompt": "ink", "bad": 1}, request=3)
        assert await talk.hear("answer") == {
            "type": "answer",
            "request": 3,
            "frame": 7,
            "effects": {"prompt": "now"},
            "refused": {"bad": "no"},
        }
        assert stream.changes == [{"prompt": "ink", "bad": 1}]
        await talk.say("control", changes={"broken": True})
        assert await talk.refused() == ("refused", None)


async def test_the_server_introduces_itself(here: Site) -> None:
    stream, _ = here.stream()
    async with here.talk() as talk:
        hello = await talk.hello("viewer", stream=stream.id)
        assert (hello["version"], hello["role"], hello["kinds"]) == (
            1,
            "viewer",
            ["jpeg", "webp", "raw"],
        )
        assert hello["limits"]["picture_pixels"] == 4096 * 4096
        said = await talk.hear("stream")
        assert said["view"] == f"view/{stream.id}"
        assert "key" not in said


async def test_statistics_come_by_themselves() -> None:
    async with site(Limits(statistics_seconds=0.001)) as here:
        stream, _ = here.stream()
        async with here.viewer(stream) as viewer:
            stream.show()
            said = await viewer.hear("statistics")
            assert (said["state"], said["frames_in"]) == ("running", 0)
            assert "missed" in said


async def test_what_happens_to_a_stream_is_told_to_its_clients_alone(here: Site) -> None:
    stream, _ = here.stream()
    other, _ = here.stream()
    async with here.viewer(stream) as viewer, here.viewer(other) as another:
        await asyncio.to_thread(here.hub.publish, stream.id, "source lost", "it is gone")
        assert await viewer.hear("event") == {
            "type": "event",
            "event": "source lost",
            "message": "it is gone",
            "frame": None,
        }
        await works(other, another, 1)
        assert not [said for said in another.heard if said["type"] == "event"]


async def test_a_stream_that_ends_sends_its_clients_home(here: Site) -> None:
    stream, _ = here.stream()
    other, _ = here.stream()
    async with here.viewer(stream) as viewer, here.viewer(other) as another:
        assert await asyncio.to_thread(here.hub.remove, stream.id)
        assert (await viewer.hear("event"))["event"] == "ended"
        assert await viewer.gone() == 1000
        assert stream.closed
        await works(other, another, 1)


async def test_a_source_says_that_it_has_ended(here: Site) -> None:
    stream, key = here.stream()
    async with here.source(stream, key) as source, here.viewer(stream) as viewer:
        await viewer.say("end")
        assert await viewer.refused() == ("not_allowed", None)
        await source.socket.send_bytes(message_of(0))
        await source.say("end")
        await asyncio.to_thread(stream.step)
        assert (await source.picture())[0].index == 0
        assert await asyncio.to_thread(lambda: next(iter(stream.inbox), None)) is None
        stream.relay.close()  # as the runner does
        for talk in (source, viewer):
            assert (await talk.hear("event"))["event"] == "ended"
            assert await talk.gone() == 1000


# ---- credit


async def test_credit_grows_when_the_engine_takes_a_frame(here: Site) -> None:
    stream, key = here.stream()
    async with here.talk() as source:
        await source.hello("source", stream=stream.id, key=key)
        assert (await source.hear("credit"))["until"] == 1
        for index in range(3):
            await source.socket.send_bytes(message_of(index))
            await asyncio.to_thread(stream.step)
            assert (await source.hear("credit"))["until"] == index + 2
    assert stream.inbox.dropped == 0


async def test_who_sends_more_loses_the_oldest_and_is_told(here: Site) -> None:
    stream, key = here.stream()
    async with here.source(stream, key) as source:
        for index in range(5):
            await source.socket.send_bytes(message_of(index))
        await until(lambda: stream.inbox.dropped == 3)
        assert [stream.step().index for _ in range(2)] == [3, 4]
        while (await source.hear("credit"))["until"] < 6:
            pass


async def test_a_wider_window_lets_more_frames_travel(here: Site) -> None:
    stream, key = here.stream()
    async with here.talk() as source:
        await source.hello("source", stream=stream.id, key=key, window=4)
        assert (await source.hear("credit"))["until"] == 4


async def test_a_frame_that_cannot_be_read_costs_no_credit(here: Site) -> None:
    stream, key = here.stream()
    async with here.source(stream, key) as source:
        await source.socket.send_bytes(message_of(0)[:-1])
        assert await source.refused() == ("wrong_length", None)
        assert (await source.hear("credit"))["until"] == 2


# ---- HTTP


async def test_changes_and_the_end_over_http(here: Site) -> None:
    stream, key = here.stream()
    one, headers = f"/live2diff/streams/{stream.id}", {"X-Live2Diff-Key": key}
    async with here.client.post(one, json={"prompt": "ink", "bad": 1}, headers=headers) as answer:
        assert await answer.json() == {
            "frame": 7,
            "effects": {"prompt": "now"},
            "refused": {"bad": "no"},
        }
    async with here.client.delete(one, headers=headers) as answer:
        assert answer.status == 204
    assert stream.closed
    async with here.client.post(one, json={}, headers=headers) as answer:
        assert answer.status == 404
        assert (await answer.json())["code"] == "no_such_stream"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"a": {}}', "application/json", 400),
        (b" " * 70_000, "application/json", 413),
        (b'{"broken": 1}', "application/json", 409),
    ],
)
async def test_a_body_that_is_no_change(here: Site, body: bytes, kind: str, status: int) -> None:
    stream, key = here.stream()
    headers = {"X-Live2Diff-Key": key, "Content-Type": kind}
    one = f"/live2diff/streams/{stream.id}"
    async with here.client.post(one, data=body, headers=headers) as answer:
        assert answer.status == status
    assert stream.changes == []


async def test_the_list_has_the_figures(here: Site) -> None:
    stream, _ = here.stream()
    async with here.viewer(stream), here.client.get("/live2diff/streams") as answer:
        (told,) = (await answer.json())["streams"]
    assert (told["clients"], told["state"], told["frames_out"]) == (1, "running", 0)


async def test_metrics_are_those_of_every_stream(here: Site) -> None:
    here.stream()
    here.stream()
    async with here.client.get("/live2diff/metrics") as answer:
        lines = (await answer.text()).splitlines()
    assert sum(line.startswith("live2diff_frames_in_total{") for line in lines) == 2


async def test_mjpeg_shows_pictures_to_the_end(here: Site) -> None:
    stream, _ = here.stream(kind="jpeg")
    async with here.client.get(f"/live2diff/mjpeg/{stream.id}") as answer:
        kind = answer.headers["Content-Type"]
        assert kind == "multipart/x-mixed-replace; boundary=live2diff"
        for index in range(3):
            stream.show(index, brightness=index)
            assert await answer.content.readline() == b"--live2diff\r\n"
            assert await answer.content.readline() == b"Content-Type: image/jpeg\r\n"
            length = int((await answer.content.readline()).split()[1])
            await answer.content.readline()
            data = await answer.content.readexactly(length)
            rgb = decode_picture(FrameHeader("jpeg", 0, 0, WIDTH, HEIGHT), memoryview(data))
            assert abs(int(rgb[0, 0, 0]) - index) <= 2
            await answer.content.readline()
        await asyncio.to_thread(here.hub.remove, stream.id)
        assert await answer.content.read() == b""


async def test_mjpeg_shows_jpeg_only(here: Site) -> None:
    stream, _ = here.stream(kind="webp")
    async with here.client.get(f"/live2diff/mjpeg/{stream.id}") as answer:
        assert answer.status == 406
    async with here.client.get("/live2diff/mjpeg/other") as answer:
        assert answer.status == 404


async def test_a_watcher_that_left_is_noticed_without_a_picture() -> None:
    async with site(Limits(heartbeat_seconds=0.01)) as here:
        stream, _ = here.stream(kind="jpeg")
        stream.show()
        async with here.client.get(f"/live2diff/mjpeg/{stream.id}") as answer:
            await answer.content.readline()
            assert stream.relay.readers == 1
        await until(lambda: stream.relay.readers == 0)
        assert [count for _, count in here.hub.list()] == [0]


# ---- pages


@pytest.mark.parametrize("path", ["", "view/any", *(f"page/{name}" for name in FILES)])
async def test_pages_are_closed_to_foreign_code(path: str) -> None:
    async with (
        site(MANY, opener=opener([])) as here,
        here.client.get(f"/live2diff/{path}") as answer,
    ):
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert await answer.text()


async def test_where_clients_open_no_streams_the_page_is_the_hosts_own(here: Site) -> None:
    async with here.client.get("/live2diff/", allow_redirects=False) as answer:
        assert answer.status == 302
        assert answer.url.join(URL(answer.headers["Location"])).path == "/"


def test_every_file_of_the_page_is_served() -> None:
    assert {path.name for path in PAGE.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", ["../server.py", "..%2fserver.py", "other.js", "%2e%2e"])
async def test_no_other_file_is_served(here: Site, name: str) -> None:
    url = URL(f"{here.client.make_url('/live2diff/page')}/{name}", encoded=True)
    async with here.client.session.get(url) as answer:
        assert answer.status == 404


async def test_the_address_without_a_slash_leads_to_the_page(here: Site) -> None:
    async with here.client.get("/live2diff", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/live2diff/")


async def test_a_host_may_add_the_routes_to_a_table_of_its_own() -> None:
    table, hub = web.RouteTableDef(), Streams(MANY)
    server = Server(hub, Policy())
    for name, (method, path) in ROUTES.items():
        table.route(method, path)(server.handlers[name])
    stream = FakeStream()
    hub.add(stream)
    application = web.Application()
    application.add_routes(table)
    async with TestClient(TestServer(application)) as client:
        talk = Talk(await client.ws_connect("/live2diff/socket"))
        await talk.hello("viewer", stream=stream.id)
        await talk.hear("statistics")
        _, code = await asyncio.gather(server.close(), talk.gone())
        assert code == 1000
    assert stream.closed


async def test_the_server_closes_with_its_application() -> None:
    async with site(MANY) as here:
        stream, key = here.stream()
        source = await here.client.ws_connect("/live2diff/socket")
        await Talk(source).hello("source", stream=stream.id, key=key)
    assert stream.closed
    while (await source.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        pass
    assert source.closed
