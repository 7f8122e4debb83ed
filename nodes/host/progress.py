"""The bar of the node that runs, its preview, and the user's interrupt."""

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...live2diff_core.frames import to_bytes, to_unit_range
from .modules import inside

PREVIEW_SIDE = 384  # pixels
PREVIEW_SECONDS = 1 / 30  # between two previews: ComfyUI keeps all that a slow page has not taken


class Progress:
    """The bar and the preview of the node that is running. Each step raises ComfyUI's interrupt."""

    def __init__(self, total: int, node_id: str | None) -> None:
        self.total, self.done = max(total, 1), 0
        self._shown = -PREVIEW_SECONDS
        self._bar: Any = None
        if inside():
            from comfy.utils import ProgressBar

            self._bar = ProgressBar(self.total, node_id)

    def step(self, rgb: Tensor | None = None, count: int = 1) -> None:
        """Count what is done. rgb: (3, h, w), as a `Frame` has it, shown as the preview."""
        check_interrupt()
        self.done += count
        self.total = max(self.total, self.done)
        if self._bar is not None:
            self._bar.update_absolute(self.done, self.total, self._preview(rgb))

    def _preview(self, rgb: Tensor | None) -> tuple[str, Any, int] | None:
        if rgb is None or time.monotonic() - self._shown < PREVIEW_SECONDS:
            return None
        from PIL import Image

        self._shown = time.monotonic()
        scale = PREVIEW_SIDE / max(rgb.shape[1:])
        if scale < 1:
            unit = to_unit_range(rgb, rgb.device, torch.float32)
            rgb = functional.interpolate(unit[None], scale_factor=scale, mode="area")[0]
        picture = Image.fromarray(to_bytes(rgb).permute(1, 2, 0).cpu().numpy())
        return "JPEG", picture, max(picture.size)  # as it is: ComfyUI would enlarge it


def check_interrupt() -> None:
    """Raise ComfyUI's interrupt if the user asked for it."""
    if inside():
        from comfy import model_management

        model_management.throw_exception_if_processing_interrupted()
