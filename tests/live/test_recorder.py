"""Recording beside a stream: it waits for nothing, and what it has can be played."""

import resource
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from threading import Event

import pytest

from live2diff_core.errors import SinkError, SourceError
from live2diff_core.frames import Frame
from live2diff_core.live.recorder import Recorder
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile
from tests.live.fakes import PATIENCE, Collector, picture
from tests.tiny import HEIGHT, WIDTH, make_frames


class Held(Collector):
    """Says when it is busy with a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = Event()
        self.ended = Event()

    def write(self, frame: Frame) -> None:
        self.busy.set()
        super().write(frame)

    def close(self) -> None:
        super().close()
        self.ended.set()


def test_a_recording_begins_at_zero_and_keeps_the_time_between_frames():
    sink = Collector()
    with Recorder(sink) as recorder:
        for index in (50, 51, 55):
            recorder.write(picture(index))
    assert [frame.timestamp for frame in sink.got.items] == pytest.approx([0, 1 / 25, 5 / 25])
    assert sink.indices == [50, 51, 55]
    assert (recorder.written, recorder.dropped, sink.closed) == (3, 0, 1)


def test_a_slow_sink_costs_recorded_frames_and_no_time():
    sink = Held()
    sink.free.clear()
    recorder = Recorder(sink, frames=3)
    recorder.write(picture(0))
    assert sink.busy.wait(PATIENCE)
    for index in range(1, 11):
        recorder.write(picture(index))
    assert recorder.dropped == 7
    sink.free.set()
    recorder.close()
    assert sink.indices == [0, 8, 9, 10]


@pytest.mark.parametrize("error", [SinkError("the disk is full"), ValueError("of another kind")])
def test_a_failure_is_told_once_and_closes_the_sink(error):
    sink = Held()
    sink.breaks.append(error)
    recorder = Recorder(sink)
    recorder.write(picture(0))
    assert sink.ended.wait(PATIENCE)
    with pytest.raises(SinkError, match=str(error)):
        recorder.write(picture(1))
    recorder.close()
    assert sink.closed == 1


def test_a_failure_after_the_last_frame_is_told_at_the_end():
    sink = Collector()
    sink.breaks.append(SinkError("the disk is full"))
    recorder = Recorder(sink)
    recorder.write(picture(0))
    with pytest.raises(SinkError, match="the disk is full"):
        recorder.close()
    recorder.close()


def test_a_closed_recorder_takes_nothing():
    recorder = Recorder(Collector())
    recorder.close()
    recorder.close()
    with pytest.raises(SinkError, match="closed"):
        recorder.write(picture(0))


def played(path: Path) -> list[Frame]:
    """What a player shows of a file that may end in the middle."""
    shown: list[Frame] = []
    with VideoFile(path) as video, suppress(SourceError):
        for frame in video:
            shown.append(frame)
    return shown


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_what_was_recorded_plays_when_the_disk_is_full(tmp_path: Path, name: str):
    path, limit = tmp_path / name, 60_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    frames = make_frames(1500, 8 * WIDTH, 8 * HEIGHT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        sink = VideoFileSink(path, (8 * WIDTH, 8 * HEIGHT), Fraction(25))
        recorder = Recorder(sink, len(frames))
        with pytest.raises(SinkError, match="the recording ended"):
            for frame in frames:
                recorder.write(frame)
            recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size <= limit
    assert len(played(path)) > 0
