"""RTSP cameras: read by FFmpeg, over TCP, from private addresses where they are allowed."""

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from live2diff_core.errors import SourceError
from live2diff_core.live.addresses import AddressRule
from live2diff_core.live.network import NetworkVideo
from tests.clips import Make, make_video, ramp

LOCAL = AddressRule(allow_private=True)


class RtspCamera:
    """A camera that sends a transport stream over the connection that it is asked on (RFC 2326)."""

    def __init__(self, stream: bytes, answer: str = "") -> None:
        self.stream, self.answer = stream, answer
        self.asked: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return self.server.getsockname()[1]

    def serve(self) -> None:
        peer = self.server.accept()[0]
        with peer, peer.makefile("rb") as lines:
            while request := lines.readline().decode():
                headers = {}
                while line := lines.readline().decode().strip():
                    name, _, value = line.partition(": ")
                    headers[name.lower()] = value
                self.asked.append(request.strip())
                peer.sendall(self.reply(request.split()[0], headers["cseq"]))
                if request.startswith("PLAY"):
                    peer.sendall(self.packets())
                    return

    def reply(self, method: str, number: str) -> bytes:
        if self.answer:
            return f"RTSP/1.0 {self.answer}\r\nCSeq: {number}\r\n\r\n".encode()
        more, body = {
            "OPTIONS": ("Public: DESCRIBE, SETUP, PLAY\r\n", ""),
            "DESCRIBE": (
                "Content-Type: application/sdp\r\n",
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n"
                "m=video 0 RTP/AVP 33\r\na=control:track1\r\n",
            ),
            "SETUP": ("Session: 7\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", ""),
            "PLAY": ("Session: 7\r\n", ""),
        }[method]
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}{length}\r\n{body}".encode()

    def packets(self) -> bytes:
        size, parts = 7 * 188, []
        for number, begin in enumerate(range(0, len(self.stream), size)):
            rtp = struct.pack(">BBHII", 0x80, 33, number, 90 * number, 1)
            payload = rtp + self.stream[begin : begin + size]
            parts.append(struct.pack(">cBH", b"$", 0, len(payload)) + payload)
        return b"".join(parts)

    def close(self) -> None:
        self.server.close()
        self.thread.join()


@pytest.fixture
def rtsp(tmp_path: Path) -> Iterator[RtspCamera]:
    make = Make(options=(("crf", "1"), ("bf", "0")))
    camera = RtspCamera(make_video(tmp_path / "small.ts", ramp(20), make).read_bytes())
    yield camera
    camera.close()


def test_an_rtsp_camera_gives_frames_and_is_lost_when_it_stops(rtsp: RtspCamera) -> None:
    frames = []
    url = f"rtsp://me:pass@localhost:{rtsp.port}/track?x=1"
    with NetworkVideo(url, LOCAL, timeout=5) as source:
        assert (source.info.width, source.info.height, source.info.frames) == (64, 48, None)
        with pytest.raises(SourceError, match="the stream stopped"):
            for frame in source:
                frames.append(frame)
    levels = [round(float(frame.rgb.float().mean())) for frame in frames]
    assert len(levels) >= 18
    assert levels == pytest.approx([20 + 10 * k for k in range(len(levels))], abs=3)
    assert [line.split()[0] for line in rtsp.asked[:4]] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert f"rtsp://127.0.0.1:{rtsp.port}/track?x=1" in rtsp.asked[1]


def test_an_rtsp_camera_that_refuses_is_told() -> None:
    camera = RtspCamera(b"", "404 Not Found")
    with pytest.raises(SourceError, match="expected a video") as caught:
        NetworkVideo(f"rtsp://me:secret@127.0.0.1:{camera.port}/x", LOCAL, timeout=5)
    camera.close()
    assert "secret" not in str(caught.value)


def test_rtsp_needs_private_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(av, "open", never)
    with pytest.raises(SourceError, match="send FFmpeg on to any address"):
        NetworkVideo("rtsp://93.184.215.14/x", AddressRule(allow_remote=True))
