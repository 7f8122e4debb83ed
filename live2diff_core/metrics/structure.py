"""Depth MSE: how far the output keeps the structure of its input."""

import torch
from torch import Tensor
from torch.nn import functional

from ..models.depth import DepthEstimator, DepthRange
from .figures import Figures, Mean

NO_FRAMES = "no frames"
SIDE = 256  # pixels


class DepthMaps:
    """Depth maps of frames in [-1, 1].

    The structure map is made of frames whose shorter side is 256 pixels at most, the size that the
    bundled model was made for. A map in a range of its own (MiDaS, Depth Anything) is brought to
    [-1, 1] by its own minimum and maximum: estimated depth has neither a scale nor an offset.
    """

    def __init__(
        self, estimator: DepthEstimator, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        """device, dtype: of the estimator's weights."""
        self._estimator, self._device, self._dtype = estimator, device, dtype

    @torch.inference_mode()
    def __call__(self, rgb: Tensor) -> Tensor:
        """rgb: (1, 3, h, w) in [0, 1] -> a map (1, 1, h', w') float32 on the CPU."""
        rgb = rgb.to(self._device, self._dtype).clamp(0, 1)
        if not self._estimator.relative:
            return self._estimator(_at_most(rgb, SIDE)).float().cpu()
        depth = self._estimator(rgb)
        return DepthRange("frame", device=self._device).normalise(depth).float().cpu()


class DepthMeter:
    """Mean squared difference between the depth maps of input and output, both in [-1, 1].

    0 to 4, the mean over pixels and frames. Xing et al., "Live2Diff" (arXiv 2407.08701), take MiDaS
    for it; the range of their maps is not said.
    """

    def __init__(self) -> None:
        self._error = Mean()

    def update(self, source: Tensor, output: Tensor) -> None:
        """Add the maps of the next frame, of one size."""
        self._error.add(float((source - output).square().mean()))

    def figures(self) -> Figures:
        """The mean so far."""
        return {"depth_mse": self._error.value(NO_FRAMES)}


def _at_most(rgb: Tensor, side: int) -> Tensor:
    height, width = rgb.shape[-2:]
    scale = side / min(height, width)
    if scale >= 1:
        return rgb
    size = [round(height * scale), round(width * scale)]
    return functional.interpolate(rgb, size, mode="bilinear", antialias=True, align_corners=False)
