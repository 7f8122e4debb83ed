"""Prompts: what a model knows, and travelling between two of them."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from live2diff_core.errors import ConfigError, PromptError, WeightsKindError
from live2diff_core.models.adapters import LowRank, variant
from live2diff_core.models.text import TextEncoder, blend, text_transformer
from tests.tiny import tiny_model

TEXT = tiny_model().text
FREE = TextEncoder(TEXT.tokenizer, TEXT.model)  # takes any words, in chunks of six
TABLE = text_transformer(TEXT.model).embeddings.token_embedding.weight.detach()


def vectors_of(words: str) -> Tensor:
    """What the model's own token embedding has for words, (words, dim)."""
    return TABLE[TEXT.tokenizer(words, add_special_tokens=False).input_ids].clone()


def rows_of(*prompts: str) -> Tensor:
    """The model alone on whole prompts of at most one chunk each, joined."""
    ids = [TEXT.tokenizer(p, padding="max_length", max_length=8).input_ids for p in prompts]
    return torch.cat([TEXT.model(torch.tensor([row])).last_hidden_state for row in ids], dim=1)


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


@pytest.mark.parametrize("weight", [0, 0.5, 1])
def test_embeddings_of_different_lengths_are_refused(weight):
    with pytest.raises(ConfigError, match=r"got 6 and 12 tokens.*align"):
        blend(embedding(1), embedding(2, tokens=12), weight)


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


@pytest.mark.parametrize("skip", [0, -1, 4])
def test_a_clip_skip_beyond_the_layers_is_refused(skip):
    with pytest.raises(ConfigError, match=f"1 to 3 here, got {skip}"):
        TextEncoder(TEXT.tokenizer, TEXT.model, clip_skip=skip)


def test_a_batch_of_prompts_is_each_alone():
    together = TEXT.encode_batch(["ink", "neon lights of the city"])
    for row, prompt in enumerate(("ink", "neon lights of the city")):
        torch.testing.assert_close(together[row : row + 1], TEXT.encode(prompt))


def test_other_words_are_another_embedding():
    assert (TEXT.encode("ink cat") - TEXT.encode("ink city")).abs().max() > 0.01


def test_a_long_prompt_of_a_style_model_is_cut():
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


def test_a_style_model_reads_weights():
    plain, weighted = TEXT.encode("ink cat"), TEXT.encode("(ink:1.4) cat")
    empty = TEXT.encode("")
    torch.testing.assert_close(weighted[:, 1], (plain - empty)[:, 1] * 1.4 + empty[:, 1])
    assert TEXT.named_styles("a ((ink) drawing:0.5)") == ["ink"]


def test_a_style_that_stands_behind_what_is_read_is_not_named():
    assert TEXT.named_styles("(a:1.2) cat of the city a (ink)") == []
    assert TEXT.named_styles("(a:1.2) cat of the city (ink)") == ["ink"]


# ---- chunks


@pytest.mark.parametrize(("words", "chunks"), [(0, 1), (6, 1), (7, 2), (12, 2), (13, 3), (60, 10)])
def test_a_long_prompt_is_read_in_chunks(words, chunks):
    assert FREE.encode("cat " * words).shape == (1, 8 * chunks, 16)


def test_each_chunk_is_encoded_alone():
    got = FREE.encode("a cat of the neon city ink drawing")
    torch.testing.assert_close(got, rows_of("a cat of the neon city", "ink drawing"))


def test_a_short_weighted_part_is_not_cut():
    got = FREE.encode("a cat of the city (ink drawing:1.0)")
    torch.testing.assert_close(got, rows_of("a cat of the city", "ink drawing"))


def test_a_batch_is_as_long_as_its_longest_prompt():
    both = FREE.encode_batch(["ink", "a cat of the neon city ink drawing"])
    torch.testing.assert_close(both[:1], rows_of("ink", ""))
    torch.testing.assert_close(both[1:], rows_of("a cat of the neon city", "ink drawing"))


# ---- weights


@pytest.mark.parametrize("weight", [-1, 0, 0.5, 1.1, 1.7])
def test_a_weight_moves_a_token_away_from_the_empty_prompt(weight):
    got = FREE.encode(f"a (cat city:{weight}) of")
    plain, empty = rows_of("a cat city of"), rows_of("")
    expected = plain.clone()
    for place in (2, 3):  # after start and `a`
        z, z_empty = plain[0, place], empty[0, place]
        expected[0, place] = (z - z_empty) * weight + z_empty
    torch.testing.assert_close(got, expected)
    if weight == 0:
        assert (got - plain).abs().max() > 0.01


def test_weights_hold_in_later_chunks():
    got = FREE.encode("a cat of the neon city (ink:1.5) drawing")
    plain = rows_of("a cat of the neon city", "ink drawing")
    z_empty = rows_of("")[0, 1]
    plain[0, 9] = (plain[0, 9] - z_empty) * 1.5 + z_empty
    torch.testing.assert_close(got, plain)


