"""ComfyUI's CONDITIONING as a prompt: [[embedding (1, tokens, channels), settings], ...]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
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
    "unclip_conditioning": "an unCLIP picture",
}


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a stream shows: an embedding (1, tokens, channels), or a timeline from there on."""

    embedding: Tensor
    timeline: EncodedTimeline | None = None

    def at(self, index: int) -> Tensor:
        """The embedding of the frame of this number."""
        return self.embedding if self.timeline is None else self.timeline.at(index, 0.0)

    def is_same(self, other: "Prompt") -> bool:
        """Whether every frame gets the same from both."""
        ours, theirs = self.timeline, other.timeline
        if ours is None or theirs is None:
            return ours is theirs and equal(self.embedding, other.embedding)
        return ours.timeline == theirs.timeline and all(
            equal(ours.embeddings[words], theirs.embeddings[words])
            for words in ours.timeline.prompts
        )


def equal(first: Tensor, second: Tensor) -> bool:
    """Whether two embeddings are the same, wherever they are."""
    return torch.equal(first, second.to(first))


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
    timeline: EncodedTimeline | None = settings.get(TIMELINE)
    if timeline is not None and not equal(timeline.at(0, 0.0), embedding):
        raise PromptError(
            "this CONDITIONING was changed after Prompt Travel (Conditioning Average, Concat, Zero "
            "Out), which its timeline cannot follow: connect Prompt Travel directly"
        )
    return Prompt(embedding, timeline)


def single_entry(conditioning: Sequence[Any]) -> tuple[Tensor, dict[str, Any]]:
    """Embedding and settings of a CONDITIONING with one entry. Raises PromptError."""
    if len(conditioning) != 1:
        raise PromptError(
            f"a stream shows one prompt at a time, this CONDITIONING has {len(conditioning)} "
            "entries: leave Conditioning Combine out, or use Prompt Travel"
        )
    embedding, settings = conditioning[0]
    return embedding, settings
