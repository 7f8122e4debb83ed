"""The wire: what is packed is unpacked, and nothing that comes in raises anything but its code."""

import json
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.live.protocol import (
    CLOSES,
    HEADER,
    KINDS,
    LAST_INDEX,
    ROLES,
    Configure,
    Control,
    End,
    FrameHeader,
    Hello,
    ProtocolError,
    pack_frame,
    read_text,
    to_text,
    unpack_frame,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"

headers = st.builds(
    FrameHeader,
    kind=st.sampled_from(KINDS),
    index=st.integers(0, LAST_INDEX),
    timestamp=st.floats(allow_nan=False, allow_infinity=False),
    width=st.integers(1, 65535),
    height=st.integers(1, 65535),
)


def code_of(message: bytes | str) -> str:
    with pytest.raises(ProtocolError) as caught:
        unpack_frame(message) if isinstance(message, bytes) else read_text(message)
    return caught.value.code


@given(headers, st.binary(max_size=50))
def test_a_frame_comes_back_as_it_was(header: FrameHeader, payload: bytes) -> None:
    back, data = unpack_frame(pack_frame(header, payload))
    assert (back, bytes(data)) == (header, payload)


def test_the_bytes_of_a_frame_are_those_of_the_document() -> None:
    message = pack_frame(FrameHeader("webp", 0x0102, 1.5, 640, 480), b"abc")
    assert message == bytes.fromhex(
        "4c324446"  # L2DF
        "01"  # version
        "01"  # WebP
        "0000"  # flags
        "0201000000000000"
        "000000000000f83f"  # 1.5
        "8002"
        "e001"
        "03000000"
        "616263"
    )


FRAME = pack_frame(FrameHeader("jpeg", 3, 0.5, 8, 6), b"1234")


def patched(place: int, data: bytes) -> bytes:
    return FRAME[:place] + data + FRAME[place + len(data) :]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "bad_frame"),
        (FRAME[: HEADER.size - 1], "bad_frame"),
        (patched(0, b"GIF8"), "bad_frame"),
        (patched(4, b"\2"), "unknown_version"),
        (patched(5, b"\3"), "bad_frame"),
        (patched(6, b"\1"), "bad_frame"),
        (patched(8, b"\xff" * 8), "bad_frame"),
        (patched(16, struct.pack("<d", float("nan"))), "bad_frame"),
        (patched(24, b"\0\0"), "bad_frame"),
        (patched(26, b"\0\0"), "bad_frame"),
        (FRAME[:-1], "wrong_length"),
        (FRAME + b"5", "wrong_length"),
        (patched(28, b"\xff" * 4), "wrong_length"),
    ],
)
def test_what_is_no_frame_is_told_by_a_code(message: bytes, code: str) -> None:
    assert code_of(message) == code


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: FRAME[:6] + tail))
def test_no_bytes_raise_anything_else(message: bytes) -> None:
    try:
        header, payload = unpack_frame(message)
    except ProtocolError:
        return
    assert pack_frame(header, bytes(payload)) == message


def test_the_messages_of_a_client_are_read() -> None:
    hello = {"type": "hello", "version": 1, "role": "controller", "stream": "s", "key": "k"}
    assert read_text(json.dumps(hello)) == Hello("controller", "s", "k")
    assert read_text('{"type": "hello", "version": 1, "role": "source"}') == Hello("source")
    assert read_text('{"type": "configure", "settings": {"seed": 1}}') == Configure({"seed": 1})
    assert read_text('{"type": "control", "changes": {"prompt": "ink"}, "request": 7}') == Control(
        {"prompt": "ink"}, 7
    )
    assert read_text('{"type": "control", "changes": {}, "new": 1}') == Control({})
    assert read_text('{"type": "end"}') == End()
    feeding = {"type": "hello", "version": 1, "role": "source", "window": 16}
    assert read_text(json.dumps(feeding)) == Hello("source", window=16)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("asked", [None, True, False, "all"])
