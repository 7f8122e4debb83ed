"""Pictures that show translations: labelled rows, grids."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SinkError
from ..frames import to_bytes

Image = NDArray[np.uint8]
BAND = 20  # height of a label in pixels
WHITE, GREY = (255, 255, 255), (32, 32, 32)


def labelled(rgb: Tensor, text: str) -> Tensor:
    """A picture (3, h, w) with its label on a band above it: (3, h + BAND, w) uint8."""
    picture: Image = to_bytes(rgb).permute(1, 2, 0).contiguous().numpy()
    band = np.full((BAND, picture.shape[1], 3), GREY, np.uint8)
    cv2.putText(band, text, (5, BAND - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, WHITE, 1, cv2.LINE_AA)
    return torch.from_numpy(np.concatenate([band, picture])).permute(2, 0, 1)


def grid(pictures: Mapping[str, Tensor], columns: int) -> Tensor:
    """Labelled pictures of one size in rows of `columns`: (3, h, w) uint8."""
    cells = [labelled(rgb, text) for text, rgb in pictures.items()]
    blank = torch.full_like(cells[0], GREY[0])
    cells += [blank] * (-len(cells) % columns)
    rows = [torch.cat(cells[i : i + columns], 2) for i in range(0, len(cells), columns)]
    return torch.cat(rows, 1)


def sheet(rows: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """One labelled row of pictures a name, columns of one width: (3, h, w) uint8."""
    bands = []
    for text, pictures in rows.items():
        strips = [labelled(rgb, text if i == 0 else "") for i, rgb in enumerate(pictures)]
        height = max(strip.shape[1] for strip in strips)
        bands.append(torch.cat([_padded(strip, height) for strip in strips], 2))
    return torch.cat(bands, 1)


def save_png(path: Path, rgb: Tensor) -> None:
    """Write (3, h, w) uint8. Raises SinkError."""
    bgr = cv2.cvtColor(rgb.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2BGR)
    try:
        path.write_bytes(cv2.imencode(".png", bgr)[1].tobytes())
    except OSError as error:
        raise SinkError(f"the picture {path} cannot be written: {error}") from error


def _padded(strip: Tensor, height: int) -> Tensor:
    return torch.nn.functional.pad(strip, (0, 0, 0, height - strip.shape[1]), value=GREY[0])
