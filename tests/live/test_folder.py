"""Pictures of a folder, sources again and again, and sources at their own pace."""

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from live2diff_core.errors import SourceError
from live2diff_core.frames import Frame
from live2diff_core.live.folder import ImageFolder, Loop, Paced
from live2diff_core.live.pattern import TestPattern
from live2diff_core.live.source import Source, SourceInfo
from tests.live.test_ticks import FakeTime

SIZE = (16, 12)


def save(path: Path, level: int = 100, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Path:
    Image.new("L", size, level).convert(mode).save(path)
    return path


def levels(source: Source) -> list[int]:
    return [round(float(frame.rgb.float().mean())) for frame in source]


def test_pictures_come_in_the_order_of_people_whatever_their_kind(tmp_path: Path) -> None:
    names = ["shot2.png", "shot10.bmp", "Shot1.PNG", "shot9.webp", "shot011.jpg", "shot12.jpeg"]
    for name in names:
        number = int(name.lower().removeprefix("shot").partition(".")[0])
        save(tmp_path / name, 10 * number)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "shot3.png").mkdir()
    with ImageFolder(tmp_path, rate=10) as source:
        assert (source.info.width, source.info.height) == SIZE
        assert (source.info.rate, source.info.frames) == (10, 6)
        frames = list(source)
    assert [round(float(f.rgb.float().mean())) for f in frames] == [10, 20, 90, 100, 110, 120]
    assert [frame.index for frame in frames] == list(range(6))
    assert [frame.timestamp for frame in frames] == pytest.approx([k / 10 for k in range(6)])
    assert all(frame.rgb.is_contiguous() and frame.rgb.dtype == torch.uint8 for frame in frames)


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with ImageFolder(tmp_path) as source:
        (frame,) = source
    assert torch.equal(frame.rgb, torch.from_numpy(pixels).permute(2, 0, 1))


def test_another_size_is_scaled_and_cut_evenly(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 10)
    wide = np.zeros((12, 48, 3), np.uint8)  # three times as wide; only the middle stays
    wide[:, 16:32] = 200
    Image.fromarray(wide).save(tmp_path / "2.png")
    save(tmp_path / "3.png", 30, (160, 120))
    with ImageFolder(tmp_path) as source:
        frames = list(source)
    assert [tuple(frame.rgb.shape) for frame in frames] == [(3, 12, 16)] * 3
    assert [(int(f.rgb.min()), int(f.rgb.max())) for f in frames] == [
        (10, 10),
        (200, 200),
        (30, 30),
    ]


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA"])
def test_every_kind_of_pixel_becomes_rgb(tmp_path: Path, mode: str) -> None:
    save(tmp_path / "a.png", 255, mode=mode)
    with ImageFolder(tmp_path) as source:
        assert levels(source) == [255]


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((12, 16), 100 * 257, np.uint16)).save(tmp_path / "a.png")
    with ImageFolder(tmp_path) as source:
        assert levels(source) == [100]


def test_pictures_stand_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (16, 8))
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned
    picture.save(tmp_path / "a.jpg", exif=exif)
    with ImageFolder(tmp_path) as source:
        assert (source.info.width, source.info.height) == (8, 16)


def broken(folder: Path, kind: str) -> tuple[Path, str]:
    path = folder / "2.png"
    if kind == "text":
        path.write_text("no picture")
    elif kind == "another format":
        Image.new("RGB", SIZE).save(path, "GIF")
    elif kind == "cut":
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "large":
        Image.new("1", (8001, 8001)).save(path)
        return path, "at most 64000000 pixels, got 8001x8001"
    else:
        Image.new("1", (20_000, 20_000)).save(path)
    return path, "cannot be read"


@pytest.mark.parametrize("kind", ["text", "another format", "cut", "large", "bomb"])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "1.png")
    path, reason = broken(tmp_path, kind)
    with ImageFolder(tmp_path) as source:
        frames = iter(source)
        next(frames)
        with pytest.raises(SourceError, match=reason) as caught:
            next(frames)
    assert str(path) in str(caught.value)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    for path, reason in (
        (tmp_path, "has none"),
        (tmp_path / "a.txt", "got a file"),
        (tmp_path / "none", "got nothing"),
    ):
        with pytest.raises(SourceError, match=reason):
            ImageFolder(path)


def test_closing_a_folder_ends_it(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png")
    source = ImageFolder(tmp_path)
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == []
    with pytest.raises(SourceError, match="closed"):
        iter(source)


class Listed(Source):
    """Frames of a list; notes whether it was closed."""

    def __init__(self, times: list[float]) -> None:
        self.times, self.closed = times, 0

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(4, 4, TestPattern(64, 48).info.rate, len(self.times), has_audio=True)

    def __iter__(self) -> Iterator[Frame]:
        rgb = torch.zeros(3, 4, 4, dtype=torch.uint8)
        for index, time in enumerate(self.times):
            yield Frame(rgb, index, time)

    def close(self) -> None:
        self.closed += 1


def test_a_loop_goes_on_and_closes_each_round() -> None:
    rounds: list[Listed] = []

    def open_source() -> Listed:
        rounds.append(Listed([0.0, 0.1, 0.5]))
        return rounds[-1]

    loop = Loop(open_source)
    assert loop.info.frames is None
    assert not loop.info.has_audio
    frames = list(islice(loop, 8))
    assert [frame.index for frame in frames] == list(range(8))
    step = 1 / 30
    again = 0.5 + step
    assert [frame.timestamp for frame in frames] == pytest.approx(
        [0, 0.1, 0.5, again, again + 0.1, again + 0.5, 2 * again, 2 * again + 0.1]
    )
    assert [source.closed for source in rounds] == [1, 1, 0]
    loop.close()
    assert rounds[-1].closed == 1
    with pytest.raises(SourceError, match="closed"):
        iter(loop)


def test_closing_a_loop_ends_it() -> None:
    loop = Loop(lambda: Listed([0.0, 0.1]))
    frames = iter(loop)
    next(frames)
    loop.close()
    assert list(frames) == []


def test_a_loop_of_nothing_is_an_error() -> None:
    with pytest.raises(SourceError, match="without any"):
        next(iter(Loop(lambda: Listed([]))))


def test_a_loop_shows_pictures_in_turn(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path / f"{number}.png", 10 * number)
    with Loop(lambda: ImageFolder(tmp_path, rate=10)) as loop:
        frames = list(islice(loop, 5))
    assert [round(float(frame.rgb.float().mean())) for frame in frames] == [10, 20, 10, 20, 10]
    assert all(b.timestamp - a.timestamp == pytest.approx(0.1) for a, b in pairwise(frames))


def test_a_paced_source_waits_for_the_time_of_its_frames() -> None:
    time = FakeTime()
    times = [0.0, 0.1, 0.5, 0.6]
    with Paced(Listed(times), time.timer) as source:
        assert source.info.frames == 4
        assert [frame.timestamp for frame in source] == times
    assert time.slept == pytest.approx([0.1, 0.4, 0.1])


def test_a_late_frame_comes_at_once_and_the_next_follow_at_their_distance() -> None:
    time = FakeTime()
    inner = Listed([0.0, 0.1, 0.2, 0.3])
    with Paced(inner, time.timer) as source:
        frames = iter(source)
        next(frames)
        time.now += 5
        list(frames)
    assert time.slept == pytest.approx([0.1, 0.1])
    assert inner.closed == 1
