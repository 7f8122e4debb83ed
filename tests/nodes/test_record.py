"""The node that records: a new file each time, that plays, and that never stops the stream."""

from pathlib import Path
from types import SimpleNamespace

import av
import pytest
import torch

from live2diff_core.errors import ConfigError, PromptError, SinkError
from live2diff_core.frames import Frame
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile
from tests.live.watch import until
from tests.nodes.graph import SETTINGS, run
from tests.nodes.lives import Feed, Living, files, living, own_threads, pictures, tiny
from tests.pack import pack_module

host, host_files = pack_module("nodes.host"), pack_module("nodes.host.files")
SIZE = (64, 64)


@pytest.fixture(autouse=True)
def output(tmp_path: Path, monkeypatch) -> Path:
    """ComfyUI's output folder, whose files are numbered as ComfyUI numbers them."""
    top = tmp_path / "output"
    top.mkdir()

    def get_save_image_path(prefix: str, folder: str) -> tuple[str, str, int, str, str]:
        place, name = Path(folder, prefix).parent, Path(prefix).name
        place.mkdir(parents=True, exist_ok=True)
        count = 1 + len([*place.glob(f"{name}_*")])
        return str(place), name, count, "", prefix

    paths = SimpleNamespace(
        get_output_directory=lambda: str(top),
        get_save_image_path=get_save_image_path,
        get_filename_list=lambda _: [],
        get_user_directory=lambda: str(tmp_path),
    )
    monkeypatch.setattr(host_files, "folder_paths", lambda: paths)
    return top


def record(prefix: str = "live2diff/live", kind: str = "mp4", quality: int = 18):
    (recording,) = run("Record", filename_prefix=prefix, format=kind, quality=quality)
    return recording


def frames(count: int) -> list[Frame]:
    """Grey pictures that tell their number, 40 a second."""
    return [
        Frame(torch.full((3, 64, 64), 20 + 10 * k, dtype=torch.uint8), k, 100 + k / 40)
        for k in range(count)
    ]


def written(kind: str) -> Path:
    sink, path = record(kind=kind).open(SIZE)
    for frame in frames(12):
        sink.write(frame)
    sink.close()
    return path


@pytest.mark.parametrize("kind", ["mp4", "webm", "mkv"])
def test_the_file_plays_with_the_frames_that_were_written(kind: str, output: Path) -> None:
    path = written(kind)
    assert path.is_relative_to(output)
    with VideoFile(path) as video:
        assert (video.info.width, video.info.height) == SIZE
        played = list(video)
    assert [frame.timestamp for frame in played] == pytest.approx(
        [k / 40 for k in range(12)], abs=2e-3
    )
    for frame, expected in zip(played, frames(12), strict=True):
        difference = frame.rgb.float() - expected.rgb.float()
        assert difference.abs().mean() < 4
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert stream.codec_context.name == ("vp9" if kind == "webm" else "h264")


def test_every_run_makes_a_new_file(output: Path) -> None:
    first = written("mp4")
    content = first.read_bytes()
    second = written("mp4")
    assert files(output) == ["live_00001_.mp4", "live_00002_.mp4"]
    assert (first.name, second.name) == ("live_00001_.mp4", "live_00002_.mp4")
    assert first.read_bytes() == content


