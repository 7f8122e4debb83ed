"""Activations that are computed again for the gradients, in place of being kept."""

from collections.abc import Callable
from functools import partial
from typing import Any

from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..models.temporal import TemporalTransformer

LAYERS = (ResnetBlock2D, Transformer2DModel, TemporalTransformer)


def recompute(network: nn.Module) -> None:
    """Keep only what enters each layer of a network; results and gradients stay the same.

    Costs one more forward pass (Chen et al., arXiv 1604.06174).
    """
    for module in network.modules():
        if isinstance(module, LAYERS):
            forward: Callable[..., Any] = module.forward
            again = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
            module.forward = again  # type: ignore[method-assign]
