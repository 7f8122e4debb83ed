"""Autoencoders load in every published form, whole and exactly, or not at all."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor

from live2diff_core.errors import (
    WeightsFormatError,
    WeightsKeyError,
    WeightsKindError,
    WeightsMissingError,
    WeightsValueError,
)
from live2diff_core.models.autoencoder import KLAutoencoder, TinyAutoencoder
from live2diff_core.weights.autoencoders import load_autoencoder, vae_from_ldm
from tests.networks import CPU, TINY_VAE, pictures, recorded, seeded, tiny_vae

LDM, TAESD = recorded("ldm_vae.json"), recorded("taesd.json")
DIFFUSERS = "diffusion_pytorch_model.safetensors"


def load(path: Path, dtype: torch.dtype = torch.float32):
    return load_autoencoder(path, CPU, dtype)


def ldm_state() -> dict[str, Tensor]:
    """A tiny VAE in original names."""
    return seeded(LDM["tiny"]["shapes"])


def half(name: str) -> dict[str, Tensor]:
    """One file of TAESD's two."""
    state, prefix = seeded(TAESD["shapes"]), f"taesd_{name}."
    return {k.removeprefix(prefix): t.float() for k, t in state.items() if k.startswith(prefix)}


def latents(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 4, height, width, generator=generator)


# ---- values, as the original code computed them


def computes_the_original_vae(vae: KLAutoencoder) -> bool:
    encoded, decoded = vae.encode(pictures(1, 16, 24)), vae.decode(latents(8, 12))
    ours = encoded[0, :, ::3, ::5].flatten(), decoded[0, :, ::5, ::7].flatten()
    theirs = torch.tensor(LDM["tiny"]["latent"]), torch.tensor(LDM["tiny"]["decoded"])
    return all(torch.allclose(a, b, rtol=0, atol=1e-4) for a, b in zip(ours, theirs, strict=True))


def computes_the_original_taesd(vae: TinyAutoencoder) -> bool:
    encoded, decoded = vae.encode(pictures(1, 16, 24)), vae.decode(latents(2, 3))
    ours = encoded.flatten(), decoded[0, :, ::5, ::7].flatten()
    theirs = torch.tensor(TAESD["latent"]), torch.tensor(TAESD["decoded"])
    return all(torch.allclose(a, b, rtol=0, atol=1e-4) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_a_vae_in_original_names_computes_what_the_original_does(tmp_path, prefix):
    save_file({prefix + key: t for key, t in ldm_state().items()}, tmp_path / "vae.safetensors")
    vae = load(tmp_path / "vae.safetensors")
    assert computes_the_original_vae(vae)
    assert (vae.factor, vae.channels, vae.scale) == (2, 4, 0.18215)


def matrices(state):
    return {k: t.flatten(1) if "attn" in k and t.ndim == 4 else t for k, t in state.items()}


def with_training(state):
    extra = ("loss.logvar", "loss.discriminator.main.0.weight", "model_ema.decay")
    return state | {key: torch.zeros(3) for key in extra}


@pytest.mark.parametrize("rewrite", [matrices, with_training])
def test_variants_of_original_names_hold_the_same(tmp_path, rewrite):
    torch.save({"state_dict": rewrite(ldm_state())}, tmp_path / "vae.ckpt")
    assert computes_the_original_vae(load(tmp_path / "vae.ckpt"))


def write_pair(folder: Path, encoder: str = "taesd_encoder.pth", decoder: str = "") -> None:
    torch.save(half("encoder"), folder / encoder)
    save_file(half("decoder"), folder / (decoder or "taesd_decoder.safetensors"))


@pytest.mark.parametrize("given", ["", "taesd_encoder.pth", "taesd_decoder.safetensors"])
def test_both_files_of_taesd_compute_what_the_original_does(tmp_path, given):
    write_pair(tmp_path)
    vae = load(tmp_path / given)
    assert computes_the_original_taesd(vae)
    assert (vae.factor, vae.channels) == (8, 4)


def test_a_pair_of_another_name_is_found(tmp_path):
    write_pair(tmp_path, "my_encoder_v2.pth", "my_decoder_v2.safetensors")
    assert computes_the_original_taesd(load(tmp_path / "my_encoder_v2.pth"))


def test_taesd_in_one_file_computes_what_the_original_does(tmp_path):
    save_file(seeded(TAESD["shapes"]), tmp_path / "taesd.safetensors")
    assert computes_the_original_taesd(load(tmp_path / "taesd.safetensors"))


# ---- diffusers' names


EARLY = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def early(state):
    """Names of attention as in the folders that were published with Stable Diffusion 1.5."""
    for new, old in EARLY.items():
        state = {k.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): state[k] for k in state}
    return state


