"""ComfyUI's CLIP as what reads the prompts of a live stream."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..live2diff_core.models.text import TextEncoder, align_embeddings
from .conditioning import read_prompt


class HostTextEncoder(TextEncoder):
    """Reads prompts by a CLIP of ComfyUI, with all that the graph did to it.

    channels: of the embedding that the model takes. settle: called after each use, because ComfyUI
    may have moved other networks off the device to make room for the CLIP.
    """

    def __init__(self, clip: Any, channels: int, settle: Callable[[], None]) -> None:  # noqa: ANN401
        nn.Module.__init__(self)
        self._clip, self._channels, self._settle = clip, channels, settle
        self.model: Any = nn.Identity()  # whose weights are ComfyUI's matter

    @torch.inference_mode()
    def encode_batch(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings, (prompts, tokens, channels), as long as the longest one.

        Raises PromptError for a CLIP of another model.
        """
        embeddings = [self._encode(prompt) for prompt in prompts]
        if len({embedding.shape[1] for embedding in embeddings}) > 1:
            embeddings = list(align_embeddings(embeddings, self._encode("")))
        return torch.cat(embeddings)

    def _encode(self, prompt: str) -> Tensor:
        try:
            conditioning = self._clip.encode_from_tokens_scheduled(self._clip.tokenize(prompt))
        finally:
            self._settle()
        return read_prompt(conditioning, self._channels).embedding