def test_frames_are_for_who_asks_and_by_default_for_all_but_controllers(
    role: str, asked: bool | None
) -> None:
    message = {"type": "hello", "version": 1, "role": role, "frames": asked}
    hello = read_text(json.dumps(message))
    assert hello == Hello(role, frames=asked)
    assert hello.wants_frames is (role != "controller" if asked is None else bool(asked))
    assert hello.wants_all is (asked == "all")
    del message["frames"]
    assert read_text(json.dumps(message)) == Hello(role)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_message"),
        ("garbage", "bad_message"),
        ("[]", "bad_message"),
        ('"hello"', "bad_message"),
        ("[" * 60_000, "bad_message"),
        ('{"a":' * 10_000, "bad_message"),
        ("1" * 60_000, "bad_message"),
        ('{"type": "control", "changes": {"strength": NaN}}', "bad_message"),
        (" " * 70_000, "bad_message"),
        ("{}", "bad_message"),
        ('{"type": ["hello"]}', "bad_message"),
        ('{"type": "hello", "role": "source"}', "unknown_version"),
        ('{"type": "hello", "version": 2, "role": "source"}', "unknown_version"),
        ('{"type": "hello", "version": true, "role": "source"}', "unknown_version"),
        ('{"type": "hello", "version": 1}', "bad_message"),
        ('{"type": "hello", "version": 1, "role": ["source"]}', "bad_message"),
        ('{"type": "hello", "version": 1, "role": "viewer", "stream": 1}', "bad_message"),
        ('{"type": "hello", "version": 1, "role": "viewer", "key": {}}', "bad_message"),
        ('{"type": "hello", "version": 1, "role": "source", "window": 0}', "bad_message"),
        ('{"type": "hello", "version": 1, "role": "source", "window": 17}', "bad_message"),
        ('{"type": "hello", "version": 1, "role": "source", "window": true}', "bad_message"),
        ('{"type": "hello", "version": 1, "role": "viewer", "frames": 1}', "bad_message"),
        ('{"type": "hello", "version": 1, "role": "viewer", "frames": "yes"}', "bad_message"),
        ('{"type": "hello", "version": 1, "role": "viewer", "frames": []}', "bad_message"),
        ('{"type": "configure"}', "bad_message"),
        ('{"type": "configure", "settings": {"a": []}}', "bad_message"),
        ('{"type": "control", "changes": 1}', "bad_message"),
        ('{"type": "control", "changes": {}, "request": "x"}', "bad_message"),
        (f'{{"type": "control", "changes": {{"{"n" * 65}": 1}}}}', "bad_message"),
        (json.dumps({"type": "control", "changes": {str(i): i for i in range(65)}}), "bad_message"),
    ],
)
def test_what_is_no_message_is_told_by_a_code(text: str, code: str) -> None:
    assert code_of(text) == code


@given(st.text(max_size=60) | st.recursive(st.none() | st.integers(), st.lists).map(json.dumps))
def test_no_text_raises_anything_else(text: str) -> None:
    assert code_of(text) in ("bad_message", "unknown_version")


def test_a_message_says_little_of_what_came() -> None:
    with pytest.raises(ProtocolError) as caught:
        read_text(json.dumps({"type": "x" * 10_000}))
    assert len(str(caught.value)) < 200


def test_an_error_is_a_message() -> None:
    error = ProtocolError("forbidden", "no")
    assert json.loads(error.text()) == {"type": "error", "code": "forbidden", "message": "no"}
    assert error.closes == 4004


def test_nothing_that_is_no_number_is_sent() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_text("statistics", fps=float("nan"))


def test_the_document_has_every_code_and_what_follows_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (kept|closed, (\d+)) \|$", DOCUMENT.read_text(), re.M)
    assert {code: int(number) if number else None for code, _, number in rows} == dict(CLOSES)
