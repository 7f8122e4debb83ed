"""The wire of live streams: pictures as binary messages, everything else as JSON text.

docs/protocol.md says what is sent when. One WebSocket message is one frame or one JSON object.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NoReturn, TypeAlias, get_args

from ..errors import Live2DiffError

VERSION = 1
MAGIC = b"L2DF"
# magic, version, kind, flags, index, timestamp, width, height, bytes of the payload
HEADER = struct.Struct("<4sBBHQdHHI")
LAST_INDEX = 2**53 - 1  # JavaScript's numbers are exact up to there
TEXT_CHARACTERS = 65_536
MOST_SETTINGS = 64
MOST_WINDOW = 16
NAME_CHARACTERS = 64
ALL: Literal["all"] = "all"  # frames that a client wants

Kind = Literal["jpeg", "webp", "raw"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # a kind's number is its place
Role = Literal["source", "viewer", "controller"]
ROLES: tuple[Role, ...] = get_args(Role)
Value: TypeAlias = "str | int | float | bool | None"

Code = Literal[
    "unknown_version",
    "out_of_order",
    "bad_frame",
    "wrong_length",
    "bad_picture",
    "too_large",
    "bad_message",
    "not_allowed",
    "refused",
    "forbidden",
    "no_such_stream",
    "limit",
    "rate",
    "replaced",
    "timeout",
]
# What the server does after the error message: close with this code of RFC 6455, or go on (None).
CLOSES: Mapping[Code, int | None] = MappingProxyType(
    {
        "unknown_version": 4001,
        "out_of_order": 4002,
        "bad_frame": 4003,
        "wrong_length": None,
        "bad_picture": None,
        "too_large": None,
        "bad_message": None,
        "not_allowed": None,
        "refused": None,
        "forbidden": 4004,
        "no_such_stream": 4005,
        "limit": 4006,
        "rate": 4007,
        "replaced": 4008,
        "timeout": 4009,
    }
)


class ProtocolError(Live2DiffError):
    """A message that cannot be taken; `code` is of the table in docs/protocol.md."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def closes(self) -> int | None:
        """The code that the connection is closed with, None where it stays open."""
        return CLOSES[self.code]

    def text(self) -> str:
        """The JSON message that tells the client."""
        return to_text("error", code=self.code, message=str(self))


# ---- binary messages


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What stands before a picture. timestamp: seconds on the sender's clock; sizes in pixels."""

    kind: Kind
    index: int
    timestamp: float
    width: int
    height: int


def pack_frame(header: FrameHeader, payload: bytes) -> bytes:
    """One binary message."""
    kind = KINDS.index(header.kind)
    place = header.index, header.timestamp, header.width, header.height
    return HEADER.pack(MAGIC, VERSION, kind, 0, *place, len(payload)) + payload


def unpack_frame(message: bytes) -> tuple[FrameHeader, memoryview]:
    """Header and payload of a binary message; the picture itself is not looked at.

    Raises ProtocolError: unknown_version, bad_frame or wrong_length.
    """
    if len(message) < HEADER.size:
        raise ProtocolError(
            "bad_frame",
            f"a frame begins with a header of {HEADER.size} bytes, this message has {len(message)}",
        )
    magic, version, kind, flags, index, timestamp, width, height, length = HEADER.unpack_from(
        message
    )
    if magic != MAGIC:
        raise ProtocolError("bad_frame", f"a frame begins with {MAGIC!r}, this one with {magic!r}")
    check_version(version)
    if kind >= len(KINDS):
        raise ProtocolError("bad_frame", f"kinds are 0 to {len(KINDS) - 1}, got {kind}")
    if flags:
        raise ProtocolError("bad_frame", f"flags are 0 in version {VERSION}, got {flags:#x}")
    if index > LAST_INDEX or not math.isfinite(timestamp) or not (width and height):
        raise ProtocolError(
            "bad_frame",
            f"an index is below 2^53, a time finite, a picture not empty; got {index}, "
            f"{timestamp}, {width}x{height}",
        )
    payload = memoryview(message)[HEADER.size :]
    if len(payload) != length:
        raise ProtocolError(
            "wrong_length", f"frame {index}: {length} bytes announced, {len(payload)} came"
        )
    return FrameHeader(KINDS[kind], index, timestamp, width, height), payload


