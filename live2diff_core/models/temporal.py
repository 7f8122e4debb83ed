"""Temporal transformers with position at use (Live2Diff, sec. 3.2; shapes after AnimateDiff, arXiv
2307.04725).
"""

import math
from collections.abc import Callable

import torch
from diffusers.models.attention import FeedForward
from einops import rearrange
from torch import Tensor, nn

from ..cache import Projected, RingStep, TemporalState, Visibility
from ..config import TemporalConfig
from .ring_attention import ring_attention

PROJECTIONS = "to_q", "to_k", "to_v"


def sinusoidal_positions(length: int, channels: int) -> Tensor:
    """Sine and cosine table, (length, channels) float32 (Vaswani et al. 2017, sec. 3.5)."""
    position = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    table = torch.zeros(length, channels)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table


def attend(
    query: Tensor, key: Tensor, value: Tensor, tables: Projected, view: Visibility
) -> Tensor:
    """Attention over time that adds positions at use; nothing of the cache's size is made.

    query: (g, p, e, f, d) with position. key, value: (g, p, e, k, d) without. tables: projected
    positions of keys and values, each (positions, e, d). Returns (g, p, e, f, d).

    score_j = q.k_j + q.(Wk pe_j),  out = sum_j a_j v_j + sum_j a_j (Wv pe_j)
    """
    key_positions = tables.key[view.keys]  # (g, f, k, e, d)
    value_positions = tables.value[view.keys]
    query = query * query.shape[-1] ** -0.5
    scores = query @ key.transpose(-1, -2)  # (g, p, e, f, k)
    scores = scores + torch.einsum("gpefd,gfked->gpefk", query, key_positions)
    scores = scores.masked_fill(~view.visible[:, None, None], -torch.inf)
    weights = scores.softmax(-1)
    return weights @ value + torch.einsum("gpefk,gfked->gpefd", weights, value_positions)


class TemporalAttention(nn.Module):
    """Self-attention of a pixel over time. Keys and values are cached without position.

    Queries, keys and values come from one product; in state dicts, as in all checkpoints, they have
    weights of their own.
    """

    position: Tensor

    def __init__(self, channels: int, config: TemporalConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.heads
        self.to_qkv = nn.Linear(channels, len(PROJECTIONS) * channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        table = sinusoidal_positions(config.max_positions, channels)
        self.register_buffer("position", table, persistent=False)
        hooks: list[tuple[Callable[..., object], Callable[..., None]]] = [  # not typed in PyTorch
            (self.register_load_state_dict_pre_hook, _join),
            (self.register_state_dict_post_hook, _part),
        ]
        for register, hook in hooks:
            register(hook)

    def forward(self, x: Tensor, state: TemporalState) -> Tensor:
        """x: (g f, p, c) -> (g f, p, c). `state` stores keys and values and says what is seen."""
        view = state.visibility
        tables = state.positions(self.layer) or self.project_positions(len(self.position))
        own = rearrange(tables.query[view.queries], "g f e d -> g 1 e f d")
        query, key, value = rearrange(
            self.to_qkv(x), "(g f) p (s e d) -> s g p e f d", s=3, f=state.frames, e=self.heads
        )
        query = query + own
        if isinstance(state, RingStep) and state.kernel:
            cache = state.layers[self.layer]
            stream = cache, state.age, state.window
            out = ring_attention(state.kernel, (query, key, value), *stream)
        else:
            key, value = state.exchange(self.layer, key, value)
            out = attend(query, key, value, tables, view)
        return self.to_out(rearrange(out, "g p e f d -> (g f) p (e d)"))

    def project_positions(self, count: int) -> Projected:
        """The first `count` positions as queries, keys and values see them."""
        projected = self.to_qkv(self.position[:count])
        parts = rearrange(projected, "t (s e d) -> s t e d", s=3, e=self.heads)
        return Projected(*parts.contiguous())


def _join(module: TemporalAttention, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights of a checkpoint as one, where all three are there."""
    del module
    names = [f"{prefix}{name}.weight" for name in PROJECTIONS]
    if all(name in state for name in names):
        state[f"{prefix}to_qkv.weight"] = torch.cat([state.pop(name) for name in names])


def _part(module: TemporalAttention, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """The weights as checkpoints have them, views of one."""
    del module
    parts = state.pop(f"{prefix}to_qkv.weight").chunk(len(PROJECTIONS))
    state |= {f"{prefix}{name}.weight": w for name, w in zip(PROJECTIONS, parts, strict=True)}


class TemporalTransformer(nn.Module):
    """GroupNorm, Linear in, attentions, GEGLU feed-forward, Linear out; with a residual."""

    def __init__(self, channels: int, config: TemporalConfig, first_layer: int) -> None:
        super().__init__()
        self.heads, self.width = config.heads, channels // config.heads  # e, d
        self.norm = nn.GroupNorm(config.norm_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.attention_norms = nn.ModuleList(
            nn.LayerNorm(channels) for _ in range(config.attentions)
        )
        self.attentions = nn.ModuleList(
            TemporalAttention(channels, config, first_layer + i) for i in range(config.attentions)
        )
        self.ff_norm = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, state: TemporalState) -> Tensor:
        """x: (g f, c, h, w) -> same. The norm is per frame."""
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # (n, p, c)
        for norm, attention in zip(self.attention_norms, self.attentions, strict=True):
            h = h + attention(norm(h), state)
        h = h + self.ff(self.ff_norm(h))
        return x + self.proj_out(h).transpose(1, 2).reshape(x.shape)

    def start_silent(self) -> None:
        """Zero the output, so that an untrained layer changes nothing."""
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)
