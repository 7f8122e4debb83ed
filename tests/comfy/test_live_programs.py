"""Programs and live streams in ComfyUI: the example, what does harm, and the server's token."""

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from examples.comfyui_client import Client, Workflow
from live2diff_core.live.protocol import FrameHeader, pack_frame
from tests.comfy.graphs import live, pattern, program
from tests.comfy.install import NOT_FOUND, ROOT, comfyui_folder
from tests.comfy.lives import Live, playing, shown
from tests.comfy.pictures import Clip, decode
from tests.comfy.server import ComfyServer, start_server

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-test"
SIDE = 20_000  # pixels of a picture that nobody sends for good
FEW = 5  # pictures
GARBAGE = os.urandom(5000)


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI that other computers may reach."""
    if comfyui_folder() is None:
        pytest.skip(NOT_FOUND)
    folder = tmp_path_factory.mktemp("open")
    running = start_server(folder, "0.0.0.0", LIVE2DIFF_TOKEN=TOKEN)
    yield running
    running.stop()


@pytest.fixture
async def open_client(open_server: ComfyServer) -> AsyncIterator[Client]:
    async with Client(open_server.address) as connected:
        yield connected


def run_program(
    server: ComfyServer, clip: Path, workflow: Workflow, folder: Path, *words: str
) -> subprocess.CompletedProcess[str]:
    """Let examples/comfyui_live.py translate a clip."""
    file = folder / "workflow.json"
    file.write_text(json.dumps(workflow), encoding="utf-8")
    program = [sys.executable, "examples/comfyui_live.py", str(clip), "--workflow", str(file)]
    return subprocess.run(
        [*program, "--server", server.address, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


# ---- the example


def test_the_program_translates_a_clip_and_changes_the_prompt(
    server: ComfyServer, clip: Clip, tmp_path: Path
) -> None:
    output = tmp_path / "translated.mp4"
    words = ["--prompt", "ink", "--then", "neon", "--after", "5", "--output", str(output)]
    ended = run_program(server, clip.path, live(program()), tmp_path, *words)
    assert ended.returncode == 0, ended.stderr
    count = len(clip.frames)
    assert f"{count} frames came back in {output}" in ended.stdout
    assert re.search(r"^neon from frame \d+ on$", ended.stdout, re.MULTILINE)
    assert re.search(r"^latency p50 \d+ ms, p95 \d+ ms$", ended.stdout, re.MULTILINE)
    film = decode(output)
    assert len(film) == count
    brightness = film.mean((1, 2, 3))
    assert brightness[-1] < brightness[0] / 2  # neon glows on black, ink lies on white
    server.wait_until_idle()


@pytest.mark.parametrize(
    ("workflow", "words", "said"),
    [
        (live(program()), ["--prompt", "a castle"], r"PromptFailed: .*ink.*nightvision"),
        (live(pattern()), [], "ComfyUIError: .* has no Live2DiffSocketSource"),
        (live(program(), width=100), [], "PromptFailed: .*width"),
    ],
)
def test_the_program_says_what_is_wrong(
    server: ComfyServer,
    clip: Clip,
    tmp_path: Path,
    workflow: Workflow,
    words: list[str],
    said: str,
) -> None:
    ended = run_program(server, clip.path, workflow, tmp_path, *words)
    assert ended.returncode == 1
    assert re.match(said, ended.stderr)
    server.wait_until_idle()


def test_the_program_leaves_no_stream_behind_without_a_video(
    server: ComfyServer, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(GARBAGE)
    ended = run_program(server, broken, live(program()), tmp_path)
    assert ended.returncode == 1
    assert re.match(r"InvalidDataError: .*broken\.mp4", ended.stderr)
    server.wait_until_idle()


# ---- what does harm


def png(side: int) -> bytes:
    """A white picture with one bit a pixel: small as a file, large in memory."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer = zlib.compressobj()
    row = b"\0" + b"\xff" * (side // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def frame(width: int, height: int, data: bytes) -> bytes:
    return pack_frame(FrameHeader("jpeg", 0, 0.0, width, height), data)


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        (frame(SIDE, SIDE, png(SIDE)), ("too_large", None)),
        (frame(64, 64, png(SIDE)), ("bad_picture", None)),
        (frame(64, 64, GARBAGE), ("bad_picture", None)),
        (frame(64, 64, GARBAGE)[:-1], ("wrong_length", None)),
        (GARBAGE, ("bad_frame", 4003)),
        (b"", ("bad_frame", 4003)),
    ],
    ids=["huge", "hides its size", "no picture", "cut off", "no frame", "nothing"],
)
async def test_what_is_no_picture_does_no_harm(
    client: Client,
    server: ComfyServer,
    clip: Clip,
    message: bytes,
    refusal: tuple[str, int | None],
) -> None:
    async with playing(client, live(program())) as stream:
        before = server.resident_bytes()
        async with stream.steering("source") as source:
            await source.socket.send_bytes(message)
            assert await source.refused() == refusal
        assert server.resident_bytes() - before < SIDE * SIDE / 2  # 3 bytes a pixel, if it is read
        await works(stream, clip)


