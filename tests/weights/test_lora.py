"""LoRA files of every trainer: the same layers, merged as diffusers and peft merge them."""

import copy
import json
import tempfile
from pathlib import Path

import peft as peft_package
import pytest
import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin as Diffusers
from diffusers.loaders.lora_base import fuse_text_encoder_lora
from diffusers.utils import convert_state_dict_to_diffusers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from live2diff_core.errors import WeightsKindError
from live2diff_core.models.adapters import Adapter, variant
from live2diff_core.weights.lora import load_lora, load_unet_lora
from live2diff_core.weights.text import empty_clip
from tests import loras
from tests.loras import (
    PARTS,
    RANK,
    TEXT,
    UNET,
    Factors,
    State,
    expected_delta,
    is_attention,
    layer_shapes,
    load,
    with_alpha,
    written,
)

# Writer, which layers the format can name, and the one alpha of a format that states none.
FORMATS = {
    "kohya": (loras.kohya, lambda _: True, None),
    "kohya, original names": (loras.kohya_original, lambda _: True, None),
    "diffusers, processors": (loras.diffusers_processors, is_attention, RANK),
    "diffusers": (loras.diffusers, lambda _: True, RANK),
    "peft": (loras.peft, lambda _: True, RANK),
    "peft, wrapped": (loras.peft_wrapped, lambda _: True, None),
}


def factors_of(name: str) -> Factors:
    _, wanted, alpha = FORMATS[name]
    return loras.make_factors(PARTS, RANK, wanted, alpha)


def check_deltas(adapter: Adapter, factors: Factors) -> None:
    """All layers and no others, each as alpha / rank x up x down."""
    for part, module in (("unet", UNET), ("text", TEXT)):
        changes, weights = getattr(adapter, part), dict(module.named_parameters())
        assert changes.keys() == {f"{layer}.weight" for layer in factors.get(part, {})}
        for layer, values in factors.get(part, {}).items():
            delta = changes[f"{layer}.weight"].delta(weights[f"{layer}.weight"])
            torch.testing.assert_close(
                delta.double(), expected_delta(values).view_as(delta), rtol=2e-6, atol=1e-6
            )


# ---- formats


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_its_layers_and_scales(tmp_path, name):
    factors = factors_of(name)
    adapter = load(written(tmp_path, FORMATS[name][0](factors)))
    assert adapter.name == "ink"
    check_deltas(adapter, factors)


def fused_by_diffusers(path: Path, strength: float) -> list[State]:
    """Weights of both networks after diffusers and peft have loaded and fused a file."""
    unet, text = copy.deepcopy(UNET), copy.deepcopy(TEXT)
    state, alphas, metadata = Diffusers.lora_state_dict(
        str(path), unet_config=unet.config, return_lora_metadata=True
    )
    Diffusers.load_lora_into_unet(state, alphas, unet, metadata=metadata)
    Diffusers.load_lora_into_text_encoder(state, alphas, text, metadata=metadata)
    unet.fuse_lora(lora_scale=strength)
    fuse_text_encoder_lora(text, lora_scale=strength)
    return [plain(unet), plain(text)]


def plain(module: nn.Module) -> State:
    """Weights by the names that they had before peft wrapped their layers."""
    own = module.state_dict().items()
    return {key.replace("base_layer.", ""): t for key, t in own if ".lora_" not in key}


def check_merged(adapter: Adapter, strength: float, theirs: list[State]) -> None:
    ours = [variant(UNET, [(adapter.unet, strength)]), variant(TEXT, [(adapter.text, strength)])]
    for module, state in zip(ours, theirs, strict=True):
        assert module.state_dict().keys() == state.keys()
        for key, tensor in module.state_dict().items():
            torch.testing.assert_close(tensor, state[key], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "peft, wrapped"])
def test_merged_weights_equal_those_of_diffusers(tmp_path, name):
    write, wanted, alpha = FORMATS[name]
    # diffusers forgets alphas of attention layers where they differ
    factors = loras.make_factors(PARTS, RANK, wanted, alpha or 3.0)
    if name == "kohya, original names":  # diffusers takes this upsampler for an attention
        del factors["unet"]["up_blocks.0.upsamplers.0.conv"]
    path = written(tmp_path, write(factors))
    check_merged(load(path), -0.7, fused_by_diffusers(path, -0.7))


def trained(module: nn.Module, targets: list[str], **given) -> nn.Module:
    """A network with factors as peft makes them for diffusers' trainers."""
    config = peft_package.LoraConfig(r=2, lora_alpha=3, target_modules=targets, **given)
    module.add_adapter(config)
    fill(module)
    return module


