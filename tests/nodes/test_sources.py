"""The sources of live streams: what they give, what they refuse before a stream begins."""

import io
import json
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from live2diff_core.errors import ConfigError, SourceError
from live2diff_core.frames import Frame
from live2diff_core.live import camera, folder
from live2diff_core.live.camera import Camera
from live2diff_core.live.guards import SceneCut
from live2diff_core.live.pattern import read_counter
from live2diff_core.live.source import SourceInfo
from live2diff_core.live.ticks import Timer
from tests.clips import cut, make_video, ramp
from tests.live.fakes import FakeClock
from tests.nodes.graph import MAPPINGS, run
from tests.nodes.lives import files
from tests.pack import pack_module

host, host_files = pack_module("nodes.host"), pack_module("nodes.host.files")
server_camera = pack_module("nodes.server_camera")
VideoSource = MAPPINGS["Live2DiffVideoSource"]


class Sleeps(list[float]):
    """How long was waited, on a clock that only waiting moves."""

    @property
    def timer(self) -> Timer:
        clock = FakeClock()

        def sleep(seconds: float) -> None:
            self.append(seconds)
            clock.advance(seconds)

        return Timer(clock, sleep)


@pytest.fixture(autouse=True)
def sleeps(monkeypatch) -> Sleeps:
    slept = Sleeps()
    monkeypatch.setattr(folder, "Paced", partial(folder.Paced, timer=slept.timer))
    return slept


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch) -> Path:
    """ComfyUI's folders: input, temp and user below one."""
    for name in ("input/scans/old", "temp", "user/default", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    paths = SimpleNamespace(
        get_input_subfolders=lambda: ["scans", "scans/old"],
        get_input_directory=lambda: str(tmp_path / "input"),
        get_temp_directory=lambda: str(tmp_path / "temp"),
        get_user_directory=lambda: str(tmp_path / "user"),
    )
    monkeypatch.setattr(host_files, "folder_paths", lambda: paths)
    return tmp_path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Six pictures, 25 a second."""
    return make_video(tmp_path_factory.mktemp("clip") / "ramp.mp4", ramp(6))


def first(source: Any, count: int) -> list[Frame]:
    """The first frames of what a node gives."""
    opened = source.open()
    try:
        return list(islice(opened, count))
    finally:
        opened.close()


def brightness(frames: list[Frame]) -> list[int]:
    return [round(float(frame.rgb.float().mean())) for frame in frames]


# ---- a video


def test_a_video_plays_in_real_time_and_ends(clip: Path, sleeps: Sleeps) -> None:
    (source,) = run("VideoSource", loop=False, video=clip)
    frames = first(source, 99)
    assert brightness(frames) == pytest.approx([20 + 10 * k for k in range(6)], abs=2)
    assert sum(sleeps) == pytest.approx(5 / 25)
    assert len(sleeps) == 5


def test_a_video_that_loops_begins_again_and_its_time_goes_on(clip: Path, sleeps: Sleeps) -> None:
    (source,) = run("VideoSource", loop=True, video=clip)
    frames = first(source, 15)
    once = [20 + 10 * k for k in range(6)]
    assert brightness(frames) == pytest.approx((3 * once)[:15], abs=2)
    assert [frame.index for frame in frames] == list(range(15))
    assert [frame.timestamp for frame in frames] == pytest.approx([k / 25 for k in range(15)])
    assert sum(sleeps) == pytest.approx(14 / 25)


def test_a_lost_source_is_opened_anew(clip: Path) -> None:
    (source,) = run("VideoSource", loop=False, video=clip)
    assert brightness(first(source, 3)) == brightness(first(source, 3))


def test_a_video_in_memory_is_played_as_its_file_is(clip: Path, comfyui: Path, monkeypatch) -> None:
    content = io.BytesIO(clip.read_bytes())
    monkeypatch.setattr(host, "video_origin", lambda _: content)
    (source,) = run("VideoSource", loop=False, video=object())
    assert len(files(comfyui / "temp")) == 1
    for ours, theirs in zip(first(source, 9), first(source, 9), strict=True):
        assert torch.equal(ours.rgb, theirs.rgb)
    assert len(first(source, 9)) == 6


class InMemory:
    """A VIDEO of pictures, as ComfyUI's Create Video makes it."""

    def __init__(self, images: torch.Tensor, rate: Fraction | float) -> None:
        self.parts = SimpleNamespace(images=images, frame_rate=rate, audio=None)

    def get_components(self) -> SimpleNamespace:
        return self.parts


@pytest.mark.parametrize("rate", [Fraction(20), 20.0])
def test_pictures_in_memory_play_at_their_rate(monkeypatch, sleeps: Sleeps, rate) -> None:
    monkeypatch.setattr(host, "video_origin", lambda _: None)
    shades = torch.linspace(0.1, 0.9, 4).view(4, 1, 1, 1).expand(4, 48, 64, 3)
    (source,) = run("VideoSource", loop=True, video=InMemory(shades, rate))
    frames = first(source, 6)
    given = [float(frame.rgb.float().mean()) for frame in frames]
    scale = 255 if frames[0].rgb.dtype == torch.uint8 else 1
    wanted = [0.1, 0.3667, 0.6333, 0.9, 0.1, 0.3667]
    assert given == pytest.approx([scale * each for each in wanted], rel=0.02)
    assert sum(sleeps) == pytest.approx(5 / 20)


def test_a_cut_is_seen_in_pictures_in_memory_as_in_a_file(monkeypatch) -> None:
    """What guards a stream looks at bytes, as cameras give them."""
    monkeypatch.setattr(host, "video_origin", lambda _: None)
    scenes = torch.zeros(32, 48, 64, 3)
    scenes[:20, ..., 0], scenes[20:, ..., 1] = 0.25, 0.25  # from dark red to dark green
    (source,) = run("VideoSource", loop=False, video=InMemory(scenes, Fraction(25)))
    guard = SceneCut()
    assert sum(guard.is_cut(frame.rgb) for frame in first(source, 32)) == 1


@pytest.mark.parametrize("content", [b"", b"no video at all" * 99])
def test_a_damaged_video_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"broken\.mp4"):
        run("VideoSource", loop=True, video=path)


