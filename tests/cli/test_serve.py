"""live2diff serve: frames over a real socket through the tiny model, and the example program."""

import argparse
import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from examples import socket_client
from live2diff_core.cli import main, make_parser, serve
from live2diff_core.cli.options import load_model
from live2diff_core.live.access import Policy
from live2diff_core.live.source import VideoFile
from tests.clips import make_video
from tests.live.wire import Talk, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tiny")]

FRAMES = 12


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def options(*more: str) -> argparse.Namespace:
    return make_parser().parse_args(["serve", "--prompt", "ink", "--device", "cpu", *more])


@asynccontextmanager
async def serving(*more: str) -> AsyncIterator[TestClient]:
    """The server as the command makes it."""
    given = options(*more)
    policy = Policy(given.host, given.token)
    application = serve.make_application(given, policy, load_model(given))
    async with TestClient(TestServer(application)) as client:
        yield client
    assert not [t.name for t in threading.enumerate() if t.name.startswith("live2diff")]


def address(client: TestClient) -> str:
    return f"{client.host}:{client.port}"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = np.random.default_rng(0).integers(0, 256, (FRAMES, 32, 48, 3), np.uint8)
    return make_video(tmp_path_factory.mktemp("clips") / "small.mp4", list(pictures))


def frames(count: int, seed: int = 0) -> list[socket_client.Frame]:
    pictures = np.random.default_rng(seed).integers(0, 256, (count, 16, 24, 3), np.uint8)
    return [socket_client.Frame(rgb, i, i / 25) for i, rgb in enumerate(pictures)]


async def translated(
    client: TestClient, settings: dict[str, Any], count: int = FRAMES
) -> tuple[list[socket_client.Frame], list[dict[str, Any]]]:
    """What comes back of some frames, and what was said."""
    back: list[socket_client.Frame] = []
    said: list[dict[str, Any]] = []
    async with socket_client.Client(address(client)) as source:
        await source.translate(iter(frames(count)), settings, back.append, said.append)
    return back, said


async def open_stream(talk: Talk, **settings: object) -> dict[str, Any]:
    """Open a stream of one's own; its id and key."""
    await talk.hello("source")
    await talk.say("configure", settings=settings)
    said = await talk.hear("stream")
    await talk.hear("credit")
    return said


# ---- the way of a frame


async def test_frames_come_back_in_order_with_their_index_and_none_is_dropped() -> None:
    async with serving() as client:
        back, said = await translated(client, {})
        indices = [frame.index for frame in back]
        assert indices == sorted(set(indices))
        assert (indices[0], indices[-1]) == (0, FRAMES - 1)
        assert {frame.rgb.shape for frame in back} == {(16, 24, 3)}
        assert [frame.timestamp for frame in back] == pytest.approx([i / 25 for i in indices])
        last = [each for each in said if each["type"] == "statistics"][-1]
        assert last["dropped_total"] == 0
        await until_gone(client)


async def until_gone(client: TestClient) -> None:
    """Wait until the server has no stream."""
    while True:
        async with client.get("/live2diff/metrics") as answer:
            if 'stream="' not in await answer.text():
                return


async def test_settings_are_those_of_the_client() -> None:
    async with serving() as client:
        ink, _ = await translated(client, {"seed": 3}, 3)
        neon, _ = await translated(client, {"seed": 3, "prompt": "neon"}, 3)
        assert not np.array_equal(ink[0].rgb, neon[0].rgb)
        with pytest.raises(socket_client.ServerError, match=r"refused: .*strength"):
            await translated(client, {"strength": 7})
        with pytest.raises(socket_client.ServerError, match=r"refused: .*nonsense"):
            await translated(client, {"prompt": "nonsense"})
        with pytest.raises(socket_client.ServerError, match=r"refused: .*unknown"):
            await translated(client, {"unknown": 1})


async def test_a_change_shows_from_the_frame_that_was_told() -> None:
    async with serving() as client:
        unchanged, _ = await translated(client, {}, 3 * FRAMES)
        back: dict[int, np.ndarray] = {}
        said: list[dict[str, Any]] = []
        async with socket_client.Client(address(client)) as source:

            def take(frame: socket_client.Frame) -> None:
                back[frame.index] = frame.rgb

            given = iter(frames(3 * FRAMES))
            translating = source.translate(given, {}, take, said.append)
            task = asyncio.create_task(translating)
            await until(lambda: len(back) > 3)
            await source.control(prompt="neon", strength=9)
            await task
    (answer,) = (each for each in said if each["type"] == "answer")
    assert answer["effects"] == {"prompt": "re-prime"}
    assert "strength" in answer["refused"]
    shows = next(each["frame"] for each in said if each.get("event") == "changed")
    assert 3 < answer["frame"] <= shows < 3 * FRAMES
    equal = {f.index: np.array_equal(f.rgb, back[f.index]) for f in unchanged if f.index in back}
    assert all(same for index, same in equal.items() if index < shows)
    assert not any(same for index, same in equal.items() if index >= shows)


async def test_panic_shows_the_card_at_once() -> None:
    async with serving() as client:
        talk = Talk(await client.ws_connect("/live2diff/socket"))
        await open_stream(talk)
        await talk.socket.send_bytes(socket_client.pack(frames(1)[0]))
        await talk.picture()
        await talk.say("control", changes={"panic": True})
        assert (await talk.hear("answer"))["effects"] == {"panic": "now"}
        await talk.socket.close()