def test_a_better_quality_is_a_larger_file() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 255, (6, 3, 64, 64), dtype=torch.uint8, generator=generator)
    sizes = []
    for quality in (0, 18, 51):
        sink, path = record(quality=quality).open(SIZE)
        for index, rgb in enumerate(noise):
            sink.write(Frame(rgb, index, index / 25))
        sink.close()
        sizes.append(path.stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


@pytest.mark.parametrize("prefix", ["../live", "live2diff/../../live", "/tmp/live"])
def test_a_path_out_of_the_output_folder_is_refused(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="leads out of the output folder"):
        record(prefix).open(SIZE)
    assert files(tmp_path) == []


def test_a_link_out_of_the_output_folder_is_refused(output: Path, tmp_path: Path) -> None:
    (output / "away").symlink_to(tmp_path)
    with pytest.raises(SinkError, match="leads out of the output folder"):
        record("away/live").open(SIZE)


@pytest.mark.parametrize(
    ("recording", "error"), [({"quality": 52}, ConfigError), ({"kind": "gif"}, SinkError)]
)
def test_what_cannot_be_recorded_is_refused(recording: dict, error: type, output: Path) -> None:
    with pytest.raises(error):
        record(**recording).open(SIZE)
    assert files(output) == []
    assert own_threads() == []


# ---- with a stream


def test_a_stream_is_recorded_and_its_file_is_shown(output: Path) -> None:
    feed = Feed()
    with living(**tiny(source=feed.source, record=record("show/one"))) as live:
        feed.give(live.stream, *pictures(10))
        feed.end()
        live.wait()
    (picture,) = live.outputs["ui"]["images"]
    assert picture == {"filename": "one_00001_.mp4", "subfolder": "show", "type": "output"}
    assert live.outputs["ui"]["animated"] == (True,)
    with VideoFile(output / "show" / "one_00001_.mp4") as video:
        played = list(video)
    assert len(played) == 10
    luma = torch.tensor([0.299, 0.587, 0.114])  # of the colours, a file keeps every other pixel
    last = played[-1].rgb.movedim(0, -1) / 255
    assert (last @ luma - live.last_frame[0] @ luma).abs().mean() < 0.05


def test_an_interrupt_leaves_a_file_that_plays(output: Path, monkeypatch) -> None:
    class Interrupt(BaseException):
        pass

    def interrupt() -> None:
        if over:
            raise Interrupt

    over: list[int] = []
    monkeypatch.setattr(host, "check_interrupt", interrupt)
    feed = Feed()
    live = Living(**tiny(source=feed.source, record=record("one")))
    feed.give(live.stream, *pictures(4))
    until(live.stream, lambda now: now.frames_out == 3)
    over.append(1)
    live.wait()
    assert isinstance(live.error, Interrupt)
    with VideoFile(output / "one_00001_.mp4") as video:
        assert len(list(video)) == 3
    assert own_threads() == []


def test_a_full_disk_ends_the_recording_and_not_the_stream(output: Path, monkeypatch) -> None:
    def write(self: VideoFileSink, frame: Frame) -> None:
        if len(done) == 3:
            raise SinkError("no space left on device")
        done.append(1)
        intact(self, frame)

    done: list[int] = []
    intact = VideoFileSink.write
    monkeypatch.setattr(VideoFileSink, "write", write)
    feed = Feed()
    with living(**tiny(source=feed.source, record=record("one"))) as live:
        feed.give(live.stream, *pictures(6))
        until(live.stream, lambda now: now.frames_out >= 5)
        for rgb in pictures(20):
            if live.stream.statistics().sinks_failed:
                break
            feed.give(live.stream, rgb)
        before = live.stream.statistics().frames_out
        feed.give(live.stream, *pictures(3))
        statistics = until(live.stream, lambda now: now.frames_out >= before + 3)
        assert (statistics.sinks_failed, statistics.failures) == (1, 0)
    assert live.error is None
    with VideoFile(output / "one_00001_.mp4") as video:
        assert len(list(video)) == 3


def test_a_stream_without_a_picture_leaves_no_file_and_shows_none(output: Path) -> None:
    (source,) = run("SocketSource")
    with living(**tiny(source=source, record=record("one"))) as live:
        pass
    assert files(output) == []
    assert "ui" not in live.outputs


def test_a_prompt_that_cannot_be_leaves_no_file(output: Path) -> None:
    (source,) = run("SocketSource")
    inputs = tiny("oil on canvas", source=source, record=record("one"))
    with pytest.raises(PromptError):
        run("Live", **{**SETTINGS, **inputs})
    assert files(output) == []
    assert own_threads() == []
