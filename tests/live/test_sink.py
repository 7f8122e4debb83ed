"""Video files as sinks: what is in them, when it is shown, what is left of a run that breaks."""

import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from live2diff_core.errors import ConfigError, SinkError
from live2diff_core.frames import Frame
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile
from tests.clips import PHONE, burst, make_video, ramp
from tests.live.recordings import (
    FRAME,
    KINDS,
    SIZE,
    TICK,
    boxes,
    brightness,
    ending,
    frames,
    info_of,
    read,
    times,
    write,
)

ROOT = Path(__file__).resolve().parents[2]


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