def test_a_video_that_lacks_its_end_is_refused_at_once(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cut\.mp4"):
        run("VideoSource", loop=True, video=cut(clip, tmp_path / "cut.mp4", 0.3))


def test_a_video_without_pictures_is_refused_at_once(monkeypatch) -> None:
    monkeypatch.setattr(host, "video_origin", lambda _: None)
    with pytest.raises(SourceError, match="no frames"):
        run("VideoSource", loop=True, video=InMemory(torch.zeros(0, 48, 64, 3), Fraction(25)))


# ---- a folder


def draw(place: Path, *names: str) -> None:
    for shade, name in enumerate(names):
        Image.fromarray(np.full((48, 64, 3), 40 * (shade + 1), np.uint8)).save(place / name)


def test_a_folder_below_input_plays(comfyui: Path, sleeps: Sleeps) -> None:
    draw(comfyui / "input/scans", "2.png", "10.png", "11.png")
    assert "scans/old" in VideoSource.INPUT_TYPES()["optional"]["folder"][0]
    (source,) = run("VideoSource", loop=True, folder="scans")
    assert brightness(first(source, 4)) == [40, 80, 120, 40]
    assert sum(sleeps) == pytest.approx(3 / 25)


@pytest.mark.parametrize("name", ["gone", "../elsewhere", "/etc", ".", ""])
def test_a_folder_that_is_not_below_input_is_refused(comfyui: Path, name: str) -> None:
    draw(comfyui / "elsewhere", "1.png")
    draw(comfyui / "input", "1.png")
    with pytest.raises(ConfigError, match="no folder"):
        run("VideoSource", loop=True, folder=name)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_folder_that_cannot_be_played_is_refused_at_once(comfyui: Path, damaged: bool) -> None:
    if damaged:
        (comfyui / "input/scans/1.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="scans"):
        run("VideoSource", loop=True, folder="scans")


# ---- the network


def allow(comfyui: Path, **settings: bool) -> None:
    named = {f"Live2Diff.{name}": value for name, value in settings.items()}
    (comfyui / "user/default/comfy.settings.json").write_text(json.dumps(named))


def test_the_network_is_off_by_default(comfyui: Path) -> None:
    with pytest.raises(ConfigError, match=r"switched off: Settings > Live2Diff"):
        run("VideoSource", loop=False, url="http://127.0.0.1:9/a.mp4")


@pytest.mark.parametrize("allowed", ["RemoteVideo", "PrivateVideo"])
def test_a_setting_allows_it(comfyui: Path, allowed: str) -> None:
    before = VideoSource.IS_CHANGED(url="http://127.0.0.1:9/a.mp4")
    allow(comfyui, **{allowed: True})
    assert VideoSource.IS_CHANGED(url="http://127.0.0.1:9/a.mp4") != before
    (source,) = run("VideoSource", loop=False, url=" http://127.0.0.1:9/a.mp4 ")
    why = "127.0.0.1, a private one" if allowed == "RemoteVideo" else "within 10 s"
    with pytest.raises(SourceError, match=why):
        source.open()


@pytest.mark.parametrize("given", [{}, {"url": ""}, {"url": " ", "video": None}])
def test_without_an_address_the_settings_matter_not(comfyui: Path, given: dict) -> None:
    before = VideoSource.IS_CHANGED(**given)
    allow(comfyui, RemoteVideo=True)
    assert VideoSource.IS_CHANGED(**given) == before


def test_an_address_that_is_linked_is_not_known_before_the_run(comfyui: Path) -> None:
    before = VideoSource.IS_CHANGED(url=None)
    allow(comfyui, RemoteVideo=True)
    assert VideoSource.IS_CHANGED(url=None) != before


class Broadcast:
    """A camera that gives at once what it has kept, as RTSP servers do: two seconds of pictures."""

    info = SourceInfo(64, 48, Fraction(25))

    def __init__(self, url: str, rule: object) -> None:
        self.closed = False

    def __iter__(self) -> Any:
        for index in range(50):
            yield Frame(torch.zeros(3, 48, 64, dtype=torch.uint8), index, index / 25)

    def close(self) -> None:
        self.closed = True


def test_a_camera_of_the_network_is_shown_as_it_comes(
    comfyui: Path, monkeypatch, sleeps: Sleeps
) -> None:
    """Else what it sent in one go at the beginning, or after a hitch, is its delay for ever."""
    allow(comfyui, PrivateVideo=True)
    monkeypatch.setattr("live2diff_core.live.network.NetworkVideo", Broadcast)
    (source,) = run("VideoSource", loop=False, url="rtsp://127.0.0.1:9/camera")
    assert len(first(source, 50)) == 50
    assert sum(sleeps) == 0


# ---- one of three


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({}, 0),
        ({"url": "  "}, 0),
        ({"video": "a.mp4", "folder": "scans"}, 2),
        ({"video": "a.mp4", "url": "http://a.example"}, 2),
        ({"folder": "scans", "url": "http://a.example"}, 2),
        ({"video": "a.mp4", "folder": "scans", "url": "http://a.example"}, 3),
    ],
)
def test_exactly_one_thing_is_played(comfyui: Path, given: dict[str, str], count: int) -> None:
    with pytest.raises(ConfigError, match=f"exactly one of the three, got {count}"):
        run("VideoSource", loop=True, **given)


