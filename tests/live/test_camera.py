"""Cameras, by a stand-in for OpenCV's VideoCapture and folders like those of Linux."""

import platform
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from live2diff_core.errors import SourceError
from live2diff_core.live import camera
from live2diff_core.live.camera import Camera, list_cameras


class Capture:
    """A camera that gives so many pictures, blue in OpenCV's order, and then nothing."""

    def __init__(self, pictures: int = 5, is_open: bool = True, raises: bool = False) -> None:
        self.left, self.is_open, self.raises = pictures, is_open, raises
        self.asked: dict[int, float] = {}
        self.released = 0

    def isOpened(self) -> bool:
        return self.is_open

    def set(self, prop: int, value: float) -> bool:
        self.asked[prop] = value
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.left == 0:
            if self.raises:
                cv2.resize(np.zeros((0, 0), np.uint8), (1, 1))
            return False, None
        self.left -= 1
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[..., 0] = 255
        picture[0, 0] = self.left
        return True, picture

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux with two cameras, one with a second node, and one that is listed but not there."""
    devices, names = tmp_path / "dev", tmp_path / "names"
    devices.mkdir()
    nodes = [
        (0, "Front camera", 0),
        (1, "Front camera", 1),
        (2, "USB microscope", 0),
        (10, "HDMI grabber", 0),
        (11, "Gone", 0),
    ]
    for number, name, index in nodes:
        node = names / f"video{number}"
        node.mkdir(parents=True)
        (node / "name").write_text(f"{name}\n")
        (node / "index").write_text(f"{index}\n")
        if name != "Gone":
            (devices / f"video{number}").touch()
    monkeypatch.setattr(camera, "DEVICES", devices)
    monkeypatch.setattr(camera, "NAMES", names)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    return devices


def test_frames_come_in_rgb_with_the_time_of_the_clock() -> None:
    capture = Capture(3)
    times = iter([50.0, 50.1, 50.25])
    source = Camera(0, 1280, 720, clock=lambda: next(times), open_capture=lambda _: capture)
    assert (source.info.width, source.info.height, source.info.rate) == (64, 48, 30)
    assert source.info.frames is None
    frames = []
    with source, pytest.raises(SourceError, match=r"camera 0.*no picture came"):
        for frame in source:
            frames.append(frame)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.1, 0.25])
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [2, 1, 0]
    assert frames[0].rgb[:, 5, 5].tolist() == [0, 0, 255]
    assert frames[0].rgb.dtype == torch.uint8
    assert frames[0].rgb.is_contiguous()
    assert capture.released == 1
    assert capture.asked[cv2.CAP_PROP_FRAME_WIDTH] == 1280
    assert capture.asked[cv2.CAP_PROP_FRAME_HEIGHT] == 720
    assert capture.asked[cv2.CAP_PROP_FPS] == 30


def test_an_error_of_opencv_is_a_lost_camera() -> None:
    capture = Capture(2, raises=True)
    with (
        pytest.raises(SourceError, match="expected a picture"),
        Camera(open_capture=lambda _: capture) as source,
    ):
        list(source)
    assert capture.released == 1


def test_a_camera_that_opens_and_gives_nothing_is_refused() -> None:
    capture = Capture(0)
    with pytest.raises(SourceError, match="no other program uses it"):
        Camera(open_capture=lambda _: capture)
    assert capture.released == 1


@pytest.mark.parametrize(
    ("device", "index"),
    [(2, 2), ("2", 2), ("{dev}/video10", 10), ("{dev}/by-id", 2), ("USB microscope", 2)],
)
def test_a_camera_goes_by_index_path_and_name(linux: Path, device: int | str, index: int) -> None:
    (linux / "by-id").symlink_to(linux / "video2")
    opened = []

    def open_capture(number: int) -> Capture:
        opened.append(number)
        return Capture()

    named = device.format(dev=linux) if isinstance(device, str) else device
    Camera(named, open_capture=open_capture).close()
    assert opened == [index]


@pytest.mark.parametrize(
    "device", ["http://192.168.0.9/video", "rtsp://x/y", "/etc/passwd", "", "-1"]
)
def test_nothing_but_a_camera_is_opened(linux: Path, device: str) -> None:
    def never(_: int) -> Capture:
        raise AssertionError

    with pytest.raises(SourceError, match=r"index, path or name.*0 \(Front camera\)"):
        Camera(device, open_capture=never)


def refusal(device: int) -> str:
    with pytest.raises(SourceError) as caught:
        Camera(device, open_capture=lambda _: Capture(is_open=False))
    return str(caught.value)


def test_a_camera_that_does_not_open_says_why(linux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is none. Found: 0 (Front camera), 2 (USB microscope)" in refusal(5)
    assert "other programs" in refusal(0)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "group video" in refusal(0)
    monkeypatch.setattr(camera, "NAMES", linux / "none")
    assert "plug one in" in refusal(5)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "privacy settings" in refusal(0)


def test_linux_lists_cameras_without_opening_any(linux: Path) -> None:
    def never(_: int) -> Capture:
        raise AssertionError

    assert list_cameras(never) == [
        (0, "Front camera"),
        (2, "USB microscope"),
        (10, "HDMI grabber"),
    ]


def test_elsewhere_cameras_are_tried_until_one_does_not_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    opened: list[Capture] = []

    def open_capture(index: int) -> Capture:
        opened.append(Capture(is_open=index < 2))
        return opened[-1]

    assert list_cameras(open_capture) == [(0, "camera 0"), (1, "camera 1")]
    assert [capture.released for capture in opened] == [1, 1, 1]
    opened.clear()
    assert len(list_cameras(lambda _: Capture())) == camera.MOST_PROBED


def test_a_camera_that_is_not_there_makes_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(SourceError):
        Camera(63)
    assert capfd.readouterr().err == ""
    assert cv2.utils.logging.getLogLevel() == level


def test_closing_ends_it() -> None:
    capture = Capture()
    source = Camera(open_capture=lambda _: capture)
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert capture.released == 1
    assert list(frames) == []
    with pytest.raises(SourceError, match="closed"):
        iter(source)
