"""What a file is told to be: every kind, in every container, from keys and shapes alone."""

from functools import partial

import diffusers
import pytest
import torch
import transformers
from torch import nn

from live2diff_core.errors import (
    WeightsError,
    WeightsKindError,
)
from live2diff_core.weights.bundled import DIRECTORY
from live2diff_core.weights.files import TensorFile, open_tensors
from live2diff_core.weights.inspect import Kind, identify, inspect, require
from live2diff_core.weights.kinds import ABOUT
from live2diff_core.weights.signatures import SIGNATURES
from tests import checkpoints as files
from tests.checkpoints import CASES, TABLES, kohya, tensor_file

WRITERS = {
    "safetensors": (files.write_safetensors, "x.safetensors"),
    "ckpt": (files.write_pickle, "x.ckpt"),
    "ckpt of a trainer": (partial(files.write_pickle, wrap=True), "x.ckpt"),
    "legacy pickle": (partial(files.write_pickle, legacy=True), "x.pt"),
}


def shapes_of(module: nn.Module) -> files.Shapes:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


# ---- kinds


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("case", CASES)
def test_every_kind_is_told_in_every_container(tmp_path, case, writer):
    kind, shapes = CASES[case]
    write, name = WRITERS[writer]
    write(tmp_path / name, shapes)
    assert inspect(tmp_path / name).kind is kind


