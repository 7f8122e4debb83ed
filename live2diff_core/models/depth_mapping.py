"""Maps the depth latent into the UNet's first feature map (Live2Diff, sec. 3.4)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

LIVE2DIFF_WIDTHS = (16, 16, 32, 32, 96, 96, 256)


class DepthMapping(nn.Module):
    """3x3 convolutions with SiLU between; the result is added to the UNet's `conv_in`."""

    def __init__(
        self, latent_channels: int, out_channels: int, widths: Sequence[int] = LIVE2DIFF_WIDTHS
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, depth: Tensor) -> Tensor:
        """depth: (n, latent channels, h, w) -> (n, out channels, h, w)."""
        x = functional.silu(self.conv_in(depth))
        for block in self.blocks:
            x = functional.silu(block(x))
        return self.conv_out(x)
