"""Between pixels and what the network takes, run as a stream's runtime says."""

from torch import Tensor

from ..config import StreamConfig
from ..models.depth import DepthRange
from ..models.translator import TranslationModel
from .runtime import make_call


class Codec:
    """One stream's autoencoder and depth. Variants of a model share it, and so do updates."""

    def __init__(self, model: TranslationModel, config: StreamConfig) -> None:
        self._model = model.origin or model
        self._range = DepthRange(config.depth_range, device=model.device)
        latents = (model.autoencoder,)
        depth = (model.depth, model.autoencoder, model.unet.depth_mapping)
        self._encode = make_call(config.runtime, TranslationModel.encode, latents)
        self._features = make_call(config.runtime, _depth_features, depth)
        self._decode = make_call(config.runtime, TranslationModel.decode, latents)

    def encode(self, rgb: Tensor) -> Tensor:
        """Latents of pixels, as `TranslationModel.encode`."""
        return self._encode(self._model, rgb)

    def depth_features(self, rgb: Tensor) -> Tensor:
        """Depth prior of the stream's next frame, as `TranslationModel.depth_features`."""
        return self._features(self._model, self._range, rgb)

    def decode(self, latent: Tensor) -> Tensor:
        """Pixels of latents, as `TranslationModel.decode`."""
        return self._decode(self._model, latent)


def _depth_features(model: TranslationModel, depth_range: DepthRange, rgb: Tensor) -> Tensor:
    return model.depth_features(rgb, depth_range)