def same(state):
    return state


@pytest.fixture(params=[AutoencoderKL, AutoencoderTiny])
def network(request):
    vae = tiny_vae() if request.param is AutoencoderKL else AutoencoderTiny()
    return vae.eval().requires_grad_(False)


@pytest.fixture
def folder(tmp_path, network) -> Path:
    network.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def agree(ours: Any, theirs: Any) -> bool:
    expected = theirs.state_dict()
    got = ours.vae.state_dict()
    return got.keys() == expected.keys() and all(torch.equal(got[k], expected[k]) for k in got)


def as_pickle(folder):
    torch.save(load_file(folder / DIFFUSERS), folder / "diffusion_pytorch_model.bin")
    (folder / DIFFUSERS).unlink()


def as_variant(folder):
    (folder / DIFFUSERS).rename(folder / "diffusion_pytorch_model.fp16.safetensors")


def as_it_is(folder): ...


@pytest.mark.parametrize("rewrite", [as_it_is, as_pickle, as_variant])
def test_a_diffusers_folder_loads_exactly(folder, network, rewrite):
    rewrite(folder)
    assert agree(load(folder), network)


def test_a_single_file_in_diffusers_names_loads_exactly(folder, network):
    assert agree(load(folder / DIFFUSERS), network)


def test_early_names_of_attention_load_exactly(tmp_path):
    vae = tiny_vae()
    vae.save_pretrained(tmp_path)
    state = early(load_file(tmp_path / DIFFUSERS))
    assert "encoder.mid_block.attentions.0.query.weight" in state
    save_file(state, tmp_path / DIFFUSERS)
    assert agree(load(tmp_path), vae)
    assert agree(load(tmp_path / DIFFUSERS), vae)


def test_a_full_precision_file_comes_before_a_half_one(folder, network):
    zeros = {key: torch.zeros_like(t).half() for key, t in load_file(folder / DIFFUSERS).items()}
    save_file(zeros, folder / "diffusion_pytorch_model.fp16.safetensors")
    assert agree(load(folder), network)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_autoencoder_computes_in_the_dtype_that_was_asked_for(folder, dtype, caplog):
    with caplog.at_level(logging.WARNING):
        vae = load(folder, dtype)
    assert {p.dtype for p in vae.parameters()} == {dtype}
    assert vae.encode(pictures(1, 16, 16).to(dtype)).dtype == dtype
    assert not caplog.records


def test_an_autoencoder_is_ready_to_run_and_not_to_train(folder):
    vae = load(folder)
    assert not vae.training
    assert not any(p.requires_grad for p in vae.parameters())


# ---- full size


