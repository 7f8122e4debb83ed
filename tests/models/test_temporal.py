"""Temporal attention against textbook attention, and a cached stream against the whole clip."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from live2diff_core.cache import (
    LayerShape,
    Prefill,
    RingStep,
    WholeClip,
    allocate,
    clip_visibility,
)
from live2diff_core.config import AttentionWindow, TemporalConfig
from live2diff_core.models.temporal import (
    TemporalAttention,
    TemporalTransformer,
    sinusoidal_positions,
)
from live2diff_core.weights.files import read_safetensors
from tests.golden import GOLDEN
from tests.tiny import roughen

CPU = torch.device("cpu")
CHANNELS, SIDE = 32, 2
CONFIG = TemporalConfig(heads=4, norm_groups=32, max_positions=24)
WINDOWS = [AttentionWindow(*w) for w in ((8, 8), (4, 6), (1, 1), (3, 9), (2, 1))]


@pytest.fixture
def transformer() -> TemporalTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = TemporalTransformer(CHANNELS, CONFIG, first_layer=0)
    roughen(module, 0)
    return module.requires_grad_(False)


def clips(frames: int, groups: int = 1) -> Tensor:
    """Random features, (groups, frames, c, h, w)."""
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(groups, frames, CHANNELS, SIDE, SIDE, generator=generator)


def whole(module: TemporalTransformer, clip: Tensor, window: AttentionWindow) -> Tensor:
    groups, frames = clip.shape[:2]
    state = WholeClip(frames, groups, window, CPU)
    return module(clip.flatten(0, 1), state).view_as(clip)


def streamed(module: TemporalTransformer, clip: Tensor, window: AttentionWindow) -> Tensor:
    """One row: a prefill of the sinks, then frame after frame through the ring."""
    shape = LayerShape(SIDE * SIDE, CONFIG.heads, CHANNELS // CONFIG.heads)
    layers = allocate([shape] * CONFIG.attentions, 1, window, clip)
    frames = clip[0]
    out = [module(frames[: window.sinks], Prefill(layers, slice(0, 1), window.sinks, 1))]
    for age, frame in enumerate(frames[window.sinks :]):
        out.append(module(frame[None], RingStep(layers, torch.tensor([age]), window)))
    return torch.cat(out)[None]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_cached_stream_equals_attention_over_the_whole_clip(transformer, window):
    clip = clips(window.sinks + 3 * window.ring + 2)
    ours, expected = streamed(transformer, clip, window), whole(transformer, clip, window)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(expected, clip, atol=0.01)  # the layers do something


def test_groups_do_not_see_each_other(transformer):
    clip, window = clips(6, groups=3), AttentionWindow(2, 3)
    together = whole(transformer, clip, window)
    for group in range(3):
        alone = whole(transformer, clip[group : group + 1], window)[0]
        torch.testing.assert_close(together[group], alone, rtol=0, atol=1e-6)


def test_pixels_do_not_see_each_other(transformer):
    clip, window = clips(6), AttentionWindow(2, 3)
    attention = transformer.attentions[0]
    x = clip[0].flatten(2).transpose(1, 2)  # (f, p, c)
    state = WholeClip(6, 1, window, CPU)
    touched = x.clone()
    touched[:, 0] += 1.0
    moved = (attention(touched, state) - attention(x, state)).abs().amax((0, 2))
    assert moved[0] > 0.01
    assert torch.equal(moved[1:], torch.zeros(SIDE * SIDE - 1))


def textbook(attention: TemporalAttention, x: Tensor, window: AttentionWindow) -> Tensor:
    """Position added before q, k and v are projected, each query on its own. x: (f, p, c)."""
    view = clip_visibility(len(x), 1, window, CPU)
    table = sinusoidal_positions(CONFIG.max_positions, x.shape[-1])
    out = []
    for f in range(len(x)):
        shown = view.visible[0, f]
        keys = x[shown] + table[view.keys[0, f][shown]][:, None]  # (k, p, c)
        query = x[f : f + 1] + table[view.queries[0, f]]
        weights = attention.state_dict()
        q, k, v = (
            functional.linear(part, weights[f"to_{name}.weight"])
            .unflatten(-1, (CONFIG.heads, -1))
            .permute(1, 2, 0, 3)  # (p, e, k, d)
            for name, part in (("q", query), ("k", keys), ("v", keys))
        )
        attended = functional.scaled_dot_product_attention(q, k, v)  # (p, e, 1, d)
        out.append(attention.to_out(attended[:, :, 0].flatten(1)))
    return torch.stack(out)


@pytest.mark.parametrize("window", [AttentionWindow(3, 4), AttentionWindow(1, 2)], ids=str)
def test_position_at_use_equals_position_added_to_the_input(transformer, window):
    x = clips(window.sinks + 2 * window.ring + 1)[0].flatten(2).transpose(1, 2)
    attention = transformer.attentions[1]
    ours = attention(x, WholeClip(len(x), 1, window, CPU))
    expected = textbook(attention, x, window)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_a_silent_layer_changes_nothing(transformer):
    transformer.start_silent()
    clip, window = clips(5), AttentionWindow(2, 3)
    assert torch.equal(whole(transformer, clip, window), clip)


def test_the_norm_is_per_frame(transformer):
    clip = clips(2)
    scaled = clip * torch.tensor([1.0, 7.0]).view(1, 2, 1, 1, 1)
    norm = transformer.norm
    torch.testing.assert_close(norm(scaled[0]), norm(clip[0]), rtol=0, atol=1e-4)


def test_the_position_table_is_the_recorded_one():
    state = read_safetensors(*sorted(GOLDEN.glob("unet-*.safetensors")))
    tables = [tensor for key, tensor in state.items() if key.endswith("pos_encoder.pe")]
    assert tables
    for table in tables:
        ours = sinusoidal_positions(*table.shape[-2:])
        torch.testing.assert_close(ours, table[0].float(), rtol=0, atol=1e-6)


def test_the_position_table_is_no_weight(transformer):
    assert not [key for key in transformer.state_dict() if "position" in key]


def test_checkpoints_have_weights_for_queries_keys_and_values(transformer):
    state = transformer.attentions[0].state_dict()
    assert set(state) == {f"to_{name}.weight" for name in "qkv"} | {"to_out.weight", "to_out.bias"}
    joined = torch.cat([state[f"to_{name}.weight"] for name in "qkv"])
    assert torch.equal(joined, transformer.attentions[0].to_qkv.weight)
    changed = {key: torch.randn_like(value) for key, value in state.items()}
    transformer.attentions[0].load_state_dict(changed, strict=True)
    again = transformer.attentions[0].state_dict()
    assert all(torch.equal(again[key], value) for key, value in changed.items())


@pytest.mark.parametrize("lacking", ["to_q.weight", "to_v.weight"])
def test_a_checkpoint_without_one_of_them_is_refused(transformer, lacking):
    state = transformer.attentions[0].state_dict()
    del state[lacking]
    with pytest.raises(RuntimeError, match="to_qkv"):
        transformer.attentions[0].load_state_dict(state, strict=True)