NETWORKS = {
    "UNet2DConditionModel of 1.5": (
        Kind.SD15_UNET,
        lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768),
    ),
    "a small UNet of that form": (
        Kind.SD15_UNET,
        lambda: diffusers.UNet2DConditionModel(
            cross_attention_dim=32, block_out_channels=(32, 32, 64, 64), attention_head_dim=4
        ),
    ),
    "UNet2DConditionModel of 2": (
        Kind.SD2,
        lambda: diffusers.UNet2DConditionModel(
            cross_attention_dim=1024, use_linear_projection=True
        ),
    ),
    "UNet2DConditionModel of XL": (
        Kind.SDXL,
        lambda: diffusers.UNet2DConditionModel(
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
    ),
    "FluxTransformer2DModel": (
        Kind.FLUX,
        lambda: diffusers.FluxTransformer2DModel(num_layers=1, num_single_layers=1),
    ),
    "SD3Transformer2DModel": (
        Kind.SD3,
        lambda: diffusers.SD3Transformer2DModel(num_layers=1),
    ),
    "ControlNetModel": (
        Kind.CONTROLNET,
        lambda: diffusers.ControlNetModel(cross_attention_dim=768),
    ),
    "MotionAdapter v1": (
        Kind.ANIMATEDIFF_V1,
        lambda: diffusers.MotionAdapter(use_motion_mid_block=False, motion_max_seq_length=24),
    ),
    "MotionAdapter v2": (Kind.ANIMATEDIFF_V2, diffusers.MotionAdapter),
    "MotionAdapter v3": (
        Kind.ANIMATEDIFF_V3,
        lambda: diffusers.MotionAdapter(use_motion_mid_block=False),
    ),
    "MotionAdapter for XL": (
        Kind.ANIMATEDIFF_SDXL,
        lambda: diffusers.MotionAdapter(
            use_motion_mid_block=False, block_out_channels=(320, 640, 1280)
        ),
    ),
    "AutoencoderTiny": (Kind.TAESD, diffusers.AutoencoderTiny),
    "AutoencoderTiny of 16": (
        Kind.TAESD_16,
        lambda: diffusers.AutoencoderTiny(latent_channels=16),
    ),
    "AutoencoderKL": (Kind.VAE, diffusers.AutoencoderKL),
    "AutoencoderKL of 16": (Kind.VAE_16, lambda: diffusers.AutoencoderKL(latent_channels=16)),
    "CLIPTextModel": (
        Kind.CLIP_TEXT,
        lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig(hidden_size=768)),
    ),
    "DPT-hybrid": (
        Kind.DPT_HYBRID,
        lambda: transformers.DPTForDepthEstimation(
            transformers.DPTConfig(is_hybrid=True, num_hidden_layers=12)
        ),
    ),
    "DPT-large": (
        Kind.DPT_OTHER,
        lambda: transformers.DPTForDepthEstimation(transformers.DPTConfig()),
    ),
    "Depth Anything": (
        Kind.DEPTH_ANYTHING,
        lambda: transformers.DepthAnythingForDepthEstimation(
            transformers.DepthAnythingConfig(
                backbone_config=transformers.Dinov2Config(out_features=["stage9", "stage12"])
            )
        ),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_the_libraries_are_told_by_the_keys_that_they_write(name):
    kind, build = NETWORKS[name]
    with torch.device("meta"):
        network = build()
    assert identify(tensor_file(shapes_of(network))).kind is kind


def test_the_bundled_model_is_told_as_a_file_and_as_a_folder():
    assert inspect(DIRECTORY / "bundled.safetensors").kind is Kind.BUNDLED
    assert inspect(DIRECTORY).kind is Kind.BUNDLED


LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
XL = TABLES["sdxl"]
TITLES = {
    "Stable Diffusion 1.5 inpainting checkpoint": CASES["inpainting"][1],
    "UNet of InstructPix2Pix (Stable Diffusion 1.5)": files.with_input(TABLES["unet"], 8),
    "Stable Diffusion 2 depth checkpoint": files.with_input(TABLES["sd2"], 5),
    "Stable Diffusion 2 upscaling checkpoint": files.with_input(TABLES["sd2"], 7),
    "Stable Diffusion 2 inpainting checkpoint": files.with_input(TABLES["sd2"], 9),
    "UNet of Stable Diffusion 2": files.bare(TABLES["sd2"]),
    "Stable Diffusion 2 unCLIP checkpoint": {
        key: (640, 1024) if "attn2.to_k" in key else shape for key, shape in XL.items()
    },
    "Stable Diffusion XL checkpoint": XL,
    "Stable Diffusion XL refiner checkpoint": TABLES["sdxl_refiner"],
    "UNet of Stable Diffusion XL inpainting": files.bare(files.with_input(XL, 9)),
    "Flux 2 checkpoint": TABLES["flux"] | {"single_stream_modulation.lin.weight": (18432, 6144)},
    "Chroma checkpoint": TABLES["flux"] | {"distilled_guidance_layer.in_proj.bias": (5120,)},
    "HunyuanVideo model": TABLES["flux"]
    | {"txt_in.individual_token_refiner.blocks.0.norm1.weight": (3072,)},
    "AuraFlow checkpoint": {"double_layers.0.attn.w1q.weight": (3072, 3072)},
    "Stable Cascade model": {"down_blocks.1.0.channelwise.0.weight": (2560, 640)},
    "PixArt checkpoint": {"t_block.1.weight": (6912, 1152)},
    "LTX video model": {"model.diffusion_model.patchify_proj.weight": (2048, 128)},
    "Lumina checkpoint": {"cap_embedder.1.weight": (2304, 2304)},
    "Qwen-Image checkpoint": {"txt_norm.weight": (3584,)},
    "Wan video model": {"head.modulation": (1, 2, 1536)},
    "PixArt, Sana or LTX model": {"adaln_single.emb.timestep_embedder.linear_1.bias": (1152,)},
    "Stable Video Diffusion model": {
        "model.diffusion_model.input_blocks.1.1.time_stack.0.attn1.to_q.weight": (320, 320)
    },
    "T2I-Adapter": {"adapter.body.0.in_conv.weight": (320, 64, 1, 1)},
    "ControlNet of low rank (Control-LoRA)": {"lora_controlnet": ()},
    "ControlNet": {"input_hint_block.0.weight": (16, 3, 3, 3)},
    "MiDaS BEiT": TABLES["midas_beit"],
    "MiDaS DPT-large": TABLES["midas_large"],
    "CLIP picture encoder": {"vision_model.embeddings.class_embedding": (1024,)},
    "whole CLIP (text and pictures)": files.text_model(768)
    | {"vision_model.embeddings.class_embedding": (1024,)},
    "T5": {"encoder.block.0.layer.0.SelfAttention.k.weight": (4096, 4096)},
    "OpenCLIP model": {
        "token_embedding.weight": (49408, 1280),
        "transformer.resblocks.0.ln_1.weight": (1280,),
    },
    "textual inversion for Stable Diffusion 1.5": {"<cat-toy>": (3, 768)},
    "textual inversion for Stable Diffusion 2": {"<cat-toy>": (1024,)},
    "LoRA for the Stable Diffusion XL refiner": kohya(files.unet_layers(768, 1280)),
    "LoRA for Stable Diffusion 1.5 or 2": kohya({}, te=files.text_layers(32)),
    "LyCORIS file (OFT)": {f"{LAYER}.oft_blocks": (4, 80, 80)},
    "LyCORIS file (GLoRA)": {f"{LAYER}.a1.weight": (4, 768)},
    "LyCORIS file ((IA)3)": {f"{LAYER}.weight": (320,), f"{LAYER}.on_input": ()},
    "LyCORIS file (full differences)": {f"{LAYER}.diff": (320, 768)},
    "LyCORIS file (LoCon in Tucker form)": kohya(files.SD15)
    | {"lora_unet_conv_in.lora_mid.weight": (4, 4, 3, 3)},
    "LyCORIS file (LoKr)": files.lokr({"mid_block.resnets.0.conv1": (1280, 1280)}),
}


@pytest.mark.parametrize("title", TITLES)
def test_relatives_are_called_by_their_own_names(title):
    assert identify(tensor_file(TITLES[title])).title == title


def test_every_kind_has_a_name_a_use_and_a_signature():
    assert set(ABOUT) == set(Kind)
    assert set(Kind) - {signature.kind for signature in SIGNATURES} == {Kind.UNKNOWN}


# ---- what else is told


def test_values_are_counted_by_precision(tmp_path):
    shapes = {"emb_params": (3, 768), "step": (), "other": (5, 0)}
    dtypes = {"emb_params": torch.float16, "step": torch.int64, "other": torch.float32}
    found = inspect(files.write_safetensors(tmp_path / "x.safetensors", shapes, dtypes))
    assert found.parameters == 3 * 768 + 1
    assert found.dtypes == {"float16": 3 * 768, "int64": 1, "float32": 0}
    assert next(iter(found.dtypes)) == "float16"


def test_the_full_network_has_its_published_size():
    found = identify(tensor_file(TABLES["unet"]))
    assert found.parameters == 859_520_964
    assert found.title == "UNet of Stable Diffusion 1.5"


DETAILS = [
    ("SD 1.5 with VAE and text encoder", "text width 768"),
    ("SD 1.5 with VAE and text encoder", "holds a VAE"),
    ("SD 1.5 with VAE and text encoder", "holds the text encoder"),
    ("SD 1.5", "holds no VAE: one is needed beside it"),
    ("SD 1.5", "holds no text encoder: one is needed beside it"),
    ("Live2Diff", "motion keys: 576"),
    ("Live2Diff", "positions 24"),
    ("Live2Diff with SD keys", "686 keys of the base's network, which replace the base's"),
    ("AnimateDiff v3", "positions 32"),
    ("kohya", "rank 4"),
    ("kohya", "layers: 3"),
    ("kohya", "changes the text encoder"),
    ("peft", "peft's names"),
    ("LoHa", "LoHa"),
    ("LoKr for XL", "LoKr"),
    ("Depth Anything small", "width 384"),
    ("textual inversion, A1111", "8 vectors"),
]


@pytest.mark.parametrize(("case", "detail"), DETAILS)
def test_details_are_told(case, detail):
    assert detail in identify(tensor_file(CASES[case][1])).details


@pytest.mark.parametrize(
    ("case", "detail"),
    [
        ("SDXL", "holds no VAE: one is needed beside it"),
        ("SD 1.5, diffusers' names", "686 keys of the base's network, which replace the base's"),
        ("AnimateDiff v3", "text width 320"),
        ("kohya", "LoHa"),
    ],
)
def test_details_of_others_are_not_told(case, detail):
    assert detail not in identify(tensor_file(CASES[case][1])).details


def test_metadata_that_matter_are_told_on_one_short_line(tmp_path):
    metadata = {
        "ss_base_model_version": "sd_v1",
        "modelspec.title": "a\x1b[31m\nb" + "c" * 200,
        "ss_tag_frequency": "{}",
    }
    path = tmp_path / "x.safetensors"
    found = inspect(files.write_safetensors(path, kohya(files.SD15), metadata=metadata))
    assert list(found.details[-2:]) == [
        "modelspec.title: a [31m b" + "c" * 92 + "…",
        "ss_base_model_version: sd_v1",
    ]
    assert "ss_tag_frequency" not in str(found.details)


def test_tensors_are_not_read(tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError("tensors were read")

    monkeypatch.setattr(TensorFile, "read", read)
    whole = files.write_safetensors(tmp_path / "whole.safetensors", TABLES["unet"], torch.float32)
    assert whole.stat().st_size > 3.4e9
    assert inspect(whole).kind is Kind.SD15_UNET
    files.write_component(tmp_path / "folder", TABLES["unet"], {})
    assert inspect(tmp_path / "folder").kind is Kind.SD15_UNET


def test_keys_that_are_nobodys_names_do_not_take_long():
    shapes = {f"{'lora:.attn2.to_k_' * 60_000}{i}": (1,) for i in range(3)}
    assert identify(tensor_file(shapes)).kind is Kind.UNKNOWN


# ---- demands


def test_a_wanted_kind_passes_and_is_told(tmp_path):
    path = files.write_pickle(tmp_path / "x.ckpt", TABLES["sd15"])
    found = require(open_tensors(path), (Kind.SD15, Kind.SD15_UNET), "the base")
    assert found.kind is Kind.SD15
    assert require(found, Kind.SD15, "the base") is found


def test_another_kind_is_refused_with_what_it_is_what_was_expected_and_what_to_take(tmp_path):
    path = files.write_safetensors(tmp_path / "xl.safetensors", TABLES["sdxl"])
    with pytest.raises(WeightsKindError) as raised:
        require(open_tensors(path), (Kind.SD15, Kind.SD15_UNET), "the base")
    assert str(raised.value) == (
        f"{path} is a Stable Diffusion XL checkpoint; expected a Stable Diffusion 1.5 checkpoint "
        "or a UNet of Stable Diffusion 1.5 as the base. Its use: none here; take a Stable "
        "Diffusion 1.5 checkpoint, the motion weights need it"
    )


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("inpainting", "a Stable Diffusion 1.5 inpainting checkpoint"),
        ("AnimateDiff v2", "an AnimateDiff v2 motion module"),
        ("kohya", "a LoRA for Stable Diffusion 1.5"),
        ("something else", "a file of an unknown kind"),
    ],
)
def test_refusals_name_the_file_and_its_kind(case, name):
    with pytest.raises(WeightsKindError, match=rf"some\.safetensors is {name}; expected a UNet"):
        require(tensor_file(CASES[case][1]), Kind.SD15_UNET, "the base")


@pytest.mark.parametrize("name", ["missing.safetensors", "x" * 300, "a\0b"])
def test_what_is_not_there_is_one_of_our_errors(tmp_path, name):
    with pytest.raises(WeightsError):
        inspect(tmp_path / name)
