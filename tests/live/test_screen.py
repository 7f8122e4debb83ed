"""The screen, by a stand-in for the package mss."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from live2diff_core.errors import SourceError
from live2diff_core.live.screen import Region, Screen
from tests.live.test_ticks import FakeTime


class ScreenShotError(Exception):
    pass


class Mss:
    """Two monitors side by side; a pixel's red is its column, green its row, blue the picture."""

    monitors = (
        {"left": 0, "top": 0, "width": 50, "height": 20},
        {"left": 0, "top": 0, "width": 30, "height": 20, "is_primary": True},
        {"left": 30, "top": 0, "width": 20, "height": 10},
    )

    def __init__(self, scale: int = 1, dies_after: int | None = None) -> None:
        self.scale, self.dies_after = scale, dies_after
        self.taken = self.closed = 0

    def grab(self, box: dict[str, int]) -> Any:
        if self.taken == self.dies_after:
            raise ScreenShotError("XGetImage() failed")
        width, height = box["width"] * self.scale, box["height"] * self.scale
        bgra = np.zeros((height, width, 4), np.uint8)
        bgra[..., 2] = box["left"] + np.arange(width)
        bgra[..., 1] = box["top"] + np.arange(height)[:, None]
        bgra[..., 0] = self.taken
        self.taken += 1
        return SimpleNamespace(width=width, height=height, bgra=bgra.tobytes())

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def mss(monkeypatch: pytest.MonkeyPatch) -> Mss:
    return install(monkeypatch, Mss())


def install(monkeypatch: pytest.MonkeyPatch, mss: Mss) -> Mss:
    module = SimpleNamespace(
        MSS=lambda: mss, exception=SimpleNamespace(ScreenShotError=ScreenShotError)
    )
    monkeypatch.setitem(sys.modules, "mss", module)
    return mss


def test_a_monitor_is_read_at_its_rate(mss: Mss) -> None:
    time = FakeTime()
    with Screen(2, rate=10, timer=time.timer) as screen:
        assert (screen.info.width, screen.info.height, screen.info.rate) == (20, 10, 10)
        assert screen.info.frames is None
        frames = [frame for frame, _ in zip(screen, range(3), strict=False)]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.1, 0.2])
    first = frames[0].rgb
    assert first.shape == (3, 10, 20)
    assert first.dtype == torch.uint8
    assert first[0, 0].tolist() == list(range(30, 50))
    assert first[1, :, 0].tolist() == list(range(10))
    assert mss.closed == 1


def test_a_region_is_cut_out(mss: Mss) -> None:
    with Screen(Region(5, 7, 4, 3)) as screen:
        frame = next(iter(screen))
    assert frame.rgb[0, 0].tolist() == [5, 6, 7, 8]
    assert frame.rgb[1, :, 0].tolist() == [7, 8, 9]


def test_a_dense_screen_gives_all_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Mss(scale=2))
    with Screen(1) as screen:
        assert (screen.info.width, screen.info.height) == (60, 40)
        assert next(iter(screen)).rgb.shape == (3, 40, 60)


@pytest.mark.parametrize(
    ("area", "reason"),
    [(3, r"monitor 0 \(all\) to 2, got 3"), (-1, "got -1"), (Region(0, 0, 0, 5), "at least 1x1")],
)
def test_a_screen_that_is_not_there_is_refused(mss: Mss, area: Any, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        Screen(area)
    assert mss.closed == 1


@pytest.mark.parametrize("dies_after", [0, 3])
def test_a_screen_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    mss = install(monkeypatch, Mss(dies_after=dies_after))
    with (
        pytest.raises(SourceError, match="XGetImage"),
        Screen(1, timer=FakeTime().timer) as screen,
    ):
        list(screen)
    assert mss.taken == dies_after
    assert mss.closed == 1


def test_a_computer_without_a_display_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_display() -> None:
        raise ScreenShotError("$DISPLAY not set")

    module = SimpleNamespace(
        MSS=no_display, exception=SimpleNamespace(ScreenShotError=ScreenShotError)
    )
    monkeypatch.setitem(sys.modules, "mss", module)
    with pytest.raises(SourceError, match=r"DISPLAY not set.*without a display"):
        Screen()


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(SourceError, match="pip install mss"):
        Screen()


def test_closing_ends_it(mss: Mss) -> None:
    screen = Screen(timer=FakeTime().timer)
    frames = iter(screen)
    next(frames)
    screen.close()
    screen.close()
    assert mss.closed == 1
    assert list(frames) == []
    with pytest.raises(SourceError, match="closed"):
        iter(screen)
