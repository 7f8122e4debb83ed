"""Variants of a model for evaluation."""

from dataclasses import replace

from torch import Tensor

from ..cache import TemporalState
from ..models.cross_attention import TextKeys
from ..models.translator import TranslationModel
from ..models.unet import StreamingUNet


class FrameByFrame(StreamingUNet):
    """A streaming UNet with its temporal layers left out; shares the weights of the whole one."""

    def __init__(self, whole: StreamingUNet) -> None:
        super(StreamingUNet, self).__init__()
        self.spatial, self.motion = whole.spatial, whole.motion
        self.temporal_down, self.temporal_up = whole.temporal_down, whole.temporal_up
        self.depth_mapping = whole.depth_mapping

    def walk(
        self, x: Tensor, emb: Tensor, text: TextKeys, depth: Tensor, state: TemporalState | None
    ) -> Tensor:
        """As the whole network without its temporal layers, whatever the state."""
        del state
        return super().walk(x, emb, text, depth, None)


def without_temporal_layers(model: TranslationModel) -> TranslationModel:
    """The same weights, every frame on its own."""
    return replace(model, unet=FrameByFrame(model.unet).eval())
