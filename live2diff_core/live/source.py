"""Where frames come from: the protocol of a source, and the video files that FFmpeg reads."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Protocol, cast

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer, Type
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from ..errors import ConfigError, SourceError
from ..frames import Frame

DECODER_THREADS = 2
# Chroma interpolated and rounded: three times closer than FFmpeg's default, which also darkens. By
# their numbers in FFmpeg (SWS_BICUBIC, SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT), as PyAV 17, the last
# for Python 3.10, has no names for them.
EXACT = 0x4 | 0x40000 | 0x2000
UNKNOWN_RATE = Fraction(25)
# FFmpeg takes a text file for a film of a terminal.
TEXT_ART = frozenset({"ansi", "bintext", "xbin", "idf"})
# These two say how long a stream lasts; elsewhere FFmpeg guesses it from the bit rate.
DECLARING = frozenset({"mov", "matroska"})
DECLARED_SLACK = 0.5
SANE_ASPECT = 4
COLORSPACE_UNKNOWN = 2


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source before it is read.

    width, height: of the frames that it gives, in pixels. rate: frames a second, the mean where
    it varies. frames: how many will come, an estimate; None where the source has no end or does
    not say. path: the file, None for what is not one. start: time of the first frame on the
    file's own clock, in seconds; its audio runs on that clock.
    """

    width: int
    height: int
    rate: Fraction
    frames: int | None = None
    has_audio: bool = False
    path: Path | None = None
    start: float = 0.0