def fill(module: nn.Module) -> None:
    """Random factors in place of the zeros that peft begins with."""
    for name, parameter in module.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))


SETTINGS = {
    "use_rslora": True,
    "alpha_pattern": {"attn2.to_k": 5, "^mid_block.attentions.0.proj_in": 7},
    "rank_pattern": {"proj_in": 1},
}


def test_what_diffusers_saves_with_settings_is_merged_alike(tmp_path):
    unet = trained(copy.deepcopy(UNET), ["to_k", "to_out.0", "proj_in", "conv1"], **SETTINGS)
    text_alphas = {"encoder.layers.1.mlp.fc1": 4}
    text = trained(copy.deepcopy(TEXT), ["q_proj", "fc1"], alpha_pattern=text_alphas)
    states = [
        convert_state_dict_to_diffusers(peft_package.get_peft_model_state_dict(module))
        for module in (unet, text)
    ]
    Diffusers.save_lora_weights(
        tmp_path,
        *states,
        unet_lora_adapter_metadata=as_json(unet),
        text_encoder_lora_adapter_metadata=as_json(text),
    )
    adapter = load(tmp_path)
    assert adapter.name == tmp_path.name
    assert [2 * len(adapter.unet), 2 * len(adapter.text)] == [len(state) for state in states]
    unet.fuse_lora()
    fuse_text_encoder_lora(text)
    check_merged(adapter, 1.0, [plain(unet), plain(text)])


def as_json(module: nn.Module) -> dict:
    settings = module.peft_config["default"].to_dict()
    return {key: sorted(v) if isinstance(v, set) else v for key, v in settings.items()}


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickle"])
def test_a_folder_that_peft_saved_is_merged_alike(tmp_path, safe):
    targets = ["to_k", "to_out.0", "proj_in", "conv1"]
    config = peft_package.LoraConfig(r=4, lora_alpha=6, target_modules=targets, **SETTINGS)
    module = peft_package.get_peft_model(copy.deepcopy(UNET), config)
    fill(module)
    module.save_pretrained(tmp_path, safe_serialization=safe)
    adapter = load(tmp_path)
    assert adapter.name == tmp_path.name
    check_merged(adapter, 1.0, [plain(module.merge_and_unload()), TEXT.state_dict()])


def test_a_pickle_is_read_like_safetensors(tmp_path):
    factors = factors_of("kohya")
    path = tmp_path / "ink.pt"
    torch.save(loras.kohya(factors), path)
    check_deltas(load(path), factors)


def test_files_of_early_diffusers_without_a_prefix_are_for_the_unet(tmp_path):
    factors = {"unet": factors_of("diffusers, processors")["unet"]}
    state = loras.diffusers_processors(factors)
    path = written(tmp_path, {key.removeprefix("unet."): t for key, t in state.items()})
    check_deltas(load(path), factors)


@pytest.mark.parametrize("part", ["unet", "text"])
def test_a_lora_may_change_one_part_alone(tmp_path, part):
    factors = {part: factors_of("kohya")[part]}
    check_deltas(load(written(tmp_path, loras.kohya(factors))), factors)


def test_lcm_lora_finds_every_layer_of_the_full_size_network(tmp_path):
    """It changes all layers but the two outer convolutions and the time embedding."""
    with torch.device("meta"):
        unet = loras.UNet2DConditionModel(cross_attention_dim=768)
    outer = ("conv_in", "conv_out", "time_embedding")
    shapes = {n: s for n, s in layer_shapes(unet).items() if not n.startswith(outer)}
    state = loras.kohya(loras.make_factors({"unet": shapes}, rank=1))
    path = written(tmp_path, {key: tensor.half() for key, tensor in state.items()})
    assert len(state) == 834
    adapter = load_lora(path, unet, TEXT)
    assert adapter.unet.keys() == {f"{layer}.weight" for layer in shapes}
    assert {change.up.dtype for change in adapter.unet.values()} == {torch.float16}


@pytest.mark.parametrize("convolution", [True, False])
def test_convolutions_of_one_pixel_and_linear_layers_are_the_same(tmp_path, convolution):
    """Stable Diffusion's projections are the one or the other, and so are their LoRAs."""
    unet = loras.make_unet(use_linear_projection=not convolution)
    layer = "mid_block.attentions.0.proj_in"
    assert unet.get_parameter(f"{layer}.weight").ndim == (4 if convolution else 2)
    factors = loras.make_factors({"unet": {layer: (16, 16)}})
    up, down, alpha = factors["unet"][layer]
    for shape in ((), (1, 1)):
        resized = up.view(*up.shape, *shape), down.view(*down.shape, *shape), alpha
        path = written(tmp_path, loras.kohya({"unet": {layer: resized}}))
        change = load_lora(path, unet, TEXT).unet[f"{layer}.weight"]
        delta = change.delta(unet.get_parameter(f"{layer}.weight"))
        expected = expected_delta(factors["unet"][layer]).view_as(delta)
        torch.testing.assert_close(delta.double(), expected)


