"""Layers by all the names that files use for them."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from torch import nn

from live2diff_core.weights.ldm import ldm_names
from live2diff_core.weights.lora_names import flat, layer_table

UNET, ENDS = "model.diffusion_model.", ("weight", "bias")


def make_unet(**settings) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=768, **settings)


def layers(module: nn.Module) -> list[str]:
    return [n for n, child in module.named_modules() if isinstance(child, nn.Linear | nn.Conv2d)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "block_out_channels": [32, 64],
            "layers_per_block": 1,
        },
    ],
    ids=["full size", "tiny"],
)
def test_original_names_are_those_that_diffusers_reads(settings):
    unet = make_unet(**settings)
    names = ldm_names(layers(unet))
    assert names.keys() == set(layers(unet))
    pairs = [(f"{ours}.{end}", f"{names[ours]}.{end}") for ours in names for end in ENDS]
    read = convert_ldm_unet_checkpoint({UNET + theirs: ours for ours, theirs in pairs}, unet.config)
    found = {key: ours for key, ours in read.items() if ours is not None}
    assert found == {ours: ours for ours, _ in pairs}


@pytest.mark.parametrize(
    ("name", "part", "layer"),
    [
        (
            "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0",
            "unet",
            "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
        ),
        (
            "lora_unet_input_blocks_4_1_transformer_blocks_0_ff_net_0_proj",
            "unet",
            "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
        ),
        ("lora_unet_output_blocks_5_2_conv", "unet", "up_blocks.1.upsamplers.0.conv"),
        ("lora_unet_output_blocks_2_1_conv", "unet", "up_blocks.0.upsamplers.0.conv"),
        ("lora_unet_middle_block_2_emb_layers_1", "unet", "mid_block.resnets.1.time_emb_proj"),
        ("lora_unet_time_embedding_linear_2", "unet", "time_embedding.linear_2"),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora",
            "unet",
            "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
        ),
        (
            "lora_te_text_model_encoder_layers_3_mlp_fc1",
            "text",
            "encoder.layers.3.mlp.fc1",
        ),
        ("lora_te1_text_model_encoder_layers_3_mlp_fc1", "text", "encoder.layers.3.mlp.fc1"),
        (
            "text_encoder.text_model.encoder.layers.3.self_attn.to_out_lora",
            "text",
            "encoder.layers.3.self_attn.out_proj",
        ),
        (
            "diffusion_model.input_blocks.4.1.transformer_blocks.0.ff.net.0.proj",
            "unet",
            "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
        ),
        (
            "text_encoders.clip_l.transformer.text_model.encoder.layers.3.mlp.fc1",
            "text",
            "encoder.layers.3.mlp.fc1",
        ),
    ],
)
def test_published_names_are_found(name, part, layer):
    text = [f"encoder.layers.3.{rest}" for rest in ("mlp.fc1", "self_attn.out_proj")]
    assert layer_table(layers(make_unet()), text)[flat(name)] == (part, layer)


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out",
        "lora_unet_down_blocks_0_attentions_1_transformer_blocks_1_attn1_to_q",
        "lora_unet_down_blocks_3_attentions_0_proj_in",
        "lora_unet_output_blocks_5_1_conv",
        "lora_unet_output_blocks_2_2_conv",
        "lora_te2_encoder_layers_3_mlp_fc1",
        "lora_te_encoder_layers_4_mlp_fc1",
    ],
)
def test_what_only_resembles_a_layer_is_not_found(name):
    assert name not in layer_table(layers(make_unet()), ["encoder.layers.3.mlp.fc1"])


@pytest.mark.parametrize(
    "layer", ["encoder.layers.0.mlp.fc1", "text_model.encoder.layers.0.mlp.fc1"]
)
def test_text_models_with_and_without_an_outer_level_take_the_same_files(layer):
    table = layer_table([], [layer])
    for name in ("lora_te_text_model_encoder_layers_0_mlp_fc1", "encoder_layers_0_mlp_fc1"):
        assert table[name] == ("text", layer)


def test_no_name_stands_for_two_layers():
    names = layers(make_unet())
    assert len({flat(name) for name in names}) == len(names)
    assert len(set(ldm_names(names).values())) == len(names)
