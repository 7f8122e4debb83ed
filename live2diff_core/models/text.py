"""Prompts to text embeddings."""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from ..errors import ConfigError, PromptError, WeightsKindError
from .adapters import with_child
from .prompts import Token, pack, parse_weights, split_concepts


class TextEncoder(nn.Module):
    """CLIP text model with its tokenizer; reads prompts as ComfyUI does.

    clip_skip 1 takes the last layer, 2 the one before it. concepts: textual inversions, name ->
    (vectors, dim), which prompts call by `embedding:name` or the bare name; the model that is
    passed stays as it is. styles: what the model calls by name, name -> phrases; empty where any
    prompt will do. Raises ConfigError for a clip_skip beyond the layers, WeightsKindError for
    concepts of another width.
    """

    styles: Mapping[str, Sequence[str]] = MappingProxyType({})

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: CLIPTextModel,
        clip_skip: int = 1,
        concepts: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        layers = model.config.num_hidden_layers
        if not 1 <= clip_skip <= layers + 1:
            raise ConfigError(f"clip_skip must be 1 to {layers + 1} here, got {clip_skip}")
        self.tokenizer, self.clip_skip = tokenizer, clip_skip
        self.model, self._concepts = with_concepts(model, concepts) if concepts else (model, {})

    def with_model(self, model: CLIPTextModel) -> "TextEncoder":
        """This encoder around a variant of its model."""
        return with_child(self, "model", model)

    def encode(self, prompt: str) -> Tensor:
        """Text embedding of a prompt, (1, chunks tokens, dim): SD 1.5 gives (1, 77 k, 768).

        Raises PromptError for `embedding:name` with a name that is no concept.
        """
        return self.encode_batch([prompt])

    def encode_batch(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings, (prompts, chunks tokens, dim), all of as many chunks as the longest has.

        A chunk is start, tokens, end and padding. Chunks are encoded each alone and then joined.
        Where a weight w is not 1, z becomes (z - z_empty) w + z_empty token by token, z_empty being
        the empty prompt's encoding at the same place of a chunk. Raises PromptError.
        """
        texts = [self._chunks(prompt) for prompt in prompts]
        longest = max(map(len, texts))
        empty: list[Token] = []
        rows = [row for chunks in texts for row in (*chunks, *(longest - len(chunks)) * [empty])]
        z = self._encode_chunks(rows)
        return rearrange(z, "(prompts k) tokens dim -> prompts (k tokens) dim", k=longest)

    def align(self, *embeddings: Tensor) -> tuple[Tensor, ...]:
        """Lengthen embeddings (1, tokens, dim) by chunks of the empty prompt to the longest one's
        length.

        Raises ConfigError where the lengths do not differ by whole chunks.
        """
        if len({embedding.shape[1] for embedding in embeddings}) == 1:
            return embeddings
        return align_embeddings(embeddings, self.encode_batch([""]))

    @property
    def _chunk_size(self) -> int:
        return self.model.config.max_position_embeddings

    @property
    def _room(self) -> int:
        """Tokens of a prompt that a chunk holds between start and end."""
        return self._chunk_size - 2

    def _chunks(self, prompt: str) -> list[list[Token]]:
        return pack(self._groups(prompt), self._room)

    def _groups(self, prompt: str) -> Iterator[list[Token]]:
        """Tokens of each part of a prompt that has a weight of its own, and of each concept."""
        for text, weight in parse_weights(prompt):
            for piece, is_concept in split_concepts(text, self._concepts):
                ids = self._concepts[piece] if is_concept else self._tokenize(piece)
                yield [(token, weight) for token in ids]

    def _tokenize(self, text: str) -> Sequence[int]:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise PromptError(f"the prompt holds characters that are none: {text!r}")
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def _encode_chunks(self, chunks: Sequence[list[Token]]) -> Tensor:
        rows = [self._frame(chunk) for chunk in chunks]
        if all(weight == 1 for row in rows for _, weight in row):
            return self._run(rows)
        *encoded, empty = self._run([*rows, self._frame([])])  # each (tokens, dim)
        z = torch.stack(encoded)
        w = torch.tensor([[weight for _, weight in row] for row in rows], device=z.device)[
            ..., None
        ]
        return torch.where(w == 1, z, (z - empty) * w + empty).to(z.dtype)

    def _frame(self, chunk: list[Token]) -> list[Token]:
        """Start, tokens, end and padding: a whole row of the model."""
        special: Any = self.tokenizer
        row = [(special.bos_token_id, 1.0), *chunk, (special.eos_token_id, 1.0)]
        return row + (self._chunk_size - len(row)) * [(special.pad_token_id, 1.0)]

    def _run(self, rows: Sequence[list[Token]]) -> Tensor:
        """Each row alone through the layers that clip_skip leaves and the last norm."""
        ids = torch.tensor([[token for token, _ in row] for row in rows], device=self.model.device)
        return without_layers(self.model, self.clip_skip - 1)(ids).last_hidden_state


class StyleTextEncoder(TextEncoder):
    """A text encoder that knows a few styles by name and says so when a prompt names none of them.

    It reads one chunk and cuts what is longer. styles: name -> phrases by which a prompt may call
    it.
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
            raise PromptError(
                f"the prompt {prompt!r} names no style of this model in its first {self._room} "
                f"words; known: {known}"
            )
        return super().encode(prompt)

    def named_styles(self, prompt: str) -> list[str]:
        """Styles that the prompt names in the part that is read, in the model's order."""
        text = " ".join(part for part, _ in parse_weights(prompt))
        words = f" {' '.join(_words(text)[: self._room])} "
        return [
            name
            for name, phrases in self.styles.items()
            if any(f" {' '.join(_words(phrase))} " in words for phrase in phrases)
        ]

    def _chunks(self, prompt: str) -> list[list[Token]]:
        return [[token for group in self._groups(prompt) for token in group][: self._room]]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


class ConceptEmbedding(nn.Embedding):
    """A token embedding that shares its weight with another; ids beyond it are concepts' vectors.

    vectors: (concept tokens, dim), the first one's id is the number of plain tokens.
    """

    vectors: Tensor

    def __init__(self, plain: nn.Embedding, vectors: Tensor) -> None:
        super().__init__(plain.num_embeddings, plain.embedding_dim, _weight=plain.weight)
        self.weight = plain.weight
        self.register_buffer("vectors", vectors.to(plain.weight), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (rows, tokens) -> (rows, tokens, dim)."""
        last = self.num_embeddings - 1
        plain = super().forward(ids.clamp(max=last))
        return torch.where((ids > last)[..., None], self.vectors[(ids - last - 1).clamp(0)], plain)


def with_concepts(
    model: CLIPTextModel, concepts: Mapping[str, Tensor]
) -> tuple[CLIPTextModel, dict[str, range]]:
    """The model with more tokens, and the ids of each concept by its name in lower case.

    Everything else is shared with the model. Raises WeightsKindError for another width.
    """
    transformer: Any = text_transformer(model)
    plain, ids = transformer.embeddings.token_embedding, {}
    first = plain.num_embeddings
    for name, vectors in concepts.items():
        if vectors.ndim != 2 or vectors.shape[1] != plain.embedding_dim:
            raise WeightsKindError(
                f"the concept {name} is {tuple(vectors.shape)}, this text model takes "
                f"(vectors, {plain.embedding_dim}): it was trained for another base"
            )
        ids[name.lower()] = range(first, first + len(vectors))
        first += len(vectors)
    extended = ConceptEmbedding(plain, torch.cat(list(concepts.values())))
    return _replaced(model, "embeddings", "token_embedding", extended), ids


def without_layers(model: CLIPTextModel, count: int) -> CLIPTextModel:
    """The model without its last layers, but with the norm after them; weights are shared."""
    transformer: Any = text_transformer(model)
    layers = transformer.encoder.layers
    return _replaced(model, "encoder", "layers", layers[: len(layers) - count]) if count else model


def _replaced(model: CLIPTextModel, parent: str, name: str, part: nn.Module) -> CLIPTextModel:
    """The model with one part of its transformer replaced; everything else is shared with it."""
    transformer = text_transformer(model)
    twin = with_child(transformer.get_submodule(parent), name, part)
    inner: Any = with_child(transformer, parent, twin)
    return inner if transformer is model else with_child(model, "text_model", inner)


def text_transformer(model: CLIPTextModel) -> nn.Module:
    """The transformer of a CLIP text model: older transformers releases wrap it once more."""
    return getattr(model, "text_model", model)


def align_embeddings(embeddings: Sequence[Tensor], empty: Tensor) -> tuple[Tensor, ...]:
    """Lengthen embeddings (1, tokens, dim) by chunks of the empty prompt's to the longest one's
    length.

    empty: (1, tokens of a chunk, dim). Raises ConfigError where the lengths do not differ by whole
    chunks.
    """
    longest = max(embedding.shape[1] for embedding in embeddings)
    return tuple(_lengthen(embedding, longest, empty) for embedding in embeddings)


def _lengthen(embedding: Tensor, tokens: int, empty: Tensor) -> Tensor:
    chunks, rest = divmod(tokens - embedding.shape[1], empty.shape[1])
    if rest:
        raise ConfigError(
            f"embeddings of {embedding.shape[1]} and {tokens} tokens cannot be aligned: they must "
            f"differ by a multiple of {empty.shape[1]}"
        )
    return torch.cat([embedding, *chunks * [empty.to(embedding)]], dim=1) if chunks else embedding


def blend(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Spherical interpolation of two text embeddings, token by token.

    first, second: (1, tokens, dim). weight: 0 gives first, 1 gives second, both exactly. Raises
    ConfigError for a weight outside, or for embeddings of different lengths.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"a blend weight lies between 0 and 1, got {weight}")
    if first.shape[1] != second.shape[1]:
        raise ConfigError(
            f"only embeddings of one length blend, got {first.shape[1]} and {second.shape[1]} "
            "tokens: bring them to the same length with align_embeddings"
        )
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
