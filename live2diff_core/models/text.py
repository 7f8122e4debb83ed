"""Prompts to text embeddings."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from ..errors import ConfigError, PromptError


class TextEncoder(nn.Module):
    """CLIP text model with its tokenizer. clip_skip 1 takes the last layer, 2 the one before it.

    styles: what the model calls by name, name -> phrases; empty where any prompt will do.
    """

    styles: Mapping[str, Sequence[str]] = MappingProxyType({})

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: CLIPTextModel, clip_skip: int = 1
    ) -> None:
        super().__init__()
        self.tokenizer, self.model, self.clip_skip = tokenizer, model, clip_skip

    def encode(self, prompt: str) -> Tensor:
        """Text embedding of a prompt, (1, tokens, dim)."""
        return self.encode_batch([prompt])

    def encode_batch(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings, (prompts, tokens, dim)."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.model.config.max_position_embeddings,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.model.device)
        if self.clip_skip == 1:
            return self.model(ids).last_hidden_state
        hidden = self.model(ids, output_hidden_states=True).hidden_states[-self.clip_skip]
        transformer: Any = text_transformer(self.model)
        return transformer.final_layer_norm(hidden)


def text_transformer(model: CLIPTextModel) -> nn.Module:
    """The transformer of a CLIP text model: older transformers releases wrap it once more."""
    return getattr(model, "text_model", model)


class StyleTextEncoder(TextEncoder):
    """A text encoder that knows a few styles by name and says so when a prompt names none of them.

    styles: name -> phrases by which a prompt may call it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: CLIPTextModel,
        styles: Mapping[str, Sequence[str]],
    ) -> None:
        super().__init__(tokenizer, model)
        self.styles = {name: tuple(phrases) for name, phrases in styles.items()}

    def encode(self, prompt: str) -> Tensor:
        """Text embedding, (1, tokens, dim). Raises PromptError if the prompt names no style."""
        if prompt.strip() and not self.named_styles(prompt):
            known = ", ".join(f"{name} ({'; '.join(p)})" for name, p in self.styles.items())
            read = self.model.config.max_position_embeddings - 2
            raise PromptError(
                f"the prompt {prompt!r} names no style of this model in its first {read} words; "
                f"known: {known}"
            )
        return super().encode(prompt)

    def named_styles(self, prompt: str) -> list[str]:
        """Styles that the prompt names in the part that is read, in the model's order."""
        read = self.model.config.max_position_embeddings - 2  # between start and end
        words = f" {' '.join(_words(prompt)[:read])} "
        return [
            name
            for name, phrases in self.styles.items()
            if any(f" {' '.join(_words(phrase))} " in words for phrase in phrases)
        ]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def blend(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Spherical interpolation of two text embeddings, token by token.

    first, second: (1, tokens, dim). weight: 0 gives first, 1 gives second, both exactly. Raises
    ConfigError for a weight outside.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"a blend weight lies between 0 and 1, got {weight}")
    if weight == 0:
        return first
    if weight == 1:
        return second
    length = torch.lerp(first.norm(dim=-1, keepdim=True), second.norm(dim=-1, keepdim=True), weight)
    a, b = nn.functional.normalize(first, dim=-1), nn.functional.normalize(second, dim=-1)
    angle = (a * b).sum(-1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6).acos()
    straight = angle < 2e-3  # sin(angle) vanishes: the chord is the arc
    arc = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / torch.sin(
        angle.clamp(min=1e-3)
    )
    return torch.where(straight, torch.lerp(a, b, weight), arc) * length
