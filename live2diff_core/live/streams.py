"""Running streams by unguessable id: who may see them, who may feed and steer them, how many."""

import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from threading import Lock
from typing import Any, Protocol, TypeAlias

from ..errors import ConfigError
from .access import same_secret
from .controls import Answer
from .inbox import Inbox
from .picture import PICTURE_PIXELS
from .protocol import ProtocolError, Value, to_text
from .relay import Relay
from .statistics import LiveStatistics

SECRET_BYTES = 24


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the server takes; all are above 0, only `linger_seconds` may be 0.

    clients: of one stream. sockets: all of them. message_bytes, picture_pixels: of one message.
    messages_per_second: of one client, twice as many at once; likewise requests_per_second of one
    address. hello_seconds: until a client has said what it wants. heartbeat_seconds: between
    two signs of life. linger_seconds: that a client's own stream waits for its return.
    statistics_seconds: between two messages of figures. Raises ConfigError.
    """

    streams: int = 8
    clients: int = 8
    sockets: int = 64
    message_bytes: int = 8 * 1024 * 1024
    picture_pixels: int = PICTURE_PIXELS
    messages_per_second: float = 240.0
    requests_per_second: float = 20.0
    hello_seconds: float = 10.0
    heartbeat_seconds: float = 15.0
    linger_seconds: float = 20.0
    statistics_seconds: float = 0.5

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not 0 <= value < math.inf or (value == 0 and limit.name != "linger_seconds"):
                raise ConfigError(f"{limit.name} must be above 0, got {value}")

    @classmethod
    def read(cls, text: str) -> "Limits":
        """Limits by name, such as "clients=16, message_bytes=4000000"; the others are as always.

        Raises ConfigError.
        """
        kinds: dict[str, Callable[[str], float]] = {
            limit.name: int if isinstance(limit.default, int) else float for limit in fields(cls)
        }
        given: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (word.strip() for word in part.partition("="))
            try:
                given[name] = kinds[name](value)
            except (KeyError, ValueError) as error:
                known = ", ".join(kinds)
                raise ConfigError(
                    f"expected limits such as clients=16, got {part!r}; there are {known}"
                ) from error
        return cls(**given)


class LiveStream(Protocol):
    """What the server needs of a stream; any thread may call.

    id: of `new_id()`, for those who may see it. inbox: None where clients bring no frames.
    """

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def inbox(self) -> Inbox | None: ...
    @property
    def relay(self) -> Relay: ...

    def control(self, changes: Mapping[str, object]) -> Answer:
        """Change parameters."""
        ...

    def statistics(self) -> LiveStatistics:
        """Counts and durations."""
        ...

    def close(self) -> None:
        """Stop, and let go of everything; may be called twice."""
        ...


class Member(Protocol):
    """A client of a stream, as the hub sees it; any thread may call."""

    def post(self, text: str) -> None:
        """Send a JSON message."""
        ...

    def dismiss(self, error: ProtocolError | None) -> None:
        """End the connection. error: what the client is told, None when the stream has ended."""
        ...


Settings: TypeAlias = Mapping[str, Value]
Opener: TypeAlias = Callable[[str, Settings], LiveStream]


@dataclass(slots=True, eq=False)
class _Place:
    """A stream in the hub. owned: it was opened for its source and ends with it."""

    stream: LiveStream
    key: str
    owned: bool
    members: list[Member] = field(default_factory=list)
    source: Member | None = None


def new_id() -> str:
    """A stream's id or key: 192 random bits."""
    return secrets.token_urlsafe(SECRET_BYTES)


