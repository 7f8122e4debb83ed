"""Video files as sources: what is decoded, when it is shown, and where a broken one ends."""

import socketserver
import threading
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from av.video.stream import VideoStream

from live2diff_core.errors import ConfigError, SourceError
from live2diff_core.frames import Frame
from live2diff_core.live.source import VideoFile
from tests.clips import (
    BIKES,
    BUNNY,
    PHONE,
    WORN_PHONE,
    Make,
    add_sound,
    burst,
    cut,
    make_video,
    ramp,
    remux,
    write_sound,
)

LOSSLESS = Make(encoder="ffv1", pixels="bgr0", options=())
COLOURS = {
    "R": (220, 30, 30),
    "G": (30, 220, 30),
    "B": (30, 30, 220),
    "W": (240, 240, 240),
}


def quarters(names: str, width: int = 64, height: int = 48) -> np.ndarray:
    """Four colours: upper left, upper right, lower left, lower right."""
    small = np.array([COLOURS[name] for name in names], np.uint8).reshape(2, 2, 3)
    return small.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def named_quarters(rgb: torch.Tensor) -> str:
    _, height, width = rgb.shape
    spots = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    palette = torch.tensor(list(COLOURS.values()))
    nearest = [int((palette - rgb[:, y, x]).abs().sum(1).argmin()) for y, x in spots]
    return "".join("RGBW"[i] for i in nearest)


def until_the_break(path: Path) -> tuple[list[Frame], SourceError]:
    frames = []
    with VideoFile(path) as source, pytest.raises(SourceError) as caught:
        for frame in source:
            frames.append(frame)
    return frames, caught.value


@pytest.mark.parametrize(
    ("path", "size", "rate", "count", "audio"),
    [
        (BIKES, (640, 272), Fraction(25), 250, False),
        # Pixels of 128:117 are wider than high: 176 of them make 193.
        (PHONE, (193, 144), Fraction(30000, 1001), 120, False),
        (WORN_PHONE, (193, 144), Fraction(30000, 1001), 120, False),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else None,
)
def test_a_real_clip_is_described_and_read_to_its_end(
    path: Path, size: tuple[int, int], rate: Fraction, count: int, audio: bool
) -> None:
    with VideoFile(path) as source:
        info = source.info
        assert ((info.width, info.height), info.rate, info.frames) == (size, rate, count)
        assert (info.has_audio, info.path, info.start) == (audio, path, 0)
        number = 0
        for number, frame in enumerate(source, start=1):
            assert frame.rgb.shape == (3, size[1], size[0])
            assert frame.rgb.dtype == torch.uint8
            assert frame.rgb.is_contiguous()
            assert frame.index == number - 1
            assert frame.timestamp == pytest.approx(frame.index / rate, abs=1e-6)
    assert number == count


def test_a_clip_with_sound_says_so() -> None:
    with VideoFile(BUNNY) as source:
        info = source.info
        frame = next(iter(source))
    assert (info.width, info.height, info.frames, info.has_audio) == (1280, 720, 132, True)
    assert frame.rgb.shape == (3, 720, 1280)


def test_pixels_are_those_that_were_encoded(tmp_path: Path) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8))
    with VideoFile(make_video(tmp_path / "noise.mkv", pictures, LOSSLESS)) as source:
        read = [frame.rgb for frame in source]
    for rgb, picture in zip(read, pictures, strict=True):
        assert torch.equal(rgb, torch.from_numpy(picture).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("degrees", "mirror", "seen"),
    [
        (0, "", "RGBW"),
        (90, "", "GWRB"),  # anticlockwise: the right side comes to the top
        (180, "", "WBGR"),
        (270, "", "BRWG"),
        (0, "h", "GRWB"),
        (0, "v", "BWRG"),
        (90, "h", "WGBR"),
        (90, "v", "RBGW"),
    ],
)
def test_the_picture_stands_upright(tmp_path: Path, degrees: int, mirror: str, seen: str) -> None:
    def turn(stream: VideoStream) -> None:
        stream.set_display_rotation(degrees, hflip=mirror == "h", vflip=mirror == "v")

    path = make_video(tmp_path / "turned.mp4", [quarters("RGBW")] * 3, Make(setup=turn))
    with VideoFile(path) as source:
        frames = list(source)
        size = (source.info.width, source.info.height)
    assert size == ((48, 64) if degrees in (90, 270) else (64, 48))
    assert [tuple(frame.rgb.shape) for frame in frames] == [(3, size[1], size[0])] * 3
    assert [named_quarters(frame.rgb) for frame in frames] == [seen] * 3


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(2), (128, 48)), (Fraction(1, 2), (64, 96)), (Fraction(50), (64, 48))],
)
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    def shape(stream: VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    path = make_video(tmp_path / "shaped.mkv", [quarters("RGBW")], Make(setup=shape))
    with VideoFile(path) as source:
        (frame,) = source
        assert (source.info.width, source.info.height) == size
    assert tuple(frame.rgb.shape) == (3, size[1], size[0])
    assert named_quarters(frame.rgb) == "RGBW"


def test_a_variable_rate_keeps_its_times_and_starts_at_zero(tmp_path: Path) -> None:
    times = [3000, 3040, 3050, 3200, 4000, 4010]
    with VideoFile(make_video(tmp_path / "vfr.mkv", ramp(6), times=times)) as source:
        frames = list(source)
        assert source.info.start == pytest.approx(3.0)
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.04, 0.05, 0.2, 1, 1.01])
    assert [int(frame.rgb.float().mean()) for frame in frames] == pytest.approx(
        [20, 30, 40, 50, 60, 70], abs=2
    )