async def test_text_that_is_no_message_does_no_harm(client: Client, clip: Clip) -> None:
    async with playing(client, live(program())) as stream:
        async with stream.steering("source") as source:
            for text in ("", "[", "null", '{"type": "explode"}', "[" * 60_000):
                await source.socket.send_str(text)
                assert await source.refused() == ("bad_message", None)
        await works(stream, clip)


async def works(stream: Live, clip: Clip) -> None:
    """A source's frame is translated."""
    async with stream.steering("source") as source:
        picture = clip.frames[0]
        height, width, _ = picture.shape
        header = FrameHeader("raw", 5, 0.0, width, height)
        await source.socket.send_bytes(pack_frame(header, picture.tobytes()))
        while (await source.picture())[0].index != 5:
            pass


# ---- the token


async def test_a_server_that_others_reach_wants_its_token(open_client: Client) -> None:
    async with playing(open_client, live(pattern())) as stream:
        for role in ("source", "controller"):
            async with stream.talk() as talk:
                await talk.hello(role, stream=stream.stream, key=stream.key)
                assert await talk.refused() == ("forbidden", 4004)
        for method in ("POST", "DELETE"):
            assert (await stream.ask(method, json={}))[0] == 401
        for path in ("streams", "metrics", ""):
            async with stream.http.get(f"/live2diff/{path}") as answer:
                assert answer.status == 401
        async with stream.viewer() as viewer:  # who knows the id may see it
            await shown(viewer, FEW)


async def test_with_the_token_all_is_open(open_client: Client) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with playing(open_client, live(pattern()), bearer) as stream:
        for role in ("source", "controller"):
            async with stream.steering(role) as talk:
                await talk.hear("statistics")
        assert (await stream.change(prompt="neon"))["refused"] == {}
        await stream.stop()
        await stream.end()


async def test_a_browser_has_the_token_in_a_cookie(open_client: Client) -> None:
    async with playing(open_client, live(pattern())) as stream:
        page = f"/live2diff/?token={TOKEN}"
        async with stream.http.get(page, allow_redirects=False) as answer:
            cookie = answer.cookies["live2diff_token"]
        assert (cookie["httponly"], cookie["samesite"]) == (True, "Strict")
        named = {"Cookie": f"live2diff_token={cookie.value}"}
        assert (await stream.ask("POST", json={"prompt": "neon"}, headers=named))[0] == 200


def test_the_program_needs_the_token_and_leaves_no_stream_without(
    open_server: ComfyServer, clip: Clip, tmp_path: Path
) -> None:
    refused = run_program(open_server, clip.path, live(program()), tmp_path)
    assert refused.returncode == 1
    assert re.search("ServerError: forbidden: .*token", refused.stderr)
    open_server.wait_until_idle()
    allowed = run_program(open_server, clip.path, live(program()), tmp_path, "--token", TOKEN)
    assert allowed.returncode == 0, allowed.stderr
    assert f"{len(clip.frames)} frames came back" in allowed.stdout
