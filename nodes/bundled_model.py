"""The node of the bundled model."""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from ..live2diff_core.models.text import TextEncoder
    from .hosted import HostedModel

PARAMETERS = 9_500_000  # about; ComfyUI chooses a precision by it


class Live2DiffBundledModel:
    """The small model that comes with the pack."""

    CATEGORY = "Live2Diff/model"
    SEARCH_ALIASES = (
        "bundled model",
        "style transfer",
        "cpu model",
        "quick start",
    )
    DESCRIPTION = (
        "The small model that comes with the pack: no download, runs on a CPU. It knows nine "
        "styles by name: ink, neon, comic, blueprint, chalk, thermal, popart, watercolor, "
        "nightvision."
    )
    RETURN_TYPES = ("LIVE2DIFF_MODEL", "CLIP")
    RETURN_NAMES = ("model", "clip")
    OUTPUT_TOOLTIPS = (
        "For Warm-up, Translate Video, Live and Plan.",
        "For CLIP Text Encode, Prompt Travel and Live; reads the names of the styles.",
    )
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """No inputs."""
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls) -> str:
        """Loaded again when the device policy changes."""
        return f"{host.network_device()} {host.network_dtype(PARAMETERS)}"

    def load(self) -> "tuple[HostedModel, BundledClip]":
        """The model, loaded once a device and precision."""
        hosted = _load(host.network_device(), host.network_dtype(PARAMETERS))
        return hosted, BundledClip(hosted.model.text)


@cache
def _load(device: torch.device, dtype: torch.dtype) -> "HostedModel":
    from ..live2diff_core.models.layout import lay_out
    from ..live2diff_core.weights.bundled import load_bundled
    from .hosted import HostedModel

    model = load_bundled(device=host.storage_device(), dtype=dtype)
    lay_out((model.unet, model.autoencoder, model.depth), device)
    residents = [host.Resident(network, device) for network in (model.unet, model.autoencoder)]
    return HostedModel(model, tuple(resident.patcher for resident in residents))


class BundledClip:
    """As much of a CLIP as the core's CLIP Text Encode asks of it."""

    def __init__(self, encoder: "TextEncoder") -> None:
        self._encoder = encoder

    def tokenize(self, text: str) -> str:
        """A prompt is its own tokens here."""
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> "list[list[Tensor | dict[str, Any]]]":
        """The CONDITIONING of a prompt. Raises PromptError if it names no style."""
        with torch.inference_mode():
            return [[self._encoder.encode(tokens), {}]]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - never returns
        raise AttributeError(
            f"the bundled model's CLIP has no {name}: connect it to CLIP Text Encode or Prompt "
            "Travel directly, LoRAs and clip skip are not for it"
        )