async def test_two_clients_do_not_see_each_other() -> None:
    async with serving() as client:
        (ink, _), (neon, _) = await asyncio.gather(
            translated(client, {"prompt": "ink", "seed": 1}),
            translated(client, {"prompt": "neon", "seed": 1}),
        )
        alone, _ = await translated(client, {"prompt": "neon", "seed": 1})
        ours = {frame.index: frame.rgb for frame in neon}
        theirs = {frame.index: frame.rgb for frame in ink}
        assert np.array_equal(ours[0], alone[0].rgb)
        assert not np.array_equal(theirs[0], alone[0].rgb)
        one = Talk(await client.ws_connect("/live2diff/socket"))
        two = Talk(await client.ws_connect("/live2diff/socket"))
        first, second = await open_stream(one), await open_stream(two)
        thief = Talk(await client.ws_connect("/live2diff/socket"))
        await thief.hello("controller", stream=first["stream"], key=second["key"])
        assert await thief.refused() == ("forbidden", 4004)
        for talk in (one, two, thief):
            await talk.socket.close()


async def test_a_stream_survives_the_faults_of_its_client() -> None:
    async with serving() as client:
        talk = Talk(await client.ws_connect("/live2diff/socket"))
        place = await open_stream(talk)
        broken = bytearray(socket_client.pack(frames(1)[0]))
        broken[40:] = bytes(len(broken) - 40)
        await talk.socket.send_bytes(bytes(broken))
        assert await talk.refused() == ("bad_picture", None)
        talk.socket._response.connection.transport.abort()  # gone without a word
        again = Talk(await client.ws_connect("/live2diff/socket"))
        await again.hello("source", stream=place["stream"], key=place["key"])
        await again.hear("credit")
        await again.socket.send_bytes(socket_client.pack(frames(1)[0]))
        assert (await again.picture())[0].index == 0
        await again.say("end")
        assert await again.gone() == 1000
        await until_gone(client)


async def test_no_more_streams_than_were_allowed() -> None:
    async with serving("--limits", "streams=1") as client:
        talk = Talk(await client.ws_connect("/live2diff/socket"))
        await open_stream(talk)
        with pytest.raises(socket_client.ServerError, match="limit: 1 streams are open"):
            await translated(client, {})
        await talk.socket.close()


async def test_the_first_address_leads_to_the_page() -> None:
    async with serving() as client, client.get("/") as answer:
        assert answer.status == 200
        assert str(answer.url).endswith("/live2diff/")
        assert "Live2Diff" in await answer.text()


async def test_a_token_lets_the_example_in() -> None:
    token = "a-token-of-the-test"
    async with serving("--host", "0.0.0.0", "--token", token) as client:
        with pytest.raises(socket_client.ServerError, match="forbidden"):
            await translated(client, {})
        async with socket_client.Client(address(client), token) as source:
            back: list[socket_client.Frame] = []
            await source.translate(iter(frames(2)), {}, back.append)
        assert back[-1].index == 1


# ---- the example


async def test_the_example_writes_a_video(clip: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "out.mp4"
    async with serving() as client:
        arguments = [str(clip), "--server", address(client), "--prompt", "neon"]
        await socket_client.main(
            socket_client.read_arguments([*arguments, "--output", str(output)])
        )
    with VideoFile(output) as video:
        count = len(list(video))
        assert (video.info.width, video.info.height) == (24, 16)
    assert 2 <= count <= FRAMES
    assert f"{count} frames came back in {output}" in capsys.readouterr().out


async def test_the_example_says_what_the_server_refused(clip: Path) -> None:
    async with serving() as client:
        arguments = [str(clip), "--server", address(client), "--prompt", "nonsense"]
        with pytest.raises(socket_client.ServerError, match="nonsense"):
            await socket_client.main(socket_client.read_arguments(arguments))


# ---- the command


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["--host", "0.0.0.0"], ["ConfigError", "give it a token"]),
        (["--token", "short"], ["ConfigError", "16 to 256"]),
        (["--origin", "friend"], ["ConfigError", "friend"]),
        (["--limits", "streams=0"], ["ConfigError", "streams must be above 0"]),
        (["--limits", "stream=2"], ["ConfigError", "'stream=2'", "message_bytes"]),
        (["--prompt", "nonsense"], ["PromptError", "nonsense"]),
        (["--size", "30x16"], ["FrameSizeError", "multiples of 8"]),
        (["--port", "99999"], ["99999"]),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    capsys, arguments: list[str], reasons: list[str]
) -> None:
    arguments = arguments if "--prompt" in arguments else [*arguments, "--prompt", "ink"]
    assert main(["serve", "--device", "cpu", *arguments]) == 1
    error = capsys.readouterr().err
    for reason in reasons:
        assert reason in error


def test_words_are_needed(capsys) -> None:
    assert main(["serve", "--device", "cpu"]) == 1
    assert "--prompt, or a --style" in capsys.readouterr().err


def test_the_command_says_where_the_page_is(capsys, monkeypatch) -> None:
    ran: dict[str, Any] = {}

    def run_app(_: web.Application, **settings: Any) -> None:
        ran.update(settings)
        settings["print"]("running")

    monkeypatch.setattr(web, "run_app", run_app)
    assert main(["serve", "--device", "cpu", "--prompt", "ink", "--port", "8191"]) == 0
    assert (ran["host"], ran["port"]) == ("127.0.0.1", 8191)
    assert "http://127.0.0.1:8191/live2diff/ " in capsys.readouterr().out