def hollow(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Zeros of any size that take no memory."""
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def test_the_full_size_vae_has_the_originals_keys_and_shapes():
    vae = vae_from_ldm(hollow(LDM["shapes"]), "file", CPU, torch.float32)
    assert len(LDM["shapes"]) == len(vae.vae.state_dict()) == 248
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert vae.factor == 8


@pytest.mark.parametrize(
    ("original", "diffusers"),
    [
        ("decoder.up.3.block.0.conv1", "decoder.up_blocks.0.resnets.0.conv1"),
        ("decoder.up.0.block.0.nin_shortcut", "decoder.up_blocks.3.resnets.0.conv_shortcut"),
        ("encoder.down.2.downsample.conv", "encoder.down_blocks.2.downsamplers.0.conv"),
        ("decoder.mid.attn_1.proj_out", "decoder.mid_block.attentions.0.to_out.0"),
        ("encoder.norm_out", "encoder.conv_norm_out"),
    ],
)
def test_a_tensor_in_original_names_arrives_in_its_place(original, diffusers):
    state = hollow(LDM["shapes"])
    state[f"{original}.bias"] = state[f"{original}.bias"] + 7
    vae = vae_from_ldm(state, "file", CPU, torch.float32).vae
    changed = [key for key, tensor in vae.state_dict().items() if tensor.flatten()[0] != 0]
    assert changed == [f"{diffusers}.bias"]


# ---- refused


def drop(state):
    del state["decoder.mid.block_1.conv1.bias"]


def add(state):
    state["decoder.mid.block_3.conv1.bias"] = torch.zeros(1)


def add_level(state):
    state["encoder.down.7.block.0.conv1.bias"] = torch.zeros(1)


def reshape(state):
    state["quant_conv.bias"] = torch.zeros(7)


def drop_half(state):
    for key in [key for key in state if key.startswith("encoder.mid")]:
        del state[key]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (drop, r"1 missing \(decoder\.mid_block\.resnets\.0\.conv1\.bias\)"),
        (add, r"1 unexpected \(decoder\.mid\.block_3"),
        (add_level, r"1 unexpected \(encoder\.down\.7"),
        (reshape, r"quant_conv\.bias: expected \(8,\), got \(7,\)"),
        (drop_half, "26 missing"),
    ],
)
def test_a_vae_that_does_not_fit_is_refused(tmp_path, spoil, reason):
    state = ldm_state()
    spoil(state)
    save_file(state, tmp_path / "vae.safetensors")
    with pytest.raises(WeightsKeyError, match=rf"vae\.safetensors does not fit .*{reason}"):
        load(tmp_path / "vae.safetensors")


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        ({"decoder.conv_in.weight": (512, 16, 3, 3)}, "16 latent channels"),
        ({"0.weight": (64, 3, 3, 3), "14.weight": (16, 64, 3, 3)}, "TAESD for 16"),
        (
            {
                "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
                "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320, 1, 1),
                "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
            },
            "Stable Diffusion 1.5 checkpoint",
        ),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, shapes, named):
    save_file({k: torch.zeros(s) for k, s in shapes.items()}, tmp_path / "file.safetensors")
    with pytest.raises(WeightsKindError, match=rf"file\.safetensors is .*{named}"):
        load(tmp_path / "file.safetensors")


@pytest.mark.parametrize("state", [{}, {"decoder.conv_in.weight": torch.zeros(8, 16, 3, 3)}])
def test_a_checkpoint_without_such_a_vae_is_refused(state):
    with pytest.raises(WeightsKindError, match="ckpt"):
        vae_from_ldm(state, "ckpt", CPU, torch.float32)


def test_sixteen_channels_are_told_from_four():
    state = ldm_state() | {"decoder.conv_in.weight": torch.zeros(64, 16, 3, 3)}
    with pytest.raises(WeightsKindError, match="latents of 16 channels, expected 4"):
        vae_from_ldm(state, "ckpt", CPU, torch.float32)


def test_nan_is_refused():
    state = ldm_state()
    state["quant_conv.bias"][0] = float("inf")
    with pytest.raises(WeightsValueError, match=r"quant_conv\.bias"):
        vae_from_ldm(state, "ckpt", CPU, torch.float32)


@pytest.mark.parametrize(("lost", "kept"), [("encoder", "decoder"), ("decoder", "encoder")])
def test_half_of_taesd_asks_for_the_other(tmp_path, lost, kept):
    save_file(half(kept), tmp_path / f"taesd_{kept}.safetensors")
    with pytest.raises(WeightsMissingError, match=f"its {lost} is expected .* taesd_{lost}"):
        load(tmp_path / f"taesd_{kept}.safetensors")


def test_two_encoders_are_no_pair(tmp_path):
    for name in ("encoder", "decoder"):
        save_file(half("encoder"), tmp_path / f"taesd_{name}.safetensors")
    with pytest.raises(WeightsKindError, match=r"taesd_decoder\.safetensors is a TAESD encoder"):
        load(tmp_path)


def test_a_folder_without_an_autoencoder_says_what_it_should_hold(tmp_path):
    with pytest.raises(WeightsMissingError, match=r"diffusers folder .*taesd_encoder"):
        load(tmp_path)


def write_config(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_a_folder_of_another_network_is_named(folder):
    write_config(folder, _class_name="UNet2DConditionModel")
    with pytest.raises(WeightsKindError, match="holds UNet2DConditionModel, expected Autoencoder"):
        load(folder)


def test_the_vae_of_sdxl_is_told_by_its_scale(tmp_path):
    tiny_vae(scaling_factor=0.13025).save_pretrained(tmp_path)
    with pytest.raises(WeightsKindError, match=r"by 0\.13025, expected 0\.18215"):
        load(tmp_path)


@pytest.mark.parametrize(
    "settings", [{"act_fn": 3}, {"latent_channels": "x"}, {"act_fn": "unheard of"}]
)
def test_settings_that_describe_no_network_are_refused(folder, settings):
    write_config(folder, **settings)
    with pytest.raises(WeightsFormatError, match="its settings describe no network"):
        load(folder)


def test_settings_of_another_size_are_refused(tmp_path):
    tiny_vae().save_pretrained(tmp_path)
    write_config(tmp_path, block_out_channels=[64, 64])
    assert TINY_VAE["block_out_channels"] != (64, 64)
    with pytest.raises(WeightsKeyError, match="of another shape"):
        load(tmp_path)


def test_missing_weights_are_named(folder):
    (folder / DIFFUSERS).unlink()
    with pytest.raises(WeightsMissingError, match="holds no weights"):
        load(folder)
