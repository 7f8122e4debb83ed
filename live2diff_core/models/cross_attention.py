"""Cross-attention whose keys and values of a text are computed once, not for every frame."""

from collections.abc import Iterator
from dataclasses import dataclass

from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True, eq=False)
class TextKeys:
    """Texts as each cross-attention of a network sees them, in the order of its modules.

    layers: keys and values, each (texts, e, tokens, d). Rows of a batch share the texts evenly:
    the first rows have the first one.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    def of(self, layer: int, rows: int) -> tuple[Tensor, Tensor]:
        """Keys and values for so many rows: (rows, e, tokens, d) each."""
        key, value = self.layers[layer]
        if len(key) == 1:
            return key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1)
        share = rows // len(key)
        return key.repeat_interleave(share, 0), value.repeat_interleave(share, 0)


class TextAttention:
    """What diffusers calls for a cross-attention; it takes a text, or the keys of one."""

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def __call__(
        self,
        attention: Attention,
        x: Tensor,
        encoder_hidden_states: TextKeys | Tensor,
        attention_mask: None = None,
    ) -> Tensor:
        """x: (n, p, c) -> (n, p, c). attention_mask: diffusers gives one, which is always None."""
        text = encoder_hidden_states
        if isinstance(text, TextKeys):
            key, value = text.of(self.layer, len(x))
        else:
            key, value = _project(attention, text)
        query = _split(attention, attention.to_q(x))
        out = rearrange(scaled_dot_product_attention(query, key, value), "n e p d -> n p (e d)")
        result: Tensor = attention.to_out[0](out)
        return result


def cross_attentions(spatial: nn.Module) -> Iterator[Attention]:
    """All cross-attentions of a network, in the order of its modules."""
    for module in spatial.modules():
        if isinstance(module, Attention) and module.is_cross_attention:
            yield module


def project_text(spatial: nn.Module, text: Tensor) -> TextKeys:
    """Texts (texts, tokens, dim) as keys of every cross-attention."""
    return TextKeys(tuple(_project(attention, text) for attention in cross_attentions(spatial)))


def _project(attention: Attention, text: Tensor) -> tuple[Tensor, Tensor]:
    return _split(attention, attention.to_k(text)), _split(attention, attention.to_v(text))


def _split(attention: Attention, x: Tensor) -> Tensor:
    return rearrange(x, "n p (e d) -> n e p d", e=attention.heads)
