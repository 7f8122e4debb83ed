"""Pictures of a stream as bytes of a message, and back: JPEG, WebP and raw RGB.

A picture's size is read before it is decoded, so that a small message cannot fill the memory.
"""

import io
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import ConfigError
from ..frames import to_bytes
from .protocol import FrameHeader, Kind, ProtocolError

PICTURE_PIXELS = 4096 * 4096
FORMATS: dict[Kind, str] = {"jpeg": "JPEG", "webp": "WEBP"}
# Damaged files raise all of these from Pillow; the warning is one where warnings are errors.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def encode_picture(rgb: Tensor, kind: Kind, quality: int = 85) -> bytes:
    """A picture as bytes. rgb: (3, h, w), uint8 or in [0, 1]; quality: 1 to 100, raw has none.

    Raises ConfigError for another quality.
    """
    if not 1 <= quality <= 100:
        raise ConfigError(f"the quality of pictures is 1 to 100, got {quality}")
    pixels = to_bytes(rgb).permute(1, 2, 0).contiguous().cpu().numpy()  # (h, w, 3)
    return _ENCODERS[kind](pixels, quality)


def decode_picture(
    header: FrameHeader, payload: memoryview, most_pixels: int = PICTURE_PIXELS
) -> Tensor:
    """Pixels of a frame that came: (3, h, w) uint8. An orientation in EXIF is not applied.

    Raises ProtocolError: too_large, wrong_length (raw) or bad_picture.
    """
    _check_size(header, header.width, header.height, most_pixels)
    pixels = _raw(header, payload) if header.kind == "raw" else _read(header, payload, most_pixels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


# OpenCV's JPEG is a fifth faster than Pillow's and leaves other threads running; Pillow's WebP can
# be told to hurry, which makes it three times faster than OpenCV's.


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def _webp(pixels: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=0)
    return buffer.getvalue()


def _bytes(pixels: NDArray[np.uint8], _: int) -> bytes:
    return pixels.tobytes()


_ENCODERS: dict[Kind, Callable[[NDArray[np.uint8], int], bytes]] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "raw": _bytes,
}


def _raw(header: FrameHeader, payload: memoryview) -> NDArray[np.uint8]:
    expected = header.width * header.height * 3
    if len(payload) != expected:
        raise ProtocolError(
            "wrong_length",
            f"frame {header.index}: {header.width}x{header.height} raw pixels are {expected} "
            f"bytes, got {len(payload)}",
        )
    return np.frombuffer(payload, np.uint8).reshape(header.height, header.width, 3)


def _read(header: FrameHeader, payload: memoryview, most_pixels: int) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(payload), formats=[FORMATS[header.kind]]) as picture:
            _check_size(header, *picture.size, most_pixels)
            if picture.size != (header.width, header.height):
                raise ProtocolError(
                    "bad_picture",
                    f"frame {header.index}: the header says {header.width}x{header.height}, the "
                    f"picture {picture.width}x{picture.height}",
                )
            return np.array(picture.convert("RGB"))
    except DAMAGE as error:
        raise ProtocolError(
            "bad_picture",
            f"frame {header.index}: {len(payload)} bytes are no {header.kind} picture that can be "
            f"read ({error})",
        ) from error


def _check_size(header: FrameHeader, width: int, height: int, most_pixels: int) -> None:
    if width * height > most_pixels:
        raise ProtocolError(
            "too_large",
            f"frame {header.index}: {width}x{height} are more than {most_pixels} pixels: send a "
            "smaller picture",
        )
