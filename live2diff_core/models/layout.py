"""In which order weights lie in memory."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


def lay_out(networks: Iterable[object], device: torch.device) -> None:
    """Order the convolutions' weights as a device's kernels want them; values stay.

    On CUDA devices that is channels last: with channels first, every convolution in 16 bits turns
    its input and its output around. What is no network is left alone.
    """
    if device.type == "cuda":
        for network in networks:
            if isinstance(network, nn.Module):
                move: Callable[..., nn.Module] = nn.Module.to  # typed without memory formats
                move(network, memory_format=torch.channels_last)
