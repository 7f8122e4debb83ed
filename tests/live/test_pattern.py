"""The test picture: what it shows, and that its counter comes through JPEG, scaling and styles."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from live2diff_core.config import StreamConfig
from live2diff_core.errors import ConfigError, SourceError
from live2diff_core.frames import Frame
from live2diff_core.live.pattern import TestPattern, read_counter
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.bundled import load_bundled
from tests.live.test_ticks import FakeTime

SIZES = [(64, 48), (100, 75), (192, 160), (1280, 720)]
LAST = (1 << 20) - 1


def first(count: int, width: int = 192, height: int = 160) -> list[Frame]:
    with TestPattern(width, height, frames=count) as source:
        return list(source)


def nth(index: int, width: int, height: int) -> Tensor:
    return TestPattern(width, height)._paint(index)


def through_jpeg(picture: np.ndarray) -> np.ndarray:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def scaled(factor: float, way: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda picture: cv2.resize(picture, None, fx=factor, fy=factor, interpolation=way)


def changed(rgb: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    picture = np.ascontiguousarray(rgb.permute(1, 2, 0).numpy())
    return torch.from_numpy(np.ascontiguousarray(change(picture))).permute(2, 0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("index", [0, 1, 2, 999, 65_535, 524_288, LAST])
def test_the_counter_is_the_index(size: tuple[int, int], index: int) -> None:
    rgb = nth(index, *size)
    assert rgb.shape == (3, size[1], size[0])
    assert rgb.dtype == torch.uint8
    assert rgb.is_contiguous()
    assert read_counter(rgb) == index
    assert read_counter(rgb.float() / 255) == index


def test_the_counter_begins_again_after_its_last_number() -> None:
    assert read_counter(nth(LAST + 8, 192, 160)) == 7


@pytest.mark.parametrize(
    "change",
    [
        through_jpeg,
        scaled(0.5, cv2.INTER_AREA),
        scaled(0.5, cv2.INTER_LINEAR),
        scaled(0.73, cv2.INTER_LINEAR),
        scaled(2, cv2.INTER_CUBIC),
        scaled(1.37, cv2.INTER_NEAREST),
        lambda p: cv2.GaussianBlur(p, (0, 0), 2.5),
        lambda p: 255 - p,
        lambda p: p // 4 + 90,
        lambda p: through_jpeg(cv2.resize(cv2.GaussianBlur(p, (0, 0), 1.5), (128, 100))),
    ],
)
def test_the_counter_comes_through_what_happens_to_pictures(change) -> None:
    for frame in first(12):
        assert read_counter(changed(frame.rgb, change)) == frame.index


def test_the_counter_comes_through_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    for frame in first(12):
        noisy = frame.rgb / 255 + 0.15 * torch.randn(frame.rgb.shape, generator=generator)
        assert read_counter(noisy) == frame.index


def test_a_picture_without_a_counter_has_none() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = [torch.full((3, 160, 192), level, dtype=torch.uint8) for level in (0, 128, 255)]
    noise = [torch.rand(3, 96, 96, generator=generator) for _ in range(300)]
    assert {read_counter(rgb) for rgb in flat} == {None}
    assert sum(read_counter(rgb) is not None for rgb in noise) <= 1


def test_every_wrong_bit_is_seen() -> None:
    """A cell of another frame makes the counter unreadable, not wrong."""
    rgb, other = nth(1234, 192, 160), nth(LAST - 1234, 192, 160)
    seen = 0
    for row in range(4):
        for column in range(8):
            part = (
                slice(None),
                slice(96 + 16 * row, 112 + 16 * row),
                slice(24 * column, 24 * column + 24),
            )
            mixed = rgb.clone()
            mixed[part] = other[part]
            if not torch.equal(mixed, rgb):
                seen += 1
                assert read_counter(mixed) is None
    assert seen >= 20


@cache
def bundled() -> TranslationModel:
    return load_bundled()


@pytest.mark.parametrize("style", ["neon", "chalk"])
@pytest.mark.parametrize("size", [(192, 160), (256, 256)])
def test_the_counter_comes_through_a_translation(style: str, size: tuple[int, int]) -> None:
    config = StreamConfig(*size, bundled().defaults.steps)
    with Session(bundled(), config, f"a video in {style} style") as session:
        results = list(translate(session, first(10, *size)))
    assert [read_counter(frame.rgb) for frame in results] == list(range(10))


def test_it_moves_and_has_colour() -> None:
    frames = first(61)
    upper = [frame.rgb[:, 40:96].float() for frame in frames]
    for now, then in pairwise(upper):
        assert (now != then).any(0).float().mean() > 0.005
    assert torch.equal(upper[0], upper[60])
    assert (upper[0][0] - upper[0][2]).std() > 30


def test_frames_are_counted_and_timed() -> None:
    with TestPattern(64, 48, rate=25, frames=5) as source:
        info = source.info
        frames = list(source)
        assert list(source) == []
    assert (info.width, info.height, info.rate, info.frames) == (64, 48, 25, 5)
    assert [frame.index for frame in frames] == list(range(5))
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


def test_a_paced_pattern_comes_at_its_rate() -> None:
    time = FakeTime()
    with TestPattern(64, 48, rate=10, frames=4, paced=True, timer=time.timer) as source:
        frames = list(source)
    assert time.slept == pytest.approx([0.1] * 3)
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_closing_ends_it() -> None:
    source = TestPattern(64, 48)
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []
    with pytest.raises(SourceError, match="closed"):
        iter(source)


@pytest.mark.parametrize("size", [(63, 48), (64, 47)])
def test_a_picture_too_small_for_its_counter_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="at least 64x48"):
        TestPattern(*size)


def test_no_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        TestPattern(64, 48, frames=0)
