"""Video by HTTP and RTSP from servers on this computer, some of them hostile."""

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import cv2
import pytest
import torch

from live2diff_core.errors import SourceError
from live2diff_core.live import network
from live2diff_core.live.addresses import AddressRule
from live2diff_core.live.network import NetworkVideo
from live2diff_core.live.source import VideoFile
from tests.clips import PHONE, make_video, ramp, remux

LOCAL = AddressRule(allow_private=True)
PATIENCE = 0.3  # seconds that a test waits for a server that never answers
BOUNDARY = "frame"


@dataclass
class Page:
    """What a server answers to a path. ranges: gives parts. cut: bytes of the body that come."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = False
    cut: int | None = None
    with_length: bool = True


class Site(ThreadingHTTPServer):
    """Pages by path; notes what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.headers_seen: list[dict[str, str]] = []

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        self.server.headers_seen.append(dict(self.headers))
        page = self.server.pages.get(self.path, Page(status=404))
        body, status, headers = page.body, page.status, dict(page.headers)
        if page.ranges:
            headers["Accept-Ranges"] = "bytes"
            if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or ""):
                begin = int(wanted[1])
                headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
                body, status = body[begin:], 206
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if page.with_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: page.cut])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def same_as_file(source: NetworkVideo, path: Path) -> None:
    with VideoFile(path) as file:
        assert (source.info.width, source.info.height) == (file.info.width, file.info.height)
        assert source.info.rate == file.info.rate
        for got, expected in zip(source, file, strict=True):
            assert torch.equal(got.rgb, expected.rgb)
            assert (got.index, got.timestamp) == (expected.index, expected.timestamp)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 12 pictures that can be read without going back."""
    return make_video(tmp_path_factory.mktemp("film") / "small.mkv", ramp(12))


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real clip of 120 pictures as a transport stream, 193x144."""
    return remux(PHONE, tmp_path_factory.mktemp("film") / "phone.ts").read_bytes()


def test_a_file_is_read_like_one_on_this_computer(site: Site) -> None:
    site.pages["/clip.mp4"] = Page(PHONE.read_bytes(), ranges=True)
    with NetworkVideo(site.url("/clip.mp4"), LOCAL) as source:
        assert source.info.frames == 120
        assert source.info.path is None
        same_as_file(source, PHONE)


def test_an_index_at_the_end_is_fetched_by_parts(site: Site, tmp_path: Path) -> None:
    path = make_video(tmp_path / "late.mp4", ramp(12))
    data = path.read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")
    padded = tmp_path / "padded.mp4"  # so long that no buffer holds it
    free = struct.pack(">I4s", 8 + (1 << 20), b"free") + bytes(1 << 20)
    end = data.index(b"moov") - 4
    padded.write_bytes(data[:end] + free + data[end:])
    site.pages["/late.mp4"] = Page(padded.read_bytes(), ranges=True)
    with NetworkVideo(site.url("/late.mp4"), LOCAL) as source:
        same_as_file(source, padded)
    assert site.asked[0] == ("/late.mp4", None)
    assert len(site.asked) > 1
    assert all(part for _, part in site.asked[1:])


def test_a_server_without_parts_serves_what_can_be_read_in_order(site: Site, small: Path) -> None:
    site.pages["/small.mkv"] = Page(small.read_bytes())
    with NetworkVideo(site.url("/small.mkv"), LOCAL) as source:
        same_as_file(source, small)
    assert site.asked == [("/small.mkv", None)]


def jpegs(count: int) -> list[bytes]:
    return [cv2.imencode(".jpg", picture)[1].tobytes() for picture in ramp(count)]


def camera_page(pictures: list[bytes]) -> Page:
    head = "--{}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    body = b"".join(head.format(BOUNDARY, len(data)).encode() + data + b"\r\n" for data in pictures)
    kind = {"Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}"}
    return Page(body, headers=kind, with_length=False)


