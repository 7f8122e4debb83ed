"""Settings beside a LoRA: alpha by layer, and what is no plain LoRA."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from live2diff_core.errors import (
    WeightsError,
    WeightsFormatError,
    WeightsKindError,
    WeightsMissingError,
)
from live2diff_core.weights.files import open_tensors
from live2diff_core.weights.lora_scaling import Scaling, read_scaling


def peft_file(folder: Path, settings: str | None) -> Path:
    path = folder / "adapter_model.safetensors"
    save_file({"a": torch.ones(1)}, path)
    if settings is not None:
        (folder / "adapter_config.json").write_text(settings, encoding="utf-8")
    return path


def diffusers_file(folder: Path, settings: str | None) -> Path:
    path = folder / "pytorch_lora_weights.safetensors"
    metadata = None if settings is None else {"lora_adapter_metadata": settings}
    save_file({"a": torch.ones(1)}, path, metadata)
    return path


@pytest.mark.parametrize(
    ("layer", "rank", "own_alpha", "scale"),
    [
        ("mid_block.proj_in", 2, None, 3.0),
        ("mid_block.proj_in", 4, None, 1.5),
        ("mid_block.proj_in", 4, 2.0, 0.5),
        ("mid_block.attn2.to_k", 4, None, 2.0),
        ("attn2.to_k", 4, None, 2.0),
        ("mid_block.xattn2.to_k", 4, None, 1.5),
        ("mid_block.attn2.to_k.more", 4, None, 1.5),
        ("conv_in", 4, None, 0.25),
        ("mid_block.conv_in", 4, None, 1.5),
    ],
)
def test_alpha_is_the_layers_own_or_a_patterns_or_the_common_one(layer, rank, own_alpha, scale):
    scaling = Scaling(6.0, {"attn2.to_k": 8.0, "^conv_in": 1.0}, rooted=False)
    assert scaling.scale(layer, rank, own_alpha) == scale


def test_a_rooted_scale_divides_by_the_root_of_the_rank():
    assert Scaling(6.0, {}, rooted=True).scale("conv_in", 4, None) == 6 / math.sqrt(4)


def test_peft_keeps_one_set_of_settings_beside_the_file(tmp_path):
    settings = {"lora_alpha": 3, "alpha_pattern": {"to_k": 4}, "use_rslora": True}
    scaling = Scaling(3.0, {"to_k": 4.0}, rooted=True)
    found = read_scaling(open_tensors(peft_file(tmp_path, json.dumps(settings))))
    assert found == {"unet": scaling, "text": scaling}


def test_diffusers_keeps_settings_of_each_part_in_the_file(tmp_path):
    settings = {"unet.lora_alpha": 3, "text_encoder.lora_alpha": 4, "text_encoder.r": 2}
    found = read_scaling(open_tensors(diffusers_file(tmp_path, json.dumps(settings))))
    assert found == {
        "unet": Scaling(3.0, {}, rooted=False),
        "text": Scaling(4.0, {}, rooted=False),
    }


@pytest.mark.parametrize("settings", [None, "{}", '{"text_encoder_2.lora_alpha": 1}'])
def test_most_files_have_no_settings(tmp_path, settings):
    assert read_scaling(open_tensors(diffusers_file(tmp_path, settings))) == {}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (None, WeightsMissingError, r"needs .*adapter_config\.json beside it"),
        ("{", WeightsFormatError, "are damaged"),
        ("[" * 100_000, WeightsFormatError, "are damaged"),
        ("[]", WeightsFormatError, "are a list, expected a JSON object"),
        ("{}", WeightsFormatError, "lora_alpha or alpha_pattern is missing"),
        ('{"lora_alpha": "much"}', WeightsFormatError, "is missing or no number"),
        ('{"lora_alpha": null}', WeightsFormatError, "is missing or no number"),
        ('{"lora_alpha": NaN}', WeightsFormatError, "not finite"),
        (f'{{"lora_alpha": 1{"0" * 400}}}', WeightsFormatError, "is missing or no number"),
        ('{"lora_alpha": 1, "alpha_pattern": [2]}', WeightsFormatError, "no number"),
        ('{"lora_alpha": 1, "alpha_pattern": {"(": 2}}', WeightsFormatError, "no number"),
        ('{"lora_alpha": 1, "alpha_pattern": {"a": Infinity}}', WeightsFormatError, "not finite"),
        ('{"lora_alpha": 1, "peft_type": "LOHA"}', WeightsKindError, "describes LOHA"),
        ('{"lora_alpha": 1, "use_dora": true}', WeightsKindError, "describes a DoRA"),
        (
            '{"lora_alpha": 1, "init_lora_weights": "pissa_niter_4"}',
            WeightsKindError,
            "belongs to a changed base",
        ),
    ],
)
def test_settings_that_are_damaged_or_of_something_else_are_refused(
    tmp_path, settings: str | None, error: type[WeightsError], message: str
):
    file = open_tensors(peft_file(tmp_path, settings))
    with pytest.raises(error, match=message):
        read_scaling(file)


@pytest.mark.parametrize("start", [True, False, "gaussian"])
def test_other_beginnings_do_not_matter(tmp_path, start):
    settings = {"lora_alpha": 1, "init_lora_weights": start}
    assert read_scaling(open_tensors(peft_file(tmp_path, json.dumps(settings))))