class Streams:
    """The hub: every running stream of a server. Any thread may call.

    opener: makes a stream of an id and a client's settings; None where clients open none. It raises
    an error of this package for settings that cannot be.
    """

    def __init__(self, limits: Limits | None = None, opener: Opener | None = None) -> None:
        self.limits = limits or Limits()
        self._opener = opener
        self._places: dict[str, _Place] = {}
        self._opening = 0
        self._closed = False
        self._lock = Lock()

    @property
    def opens(self) -> bool:
        """Whether clients may open streams."""
        return self._opener is not None

    def add(self, stream: LiveStream, key: str | None = None) -> str:
        """Show a stream. key: for feeding and steering it, None for a new one. Returns the key.

        Raises ProtocolError (limit) where there is no room, ConfigError for an id that is taken.
        """
        with self._reserved():
            return self._add(stream, key or new_id(), owned=False)

    def open(self, settings: Settings) -> tuple[LiveStream, str]:
        """Make a stream for a client; returns it with its key.

        Raises ProtocolError (limit), and what the opener raises.
        """
        assert self._opener is not None
        with self._reserved():
            stream = self._opener(new_id(), settings)
            with ExitStack() as undo:
                undo.callback(stream.close)
                key = self._add(stream, new_id(), owned=True)
                undo.pop_all()
            return stream, key

    def get(self, stream_id: str) -> LiveStream:
        """Raises ProtocolError (no_such_stream)."""
        return self._place(stream_id).stream

    def unlock(self, stream_id: str, key: str | None) -> LiveStream:
        """The stream, for those who know its key. Raises ProtocolError."""
        place = self._place(stream_id)
        if not same_secret(key or "", place.key):
            raise ProtocolError("forbidden", "this is not the key of the stream")
        return place.stream

    def list(self) -> list[tuple[LiveStream, int]]:
        """Every stream with the number of its clients, in the order of their beginning."""
        with self._lock:
            return [(place.stream, len(place.members)) for place in self._places.values()]

    def publish(self, stream_id: str, event: str, message: str, frame: int | None = None) -> None:
        """Tell every client of a stream what happened; without such a stream, nobody.

        frame: index of the one that it concerns.
        """
        text = to_text("event", event=event, message=message, frame=frame)
        for member in self._members(stream_id):
            member.post(text)

    def remove(self, stream_id: str) -> bool:
        """End a stream and send its clients home; whether it was there."""
        with self._lock:
            place = self._places.pop(stream_id, None)
            members = tuple(place.members) if place else ()
        if place is None:
            return False
        place.stream.close()
        for member in members:
            member.dismiss(None)
        return True

    def close(self) -> None:
        """End every stream; no other can be added."""
        with self._lock:
            self._closed = True
        for stream, _ in self.list():
            self.remove(stream.id)

    # ---- clients

    @contextmanager
    def joined(self, stream_id: str, member: Member, source: bool = False) -> Iterator[None]:
        """Be a client of a stream. A new source takes the place of the one before, which is sent
        home: it may be the same client, whose line broke.

        Raises ProtocolError: limit or no_such_stream.
        """
        place, replaced = self._join(stream_id, member, source)
        if replaced is not None:
            replaced.dismiss(ProtocolError("replaced", "another source took over this stream"))
        try:
            yield
        finally:
            with self._lock:
                if member in place.members:
                    place.members.remove(member)
                if place.source is member:
                    place.source = None

    def is_abandoned(self, stream_id: str) -> bool:
        """Whether a stream was opened for a source that is gone."""
        with self._lock:
            place = self._places.get(stream_id)
            return place is not None and place.owned and place.source is None

    def _join(self, stream_id: str, member: Member, source: bool) -> tuple[_Place, Member | None]:
        """The place, and the source that was there before."""
        with self._lock:
            place = self._find(stream_id)
            replaced = place.source if source else None
            awaited = place.owned and place.source is None and not source  # its place is kept
            if replaced is not None:
                place.members.remove(replaced)
            elif len(place.members) + awaited >= self.limits.clients:
                raise ProtocolError(
                    "limit", f"this stream has {len(place.members)} clients, no more are allowed"
                )
            place.members.append(member)
            place.source = member if source else place.source
            return place, replaced

    def _members(self, stream_id: str) -> tuple[Member, ...]:
        with self._lock:
            place = self._places.get(stream_id)
            return tuple(place.members) if place else ()

    # ---- places

    def _place(self, stream_id: str) -> _Place:
        with self._lock:
            return self._find(stream_id)

    def _find(self, stream_id: str) -> _Place:
        place = self._places.get(stream_id)
        if place is None:
            raise ProtocolError("no_such_stream", "there is no stream of this id, or it has ended")
        return place

    @contextmanager
    def _reserved(self) -> Iterator[None]:
        """A place for a stream that is being made."""
        with self._lock:
            count = len(self._places) + self._opening
            if count >= self.limits.streams or self._closed:
                raise ProtocolError("limit", f"{count} streams are open, no more are allowed")
            self._opening += 1
        try:
            yield
        finally:
            with self._lock:
                self._opening -= 1

    def _add(self, stream: LiveStream, key: str, owned: bool) -> str:
        with self._lock:
            if stream.id in self._places:
                holder = self._places[stream.id].stream.name
                raise ConfigError(f"a stream has this id already: {holder}; remove it first")
            if self._closed:
                raise ProtocolError("limit", "the server is closing")
            self._places[stream.id] = _Place(stream, key, owned)
        return key