# ---- cameras, screens, programs


@pytest.mark.parametrize(
    ("there", "names"),
    [
        ([], ["0"]),
        ([(0, "Webcam"), (2, "Capture card")], ["Webcam", "Capture card"]),
        ([(0, "Webcam"), (2, "Webcam"), (4, "Other")], ["/dev/video0", "/dev/video2", "Other"]),
    ],
)
def test_cameras_are_chosen_by_what_tells_them_apart(monkeypatch, there, names) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(camera, "list_cameras", lambda: there)
    choices = MAPPINGS["Live2DiffServerCamera"].INPUT_TYPES()["required"]["device"][0]
    assert choices == names
    if there:
        assert [camera._index_of(name) for name in choices] == [index for index, _ in there]


def test_other_systems_open_no_camera_to_list_it(monkeypatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(camera, "list_cameras", lambda: pytest.fail("a camera was opened"))
    assert server_camera.camera_names() == ["0", "1", "2", "3"]


def test_a_camera_is_opened_as_the_widgets_say(monkeypatch) -> None:
    class Noted(Camera):
        def __init__(self, *arguments: object) -> None:
            asked.append(arguments)

    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(camera, "Camera", Noted)
    (source,) = run("ServerCamera", device="Webcam", width=1280, height=720, rate=25)
    assert asked == []  # the stream opens it, again if need be
    source.open()
    assert asked == [("Webcam", 1280, 720, 25)]
    assert MAPPINGS["Live2DiffServerCamera"].VALIDATE_INPUTS(device="not plugged in yet") is True


def test_the_pattern_has_the_size_of_its_widgets_and_counts() -> None:
    (source,) = run("TestPattern", width=192, height=160, rate=60)
    frames = first(source, 3)
    assert [tuple(frame.rgb.shape) for frame in frames] == [(3, 160, 192)] * 3
    assert [read_counter(frame.rgb) for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize("shows", ["camera", "screen"])
def test_a_browser_is_told_what_to_bring(shows: str) -> None:
    given = {"shows": shows, "device": "Webcam", "rate": 24, "mirror": True}
    (source,) = run("BrowserCamera", **given, unique_id="5:3")
    assert source.open is None
    assert vars(source.feed) == {"node": "5:3", **given}


def test_a_program_brings_its_frames_itself() -> None:
    (source,) = run("SocketSource", unique_id="4")
    assert source.open is None
    assert (source.feed.node, source.feed.shows) == ("4", "program")
