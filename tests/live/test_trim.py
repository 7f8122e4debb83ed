"""A part of a file has the frames, the times and the sound of that part."""

import av
import numpy as np
import pytest
import torch

from live2diff_core.errors import SourceError
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile
from live2diff_core.live.trim import TrimmedVideo
from tests.clips import BIKES, BUNNY

RATE = 48_000  # samples a second


def frames(source):
    with source:
        return list(source)


@pytest.mark.parametrize(
    ("start", "duration"), [(0.0, 0.5), (0.4, 0.0), (0.4, 1.0), (1.01, 0.3), (2.0, 99.0)]
)
def test_the_frames_are_those_of_that_time_counted_anew(start, duration):
    every = frames(VideoFile(BIKES))
    end = start + duration if duration else float("inf")
    expected = [frame for frame in every if start <= frame.timestamp + 1e-6 < end]
    source = TrimmedVideo(BIKES, start, duration)
    assert source.info.frames == pytest.approx(len(expected), abs=1)
    assert source.info.start == pytest.approx(expected[0].timestamp)
    found = frames(source)
    assert [frame.index for frame in found] == list(range(len(expected)))
    for one, other in zip(found, expected, strict=True):
        assert one.timestamp == pytest.approx(other.timestamp - expected[0].timestamp)
        assert torch.equal(one.rgb, other.rgb)


@pytest.mark.parametrize(("start", "duration"), [(3600.0, 0.0), (0.001, 0.001)])
def test_a_part_without_frames_is_refused(start, duration):
    with pytest.raises(SourceError, match=r"expected frames from .* got none"):
        TrimmedVideo(BIKES, start, duration)


def test_a_closed_one_is_read_no_more():
    source = TrimmedVideo(BIKES, 0.5)
    source.close()
    with pytest.raises(SourceError, match="got a closed one"):
        iter(source)


def test_its_sound_begins_with_it(tmp_path):
    path = tmp_path / "part.mp4"
    with TrimmedVideo(BUNNY, 2.0, 1.0) as source:
        assert source.info.has_audio
        size = source.info.width, source.info.height
        with VideoFileSink(path, size, source.info.rate, source.info) as sink:
            for frame in source:
                sink.write(frame)
    sound, expected = heard(path), heard(BUNNY, 2.0, 3.0)
    assert len(sound) == pytest.approx(len(expected), rel=0.06)
    lag = best_lag(sound, expected)
    assert abs(lag) < 0.03 * RATE


def heard(path, start=0.0, end=float("inf")):
    """Samples of the first channel between two times."""
    parts = []
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", RATE)
        for frame in container.decode(audio=0):
            if start <= (frame.time or 0) < end:
                parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(parts)


def best_lag(sound, expected):
    length = min(len(sound), len(expected))
    a, b = sound[:length], expected[:length]
    spectrum = np.fft.rfft(a, 2 * length) * np.conj(np.fft.rfft(b, 2 * length))
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return peak if peak < length else peak - 2 * length