def check_version(version: object) -> None:
    """Raise ProtocolError for any version but ours."""
    if version != VERSION or isinstance(version, bool):
        raise ProtocolError(
            "unknown_version", f"this server speaks version {VERSION} only, got {version!r}"
        )


# ---- JSON messages


@dataclass(frozen=True, slots=True)
class Hello:
    """A client's first message. stream, key: of a stream that is there already. window: frames of a
    source that may be on their way; with 1 none is dropped, more hide the time that a line takes.
    frames: whether translated ones are wanted, the newest whenever one can be taken, or ALL, one
    after the other; None: the newest, unless it is a controller.
    """

    role: Role
    stream: str | None = None
    key: str | None = None
    window: int = 1
    frames: bool | Literal["all"] | None = None

    @property
    def wants_frames(self) -> bool:
        """Whether translated frames are to be sent."""
        return self.role != "controller" if self.frames is None else bool(self.frames)

    @property
    def wants_all(self) -> bool:
        """Whether none of them may be left out."""
        return self.frames == ALL


@dataclass(frozen=True, slots=True)
class Configure:
    """What a new stream begins with."""

    settings: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Control:
    """Changes to a running stream. request: comes back in the answer."""

    changes: Mapping[str, Value]
    request: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """A source has sent its last frame."""


def to_text(kind: str, **fields: object) -> str:
    """A JSON message of a type."""
    return json.dumps({"type": kind, **fields}, allow_nan=False)


def read_text(text: str) -> Hello | Configure | Control | End:
    """What a client's JSON message says. Raises ProtocolError: bad_message, unknown_version."""
    message = _object(text)
    kind = message.get("type")
    if kind == "hello":
        return _hello(message)
    if kind == "configure":
        return Configure(read_settings(message.get("settings")))
    if kind == "control":
        request = message.get("request")
        number = None if request is None else _whole("request", request)
        return Control(read_settings(message.get("changes")), number)
    if kind == "end":
        return End()
    _refuse(f"type is hello, configure, control or end, got {_short(kind)}")


def read_settings(value: object) -> Mapping[str, Value]:
    """Names with plain values, as configure and control carry them. Raises ProtocolError."""
    if not isinstance(value, dict) or len(value) > MOST_SETTINGS:
        _refuse(f"expected an object of at most {MOST_SETTINGS} settings, got {_short(value)}")
    for name, setting in value.items():
        if len(name) > NAME_CHARACTERS:
            _refuse(f"a setting's name has at most {NAME_CHARACTERS} characters: {_short(name)}")
        if not isinstance(setting, str | int | float | None):
            _refuse(f"{name} is a text, number, true, false or null, not {_short(setting)}")
    return value


def _object(text: str) -> dict[str, Any]:
    if len(text) > TEXT_CHARACTERS:
        _refuse(f"a text message has at most {TEXT_CHARACTERS} characters, got {len(text)}")
    try:
        message = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("bad_message", f"a text message is JSON: {error}") from error
    if not isinstance(message, dict):
        _refuse(f"a text message is a JSON object, got {_short(message)}")
    return message


def _hello(message: Mapping[str, object]) -> Hello:
    check_version(message.get("version"))
    role, stream, key = (message.get(name) for name in ("role", "stream", "key"))
    if role not in ROLES:
        _refuse(f"role is {', '.join(ROLES[:-1])} or {ROLES[-1]}, got {_short(role)}")
    if not isinstance(stream, str | None) or not isinstance(key, str | None):
        _refuse("stream and key are texts, or left out")
    window = _whole("window", message.get("window", 1))
    if not 1 <= window <= MOST_WINDOW:
        _refuse(f"window is 1 to {MOST_WINDOW}, got {window}")
    frames = message.get("frames")
    if frames == ALL:
        return Hello(role, stream, key, window, ALL)
    if not isinstance(frames, bool | None):
        _refuse(f"frames is true, false or {ALL!r}, got {_short(frames)}")
    return Hello(role, stream, key, window, frames)


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse(f"{name} is a whole number, got {_short(value)}")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _short(value: object) -> str:
    return f"{value!r:.60}"


def _refuse(message: str) -> NoReturn:
    raise ProtocolError("bad_message", message)
