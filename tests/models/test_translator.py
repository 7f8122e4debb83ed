"""What a whole model says about sizes and where it computes, and what it does without words."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from live2diff_core.config import Guidance
from live2diff_core.errors import ConfigError, FrameSizeError, PromptError
from live2diff_core.models.adapters import Adapter, AdapterUse, LowRank
from live2diff_core.models.depth import DepthRange, depth_latent
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from tests.tiny import (
    distance,
    make_frames,
    make_model,
    reference,
    same,
    stream_config,
    tiny_model,
)


@pytest.mark.parametrize("size", [(8, 8), (24, 16), (640, 360)])
def test_multiples_are_taken(size):
    tiny_model().check_size(*size)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((25, 16), "24x16"),
        ((24, 15), "24x16"),
        ((30, 30), "32x32"),
        ((3, 3), "8x8"),
        ((641, 479), "640x480"),
        ((0, 16), "8x16"),
        ((-8, 16), "8x16"),
    ],
)
def test_other_sizes_are_refused_with_the_nearest(size, nearest):
    with pytest.raises(FrameSizeError, match=f"multiples of 8 .*nearest size is {nearest}$") as e:
        tiny_model().check_size(*size)
    assert "x".join(map(str, size)) in str(e.value)


def test_the_multiple_is_that_of_autoencoder_and_network():
    model = tiny_model()
    assert (model.size_multiple, model.autoencoder.factor, model.unet.size_multiple) == (8, 4, 2)


def test_device_and_dtype_are_those_of_the_weights():
    model = make_model()
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    model.unet.double()
    assert model.dtype == torch.float64


def test_depth_features_are_the_mapped_latents_of_the_structure_map():
    model = tiny_model()
    rgb = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    features = model.depth_features(rgb, DepthRange())
    assert features.shape == (2, 32, 4, 6)
    expected = model.unet.depth_mapping(depth_latent(model.autoencoder, model.depth(rgb)))
    assert torch.equal(features, expected)
    torch.testing.assert_close(
        model.depth_features(rgb[1:], DepthRange()), features[1:], rtol=0, atol=1e-5
    )


# ---- without a text encoder


def wordless() -> TranslationModel:
    return replace(tiny_model(), text_encoder=None)


def changes(network: nn.Module, end: str) -> dict[str, LowRank]:
    """A change of the first weight with such an end to its name."""
    key, weight = next((k, p) for k, p in network.named_parameters() if k.endswith(end))
    return {key: LowRank(torch.ones(len(weight), 1), torch.ones(1, weight.shape[1]), 0.1)}


def use(text: float) -> AdapterUse:
    """A LoRA of UNet and text encoder at full strength for the UNet."""
    model = tiny_model()
    unet = changes(model.unet.spatial, "to_q.weight")
    words = changes(model.text.model, "q_proj.weight")
    return AdapterUse(Adapter("mine", unet, words), 1.0, text)


def test_an_embedding_runs_a_model_without_words_as_its_prompt_runs_the_whole_one():
    embedding = tiny_model().text.encode("ink")
    with Session(wordless(), stream_config(), embedding) as session:
        assert same(list(translate(session, make_frames(12))), reference(12, stream_config()))


def test_words_are_refused_by_a_model_without():
    with pytest.raises(PromptError, match="reads no words: give a text embedding"):
        Session(wordless(), stream_config(), "ink")


def test_full_guidance_needs_words():
    embedding = tiny_model().text.encode("ink")
    config = stream_config(guidance=Guidance("full", 2.0))
    with pytest.raises(ConfigError, match="and tiny reads no words: choose guidance"):
        Session(wordless(), config, embedding)


def test_a_lora_changes_the_unet_of_a_model_without_words():
    embedding = tiny_model().text.encode("ink")
    changed, whole = (m.with_adapters([use(0.0)]) for m in (wordless(), tiny_model()))
    ours, theirs = (
        list(translate(Session(model, stream_config(), embedding), make_frames(9)))
        for model in (changed, whole)
    )
    assert same(ours, theirs)
    assert distance(ours, reference(9, stream_config())) > 1e-4
    assert changed.is_variant_of(changed.with_adapters([]))


def test_a_lora_of_the_text_encoder_is_refused_by_a_model_without():
    with pytest.raises(ConfigError, match="LoRA mine changes the text encoder and tiny has none"):
        wordless().with_adapters([use(0.5)])


# ---- the strength of a LoRA


def unet_use(name: str, end: str, strength: float) -> AdapterUse:
    """A LoRA of the UNet alone."""
    adapter = Adapter(name, changes(tiny_model().unet.spatial, end), {})
    return AdapterUse(adapter, strength, strength)


def weights_of(model: TranslationModel) -> dict[str, torch.Tensor]:
    return {**model.unet.state_dict(), **model.text.model.state_dict()}


def is_same(ours: TranslationModel, theirs: TranslationModel) -> bool:
    first, second = weights_of(ours), weights_of(theirs)
    return all(torch.equal(first[key], second[key]) for key in first | second)


def test_strength_0_is_the_origin_to_the_bit():
    model = tiny_model().with_adapters([use(0.7)])
    assert not is_same(model, tiny_model())
    off = model.with_strength(0)
    assert is_same(off, tiny_model())
    assert off.is_variant_of(tiny_model())
    frames = make_frames(9)
    ours = list(translate(Session(off, stream_config(), "ink"), frames))
    assert same(ours, reference(9, stream_config()))


def test_another_strength_is_that_from_the_start_whatever_came_between():
    lora = use(0.5).adapter
    began = tiny_model().with_adapters([AdapterUse(lora, 2.0, 2.0)])
    strayed = tiny_model().with_adapters([AdapterUse(lora, 1.0, 0.5)])
    for strength in (-3.0, 0.0, 5.0):
        strayed = strayed.with_strength(strength)
    assert is_same(strayed.with_strength(2.0), began)
    assert strayed.adapters == (AdapterUse(lora, 5.0, 5.0),)


def test_the_strength_is_that_of_the_last_lora():
    first, last = unet_use("first", "to_q.weight", 0.5), unet_use("last", "to_k.weight", 1.0)
    model = tiny_model().with_adapters([first, last]).with_strength(-1)
    assert model.adapters == (first, AdapterUse(last.adapter, -1, -1))
    assert is_same(model.with_strength(0), tiny_model().with_adapters([first]))


def test_a_strength_leaves_the_model_as_it_was():
    model = tiny_model().with_adapters([use(1.0)])
    before = {key: tensor.clone() for key, tensor in weights_of(model).items()}
    other = model.with_strength(0.25)
    assert all(torch.equal(before[key], tensor) for key, tensor in weights_of(model).items())
    assert not is_same(other, model)


@pytest.mark.parametrize("strength", [5.1, -5.1, float("nan"), float("inf")])
def test_a_strength_beyond_5_is_refused(strength):
    with pytest.raises(ConfigError, match="expected -5 to 5"):
        tiny_model().with_adapters([use(1.0)]).with_strength(strength)


def test_a_model_without_loras_has_no_strength():
    for model in (tiny_model(), tiny_model().with_adapters([use(1.0)]).with_adapters([])):
        with pytest.raises(ConfigError, match="tiny has no LoRA"):
            model.with_strength(0.5)
