"""Video files as sinks: what is in them, when it is shown, what is left of a run that breaks."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from live2diff_core.errors import ConfigError, SinkError, SourceError
from live2diff_core.frames import Frame
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import SourceInfo, VideoFile
from tests.clips import BUNNY, PHONE, burst, make_video, ramp

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["out.mp4", "out.webm", "out.mkv"]
SIZE = (64, 48)
FRAME = 0.04
# Matroska counts in milliseconds.
TICK = 0.0006


def frames(pictures: Iterable[np.ndarray], times: Iterable[float] | None = None) -> list[Frame]:
    tensors = [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]
    shown = [k * FRAME for k in range(len(tensors))] if times is None else times
    return [Frame(rgb, k, t) for k, (rgb, t) in enumerate(zip(tensors, shown, strict=True))]


def write(path: Path, given: list[Frame], source: SourceInfo | None = None) -> Path:
    height, width = given[0].rgb.shape[1:]
    with VideoFileSink(path, (width, height), Fraction(25), source) as sink:
        for frame in given:
            sink.write(frame)
    return path


def read(path: Path) -> list[Frame]:
    with VideoFile(path) as source:
        return list(source)


def brightness(given: list[Frame]) -> list[float]:
    return [float(frame.rgb.float().mean()) for frame in given]


def times(given: list[Frame]) -> list[float]:
    return [frame.timestamp for frame in given]


def info_of(path: Path) -> SourceInfo:
    with VideoFile(path) as source:
        return source.info


def sound(path: Path) -> tuple[np.ndarray, float]:
    """Samples of the audio, at 48 kHz, and when they begin, in seconds from the first frame."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(audio=0))
    channels = [frame.to_ndarray() for frame in decoded]
    first = [
        samples[0] if frame.format.is_planar else samples[0, :: frame.layout.nb_channels]
        for frame, samples in zip(decoded, channels, strict=True)
    ]
    return np.concatenate(first), decoded[0].time - info_of(path).start


def ending(path: Path) -> float:
    samples, begin = sound(path)
    return begin + len(samples) / 48_000


def onset(path: Path) -> float:
    samples, begin = sound(path)
    return begin + int(np.argmax(np.abs(samples) > 0.1)) / 48_000


