"""ComfyUI's CONDITIONING as a prompt: [[embedding (1, tokens, channels), settings], ...]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..live2diff_core.errors import PromptError
from ..live2diff_core.stream.timeline import EncodedTimeline

TIMELINE = "live2diff_timeline"  # where Prompt Travel leaves its schedule
# What a part of the picture or of the sampling would need, which a stream does not have.
REFUSED = {
    "area": "an area",
    "mask": "a mask",
    "control": "a ControlNet",
    "gligen": "GLIGEN boxes",
    "start_percent": "a range of timesteps",
    "end_percent": "a range of timesteps",
    "hooks": "hooks",
    "concat_latent_image": "an inpainting or video latent",
    "reference_latents": "reference latents",
}


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a stream shows: an embedding (1, tokens, channels), or a timeline from there on."""

    embedding: Tensor
    timeline: EncodedTimeline | None = None


def read_prompt(conditioning: Sequence[Any], channels: int) -> Prompt:
    """The prompt in a CONDITIONING. channels: what the model takes.

    Raises PromptError for a CONDITIONING that says more than one prompt, or of another model.
    """
    embedding, settings = single_entry(conditioning)
    refused = sorted({words for name, words in REFUSED.items() if settings.get(name) is not None})
    if refused:
        raise PromptError(
            f"this CONDITIONING has {' and '.join(refused)}, which a stream cannot follow: connect "
            "CLIP Text Encode directly"
        )
    if embedding.ndim != 3 or embedding.shape[0] != 1 or embedding.shape[2] != channels:
        raise PromptError(
            f"this CONDITIONING is {tuple(embedding.shape)}, the model takes (1, tokens, "
            f"{channels}): encode the prompt with the CLIP that belongs to the model"
        )
    return Prompt(embedding, settings.get(TIMELINE))


def single_entry(conditioning: Sequence[Any]) -> tuple[Tensor, dict[str, Any]]:
    """Embedding and settings of a CONDITIONING with one entry. Raises PromptError."""
    if len(conditioning) != 1:
        raise PromptError(
            f"a stream shows one prompt at a time, this CONDITIONING has {len(conditioning)} "
            "entries: leave Conditioning Combine out, or use Prompt Travel"
        )
    embedding, settings = conditioning[0]
    return embedding, settings
