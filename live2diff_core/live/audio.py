"""The sound of a source on its way into the file that a sink writes."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias, cast

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from .source import open_input

logger = logging.getLogger(__name__)

Piece: TypeAlias = "Packet[AudioStream] | AudioFrame"

RATE = 48_000
BITS_PER_SECOND = 160_000


class AudioTrack:
    """Copies the packets of a source's audio, or encodes them anew, as far as the picture has come.

    source: a file with audio. start: the first frame of its video on its clock, in seconds.
    copied: codecs that the container takes as they are; anything else becomes `encoder`, mono or
    stereo at 48 kHz. Damaged audio ends the track with a warning, not the video.
    Raises SourceError when the file cannot be opened again.
    """

    def __init__(
        self,
        source: Path,
        start: float,
        container: OutputContainer,
        copied: frozenset[str],
        encoder: str,
    ) -> None:
        self._file = open_input(source)
        self._container = container
        self._start = start
        self._last = float("-inf")
        track = next(audio for audio in self._file.streams.audio if audio.codec_context)
        self._copies = _codec(track) in copied
        self._stream = (
            container.add_stream_from_template(track)
            if self._copies
            else _add_encoder(container, encoder, track)
        )
        self._pieces = self._read(track)
        self._next = next(self._pieces, None)

    def advance(self, until: float) -> None:
        """Write what sounds before `until`, in seconds from the first frame. Raises FFmpegError."""
        while self._next is not None and self._seconds(self._next) < until:
            self._write(self._next)
            self._next = next(self._pieces, None)

    def finish(self) -> None:
        """Write what the encoder still holds. Raises FFmpegError."""
        if not self._copies:
            self._container.mux(self._stream.encode(None))

    def close(self) -> None:
        """Close the source's file."""
        self._file.close()

    def _read(self, track: AudioStream) -> Iterator[Piece]:
        """Give what ends after the first frame of the video, in rising order of time."""
        pieces = self._file.demux(track) if self._copies else self._file.decode(track)
        try:
            for piece in cast(Iterator[Piece], pieces):
                if piece.pts is None or piece.time_base is None:
                    continue
                begin = self._seconds(piece)
                ends = begin + float((piece.duration or 0) * piece.time_base)
                if ends > 0 and begin > self._last:
                    self._last = begin
                    yield piece
        except FFmpegError as error:
            logger.warning("%s: its audio breaks (%s) and ends here", self._file.name, error)

    def _seconds(self, piece: Piece) -> float:
        assert piece.pts is not None
        assert piece.time_base is not None
        return float(piece.pts * piece.time_base) - self._start

    def _write(self, piece: Piece) -> None:
        assert piece.pts is not None
        assert piece.time_base is not None
        piece.pts -= round(self._start / piece.time_base)
        if isinstance(piece, AudioFrame):
            self._container.mux(self._stream.encode(piece))
            return
        piece.dts = piece.pts
        piece.stream = self._stream
        self._container.mux(piece)


def _codec(track: AudioStream) -> str:
    """Name a codec; AAC as broadcasts carry it, without the header that files need, is another."""
    name = track.codec_context.codec.canonical_name
    return "adts" if name == "aac" and not track.codec_context.extradata else name


def _add_encoder(container: OutputContainer, encoder: str, track: AudioStream) -> AudioStream:
    stream = cast(AudioStream, container.add_stream(encoder, rate=RATE))
    stream.codec_context.layout = "mono" if track.codec_context.channels == 1 else "stereo"
    stream.codec_context.bit_rate = BITS_PER_SECOND
    return stream
