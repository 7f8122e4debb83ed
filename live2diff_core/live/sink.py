"""Where frames go: the protocol of a sink, and video files that grow as the frames come."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from typing_extensions import Self

from ..errors import ConfigError, SinkError
from ..frames import Frame, to_bytes
from .audio import AudioTrack
from .source import EXACT, SourceInfo

ENCODER_THREADS = 2
# Of 1/90000 s every usual rate is a multiple, or within 6 microseconds of one.
TICKS = 90_000
SECONDS_PER_KEYFRAME = 2
# Codes of ITU-T H.273 as FFmpeg uses them: primaries and transfer of sRGB's family, two matrices.
BT709, BT601 = 1, 6
LIMITED_RANGE = 1
# Readers that ignore the tag take BT.601 below this height and BT.709 from it on; so do we.
HD_HEIGHT = 720


@dataclass(frozen=True, slots=True)
class _Kind:
    """What goes into one kind of file. better_by: added to the quality, on the encoder's scale."""

    container: str
    encoder: str
    options: Mapping[str, str]
    better_by: int
    copied_audio: frozenset[str]
    audio_encoder: str
    muxing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


_X264 = MappingProxyType({"preset": "veryfast"})
_VP9 = MappingProxyType({"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "b": "0"})
_MP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_KINDS = {
    # Fragments while it grows, so that a killed run leaves a readable file; at the end a plain MP4.
    ".mp4": _Kind(
        container="mp4",
        encoder="libx264",
        options=_X264,
        better_by=0,
        copied_audio=_MP4_AUDIO,
        audio_encoder="aac",
        muxing=MappingProxyType({"movflags": "hybrid_fragmented+delay_moov"}),
    ),
    ".webm": _Kind(
        container="webm",
        encoder="libvpx-vp9",
        options=_VP9,
        better_by=8,
        copied_audio=frozenset({"opus", "vorbis"}),
        audio_encoder="libopus",
        muxing=MappingProxyType({"cluster_time_limit": "2000"}),
    ),
    ".mkv": _Kind(
        container="matroska",
        encoder="libx264",
        options=_X264,
        better_by=0,
        copied_audio=_MP4_AUDIO | {"vorbis", "dts", "truehd", "pcm_s16le", "pcm_s24le"},
        audio_encoder="aac",
        muxing=MappingProxyType({"cluster_time_limit": "2000"}),
    ),
}


class Sink(Protocol):
    """Takes frames in order of presentation."""

    def write(self, frame: Frame) -> None:
        """Take a frame: rgb (3, h, w). Raises SinkError."""
        ...

    def close(self) -> None:
        """Finish what was begun; may be called twice. Raises SinkError."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VideoFileSink(Sink):
    """A video file: .mp4 and .mkv hold H.264, .webm holds VP9, all 8 bit with halved chroma.

    size: (width, height), even. rate: frames a second; the frames' own timestamps are what counts.
    source: what the frames are made from. It is never overwritten, and with `audio` its sound is
    carried over, as it is where the container takes it, up to a frame's length after the last
    frame. quality: 0 (lossless) to 51, libx264's scale. Bookkeeping grows by the size of an index:
    about 25 MB of memory an hour for .mp4, next to nothing for .mkv. Raises SinkError, ConfigError.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        size: tuple[int, int],
        rate: Fraction | int,
        source: SourceInfo | None = None,
        audio: bool = True,
        quality: int = 18,
    ) -> None:
        self._path = Path(path)
        self._size = size
        self._frame_seconds = float(1 / Fraction(rate))
        self._scaler = VideoReformatter()
        self._last = -1
        self._failed = False
        self._closed = False
        kind = _kind(self._path)
        _check_settings(self._path, size, quality)
        _refuse_overwriting(self._path, source)
        self._container = av.open(
            f"file:{self._path}",
            mode="w",
            format=kind.container,
            container_options={"flush_packets": "1", **kind.muxing},
        )
        options = {**kind.options, "crf": str(quality + kind.better_by)}
        self._matrix = BT709 if size[1] >= HD_HEIGHT else BT601
        self._video = self._add_video(kind.encoder, Fraction(rate), options)
        self._audio: AudioTrack | None = None
        if audio and source is not None and source.has_audio and source.path is not None:
            self._audio = AudioTrack(
                source.path,
                source.start,
                self._container,
                kind.copied_audio,
                kind.audio_encoder,
            )
        with self._as_sink_error():
            self._container.start_encoding()

    def write(self, frame: Frame) -> None:
        """Encode a frame: rgb (3, h, w), later than the one before. Raises SinkError."""
        ticks = round(frame.timestamp * TICKS)
        self._check(frame, ticks)
        picture = self._picture(frame)
        picture.pts, picture.time_base = ticks, Fraction(1, TICKS)
        picture.duration = round(self._frame_seconds * TICKS)
        with self._as_sink_error():
            if self._audio is not None:
                self._audio.advance(frame.timestamp)
            self._container.mux(self._video.encode(picture))
        self._last = ticks

    def close(self) -> None:
        """Write what the encoders hold and finish the file; one without frames is removed."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._last >= 0 and not self._failed:
                with self._as_sink_error():
                    self._flush()
        finally:
            self._release()

    def _flush(self) -> None:
        if self._audio is not None:
            self._audio.advance(self._last / TICKS + self._frame_seconds)
            self._audio.finish()
        self._container.mux(self._video.encode(None))

    def _release(self) -> None:
        if self._audio is not None:
            self._audio.close()
        if self._failed:
            with suppress(FFmpegError):
                self._container.close()
            return
        with self._as_sink_error():
            self._container.close()
        if self._last < 0:
            self._path.unlink()

    def _add_video(self, encoder: str, rate: Fraction, options: dict[str, str]) -> VideoStream:
        rate = rate.limit_denominator(1 << 16)
        stream = cast(VideoStream, self._container.add_stream(encoder, rate=rate, options=options))
        stream.width, stream.height = self._size
        context = stream.codec_context
        context.time_base = Fraction(1, TICKS)
        context.gop_size = max(1, round(SECONDS_PER_KEYFRAME * rate))
        context.thread_count = ENCODER_THREADS
        context.color_range, context.colorspace = LIMITED_RANGE, self._matrix
        context.color_primaries = context.color_trc = BT709
        return stream

    def _picture(self, frame: Frame) -> VideoFrame:
        pixels = to_bytes(frame.rgb).permute(1, 2, 0).cpu().numpy()  # (h, w, 3)
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        return self._scaler.reformat(
            rgb,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709 if self._matrix == BT709 else Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            interpolation=EXACT,
            threads=1,
        )

    def _check(self, frame: Frame, ticks: int) -> None:
        if self._closed or self._failed:
            state = "has been closed" if self._closed else "failed before"
            raise SinkError(f"{self._path}: expected an open file, this one {state}; open another.")
        width, height = self._size
        if tuple(frame.rgb.shape) != (3, height, width):
            raise SinkError(
                f"{self._path}: expected a frame of shape (3, {height}, {width}), got "
                f"{tuple(frame.rgb.shape)}. Scale it, or open the file at its size."
            )
        if ticks <= self._last:
            raise SinkError(
                f"{self._path}: expected a frame after {self._last / TICKS:.5f} s, got one at "
                f"{frame.timestamp:.5f} s. Write frames in order, each at its own time."
            )

    @contextmanager
    def _as_sink_error(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as error:
            self._failed = True
            raise SinkError(
                f"{self._path}: expected to write a video there, it failed ({error.strerror}). "
                "Check that the folder exists, may be written to and has space."
            ) from error


def _kind(path: Path) -> _Kind:
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise SinkError(
            f"{path}: expected a name that ends in {', '.join(_KINDS)}, got "
            f"{path.suffix or 'no extension'!r}. Choose one of these."
        )
    return kind


def _check_settings(path: Path, size: tuple[int, int], quality: int) -> None:
    if not 0 <= quality <= 51:
        raise ConfigError(f"quality must be from 0 (lossless) to 51, got {quality}.")
    if any(side <= 0 or side % 2 for side in size):
        raise SinkError(
            f"{path}: expected an even width and height (chroma has half of each), got "
            f"{size[0]}x{size[1]}. Scale or crop to an even size."
        )


def _refuse_overwriting(path: Path, source: SourceInfo | None) -> None:
    if source is None or source.path is None or not path.exists():
        return
    if path.samefile(source.path):
        raise SinkError(
            f"{path}: expected another file than the source, got the source itself, which would "
            "be lost. Choose another name."
        )
