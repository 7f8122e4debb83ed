"""The sound of video files as sinks: copied, beside the picture, and what breaks it."""

import logging
from pathlib import Path

import av
import numpy as np
import pytest

from live2diff_core.errors import SourceError
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile
from tests.clips import BUNNY, PHONE, burst, make_video, ramp
from tests.live.recordings import (
    FRAME,
    KINDS,
    SIZE,
    audio_packets,
    ending,
    frames,
    info_of,
    onset,
    read,
    sound,
    write,
)


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
