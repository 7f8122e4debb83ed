"""The latest pictures of a stream, for any number of readers of any speed."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from ..errors import ConfigError, SinkError
from ..frames import Frame
from .bell import Bell
from .picture import encode_picture
from .protocol import KINDS, FrameHeader, Kind, pack_frame
from .sink import Sink

KEPT = 16  # pictures that a reader of all of them may be behind


@dataclass(frozen=True)
class Encoded:
    """A picture as it travels. sequence: how many pictures the relay had then, from 1."""

    data: bytes
    kind: Kind
    index: int
    timestamp: float
    sequence: int
    width: int
    height: int

    @cached_property
    def message(self) -> bytes:
        """The binary message, made once for all readers."""
        header = FrameHeader(self.kind, self.index, self.timestamp, self.width, self.height)
        return pack_frame(header, self.data)


class Relay(Sink):
    """Keeps the latest frame and encodes it once, for whoever reads; nobody can slow the stream.

    One thread writes, any thread and any asyncio loop reads. Without a reader frames are counted
    as missed and not encoded; with one, the last KEPT pictures stay for readers of all of them.
    quality: 1 to 100. bell: rings for every frame and at the end. Raises ConfigError.
    """

    def __init__(self, quality: int = 85, kind: Kind = "jpeg") -> None:
        if not 1 <= quality <= 100:
            raise ConfigError(f"the quality of pictures is 1 to 100, got {quality}")
        if kind not in KINDS:
            raise ConfigError(f"pictures are {', '.join(KINDS)}, not {kind}")
        self.kind: Kind = kind
        self._quality = quality
        self._lock = Lock()
        self._frame: Frame | None = None
        self._encoded: Encoded | None = None
        self._kept: deque[Encoded] = deque(maxlen=KEPT)
        self._sequence = 0
        self._taken = True
        self._missed = 0
        self._readers = self._followers = 0
        self._closed = False
        self.bell = Bell()

    @property
    def frame(self) -> Frame | None:
        """The newest frame, None before the first."""
        return self._frame

    @property
    def missed(self) -> int:
        """Frames that were replaced before anybody took them."""
        return self._missed

    @property
    def sequence(self) -> int:
        """How many frames were written."""
        return self._sequence

    @property
    def readers(self) -> int:
        """How many are inside `reading()`."""
        return self._readers

    @property
    def closed(self) -> bool:
        """Whether no further frame will come."""
        return self._closed

    def write(self, frame: Frame) -> None:
        """Put a frame in the place of the one before: rgb (3, h, w). Raises SinkError if closed."""
        with self._lock:
            if self._closed:
                raise SinkError("a closed relay takes no frames: open another")
            sequence, wanted = self._sequence + 1, self._readers > 0
        encoded = self._encode(frame, sequence) if wanted else None
        with self._lock:
            self._missed += not (self._taken or self._followers)
            self._frame, self._encoded, self._sequence = frame, encoded, sequence
            if encoded is not None:
                self._kept.append(encoded)
            self._taken = False
        self.bell.ring()

    def latest(self) -> Encoded | None:
        """The newest picture, None before the first; it counts as taken."""
        with self._lock:
            frame, encoded, sequence = self._frame, self._encoded, self._sequence
            self._taken = True
        if encoded is None and frame is not None:
            encoded = self._encode(frame, sequence)
            with self._lock:
                if self._sequence == sequence:
                    self._encoded = encoded
        return encoded

    @contextmanager
    def reading(self, every: bool = False) -> Iterator[None]:
        """Have frames encoded as they are written, so that `wait` finds them ready. every: for a
        reader who will take them all.
        """
        with self._lock:
            self._readers += 1
            self._followers += every
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                self._followers -= every
                if not self._readers:
                    self._kept.clear()

    async def wait(self, after: int, every: bool = False) -> Encoded | None:
        """The newest picture as soon as one later than the sequence number `after` is there.

        every: the oldest such picture that is kept, in place of the newest. None when the relay is
        closed and no such picture will come.
        """
        while True:
            with self.bell.listening() as rung:
                if self._sequence > after:
                    return self._next(after) if every else self.latest()
                if self._closed:
                    return None
                await rung

    def _next(self, after: int) -> Encoded | None:
        """The oldest picture later than `after` that is kept, else the newest."""
        with self._lock:
            kept = next((picture for picture in self._kept if picture.sequence > after), None)
            if kept is not None:
                self._missed += kept.sequence - after - 1
                self._taken |= kept.sequence == self._sequence
        return kept or self.latest()

    async def end(self) -> None:
        """Wait until no further frame will come."""
        while True:
            with self.bell.listening() as rung:
                if self._closed:
                    return
                await rung

    def close(self) -> None:
        """Let every reader go; the last picture stays."""
        with self._lock:
            self._closed = True
        self.bell.ring()

    def _encode(self, frame: Frame, sequence: int) -> Encoded:
        data = encode_picture(frame.rgb, self.kind, self._quality)
        height, width = frame.rgb.shape[1:]
        place = frame.index, frame.timestamp, sequence, width, height
        return Encoded(data, self.kind, *place)