def test_times_that_are_missing_follow_the_rate(tmp_path: Path) -> None:
    raw = make_video(tmp_path / "raw.h264", ramp(8), Make(options=(("bf", "0"),)))
    with av.open(str(raw)) as container:
        assert {frame.pts for frame in container.decode(video=0)} == {None}
    with VideoFile(raw) as source:
        times = [frame.timestamp for frame in source]
        assert times == pytest.approx([k / source.info.rate for k in range(8)])


def test_times_that_fall_back_go_on_by_the_rate(tmp_path: Path) -> None:
    one = make_video(tmp_path / "one.ts", ramp(5), Make(options=(("bf", "0"),)))
    twice = tmp_path / "twice.ts"
    twice.write_bytes(one.read_bytes() * 2)
    with VideoFile(twice) as source:
        times = [frame.timestamp for frame in source]
    assert len(times) == 10
    assert all(later > earlier for earlier, later in pairwise(times))
    assert times[-1] < 1


@pytest.mark.parametrize(
    ("pixels", "encoder", "tolerance"),
    [
        ("yuv420p", "ffv1", 3),
        ("yuv420p10le", "ffv1", 3),
        ("yuv444p", "ffv1", 3),
        ("bgra", "ffv1", 0),
        ("yuva420p", "ffv1", 3),
        ("gbrp10le", "ffv1", 1),
        ("gray", "ffv1", 3),
        ("gray16le", "ffv1", 3),
        ("yuvj420p", "mjpeg", 12),
    ],
)
@pytest.mark.parametrize("size", [(64, 48), (33, 17)], ids=["even", "odd"])
def test_every_kind_of_pixel_comes_as_rgb(
    tmp_path: Path, pixels: str, encoder: str, tolerance: int, size: tuple[int, int]
) -> None:
    colour = (130, 130, 130) if "gray" in pixels else (200, 60, 40)
    picture = np.full((size[1], size[0], 3), colour, np.uint8)
    make = Make(encoder=encoder, pixels=pixels, options=())
    with VideoFile(make_video(tmp_path / "kind.mkv", [picture] * 2, make)) as source:
        frames = list(source)
    assert len(frames) == 2
    for frame in frames:
        assert tuple(frame.rgb.shape) == (3, size[1], size[0])
        off = frame.rgb.int() - torch.tensor(colour)[:, None, None]
        assert int(off.abs().max()) <= tolerance