def test_a_camera_page_gives_frames_and_is_lost_when_it_stops(site: Site) -> None:
    site.pages["/mjpeg"] = camera_page(jpegs(15))
    frames = []
    clock = count(5.0, 0.1)
    with NetworkVideo(site.url("/mjpeg"), LOCAL, clock=lambda: next(clock)) as source:
        assert (source.info.width, source.info.height, source.info.frames) == (64, 48, None)
        with pytest.raises(SourceError, match="the stream stopped") as caught:
            for frame in source:
                frames.append(frame)
    assert [int(frame.rgb.float().mean()) for frame in frames] == pytest.approx(
        [20 + 10 * k for k in range(15)], abs=2
    )
    assert [frame.timestamp for frame in frames] == pytest.approx([k / 10 for k in range(15)])
    assert "Open it again" in str(caught.value)


def test_a_connection_that_breaks_is_an_error_after_what_came(site: Site, broadcast: bytes) -> None:
    site.pages["/cut.ts"] = Page(broadcast, cut=len(broadcast) * 2 // 3)
    frames = []
    with (
        NetworkVideo(site.url("/cut.ts"), LOCAL) as source,
        pytest.raises(SourceError, match=rf"after \d+ of {len(broadcast)} bytes"),
    ):
        for frame in source:
            frames.append(frame)
    assert 50 < len(frames) < 100


def test_a_redirect_is_followed_and_checked_at_each_hop(site: Site, small: Path) -> None:
    site.pages["/small.mkv"] = Page(small.read_bytes())
    site.pages["/b"] = Page(status=307, headers={"Location": site.url("/small.mkv")})
    site.pages["/a"] = Page(status=302, headers={"Location": "/b"})
    with NetworkVideo(site.url("/a"), LOCAL) as source:
        same_as_file(source, small)
    assert [path for path, _ in site.asked] == ["/a", "/b", "/small.mkv"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data/", "never connected to"),
        ("http://[::ffff:169.254.169.254]/", "never connected to"),
        ("file:///etc/passwd", "begins with http"),
        ("concat:/etc/passwd|/etc/hosts", "begins with http"),
        ("http://93.184.215.14/video", "a remote one"),
        ("rtsp://127.0.0.1/", "redirect to http or https"),
        ("http://127.0.0.1:1/", "expected an answer"),
    ],
)
def test_a_redirect_to_what_is_not_allowed_is_refused(site: Site, target: str, reason: str) -> None:
    site.pages["/sly"] = Page(status=302, headers={"Location": target})
    with pytest.raises(SourceError, match=reason):
        NetworkVideo(site.url("/sly"), LOCAL)
    assert len(site.asked) == 1


def test_redirects_in_a_circle_end(site: Site) -> None:
    site.pages["/a"] = Page(status=301, headers={"Location": "/a"})
    with pytest.raises(SourceError, match="more than 5 redirects"):
        NetworkVideo(site.url("/a"), LOCAL)
    assert len(site.asked) == 6


def test_a_redirect_of_a_part_is_not_followed(site: Site, tmp_path: Path) -> None:
    path = make_video(tmp_path / "late.mp4", ramp(12))
    site.pages["/late.mp4"] = Page(path.read_bytes() + bytes(1 << 20), ranges=True)
    with NetworkVideo(site.url("/late.mp4"), LOCAL) as source:
        file = source._file
        assert file is not None
        site.pages["/late.mp4"] = Page(status=302, headers={"Location": site.url("/other")})
        file.seek(500_000)
        with pytest.raises(OSError, match="status 302"):
            file.read(10)
    assert "/other" not in [path for path, _ in site.asked]