def boxes(path: Path) -> list[str]:
    """Names of an MP4's outermost boxes (ISO/IEC 14496-12, sec. 4.2)."""
    data, names, at = path.read_bytes(), [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def audio_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize("name", KINDS)
def test_frames_come_back_in_number_time_and_look(tmp_path: Path, name: str) -> None:
    with VideoFile(PHONE, max_frames=40) as source:
        given = [
            Frame(frame.rgb[:, :, :192].contiguous(), frame.index, frame.timestamp)
            for frame in source
        ]
        rate = source.info.rate
    with VideoFileSink(tmp_path / name, (192, 144), rate) as sink:
        for frame in given:
            sink.write(frame)
    with VideoFile(tmp_path / name) as written:
        assert written.info.frames in (40, None) or name != "out.mp4"
        assert float(written.info.rate) == pytest.approx(float(rate), rel=0.01)
        back = list(written)
    assert len(back) == 40
    assert times(back) == pytest.approx(times(given), abs=TICK)
    error = [
        float((a.rgb.float() - b.rgb.float()).abs().mean())
        for a, b in zip(given, back, strict=True)
    ]
    assert max(error) < 4


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(256, 192), (1280, 720)], ids=["sd", "hd"])
def test_colours_survive(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    chart = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    chart[0] = [[v, w, u] for v in (0, 255) for w in (0, 255) for u in (0, 255)]
    picture = chart.repeat(size[1] // 6, axis=0).repeat(size[0] // 8, axis=1)
    back = read(write(tmp_path / name, frames([picture] * 2)))[0].rgb.permute(1, 2, 0).numpy()
    off = np.abs(back.astype(int) - picture)
    middles = off[size[1] // 12 :: size[1] // 6, size[0] // 16 :: size[0] // 8]
    assert middles.shape == (6, 8, 3)
    assert middles.mean() < 1.5
    assert middles.max() <= 8
    assert off.mean() < 4


@pytest.mark.parametrize(("height", "matrix"), [(576, 6), (720, 1)])
@pytest.mark.parametrize("name", KINDS)
def test_the_file_says_how_its_colours_are_meant(
    tmp_path: Path, name: str, height: int, matrix: int
) -> None:
    write(tmp_path / name, frames([np.zeros((height, 64, 3), np.uint8)]))
    with av.open(str(tmp_path / name)) as container:
        picture = next(container.decode(video=0))
    assert (picture.format.name, picture.color_range, picture.colorspace) == ("yuv420p", 1, matrix)


def test_floating_point_is_rounded_not_cut(tmp_path: Path) -> None:
    half = torch.full((3, 48, 64), 127.6 / 255)
    back = read(write(tmp_path / "out.mp4", [Frame(half, 0, 0.0)]))
    assert brightness(back) == pytest.approx([128], abs=0.6)


@pytest.mark.parametrize("name", KINDS)
def test_a_variable_rate_keeps_its_times(tmp_path: Path, name: str) -> None:
    shown = [0, 0.04, 0.051, 0.2, 1.0, 1.017]
    back = read(write(tmp_path / name, frames(ramp(6), shown)))
    assert times(back) == pytest.approx(shown, abs=TICK)
    assert brightness(back) == pytest.approx([20, 30, 40, 50, 60, 70], abs=3)


def test_a_rate_of_ntsc_stays_exact(tmp_path: Path) -> None:
    step = 1001 / 30000
    path = tmp_path / "out.mp4"
    with VideoFileSink(path, SIZE, Fraction(30000, 1001)) as sink:
        for frame in frames(ramp(12), [k * step for k in range(12)]):
            sink.write(frame)
    with VideoFile(path) as source:
        assert source.info.rate == Fraction(30000, 1001)
        assert times(list(source)) == pytest.approx([k * step for k in range(12)], abs=1e-9)


def test_a_finished_mp4_is_a_plain_one(tmp_path: Path) -> None:
    """Fragments are for the time of writing; many players want none."""
    path = write(tmp_path / "out.mp4", frames(ramp(20) * 10))
    assert boxes(path) == ["ftyp", "free", "mdat", "moov"]
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 200
        assert container.streams.video[0].start_time == 0
        assert float(container.duration / av.time_base) == pytest.approx(200 * FRAME)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_sound_is_copied_as_it_is(tmp_path: Path, name: str) -> None:
    with VideoFile(BUNNY, max_frames=20) as source:
        info = source.info
    write(tmp_path / name, frames(ramp(20)), info)
    copied, original = audio_packets(tmp_path / name), audio_packets(BUNNY)
    assert len(copied) == pytest.approx(20 * FRAME * 48_000 / 1024, abs=2)
    assert copied == original[: len(copied)]


@pytest.mark.parametrize(
    ("made", "name", "codec"),
    [
        ("in.mp4", "out.mp4", "aac"),
        ("in.mp4", "out.mkv", "aac"),
        ("in.mp4", "out.webm", "opus"),
        # AAC in a transport stream lacks the header that files need.
        ("in.ts", "out.mp4", "aac"),
        ("in.ts", "out.mkv", "aac"),
        ("in.ts", "out.webm", "opus"),
    ],
)
def test_sound_stays_with_the_picture_and_ends_with_it(
    tmp_path: Path, made: str, name: str, codec: str
) -> None:
    tone = burst(3, begin=0.5)
    given = make_video(tmp_path / made, ramp(20) * 2, tone=tone)
    info = info_of(given)
    path = write(tmp_path / name, frames(ramp(20) + ramp(5)), info)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == codec
    assert onset(path) == pytest.approx(0.5, abs=0.003)
    # 25 frames end at 1.0 s; one packet of 1024 samples may stand over, and Opus adds a tail.
    assert 1.0 - 0.03 <= ending(path) <= 1.0 + FRAME + 0.03
    loud = sound(path)[0][30_000:40_000]
    spectrum = np.abs(np.fft.rfft(loud * np.hanning(len(loud))))
    assert np.argmax(spectrum) * 48_000 / len(loud) == pytest.approx(1000, abs=10)
    assert np.abs(loud).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", KINDS)
def test_a_video_that_begins_after_its_sound_stays_together(tmp_path: Path, name: str) -> None:
    tone = burst(3, begin=1.0)
    given = make_video(tmp_path / "in.mkv", ramp(20), times=range(400, 1200, 40), tone=tone)
    info = info_of(given)
    assert info.start == pytest.approx(0.4, abs=0.03)
    with VideoFile(given) as source:
        path = write(tmp_path / name, list(source), info)
    assert onset(path) == pytest.approx(1.0 - 0.4, abs=0.003)


@pytest.mark.parametrize("name", KINDS)
def test_sound_may_be_shorter_than_the_video(tmp_path: Path, name: str) -> None:
    given = make_video(tmp_path / "in.mp4", ramp(5), tone=burst(0.3, begin=0))
    path = write(tmp_path / name, frames(ramp(20) * 3), info_of(given))
    assert len(read(path)) == 60
    assert ending(path) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("name", KINDS)
def test_sound_that_ended_before_the_first_frame_leaves_a_silent_video(
    tmp_path: Path, name: str
) -> None:
    shown = range(2000, 2400, 40)
    given = make_video(tmp_path / "in.mkv", ramp(10), times=shown, tone=burst(0.3, begin=0))
    path = write(tmp_path / name, frames(ramp(20)), info_of(given))
    assert len(read(path)) == 20
    assert audio_packets(path) == []


def test_sound_can_be_left_out(tmp_path: Path) -> None:
    with VideoFileSink(tmp_path / "a.mp4", SIZE, 25, info_of(BUNNY), audio=False) as sink:
        sink.write(frames(ramp(1))[0])
    assert not info_of(tmp_path / "a.mp4").has_audio
    assert not info_of(write(tmp_path / "b.mp4", frames(ramp(3)), info_of(PHONE))).has_audio


def test_sound_that_breaks_ends_with_a_warning_and_the_video_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000 * 2)
    whole = make_video(tmp_path / "whole.mp4", ramp(20) * 2, tone=samples)
    with av.open(str(whole)) as container:
        packets = [p for p in container.demux(audio=0) if p.size]
    data = bytearray(whole.read_bytes())
    for packet in packets[20:]:
        data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    (tmp_path / "in.mp4").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        path = write(tmp_path / "out.webm", frames(ramp(20) * 2), info_of(tmp_path / "in.mp4"))
    assert "audio breaks" in caplog.text
    assert len(read(path)) == 40
    assert 0.2 < ending(path) < 0.6


def test_a_source_that_is_gone_is_an_error(tmp_path: Path) -> None:
    given = make_video(tmp_path / "in.mp4", ramp(3), tone=burst(0.3, begin=0))
    info = info_of(given)
    given.unlink()
    with pytest.raises(SourceError, match="there is none"):
        VideoFileSink(tmp_path / "out.mp4", SIZE, 25, info)


@pytest.mark.parametrize("audio", [True, False])
@pytest.mark.parametrize("alias", ["same", "symlink", "hard link"])
def test_the_source_is_never_overwritten(tmp_path: Path, audio: bool, alias: str) -> None:
    given = make_video(tmp_path / "in.mp4", ramp(3))
    before = given.read_bytes()
    target = given if alias == "same" else tmp_path / "alias.mp4"
    if alias == "symlink":
        target.symlink_to(given)
    if alias == "hard link":
        target.hardlink_to(given)
    with pytest.raises(SinkError, match="would be lost"):
        VideoFileSink(target, SIZE, 25, info_of(given), audio)
    assert given.read_bytes() == before


def test_another_file_of_that_name_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"x" * 100_000)
    path = write(tmp_path / "out.mp4", frames(ramp(3)), info_of(PHONE))
    assert len(read(path)) == 3
    assert path.stat().st_size < 50_000


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_every_frame(
    tmp_path: Path, name: str, stop: type[BaseException]
) -> None:
    given = make_video(tmp_path / "in.mp4", ramp(20), tone=burst(1, begin=0))
    path = tmp_path / name
    with (
        pytest.raises(stop),
        VideoFileSink(path, SIZE, 25, info_of(given)) as sink,
    ):
        for frame in frames(ramp(10)):
            sink.write(frame)
        raise stop
    assert brightness(read(path)) == pytest.approx([20 + 10 * k for k in range(10)], abs=3)
    assert ending(path) == pytest.approx(0.4, abs=0.07)


def test_a_killed_run_leaves_what_was_written(tmp_path: Path) -> None:
    """Lost are the frames that the encoder held and the last, unfinished cluster or fragment."""
    given = make_video(tmp_path / "in.mp4", ramp(20), tone=burst(14, begin=0))
    program = """
        import os, signal, sys
        import torch
        from live2diff_core.frames import Frame
        from live2diff_core.live.sink import VideoFileSink
        from live2diff_core.live.source import VideoFile
        *paths, given = sys.argv[1:]
        with VideoFile(given) as source:
            info = source.info
        sinks = [VideoFileSink(path, (64, 48), 25, info) for path in paths]
        for k in range(300):
            for sink in sinks:
                sink.write(Frame(torch.full((3, 48, 64), k % 200, dtype=torch.uint8), k, k / 25))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    paths = [tmp_path / name for name in KINDS]
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, paths), str(given)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    for path in paths:
        left = read(path)
        assert len(left) >= 200, path
        assert times(left) == pytest.approx([k / 25 for k in range(len(left))], abs=TICK)
        assert brightness(left) == pytest.approx([k % 200 for k in range(len(left))], abs=8)
        assert ending(path) > 7.5


def test_a_run_without_frames_leaves_no_file(tmp_path: Path) -> None:
    given = make_video(tmp_path / "in.mp4", ramp(3), tone=burst(0.3, begin=0))
    for name in KINDS:
        VideoFileSink(tmp_path / name, SIZE, 25, info_of(given)).close()
        assert not (tmp_path / name).exists()


def test_only_known_kinds_of_files_are_written(tmp_path: Path) -> None:
    for name in ("out.avi", "out", "out.gif"):
        with pytest.raises(SinkError, match=r"\.mp4, \.webm, \.mkv, got"):
            VideoFileSink(tmp_path / name, SIZE, 25)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "OUT.MP4", frames(ramp(1)))


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (0, 48)])
def test_odd_sizes_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(SinkError, match=f"even width and height.*{size[0]}x{size[1]}"):
        VideoFileSink(tmp_path / "out.mp4", size, 25)


@pytest.mark.parametrize("quality", [-1, 52])
def test_quality_has_a_range(tmp_path: Path, quality: int) -> None:
    with pytest.raises(ConfigError, match=r"0 .* to 51"):
        VideoFileSink(tmp_path / "out.mp4", SIZE, 25, quality=quality)


def test_quality_decides_on_the_size(tmp_path: Path) -> None:
    noise = list(np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8))
    sizes = {}
    for quality in (5, 18, 40):
        for kind in (".mp4", ".webm"):
            path = tmp_path / f"{quality}{kind}"
            with VideoFileSink(path, SIZE, 25, quality=quality) as sink:
                for frame in frames(noise):
                    sink.write(frame)
            sizes[quality, kind] = path.stat().st_size
    for kind in (".mp4", ".webm"):
        assert sizes[5, kind] > sizes[18, kind] > sizes[40, kind]


def test_a_place_that_cannot_be_written_is_told_at_opening(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    for name in ("missing/out.mp4", "folder.mp4", "file/out.webm"):
        with pytest.raises(SinkError, match="expected to write") as caught:
            VideoFileSink(tmp_path / name, SIZE, 25)
        assert name in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is Linux's /dev/full")
@pytest.mark.parametrize("name", KINDS)
def test_a_full_disk_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    noise = list(np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8))
    with pytest.raises(SinkError, match="No space left"):
        write(tmp_path / name, frames(noise * 60))


def test_frames_that_do_not_fit_are_refused_and_the_rest_is_kept(tmp_path: Path) -> None:
    first, second, third = frames(ramp(3))
    with VideoFileSink(tmp_path / "out.mp4", SIZE, 25) as sink:
        sink.write(first)
        sink.write(second)
        with pytest.raises(SinkError, match=r"shape \(3, 48, 64\), got \(3, 24, 64\)"):
            sink.write(Frame(third.rgb[:, :24], 2, 0.08))
        with pytest.raises(SinkError, match=r"after 0\.04000 s, got one at 0\.04000 s"):
            sink.write(Frame(third.rgb, 2, second.timestamp))
        sink.write(third)
    with pytest.raises(SinkError, match="closed"):
        sink.write(third)
    sink.close()
    assert brightness(read(tmp_path / "out.mp4")) == pytest.approx([20, 30, 40], abs=2)