@pytest.mark.parametrize(
    ("size", "red"), [((640, 360), (81, 90, 240)), ((1280, 720), (63, 102, 240))]
)
def test_untagged_colours_are_read_by_the_height(
    tmp_path: Path, size: tuple[int, int], red: tuple[int, int, int]
) -> None:
    """Red in BT.601 for a small picture, in BT.709 for a high one (ITU-R BT.709-6, sec. 3)."""
    planes = [np.full(size[0] * size[1] // part, v) for part, v in zip((1, 4, 4), red, strict=True)]
    yuv = np.concatenate(planes).astype(np.uint8).reshape(size[1] * 3 // 2, size[0])
    with av.open(str(tmp_path / "red.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=size[0], height=size[1])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(yuv, format="yuv420p")))
        container.mux(stream.encode(None))
    with VideoFile(tmp_path / "red.mkv") as source:
        (frame,) = source
    assert (frame.rgb.int() - torch.tensor([255, 0, 0])[:, None, None]).abs().max() <= 3


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.mov"])
def test_a_cut_file_gives_what_is_left_and_then_says_where_it_broke(
    tmp_path: Path, name: str
) -> None:
    # The table of frames comes first: with it at the end nothing could be decoded.
    muxing = {} if name.endswith("mkv") else {"movflags": "faststart"}
    whole = remux(BIKES, tmp_path / f"whole_{name}", **muxing)
    frames, error = until_the_break(cut(whole, tmp_path / name))
    assert 100 < len(frames) < 200
    for part in (name, f"{len(frames)} frames", f"{frames[-1].timestamp:.2f} s"):
        assert part in str(error)
    with VideoFile(BIKES, max_frames=len(frames)) as source:
        assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(source, frames, strict=True))


def test_a_picture_that_is_cut_is_not_shown(tmp_path: Path) -> None:
    """AVI tells no length: that the last packet is short is all there is to see."""
    noise = list(np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8))
    make = Make(encoder="mjpeg", pixels="yuvj420p", options=(("qscale", "3"),))
    whole = make_video(tmp_path / "whole.avi", noise, make)
    with av.open(str(whole)) as container:
        twelfth = list(container.demux(video=0))[11]
    (tmp_path / "cut.avi").write_bytes(whole.read_bytes()[: twelfth.pos + twelfth.size // 2])
    frames, error = until_the_break(tmp_path / "cut.avi")
    assert len(frames) == 11
    assert "stops inside a frame" in str(error)
    with VideoFile(whole, max_frames=len(frames)) as source:
        assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(source, frames, strict=True))


def test_a_cut_that_falls_into_the_sound_is_seen(tmp_path: Path) -> None:
    whole = remux(BUNNY, tmp_path / "whole.mp4", movflags="faststart")
    with av.open(str(whole)) as container:
        sound = [p for p in container.demux(audio=0) if p.pos and p.size]
    last_half = next(p for p in sound if p.pos > whole.stat().st_size * 0.6)
    data = whole.read_bytes()[: last_half.pos + 2]
    (tmp_path / "cut.mp4").write_bytes(data)
    frames, error = until_the_break(tmp_path / "cut.mp4")
    assert 20 < len(frames) < 120
    assert "says that it lasts 5.28 s" in str(error)


def test_damage_in_the_middle_ends_the_stream(tmp_path: Path) -> None:
    data = bytearray(BIKES.read_bytes())
    data[200_000:202_000] = np.random.default_rng(0).bytes(2000)
    (tmp_path / "damaged.mp4").write_bytes(data)
    frames, error = until_the_break(tmp_path / "damaged.mp4")
    assert 50 < len(frames) < 150
    assert f"{len(frames)} frames" in str(error)


def test_a_cut_file_is_fine_up_to_the_number_it_advises(tmp_path: Path) -> None:
    whole = remux(BIKES, tmp_path / "whole.mp4", movflags="faststart")
    with VideoFile(cut(whole, tmp_path / "cut.mp4"), max_frames=100) as source:
        assert len(list(source)) == 100


def test_a_recording_that_begins_in_the_middle_is_read(tmp_path: Path) -> None:
    """A transport stream cut at its head starts with packets that nothing can decode."""
    data = remux(BIKES, tmp_path / "whole.ts").read_bytes()
    (tmp_path / "tail.ts").write_bytes(data[len(data) // 4 // 188 * 188 :])
    with VideoFile(tmp_path / "tail.ts") as source:
        frames = list(source)
    assert 100 < len(frames) < 220
    assert frames[0].timestamp == 0


def without_video(folder: Path) -> Iterator[tuple[str, str]]:
    """Files that hold no video, with what the message must say."""
    (folder / "folder.mp4").mkdir()
    yield "folder.mp4", "folder"
    yield "missing.mp4", "there is none"
    for name in ("text.mp4", "text.txt"):
        (folder / name).write_text("Nothing moves here.\n" * 50)
    (folder / "text.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nA line.\n\n")
    yield "text.mp4", "cannot open"
    yield "text.txt", "expected a file with a video stream"
    yield "text.srt", r"subtitle \(srt\)"
    (folder / "empty.mp4").touch()
    yield "empty.mp4", "empty"
    with av.open(str(folder / "sound.m4a"), "w", format="mp4") as container:
        write_sound(container, add_sound(container), burst(0.5, 0))
    yield "sound.m4a", r"audio \(aac\)"
    make_video(folder / "whole.mp4", ramp(3))
    cut(folder / "whole.mp4", folder / "cut.mp4", 0.5)
    yield "cut.mp4", "no stream at all"


def test_a_file_without_a_video_is_refused_at_opening(tmp_path: Path) -> None:
    tried = 0
    for name, reason in without_video(tmp_path):
        with pytest.raises(SourceError, match=reason) as caught:
            VideoFile(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert str(caught.value).endswith(".")
        tried += 1
    assert tried == 8


def test_the_cover_of_an_album_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound = add_sound(container)
        cover = container.add_stream("mjpeg", rate=1, width=64, height=48, pix_fmt="yuvj420p")
        cover.disposition = Disposition.attached_pic
        write_sound(container, sound, burst(0.5, 0))
        picture = av.VideoFrame.from_ndarray(ramp(1)[0], format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode(None))
    with av.open(str(tmp_path / "song.mp4")) as container:
        assert Disposition.attached_pic in container.streams.video[0].disposition
    with pytest.raises(SourceError, match="expected a file with a video stream"):
        VideoFile(tmp_path / "song.mp4")


def test_a_playlist_opens_no_network(tmp_path: Path) -> None:
    asked = []

    class Server(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/a.ts"
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:2,", address, "#EXT-X-ENDLIST"]
        (tmp_path / "list.m3u8").write_text("\n".join([*lines, ""]))
        with pytest.raises(SourceError):
            VideoFile(tmp_path / "list.m3u8")
        server.shutdown()
        thread.join()
    assert asked == []


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path) -> None:
    path = tmp_path / "12:30 take.mkv"
    path.write_bytes(make_video(tmp_path / "take.mkv", ramp(3)).read_bytes())
    with VideoFile(path) as source:
        assert len(list(source)) == 3


def test_frames_can_be_limited() -> None:
    with VideoFile(PHONE, max_frames=7) as source:
        assert source.info.frames == 7
        assert [frame.index for frame in source] == list(range(7))
    with VideoFile(PHONE, max_frames=1000) as source:
        assert source.info.frames == 120
        assert len(list(source)) == 120
    with pytest.raises(ConfigError, match="at least 1"):
        VideoFile(PHONE, max_frames=0)


def test_a_stream_is_read_once_and_in_parts() -> None:
    with VideoFile(PHONE, max_frames=10) as source:
        first = [frame.index for frame, _ in zip(source, range(4), strict=False)]
        rest = [frame.index for frame in source]
        assert list(source) == []
    assert first + rest == [0, 1, 2, 3, *rest]
    assert rest[-1] == 9


def test_a_closed_file_gives_an_error_not_an_empty_stream() -> None:
    source = VideoFile(PHONE)
    source.close()
    source.close()
    with pytest.raises(SourceError, match="closed"):
        iter(source)
