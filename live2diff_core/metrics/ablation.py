"""Variants of a model for evaluation: what a part does is seen where it is missing."""

from dataclasses import replace

from torch import Tensor

from ..cache import RingStep, TemporalState, Visibility
from ..models.cross_attention import TextKeys
from ..models.depth import DepthEstimator
from ..models.translator import TranslationModel
from ..models.unet import StreamingUNet


class _Variant(StreamingUNet):
    """A streaming UNet that shares the weights of the whole one."""

    def __init__(self, whole: StreamingUNet) -> None:
        super(StreamingUNet, self).__init__()
        self.spatial, self.motion = whole.spatial, whole.motion
        self.temporal_down, self.temporal_up = whole.temporal_down, whole.temporal_up
        self.depth_mapping = whole.depth_mapping


class FrameByFrame(_Variant):
    """A streaming UNet with its temporal layers left out."""

    def walk(
        self, x: Tensor, emb: Tensor, text: TextKeys, depth: Tensor, state: TemporalState | None
    ) -> Tensor:
        """As the whole network without its temporal layers, whatever the state."""
        del state
        return super().walk(x, emb, text, depth, None)


class WithoutSinks(_Variant):
    """A streaming UNet whose streamed frames see the ring alone, not the warm-up frames."""

    def walk(
        self, x: Tensor, emb: Tensor, text: TextKeys, depth: Tensor, state: TemporalState | None
    ) -> Tensor:
        """As the whole network. The warm-up itself, and rows without a frame, stay as they are."""
        if isinstance(state, RingStep):
            view = state.visibility
            seen = view.visible.clone()
            streamed = state.age >= 0
            seen[..., : state.window.sinks] &= ~streamed[:, None, None]
            state.visibility = Visibility(view.keys, view.queries, seen)
            state.kernel = None  # kernels go by the age alone
        return super().walk(x, emb, text, depth, state)


class _Flat:
    """A depth map that says nothing."""

    relative = False

    def __call__(self, rgb: Tensor) -> Tensor:
        """rgb: (n, 3, h, w) -> zeros (n, 1, h, w)."""
        return rgb.new_zeros(len(rgb), 1, *rgb.shape[-2:])


class _Ranged:
    """A depth map that is brought to [-1, 1] by its extremes, as those of depth networks are."""

    relative = True

    def __init__(self, depth: DepthEstimator) -> None:
        self._depth = depth

    def __call__(self, rgb: Tensor) -> Tensor:
        """As the map itself."""
        return self._depth(rgb)


def without_temporal_layers(model: TranslationModel) -> TranslationModel:
    """The same weights, every frame on its own."""
    return replace(model, unet=FrameByFrame(model.unet).eval())


def without_sinks(model: TranslationModel) -> TranslationModel:
    """The same weights; a frame sees the last frames alone."""
    return replace(model, unet=WithoutSinks(model.unet).eval())


def without_depth(model: TranslationModel) -> TranslationModel:
    """The same weights; the depth input is the same for every frame and says nothing."""
    return replace(model, depth=_Flat())


def with_ranged_depth(model: TranslationModel) -> TranslationModel:
    """The same weights; the depth map's range follows the stream, or is each frame's own."""
    return replace(model, depth=_Ranged(model.depth))
