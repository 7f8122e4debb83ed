"""Prompts: what a model knows, and travelling between two of them."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from live2diff_core.errors import ConfigError, PromptError
from live2diff_core.models.text import TextEncoder, blend, text_transformer
from tests.tiny import tiny_model

TEXT = tiny_model().text


def embedding(seed: int, tokens: int = 6) -> Tensor:
    return torch.randn(1, tokens, 8, generator=torch.Generator().manual_seed(seed)) * (1 + seed)


# ---- blend


@pytest.mark.parametrize("weight", [0, 0.0])
def test_no_weight_is_the_first_exactly(weight):
    assert torch.equal(blend(embedding(1), embedding(2), weight), embedding(1))


@pytest.mark.parametrize("weight", [1, 1.0])
def test_full_weight_is_the_second_exactly(weight):
    assert torch.equal(blend(embedding(1), embedding(2), weight), embedding(2))


@pytest.mark.parametrize("weight", [-0.01, 1.01, float("nan")])
def test_a_weight_outside_is_refused(weight):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        blend(embedding(1), embedding(2), weight)


@pytest.mark.parametrize("weight", [0.01, 0.3, 0.5, 0.99])
def test_lengths_go_over_evenly_and_never_shrink_between(weight):
    first, second = embedding(1), embedding(2)
    expected = (1 - weight) * first.norm(dim=-1) + weight * second.norm(dim=-1)
    torch.testing.assert_close(blend(first, second, weight).norm(dim=-1), expected)


@pytest.mark.parametrize("weight", [0.2, 0.5, 0.7])
def test_blending_back_is_blending_there(weight):
    there = blend(embedding(1), embedding(2), weight)
    torch.testing.assert_close(there, blend(embedding(2), embedding(1), 1 - weight))


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.8])
def test_the_angle_grows_with_the_weight(weight):
    first = torch.tensor([[[1.0, 0.0]]])
    second = torch.tensor([[[0.0, 3.0]]])
    x, y = blend(first, second, weight)[0, 0]
    assert torch.atan2(y, x).item() == pytest.approx(weight * torch.pi / 2, abs=1e-5)


@pytest.mark.parametrize("gap", [0.0, 1e-6, 1e-4, 1e-3, 3e-3])
def test_equal_and_nearly_equal_tokens_stay_what_they_are(gap):
    first = embedding(1)
    second = first + gap * embedding(2)
    torch.testing.assert_close(
        blend(first, second, 0.5), (first + second) / 2, rtol=1e-3, atol=1e-3
    )


def test_the_gradient_is_finite_where_tokens_are_shared():
    first, second = embedding(1).requires_grad_(), embedding(2)
    second[:, :3] = first.detach()[:, :3]
    second.requires_grad_()
    blend(first, second, 0.5).square().sum().backward()
    for grad in (first.grad, second.grad):
        assert grad.isfinite().all()
        assert grad.abs().sum() > 0


def test_a_small_weight_moves_a_little():
    first, second = embedding(1), embedding(2)
    path = [blend(first, second, w) for w in torch.linspace(0, 1, 21).tolist()]
    strides = [(b - a).norm() for a, b in pairwise(path)]
    assert max(strides) < 3 * min(strides)


# ---- encoding


def test_a_prompt_is_a_row_of_tokens():
    assert TEXT.encode("ink").shape == (1, 8, 16)


def test_clip_skip_takes_an_earlier_layer_under_the_last_norm():
    ids = torch.tensor([TEXT.tokenizer("ink", padding="max_length", max_length=8).input_ids])
    norm = text_transformer(TEXT.model).final_layer_norm
    layers = TEXT.model(ids, output_hidden_states=True).hidden_states
    for skip in (1, 2, 3):
        got = TextEncoder(TEXT.tokenizer, TEXT.model, clip_skip=skip).encode("ink")
        torch.testing.assert_close(got, norm(layers[-skip]))
    assert not torch.allclose(norm(layers[-1]), norm(layers[-2]), atol=0.01)


def test_a_batch_of_prompts_is_each_alone():
    together = TEXT.encode_batch(["ink", "neon lights of the city"])
    for row, prompt in enumerate(("ink", "neon lights of the city")):
        torch.testing.assert_close(together[row : row + 1], TEXT.encode(prompt))


def test_other_words_are_another_embedding():
    assert (TEXT.encode("ink cat") - TEXT.encode("ink city")).abs().max() > 0.01


def test_a_long_prompt_is_cut():
    assert TEXT.encode("ink " + "cat " * 50).shape == (1, 8, 16)


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("ink", ["ink"]),
        ("an INK drawing, of the cat!", ["ink"]),
        ("neon lights", ["neon"]),
        ("neon ink", ["ink", "neon"]),
        ("ink-drawing", ["ink"]),
        ("pink", []),
        ("inks", []),
        ("", []),
    ],
)
def test_styles_are_found_by_whole_words(prompt, names):
    assert TEXT.named_styles(prompt) == names


@pytest.mark.parametrize("prompt", ["oil painting", "pink", "?", "12"])
def test_a_prompt_without_a_known_style_is_refused_with_all_that_are_known(prompt):
    with pytest.raises(PromptError) as error:
        TEXT.encode(prompt)
    for part in (repr(prompt), "ink (ink drawing; ink)", "neon (neon; neon lights)"):
        assert part in str(error.value)


@pytest.mark.parametrize("prompt", ["", "   "])
def test_an_empty_prompt_is_allowed(prompt):
    assert TEXT.encode(prompt).isfinite().all()
