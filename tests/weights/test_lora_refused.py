"""LoRA files that cannot be used: each says what it is, in one line."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from live2diff_core.errors import (
    WeightsError,
    WeightsFormatError,
    WeightsKeyError,
    WeightsKindError,
    WeightsMissingError,
    WeightsValueError,
)
from live2diff_core.models.adapters import Adapter
from tests import loras
from tests.loras import (
    PARTS,
    RANK,
    State,
    load,
    written,
)


def refused(
    tmp_path: Path, state: State, error: type[WeightsError], message: str, **metadata: str
) -> None:
    path = written(tmp_path, state, metadata or None)
    with pytest.raises(error, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def small_state() -> State:
    return loras.kohya(loras.make_factors(PARTS, RANK, lambda n: n.endswith("attn2.to_k")))


def pair(name: str, rows: int, columns: int) -> State:
    return {
        f"{name}.lora_up.weight": torch.ones(rows, 2),
        f"{name}.lora_down.weight": torch.ones(2, columns),
    }


BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
OTHER_BASES = {
    "Stable Diffusion XL": pair("lora_te2_text_model_encoder_layers_0_mlp_fc1", 20, 12)
    | pair(f"{BLOCK}_attn2_to_k", 8, 2048),
    "Stable Diffusion XL, by depth": pair(
        "lora_unet_input_blocks_7_1_transformer_blocks_9_ff_net_2", 8, 8
    ),
    "Stable Diffusion 2": pair(f"{BLOCK}_attn2_to_k", 8, 1024),
    "Stable Diffusion 1.5": pair(f"{BLOCK}_attn2_to_k", 320, 768),
    "Flux": pair("lora_unet_double_blocks_0_img_attn_proj", 8, 8),
    "motion LoRA": pair(
        "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.to_q", 8, 8
    ),
    "another kind of network": pair("lora_unet_blocks_0_self_attn_q", 8, 8),
}


@pytest.mark.parametrize("base", OTHER_BASES)
def test_a_lora_of_another_base_is_refused_and_named(tmp_path, base):
    message = f"{base.partition(',')[0]}.*does not fit this model.*take a LoRA that was trained"
    refused(tmp_path, OTHER_BASES[base], WeightsKindError, message)


@pytest.mark.parametrize(
    ("rows", "columns"), [(8, 13), (9, 12)], ids=["input of another size", "output"]
)
def test_a_layer_of_another_size_is_refused(tmp_path, rows, columns):
    state = small_state() | pair(f"{BLOCK}_attn2_to_k", rows, columns)
    refused(tmp_path, state, WeightsKindError, "1 of its 4 layers are missing here or have another")


def test_a_convolution_with_another_kernel_is_refused(tmp_path):
    factors = loras.make_factors({"unet": {"mid_block.resnets.0.conv1": (16, 16, 1, 9)}})
    refused(tmp_path, loras.kohya(factors), WeightsKindError, "does not fit this model")


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("lora_mid.weight", "LoCon in Tucker form"),
        ("dora_scale", "DoRA"),
        ("oft_blocks", "OFT"),
        ("a1.weight", "GLoRA"),
        ("on_input", r"\(IA\)3"),
        ("diff", "full difference"),
        ("diff_b", "full difference"),
        ("w_norm", "full difference"),
        ("lora_embedding_A", "LoRA of token embeddings"),
        ("lora_B.bias", "LoRA with biases"),
    ],
)
def test_kin_of_lora_is_refused_by_its_name(tmp_path, ending, kind):
    state = small_state() | {f"{BLOCK}_attn1_to_q.{ending}": torch.ones(2, 2)}
    refused(tmp_path, state, WeightsKindError, f"of the type {kind}.*plain LoRA or LoCon")


@pytest.mark.parametrize("lacking", ["up", "down"])
def test_half_a_layer_is_refused(tmp_path, lacking):
    state = small_state()
    del state[f"{BLOCK}_attn2_to_k.lora_{lacking}.weight"]
    refused(tmp_path, state, WeightsKeyError, f"to_k has no {lacking} factor")


def test_an_alpha_alone_is_refused(tmp_path):
    state = small_state() | {f"{BLOCK}_attn1_to_k.alpha": torch.tensor(1.0)}
    refused(tmp_path, state, WeightsKeyError, "attn1_to_k has no down factor")


@pytest.mark.parametrize(
    "up", [torch.ones(8, 3), torch.ones(8), torch.ones(8, 2, 1), torch.ones(8, 0)]
)
def test_factors_of_two_ranks_are_refused(tmp_path, up):
    state = small_state() | {f"{BLOCK}_attn2_to_k.lora_up.weight": up}
    refused(tmp_path, state, WeightsKeyError, r"do not belong together, down is \(2, 12\) and up")


def test_factors_without_a_rank_are_refused(tmp_path):
    key = f"{BLOCK}_attn2_to_k.lora_"
    empty = {f"{key}up.weight": torch.ones(8, 0), f"{key}down.weight": torch.ones(0, 12)}
    refused(tmp_path, small_state() | empty, WeightsKeyError, "do not belong together")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("ending", ["lora_up.weight", "lora_down.weight", "alpha"])
def test_nan_and_infinity_are_refused(tmp_path, ending, value):
    state = small_state()
    state[f"{BLOCK}_attn2_to_k.{ending}"].view(-1)[0] = value
    refused(tmp_path, state, WeightsValueError, "NaN or infinite values in 1 tensors")


def test_factors_that_are_no_numbers_with_fractions_are_refused(tmp_path):
    state = small_state() | {f"{BLOCK}_attn2_to_k.lora_up.weight": torch.ones(8, 2).short()}
    refused(tmp_path, state, WeightsFormatError, "expected floating-point numbers")


def test_an_alpha_of_several_numbers_is_refused(tmp_path):
    state = small_state() | {f"{BLOCK}_attn2_to_k.alpha": torch.ones(2)}
    refused(tmp_path, state, WeightsFormatError, "expected one number")


def test_a_layer_under_two_names_is_refused(tmp_path):
    again = pair("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 8, 12)
    refused(tmp_path, small_state() | again, WeightsKeyError, "layers twice")
    key = "unet.mid_block.attentions.0.proj_in.lora_A"
    twice = {f"{key}.weight": torch.ones(2, 16), f"{key}.default.weight": torch.ones(2, 16)}
    refused(tmp_path, twice, WeightsKeyError, "again as")


def test_keys_of_nobody_are_refused(tmp_path):
    state = small_state() | {f"{BLOCK}_attn2_to_k.magic": torch.ones(1)}
    refused(tmp_path, state, WeightsKeyError, "1 keys beside its LoRA.*magic")


@pytest.mark.parametrize("state", [{}, {"conv_in.weight": torch.ones(8, 4, 3, 3)}])
def test_a_file_without_lora_is_refused(tmp_path, state):
    refused(tmp_path, state, WeightsKindError, "holds no LoRA")


def test_a_folder_without_lora_is_refused(tmp_path):
    with pytest.raises(WeightsMissingError, match=r"expected adapter_model\.safetensors with"):
        load(tmp_path)


def test_bundled_textual_inversions_are_left_out_and_named(tmp_path, caplog):
    state = small_state() | {"bundle_emb.inky.string_to_param.*": torch.ones(1, 12)}
    adapter = load(written(tmp_path, state))
    assert len(adapter.unet) == 4
    assert "brings textual inversions (inky), which are not loaded" in caplog.text


@given(data=st.data())
@settings(max_examples=200)
def test_a_damaged_file_raises_our_errors_alone(data):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), small_state(), {"lora_adapter_metadata": "{}"})
        content = bytearray(path.read_bytes())
        header = 8 + int.from_bytes(content[:8], "little")
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, header - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            assert isinstance(load(path), Adapter)
        except WeightsError as error:
            assert str(path) in str(error)