def test_weights_of_one_cost_and_change_nothing(monkeypatch):
    rows = []
    model_forward = type(TEXT.model).forward

    def forward(self, ids, **kwargs):
        rows.append(len(ids))
        return model_forward(self, ids, **kwargs)

    monkeypatch.setattr(type(TEXT.model), "forward", forward)
    assert torch.equal(FREE.encode("a (cat:1) of"), FREE.encode("a cat of"))
    FREE.encode("a (cat:1.1) of")
    assert rows == [1, 1, 2]


# ---- alignment


def test_the_shorter_embedding_is_lengthened_by_the_empty_prompt():
    short, long = FREE.encode("ink"), FREE.encode("cat " * 20)
    first, second = FREE.align(short, long)
    assert torch.equal(second, long)
    torch.testing.assert_close(first, rows_of("ink", "", "", ""))
    assert [t.shape for t in FREE.align(long, short)] == [long.shape, long.shape]
    blend(first, second, 0.5)


def test_embeddings_of_one_length_are_left_alone():
    first, second = FREE.encode("ink"), FREE.encode("neon")
    assert all(a is b for a, b in zip(FREE.align(first, second), (first, second), strict=True))


def test_a_lengthened_embedding_keeps_its_precision():
    short, long = FREE.encode("ink").double(), FREE.encode("cat " * 20)
    assert FREE.align(short, long)[0].dtype == torch.float64


def test_lengths_that_are_no_chunks_apart_cannot_be_aligned():
    with pytest.raises(ConfigError, match=r"5 and 8 tokens.*multiple of 8"):
        FREE.align(torch.zeros(1, 5, 16), FREE.encode("ink"))


# ---- concepts


def with_concepts(clip_skip: int = 1, **concepts: Tensor) -> TextEncoder:
    return TextEncoder(TEXT.tokenizer, TEXT.model, clip_skip, concepts)


@pytest.mark.parametrize("clip_skip", [1, 2])
@pytest.mark.parametrize("call", ["embedding:Hero", "embedding:hero", "hero", "HERO"])
def test_a_concept_stands_for_its_vectors(call, clip_skip):
    encoder = with_concepts(clip_skip, Hero=vectors_of("neon cat"))
    plain = TextEncoder(TEXT.tokenizer, TEXT.model, clip_skip)
    torch.testing.assert_close(encoder.encode(f"a {call} city"), plain.encode("a neon cat city"))


def test_several_concepts_do_not_mix():
    encoder = with_concepts(one=vectors_of("ink"), two=vectors_of("the city"))
    got = encoder.encode("two of embedding:one")
    torch.testing.assert_close(got, FREE.encode("the city of ink"))


def test_a_concept_can_be_weighted():
    got = with_concepts(hero=vectors_of("neon cat")).encode("a (embedding:hero:1.3)")
    torch.testing.assert_close(got, FREE.encode("a (neon cat:1.3)"))


def test_vectors_that_no_word_has_show():
    encoder = with_concepts(hero=vectors_of("cat") * 2)
    assert (encoder.encode("hero") - FREE.encode("cat")).abs().max() > 0.01


def test_the_model_and_other_encoders_stay_as_they_were():
    before = TEXT.model.state_dict().keys()
    first, second = with_concepts(hero=vectors_of("ink")), with_concepts(hero=vectors_of("neon"))
    torch.testing.assert_close(first.encode("hero"), FREE.encode("ink"))
    torch.testing.assert_close(second.encode("hero"), FREE.encode("neon"))
    assert first.model.state_dict().keys() == TEXT.model.state_dict().keys() == before
    assert type(text_transformer(TEXT.model).embeddings.token_embedding) is torch.nn.Embedding
    assert text_transformer(first.model).embeddings.token_embedding.weight.data_ptr() == (
        text_transformer(TEXT.model).embeddings.token_embedding.weight.data_ptr()
    )


def test_a_variant_of_the_model_keeps_concepts_and_settings():
    encoder = with_concepts(2, hero=vectors_of("ink cat"))
    key = next(k for k, _ in encoder.model.named_parameters() if k.endswith("0.mlp.fc1.weight"))
    change = LowRank(torch.ones(32, 1), torch.linspace(-1, 1, 16)[None], 0.1)
    changed = encoder.with_model(variant(encoder.model, [({key: change}, 1.0)]))
    before, after = encoder.encode("a hero"), changed.encode("a hero")
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(after, changed.encode("a ink cat"))
    assert torch.equal(encoder.encode("a hero"), before)


def test_threads_that_share_an_encoder_do_not_disturb_each_other():
    encoder = with_concepts(2, hero=vectors_of("neon cat"), villain=vectors_of("ink"))
    prompts = ["hero", "villain hero", "a cat", "(hero:1.3) city", "ink " * 20, ""] * 8
    expected = [encoder.encode(prompt) for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(encoder.encode, prompts))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("shape", [(2, 24), (16,), (1, 2, 16)])
def test_a_concept_of_another_width_is_refused(shape):
    with pytest.raises(WeightsKindError, match=r"hero.*another base"):
        with_concepts(hero=torch.zeros(shape))


def test_an_unknown_concept_is_refused():
    with pytest.raises(PromptError, match=r"embedding:villain.*known: hero"):
        with_concepts(hero=vectors_of("ink")).encode("embedding:villain")
