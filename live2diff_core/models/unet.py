"""The streaming UNet: a plain diffusers UNet, temporal layers and depth mapping, walked by one
forward.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ..cache import LayerShape, TemporalState
from ..config import TemporalConfig
from .adapters import with_child
from .cross_attention import TextAttention, TextKeys, cross_attentions, project_text
from .depth_mapping import LIVE2DIFF_WIDTHS, DepthMapping
from .temporal import TemporalAttention, TemporalTransformer


@dataclass(frozen=True, slots=True)
class MotionConfig:
    """What stands beside the spatial UNet; the defaults are Live2Diff's."""

    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    depth_widths: tuple[int, ...] = LIVE2DIFF_WIDTHS


class StreamingUNet(nn.Module):
    """Spatial UNet with a temporal transformer after every layer of its down and up blocks.

    The spatial UNet stays as diffusers made it, so that checkpoints and LoRAs for it load as usual.
    """

    def __init__(self, spatial: UNet2DConditionModel, motion: MotionConfig) -> None:
        super().__init__()
        self.spatial, self.motion = spatial, motion
        for number, attention in enumerate(cross_attentions(spatial)):
            attention.set_processor(TextAttention(number))
        layer = 0
        sides: list[nn.ModuleList] = []
        for blocks in (spatial.down_blocks, spatial.up_blocks):
            side = nn.ModuleList()
            for block in blocks:
                transformers = nn.ModuleList()
                for resnet in block.resnets:
                    transformers.append(
                        TemporalTransformer(resnet.out_channels, motion.temporal, layer)
                    )
                    layer += motion.temporal.attentions
                side.append(transformers)
            sides.append(side)
        self.temporal_down, self.temporal_up = sides
        self.depth_mapping = DepthMapping(
            spatial.config.in_channels, spatial.config.block_out_channels[0], motion.depth_widths
        )

    def with_spatial(self, spatial: UNet2DConditionModel) -> "StreamingUNet":
        """This network around another spatial UNet of the same shape; all else is shared."""
        return with_child(self, "spatial", spatial)

    @property
    def size_multiple(self) -> int:
        """Latent width and height must be multiples of this."""
        return int(2 ** (len(self.spatial.config.block_out_channels) - 1))

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Tensor,
        depth: Tensor,
        state: TemporalState | None,
    ) -> Tensor:
        """One network evaluation; rows are the batch.

        x: (n, latent channels, h, w). timestep: (n,) int64. text: (n, tokens, dim). depth: (n, c0,
        h, w) from `depth_mapping`. state: the temporal attention's keys and values, None leaves the
        temporal layers out. Returns (n, latent channels, h, w).
        """
        return self.walk(x, self.embed(timestep, text), self.text_keys(text), depth, state)

    def embed(self, timestep: Tensor, text: Tensor) -> Tensor:
        """What tells rows their timestep, and in some networks a summary of the text: (n, c)."""
        unet = self.spatial
        emb: Tensor = unet.time_embedding(unet.get_time_embed(sample=text, timestep=timestep))
        pooled = unet.get_aug_embed(emb=emb, encoder_hidden_states=text, added_cond_kwargs={})
        return emb if pooled is None else emb + pooled

    def text_keys(self, text: Tensor) -> TextKeys:
        """Texts (texts, tokens, dim) as the cross-attentions see them."""
        return project_text(self.spatial, text)

    def walk(
        self, x: Tensor, emb: Tensor, text: TextKeys, depth: Tensor, state: TemporalState | None
    ) -> Tensor:
        """`forward` from what follows from timesteps and texts alone, emb: (n, c)."""
        unet = self.spatial
        x = unet.conv_in(x) + depth
        skips = [x]
        for block, transformers in self._down():
            for resnet, attention, transformer in _layers(block, transformers):
                x = _layer(resnet, attention, transformer, (x, emb, text), state)
                skips.append(x)
            for downsampler in block.downsamplers or ():
                x = downsampler(x)
                skips.append(x)
        x = unet.mid_block(x, emb, encoder_hidden_states=text)
        for block, transformers in self._up():
            for resnet, attention, transformer in _layers(block, transformers):
                x = torch.cat([x, skips.pop()], 1)
                x = _layer(resnet, attention, transformer, (x, emb, text), state)
            for upsampler in block.upsamplers or ():
                x = upsampler(x)
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))

    def _down(self) -> Iterator[tuple[Any, list[TemporalTransformer]]]:
        return _paired(self.spatial.down_blocks, self.temporal_down)

    def _up(self) -> Iterator[tuple[Any, list[TemporalTransformer]]]:
        return _paired(self.spatial.up_blocks, self.temporal_up)

    def transformers(self) -> Iterator[TemporalTransformer]:
        """All temporal transformers in the order of their layers."""
        for _, transformers in chain(self._down(), self._up()):
            yield from transformers

    def attentions(self) -> Iterator[TemporalAttention]:
        """All temporal attentions in the order of their layers."""
        for transformer in self.transformers():
            yield from cast(Iterable[TemporalAttention], transformer.attentions)

    def cache_shapes(self, height: int, width: int) -> list[LayerShape]:
        """Cache size of every temporal attention for a latent of height x width, in layer order."""
        shapes: list[LayerShape] = []
        for block, transformers in chain(self._down(), self._up()):
            for transformer in transformers:
                for _ in transformer.attentions:
                    shapes.append(LayerShape(height * width, transformer.heads, transformer.width))
            if getattr(block, "downsamplers", None):
                height, width = (height + 1) // 2, (width + 1) // 2
            if getattr(block, "upsamplers", None):
                height, width = height * 2, width * 2
        return shapes


def _paired(
    blocks: Iterable[object], side: nn.ModuleList
) -> Iterator[tuple[Any, list[TemporalTransformer]]]:
    for block, transformers in zip(blocks, side, strict=True):
        yield block, list(cast(Iterable[TemporalTransformer], transformers))


def _layers(
    block: nn.Module, transformers: list[TemporalTransformer]
) -> Iterator[tuple[nn.Module, nn.Module | None, TemporalTransformer]]:
    resnets = cast(Iterable[nn.Module], block.resnets)
    attentions = getattr(block, "attentions", [None] * len(transformers))
    return zip(resnets, attentions, transformers, strict=True)


def _layer(
    resnet: nn.Module,
    attention: nn.Module | None,
    transformer: TemporalTransformer,
    inputs: tuple[Tensor, Tensor, TextKeys],
    state: TemporalState | None,
) -> Tensor:
    x, emb, text = inputs
    x = resnet(x, emb)
    if attention is not None:
        x = attention(x, encoder_hidden_states=text, return_dict=False)[0]
    return x if state is None else transformer(x, state)
