"""Video files written and read back."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from live2diff_core.frames import Frame
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import SourceInfo, VideoFile

KINDS = ["out.mp4", "out.webm", "out.mkv"]
SIZE = (64, 48)
FRAME = 0.04
# Matroska counts in milliseconds.
TICK = 0.0006


def frames(pictures: Iterable[np.ndarray], times: Iterable[float] | None = None) -> list[Frame]:
    tensors = [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]
    shown = [k * FRAME for k in range(len(tensors))] if times is None else times
    return [Frame(rgb, k, t) for k, (rgb, t) in enumerate(zip(tensors, shown, strict=True))]


def write(path: Path, given: list[Frame], source: SourceInfo | None = None) -> Path:
    height, width = given[0].rgb.shape[1:]
    with VideoFileSink(path, (width, height), Fraction(25), source) as sink:
        for frame in given:
            sink.write(frame)
    return path


def read(path: Path) -> list[Frame]:
    with VideoFile(path) as source:
        return list(source)


def brightness(given: list[Frame]) -> list[float]:
    return [float(frame.rgb.float().mean()) for frame in given]


def times(given: list[Frame]) -> list[float]:
    return [frame.timestamp for frame in given]


def info_of(path: Path) -> SourceInfo:
    with VideoFile(path) as source:
        return source.info


def sound(path: Path) -> tuple[np.ndarray, float]:
    """Samples of the audio, at 48 kHz, and when they begin, in seconds from the first frame."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(audio=0))
    channels = [frame.to_ndarray() for frame in decoded]
    first = [
        samples[0] if frame.format.is_planar else samples[0, :: frame.layout.nb_channels]
        for frame, samples in zip(decoded, channels, strict=True)
    ]
    return np.concatenate(first), decoded[0].time - info_of(path).start


def ending(path: Path) -> float:
    samples, begin = sound(path)
    return begin + len(samples) / 48_000


def onset(path: Path) -> float:
    samples, begin = sound(path)
    return begin + int(np.argmax(np.abs(samples) > 0.1)) / 48_000


def boxes(path: Path) -> list[str]:
    """Names of an MP4's outermost boxes (ISO/IEC 14496-12, sec. 4.2)."""
    data, names, at = path.read_bytes(), [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def audio_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]
