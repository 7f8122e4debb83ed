"""Pictures to bytes and back, and bytes that are none."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from live2diff_core.errors import ConfigError
from live2diff_core.live.picture import decode_picture, encode_picture
from live2diff_core.live.protocol import KINDS, FrameHeader, Kind, ProtocolError

WIDTH, HEIGHT = 40, 24


def picture(width: int = WIDTH, height: int = HEIGHT) -> Tensor:
    """Smooth, and different in every channel and direction."""
    across = torch.linspace(0, 255, width).expand(height, width)
    down = torch.linspace(255, 0, height)[:, None].expand(height, width)
    return torch.stack([across, down, (across + down) / 4]).round().to(torch.uint8)


def header(kind: Kind, width: int = WIDTH, height: int = HEIGHT) -> FrameHeader:
    return FrameHeader(kind, 0, 0.0, width, height)


def decoded(data: bytes, given_header: FrameHeader, most: int = 10_000) -> Tensor:
    return decode_picture(given_header, memoryview(data), most)


def code_of(data: bytes, given_header: FrameHeader, most: int = 10_000) -> str:
    with pytest.raises(ProtocolError) as caught:
        decoded(data, given_header, most)
    return caught.value.code


def saved(form: str, size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB", **more) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, form, **more)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and has next to nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + end


@pytest.mark.parametrize(("kind", "error"), [("jpeg", 4.0), ("webp", 4.0), ("raw", 0.0)])
def test_a_picture_comes_back(kind: Kind, error: float) -> None:
    given_picture = picture()
    back = decoded(encode_picture(given_picture, kind, 95), header(kind))
    assert back.dtype == torch.uint8
    assert back.is_contiguous()
    assert back.shape == given_picture.shape
    assert (back.float() - given_picture.float()).abs().mean() <= error


def test_what_the_session_gives_is_rounded() -> None:
    rgb = picture()
    assert encode_picture(rgb / 255, "raw") == encode_picture(rgb, "raw")


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_quality_costs_bytes(kind: Kind) -> None:
    noise = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0))
    sizes = [len(encode_picture(noise.to(torch.uint8), kind, quality)) for quality in (20, 60, 95)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_beyond_the_scale_is_refused(quality: int) -> None:
    with pytest.raises(ConfigError, match="1 to 100"):
        encode_picture(picture(), "jpeg", quality)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_of_other_colours_becomes_rgb(mode: str) -> None:
    assert decoded(saved("JPEG", mode=mode), header("jpeg")).shape == (3, HEIGHT, WIDTH)


def test_transparency_is_dropped() -> None:
    assert decoded(saved("WEBP", mode="RGBA"), header("webp")).shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
@pytest.mark.parametrize("data", [png_header(20_000, 20_000), png_header(8, 8), b"", b"\0" * 99])
def test_what_is_no_picture_of_its_kind_is_not_decoded(kind: Kind, data: bytes) -> None:
    assert code_of(data, header(kind)) == "bad_picture"


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_beyond_the_limit_is_refused_without_a_look_at_the_picture(kind: Kind) -> None:
    assert code_of(b"", header(kind, 20_000, 20_000), 4096 * 4096) == "too_large"


@pytest.mark.parametrize(("form", "kind"), [("JPEG", "jpeg"), ("WEBP", "webp")])
def test_a_picture_larger_than_its_header_is_not_decoded(
    form: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(form, (101, 101))
    monkeypatch.setattr(Image.Image, "convert", None)
    assert code_of(data, header(kind), 10_000) == "too_large"
    assert code_of(data, header(kind), 20_000) == "bad_picture"


def giant_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose frame header announces another size."""
    data = bytearray(saved("JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("side", [5000, 10_000, 60_000])
def test_a_bomb_is_told_from_its_first_bytes(side: int) -> None:
    assert code_of(giant_jpeg(side, side), header("jpeg")) in ("too_large", "bad_picture")


@pytest.mark.parametrize("length", [0, WIDTH * HEIGHT * 3 - 1, WIDTH * HEIGHT * 3 + 1])
def test_raw_pixels_are_counted(length: int) -> None:
    assert code_of(b"\0" * length, header("raw")) == "wrong_length"


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_half_a_picture_is_refused(kind: Kind) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)
    data = encode_picture(torch.from_numpy(noise), kind)
    assert code_of(data[: len(data) // 2], header(kind)) == "bad_picture"


WHOLE = {kind: encode_picture(picture(), kind) for kind in ("jpeg", "webp")}


@given(st.sampled_from(["jpeg", "webp"]), st.data())
def test_damage_raises_nothing_else(kind: Kind, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        back = decoded(bytes(damaged), header(kind))
    except ProtocolError as error:
        assert error.code in ("bad_picture", "too_large")
    else:
        assert back.shape == (3, HEIGHT, WIDTH)
