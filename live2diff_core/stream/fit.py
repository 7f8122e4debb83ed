"""Frames of any size to the size of a session."""

from torch import Tensor
from torch.nn import functional

from ..config import Fit
from ..errors import FrameSizeError


def fit_frame(rgb: Tensor, width: int, height: int, fit: Fit) -> Tensor:
    """Bring (3, h, w) in [0, 1] to (3, height, width).

    fit "stretch" ignores the aspect ratio, "crop" keeps it and cuts the longer side evenly,
    "refuse" raises FrameSizeError.
    """
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        raise FrameSizeError(f"a frame is (3, height, width), got {tuple(rgb.shape)}")
    if rgb.shape[1:] == (height, width):
        return rgb
    if fit == "refuse":
        raise FrameSizeError(
            f"this session takes {width}x{height} frames, got {rgb.shape[2]}x{rgb.shape[1]}; "
            "resize them or open the session with fit 'crop' or 'stretch'"
        )
    if fit == "crop":
        rgb = _crop_to_aspect(rgb, width / height)
    resized = functional.interpolate(
        rgb[None], (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0]


def _crop_to_aspect(rgb: Tensor, aspect: float) -> Tensor:
    height, width = rgb.shape[1:]
    wanted_width = min(width, max(1, round(height * aspect)))
    wanted_height = min(height, max(1, round(width / aspect)))
    left, top = (width - wanted_width) // 2, (height - wanted_height) // 2
    return rgb[:, top : top + wanted_height, left : left + wanted_width]