def test_text_models_of_older_transformers_get_the_same_changes(tmp_path):
    factors = factors_of("kohya")
    path = written(tmp_path, loras.kohya(factors))
    wrapped = nn.ModuleDict({"text_model": TEXT})
    ours, theirs = load(path), load_lora(path, UNET, wrapped)
    assert theirs.text.keys() == {f"text_model.{key}" for key in ours.text}


def test_the_adapter_outlives_its_file(tmp_path):
    factors = factors_of("kohya")
    path = tmp_path / "ink.pt"
    torch.save(loras.kohya(factors), path)
    adapter = load(path)
    path.write_bytes(bytes(path.stat().st_size))
    check_deltas(adapter, factors)


def test_the_modules_are_only_looked_at(tmp_path):
    before = {key: tensor.clone() for key, tensor in UNET.state_dict().items()}
    load(written(tmp_path, loras.kohya(factors_of("kohya"))))
    assert all(torch.equal(before[key], tensor) for key, tensor in UNET.state_dict().items())


@given(
    name=st.sampled_from(sorted(FORMATS)),
    rank=st.integers(1, 9),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    data=st.data(),
)
@settings(max_examples=40)
def test_any_layers_in_any_format_rank_and_precision(name, rank, dtype, data):
    write, wanted, alpha = FORMATS[name]
    every = [(p, layer) for p, shapes in PARTS.items() for layer in shapes if wanted(layer)]
    chosen = set(data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=5)))
    parts = {p: {n: s for n, s in PARTS[p].items() if (p, n) in chosen} for p in PARTS}
    drawn = loras.make_factors(parts, rank, alpha=alpha and float(rank))
    factors = {
        part: {n: (up.to(dtype), down.to(dtype), a) for n, (up, down, a) in layers.items()}
        for part, layers in drawn.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        check_deltas(load(written(Path(folder), write(factors))), factors)


# ---- alpha


@pytest.mark.parametrize("alpha", [torch.tensor([4.0]), torch.tensor(4), torch.tensor(4.0).half()])
def test_an_alpha_may_be_any_one_number(tmp_path, alpha):
    factors = loras.make_factors(PARTS, RANK, alpha=4.0)
    check_deltas(load(written(tmp_path, with_alpha(loras.kohya(factors), alpha))), factors)


def test_a_layers_own_alpha_comes_before_the_settings(tmp_path):
    factors = loras.make_factors(PARTS, RANK, alpha=4.0)
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 9})}
    state = loras.peft_wrapped(factors)
    check_deltas(load(written(tmp_path, state, metadata)), factors)


# ---- the UNet's part


FC1 = "encoder.layers.3.mlp.fc1"
CLIP = {FC1: layer_shapes(empty_clip())[FC1]}


def test_the_part_for_the_text_is_left_out_with_a_warning(tmp_path, caplog):
    factors = loras.make_factors({"unet": PARTS["unet"], "text": CLIP})
    path = written(tmp_path, loras.kohya(factors))
    adapter = load_unet_lora(path, UNET)
    check_deltas(adapter, {"unet": factors["unet"]})
    assert adapter.name == "ink"
    assert caplog.text.count("put Load LoRA before the text encoder") == 1
    assert str(path) in caplog.text


def test_a_lora_for_the_unet_alone_is_loaded_without_a_word(tmp_path, caplog):
    factors = loras.make_factors({"unet": PARTS["unet"]})
    check_deltas(load_unet_lora(written(tmp_path, loras.kohya(factors)), UNET), factors)
    assert caplog.text == ""


def test_a_lora_for_the_text_alone_changes_nothing_and_says_so(tmp_path, caplog):
    factors = loras.make_factors({"text": CLIP})
    adapter = load_unet_lora(written(tmp_path, loras.kohya(factors)), UNET)
    assert (adapter.unet, adapter.text) == ({}, {})
    assert "left out" in caplog.text


@pytest.mark.parametrize("part", [{"unet": {"conv_in": (9, 4, 3, 3)}}, {"text": PARTS["text"]}])
def test_a_lora_of_another_base_is_refused_by_either_part(tmp_path, part):
    path = written(tmp_path, loras.kohya(loras.make_factors(part)))
    with pytest.raises(WeightsKindError, match="trained for the same base"):
        load_unet_lora(path, UNET)