class Source(Protocol):
    """Gives frames once, in order of presentation; the end of the stream ends the iteration."""

    @property
    def info(self) -> SourceInfo:
        """What is known before the first frame is taken."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Give the frames that are left: rgb (3, h, w) uint8. Raises SourceError when it breaks."""
        ...

    def close(self) -> None:
        """Let go of what the source holds; may be called twice."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OneReading(Source):
    """What sources have in common that are read once and then closed.

    A subclass sets `_name`, for messages, `_info` and `_frames`, which ends when `_closed` is set.
    """

    _name: str
    _info: SourceInfo
    _frames: Iterator[Frame]
    _closed = False

    @property
    def info(self) -> SourceInfo:
        """What is known before the first frame is taken."""
        return self._info

    def __iter__(self) -> Iterator[Frame]:
        """Give the frames that are left. Raises SourceError when the source breaks or is closed."""
        if self._closed:
            raise SourceError(
                f"{self._name}: expected an open source, got a closed one; open it again."
            )
        return self._frames

    def close(self) -> None:
        """End the stream."""
        self._closed = True


class DecodedVideo(OneReading):
    """The frames of an opened container, decoded as asked for, upright and with square pixels.

    Frames: (3, h, w), uint8, RGB; transparency is dropped. Timestamps: seconds from the first
    frame, always rising. The container is closed with it, and where this raises SourceError. name:
    what messages call it. One thread reads and closes.
    """

    def __init__(self, container: InputContainer, name: str, max_frames: int | None = None) -> None:
        self._name = name
        self._started = False
        self._break: str | None = None
        self._container = container
        with ExitStack() as undo:
            undo.callback(self._container.close)
            self._stream = _video_stream(self._container, name)
            self._stream.thread_count = DECODER_THREADS
            self._stream.thread_type = "AUTO"
            self._tick = self._stream.time_base or 1 / UNKNOWN_RATE
            pictures = self._pictures()
            first = next(pictures, None)
            if first is None:
                raise _no_picture(name, self._break)
            undo.pop_all()
        self._layout = _Layout.of(first, self._stream)
        self._info = replace(
            _describe(self._container, self._stream, max_frames),
            width=self._layout.upright[0],
            height=self._layout.upright[1],
            start=float((first.pts or 0) * self._tick),
        )
        self._closed = False
        self._frames: Generator[Frame, None, None] = self._read(first, pictures, max_frames)

    def close(self) -> None:
        """Free the decoder and the container."""
        self._closed = True
        self._frames.close()
        self._container.close()

    def _read(
        self, picture: VideoFrame | None, pictures: Iterator[VideoFrame], max_frames: int | None
    ) -> Generator[Frame, None, None]:
        step = float(1 / self._info.rate)
        timestamp, end, count = 0.0, 0.0, 0
        while picture is not None:
            if count > 0:
                shown = self._shown_at(picture)
                later = shown is not None and shown > timestamp
                timestamp = shown if shown is not None and later else timestamp + step
            yield Frame(self._pixels(picture, count, timestamp), count, timestamp)
            count += 1
            if count == max_frames:
                return
            end = timestamp + max(step, float(picture.duration * self._tick))
            picture = next(pictures, None)
        if self._break is None:
            self._break = self._end_too_early(end)
        if self._break is not None:
            raise self._broken(count, timestamp)

    def _end_too_early(self, end: float) -> str | None:
        """What is wrong with an end after so many seconds; None where it is one."""
        declared = _declared_seconds(self._container, self._stream, self._info.start)
        if declared is None or end >= declared - DECLARED_SLACK:
            return None
        return f"the file ends, but says that it lasts {declared:.2f} s"

    def _shown_at(self, picture: VideoFrame) -> float | None:
        """Seconds from the first frame; None where the file does not say."""
        if picture.pts is None:
            return None
        return float(picture.pts * self._tick) - self._info.start

    def _pictures(self) -> Iterator[VideoFrame]:
        """Decode until the end or the break, which is kept."""
        try:
            # The last packet of a stream is PyAV's own, empty one.
            for packet, following in pairwise(self._container.demux(self._stream)):
                if packet.is_corrupt and following.size == 0:
                    self._break = "the data stops inside a frame"
                else:
                    yield from self._decode(packet)
        except (FFmpegError, OSError) as error:
            self._break = error.strerror or str(error)
        # The decoder still holds whole pictures from ahead of the end, or the break.
        with suppress(FFmpegError):
            yield from self._stream.decode(None)

    def _decode(self, packet: "Packet[VideoStream]") -> list[VideoFrame]:
        """Decode one packet; damage ahead of the first picture is where a recording began."""
        try:
            pictures = packet.decode()
        except InvalidDataError:
            if self._started:
                raise
            return []
        self._started = self._started or bool(pictures)
        return pictures

    def _pixels(self, picture: VideoFrame, count: int, timestamp: float) -> Tensor:
        try:
            return self._layout.pixels(picture)
        except FFmpegError as error:
            self._break = f"no way from {picture.format.name} to RGB: {error.strerror}"
            raise self._broken(count, timestamp) from error

    def _broken(self, count: int, timestamp: float) -> SourceError:
        return SourceError(
            f"{self._name}: expected a whole video, got {count} frames and a break after "
            f"{timestamp:.2f} s ({self._break}). {self._what_to_do(count)}"
        )

    def _what_to_do(self, count: int) -> str:
        return (
            f"Get a whole copy of the file, or ask for the first {count} frames only (max_frames)."
        )


class VideoFile(DecodedVideo):
    """Any file FFmpeg reads.

    max_frames: end after so many. Raises SourceError at opening when there is nothing to decode,
    and while reading, after the last frame that could be decoded, when the file is broken;
    ConfigError for max_frames below 1.
    """

    def __init__(self, path: str | PathLike[str], max_frames: int | None = None) -> None:
        if max_frames is not None and max_frames < 1:
            raise ConfigError(f"max_frames must be at least 1 or None, got {max_frames}.")
        path = Path(path)
        super().__init__(open_input(path), str(path), max_frames)
        self._info = replace(self._info, path=path)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a decoded picture becomes an upright one with square pixels.

    width, height: of the picture before it is turned. transpose: swap the axes, then flip some.
    scaler: kept, as a new one for each picture sets up its tables and threads anew.
    """

    width: int
    height: int
    transpose: bool
    flips: tuple[int, ...]
    scaler: VideoReformatter = field(default_factory=VideoReformatter)

    @classmethod
    def of(cls, picture: VideoFrame, stream: VideoStream) -> "_Layout":
        """Read the shape of pixels and the display matrix."""
        width, height = _square_pixels(picture, stream.sample_aspect_ratio)
        sides = cast(SideDataContainer, picture.side_data)
        display = next((side for side in sides if side.type == Type.DISPLAYMATRIX), None)
        if display is None:
            return cls(width, height, transpose=False, flips=())
        # Row vectors: x' = a x + c y, y' = b x + d y, with y downwards (libavutil/display.h).
        matrix = np.frombuffer(bytes(display), np.int32)
        a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
        transpose = abs(b) > abs(a)
        from_x, from_y = (c, b) if transpose else (a, d)
        flips = tuple(axis for axis, sign in ((0, from_y), (1, from_x)) if sign < 0)
        return cls(width, height, transpose, flips)

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the picture once it is turned."""
        return (self.height, self.width) if self.transpose else (self.width, self.height)

    def pixels(self, picture: VideoFrame) -> Tensor:
        """Bring a picture to RGB. Returns (3, h, w), uint8. Raises FFmpegError."""
        untagged_hd = picture.colorspace == COLORSPACE_UNKNOWN and picture.height >= 720
        planar = self.scaler.reformat(
            picture,
            width=self.width,
            height=self.height,
            format="gbrp",  # planes as tensors want them: turning rgb24 takes ten times as long
            src_colorspace=Colorspace.ITU709 if untagged_hd and not picture.format.is_rgb else None,
            interpolation=EXACT,
            threads=1,
        )
        green, blue, red = (self._turned(plane) for plane in planar.planes)
        return torch.from_numpy(np.stack((red, green, blue)))

    def _turned(self, plane: VideoPlane) -> NDArray[np.uint8]:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        image = rows[:, : plane.width]
        return np.flip(image.T if self.transpose else image, self.flips)


def _square_pixels(picture: VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """Size with square pixels: the side that is too short grows, so that no detail is lost."""
    if not aspect or not 1 / SANE_ASPECT <= aspect <= SANE_ASPECT:
        return picture.width, picture.height
    if aspect > 1:
        return round(picture.width * aspect), picture.height
    return picture.width, round(picture.height / aspect)


def open_input(path: Path) -> InputContainer:
    """Open a media file, and nothing that it points to. Raises SourceError."""
    if path.is_dir():
        raise SourceError(f"{path}: expected a video file, got a folder; name a file in it.")
    if not path.exists():
        raise SourceError(f"{path}: expected a video file, there is none; check the path.")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: expected a video file, got an empty one; get it again.")
    try:
        # A colon in the name shall be no protocol, and a playlist shall not open the network.
        return av.open(
            f"file:{path}",
            mode="r",
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file"},
        )
    except FFmpegError as error:
        raise SourceError(
            f"{path}: expected a video that FFmpeg reads, got a file it cannot open "
            f"({error.strerror}). Check that it is a whole video file, or convert it to MP4."
        ) from error


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    """Find the first moving picture: neither a cover of an album nor a text file."""
    for stream in container.streams.video:
        is_cover = Disposition.attached_pic in stream.disposition
        if not is_cover and stream.codec_context and stream.codec_context.name not in TEXT_ART:
            return stream
    found = ", ".join(f"{s.type} ({s.name or 'no decoder'})" for s in container.streams)
    raise SourceError(
        f"{name}: expected a file with a video stream, got {found or 'no stream at all'}. "
        "Choose a file that holds a video, or get a whole copy of this one."
    )


def _no_picture(name: str, reason: str | None) -> SourceError:
    return SourceError(
        f"{name}: expected at least one frame, none could be decoded ({reason or 'no data'}). "
        "Get a whole copy of the file, or convert it to MP4."
    )


def _describe(container: InputContainer, stream: VideoStream, max_frames: int | None) -> SourceInfo:
    rate = stream.average_rate or stream.guessed_rate or UNKNOWN_RATE
    frames = stream.frames or _estimate_frames(container, stream, rate)
    return SourceInfo(
        width=stream.width,
        height=stream.height,
        rate=rate,
        frames=frames if max_frames is None else min(frames or max_frames, max_frames),
        has_audio=any(audio.codec_context for audio in container.streams.audio),
    )


def _estimate_frames(container: InputContainer, stream: VideoStream, rate: Fraction) -> int | None:
    if stream.duration and stream.time_base:
        return max(1, round(stream.duration * stream.time_base * rate))
    if container.duration:
        return max(1, round(Fraction(container.duration, av.time_base) * rate))
    return None


def _declared_seconds(container: InputContainer, stream: VideoStream, start: float) -> float | None:
    """Seconds from the first frame to the end of the video, where the file itself says so."""
    if DECLARING.isdisjoint(container.format.name.split(",")):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION")  # Matroska's, as 00:01:02.345 on the file's clock
    if tag is None:
        return None
    hours, minutes, seconds = tag.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start