def test_a_name_is_looked_up_once(site: Site, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that changes its answer after the check wins nothing."""
    look_up, answers = socket.getaddrinfo, iter(["127.0.0.1"])

    def changing(host: str, *rest: object, **more: object) -> list[tuple[object, ...]]:
        address = next(answers, "169.254.169.254") if host == "sly.example" else host
        return look_up(address, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    site.pages["/small.mkv"] = Page(small.read_bytes(), ranges=True)
    url = site.url("/small.mkv").replace("127.0.0.1", "sly.example")
    with NetworkVideo(url, LOCAL) as source:
        assert len(list(source)) == 12
    assert site.headers_seen[0]["Host"] == url.split("/")[2]


def test_the_next_address_is_tried(
    site: Site, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def two(host: str, *rest: object, **more: object) -> list[tuple[object, ...]]:
        hosts = ["127.0.0.2", "127.0.0.1"] if host == "both.example" else [host]
        return [found for each in hosts for found in look_up(each, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    site.pages["/small.mkv"] = Page(small.read_bytes())
    with NetworkVideo(site.url("/small.mkv").replace("127.0.0.1", "both.example"), LOCAL) as source:
        same_as_file(source, small)


def test_the_network_is_off_by_default(site: Site, small: Path) -> None:
    site.pages["/small.mkv"] = Page(small.read_bytes())
    for rule in (AddressRule(), AddressRule(allow_remote=True)):
        with pytest.raises(SourceError):
            NetworkVideo(site.url("/small.mkv"), rule)
    assert site.asked == []


def listing(site: Site) -> dict[str, bytes]:
    """Files that would have FFmpeg open other addresses."""
    other = site.url("/other.ts")
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}\n#EXT-X-ENDLIST\n".encode(),
        "hls of a file": b"#EXTM3U\n#EXTINF:2,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {other}\n".encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        b"m=video 5004 RTP/AVP 33\n",
        "text": b"Nothing moves here.\n" * 50,
        "nothing": b"",
    }


@pytest.mark.parametrize("name", ["hls", "hls of a file", "concat", "sdp", "text", "nothing"])
def test_what_is_no_video_opens_nothing_else(site: Site, name: str) -> None:
    path = "/list.m3u8" if name.startswith("hls") else "/list"
    site.pages[path] = Page(listing(site)[name])
    with pytest.raises(SourceError, match="expected a video"):
        NetworkVideo(site.url(path), LOCAL)
    assert [asked for asked, _ in site.asked] == [path]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_an_answer_that_is_no_video_is_told(site: Site, status: int) -> None:
    site.pages["/x"] = Page(b"no", status=status)
    with pytest.raises(SourceError, match=f"answered {status}"):
        NetworkVideo(site.url("/x", "me:secret@"), LOCAL)


def test_user_and_password_are_sent_and_never_shown(site: Site, small: Path) -> None:
    site.pages["/small.mkv"] = Page(small.read_bytes())
    site.pages["/other"] = Page(status=302, headers={"Location": site.url("/none")})
    NetworkVideo(site.url("/small.mkv", "me:se%20cret@"), LOCAL).close()
    assert site.headers_seen[0]["Authorization"] == "Basic bWU6c2UgY3JldA=="
    with pytest.raises(SourceError) as caught:
        NetworkVideo(site.url("/other", "me:secret@"), LOCAL)
    assert "secret" not in str(caught.value)
    assert "Authorization" not in site.headers_seen[-1]


@pytest.mark.parametrize("scheme", ["http", "https", "rtsp"])
def test_a_server_that_never_answers_is_left(scheme: str) -> None:
    with silent_server() as port, pytest.raises(SourceError, match=r"within 0\.3 s"):
        NetworkVideo(f"{scheme}://127.0.0.1:{port}/a", LOCAL, timeout=PATIENCE)


def test_a_server_that_falls_silent_is_left(broadcast: bytes) -> None:
    head = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            peer = server.accept()[0]
            held.append(peer)
            peer.recv(4096)
            peer.sendall(head + broadcast)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/live.ts"
        frames = []
        with (
            pytest.raises(SourceError, match="timed out"),
            NetworkVideo(url, LOCAL, timeout=PATIENCE) as source,
        ):
            for frame in source:
                frames.append(frame)
        thread.join()
        held[0].close()
    assert len(frames) > 110


def test_a_picture_too_large_is_refused(
    site: Site, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "MAX_PIXELS", 64 * 48 - 1)
    site.pages["/small.mkv"] = Page(small.read_bytes())
    with pytest.raises(SourceError, match="got 64x48"):
        NetworkVideo(site.url("/small.mkv"), LOCAL)
