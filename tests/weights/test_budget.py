"""Memory told beforehand: counted parts are exact, activations near, advice true."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file
from torch import nn
from transformers import DPTConfig, DPTForDepthEstimation

from benchmarks.activations import SD_VAE, network_bytes, picture_bytes
from live2diff_core.config import AttentionWindow, Guidance, RuntimeConfig
from live2diff_core.errors import ConfigError, FrameSizeError, MemoryBudgetError
from live2diff_core.models.adapters import Adapter, AdapterUse, LowRank
from live2diff_core.models.translator import TranslationModel
from live2diff_core.weights import budget
from live2diff_core.weights.base import open_base
from live2diff_core.weights.budget import (
    PARAMETERS,
    Footprint,
    Parts,
    StreamSize,
    check,
    estimate,
    files_footprint,
    free_memory,
    largest_size,
    largest_steps,
    model_footprint,
    sd15_footprint,
    stream_size,
)
from live2diff_core.weights.depth import MIDAS_HYBRID
from live2diff_core.weights.model import load_model
from live2diff_core.weights.motion import read_motion
from live2diff_core.weights.spec import ModelSpec
from tests import sd15
from tests.tiny import HEIGHT, WIDTH, make_frames, open_session, stream_config, tiny_model

SHAPES = Path(__file__).parent.parent / "data" / "reference_shapes.json"
CPU = torch.device("cpu")
HALF = torch.float16


def sd15_half() -> Footprint:
    return sd15_footprint(HALF, "taesd")


def held_bytes(steps: int, guidance: Guidance, window: AttentionWindow) -> int:
    """Bytes of all tensors that a stream of the tiny model keeps."""
    session = open_session(stream_config(steps, guidance=guidance, window=window))
    session.warmup(make_frames(window.sinks))
    assert session._pipeline is not None
    inputs = [tensor for entry in session._history for tensor in (entry.latent, entry.depth)]
    return session._pipeline.state.nbytes + sum(tensor.nbytes for tensor in inputs)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("mode", ["none", "full"])
@pytest.mark.parametrize("window", [AttentionWindow(), AttentionWindow(3, 4)])
def test_the_cache_is_what_a_session_holds(steps, mode, window):
    stream = StreamSize(WIDTH, HEIGHT, steps, 2 if mode == "full" else 1, window)
    held = held_bytes(steps, Guidance(mode, 2.0), window)
    assert estimate(model_footprint(tiny_model()), stream).cache == held


# ---- weights


def stored(*modules: object) -> dict[int, int]:
    """Bytes of parameters by where they are in memory."""
    found = [p for m in modules if isinstance(m, nn.Module) for p in m.parameters()]
    return {parameter.data_ptr(): parameter.nbytes for parameter in found}


def parts(model: TranslationModel) -> tuple[object, ...]:
    return model.unet, model.text, model.autoencoder, model.depth


def adapter(name: str, model: TranslationModel, *ends: str) -> Adapter:
    """Changes of all UNet weights with such an end to their name."""
    weights = {k: p for k, p in model.unet.spatial.named_parameters() if k.endswith(ends)}
    assert weights
    changes = {
        key: LowRank(torch.ones(len(p), 1), torch.ones(1, p[0].numel()), 0.01)
        for key, p in weights.items()
    }
    return Adapter(name, changes, {})


def test_weights_and_merged_copies_are_counted_once():
    model = tiny_model()
    first = adapter("a", model, "to_q.weight", "to_k.weight")
    second = adapter("b", model, "to_k.weight", "to_v.weight")
    changed = model.with_adapters([AdapterUse(first), AdapterUse(second)])
    got = model_footprint(changed)
    before = stored(*parts(model))
    assert got.weights == sum(before.values())
    assert got.adapters == sum(stored(*parts(changed), *parts(model)).values()) - got.weights > 0
    assert model_footprint(model).adapters == 0


def test_a_model_without_text_encoder_is_counted_without_it():
    model = tiny_model()
    wordless = replace(model, text_encoder=None)
    words = sum(stored(model.text).values())
    assert model_footprint(wordless).weights == model_footprint(model).weights - words
    lora = adapter("a", model, "to_q.weight")
    of_words = {name: LowRank(torch.ones(1), torch.ones(1), 1.0) for name in ("not", "here")}
    changed = wordless.with_adapters([AdapterUse(replace(lora, text=of_words), text=0.0)])
    expected = model_footprint(model.with_adapters([AdapterUse(lora)])).adapters
    assert model_footprint(changed).adapters == expected > 0


def test_the_full_size_has_the_weights_of_the_published_files():
    shapes = json.loads(SHAPES.read_text())
    sizes = [torch.Size(s).numel() for key, s in shapes["sd15"].items()]
    sizes += [torch.Size(s).numel() for key, s in shapes["live2diff"].items() if key[-2:] != "pe"]
    clip = 123_060_480  # transformers' CLIPTextModel of openai/clip-vit-large-patch14
    expected = sum(sizes) + clip + PARAMETERS["taesd"] + PARAMETERS["dpt_hybrid"]
    assert estimate(sd15_half(), StreamSize(512, 512, 2)).weights == 2 * expected


def test_the_other_networks_are_as_large_as_is_said():
    with init_empty_weights():
        networks = {
            "taesd": AutoencoderTiny(),
            "sd": AutoencoderKL(**SD_VAE),
            "dpt_hybrid": DPTForDepthEstimation(DPTConfig(**MIDAS_HYBRID)),
        }
    counted = {name: sum(p.numel() for p in m.parameters()) for name, m in networks.items()}
    assert counted == PARAMETERS


@pytest.mark.parametrize(
    ("base", "dtype"),
    [
        ("single.safetensors", torch.float32),
        ("folder", HALF),
        ("unet.safetensors", torch.float32),
    ],
)
def test_files_tell_what_the_loaded_model_takes(tmp_path, base, dtype):
    checkpoints = tmp_path / "checkpoints"
    sd15.save(sd15.checkpoint(), checkpoints / "single.safetensors")
    sd15.save_folder(checkpoints / "folder")
    sd15.save(sd15.tiny_unet().spatial.state_dict(), checkpoints / "unet.safetensors")
    motion = sd15.save(sd15.reference_motion(sd15.tiny_unet()), tmp_path / "live2diff.ckpt")
    tiny = tmp_path / "vae_approx" / "taesd"
    AutoencoderTiny().save_pretrained(tiny)
    text = checkpoints / "folder" / "text_encoder" if base.startswith("unet") else None
    parts = Parts(open_base(checkpoints / base), read_motion(motion), tiny, text=text)
    got = files_footprint(parts, dtype)
    spec = ModelSpec(base, depth="structure", text_encoder=str(text or "base"), models=tmp_path)
    loaded = model_footprint(load_model(spec, dtype=dtype))
    size = StreamSize(64, 32, 2)
    ours, theirs = estimate(got, size), estimate(loaded, size)
    assert (ours.cache, ours.activations) == (theirs.cache, theirs.activations)
    assert theirs.weights <= ours.weights < 1.02 * theirs.weights  # position tables are in files


def test_loras_of_the_full_size_add_the_weights_that_they_change(tmp_path):
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    state = {f"{layer}.lora_down.weight": torch.zeros(4, 1280)}
    save_file(state | {f"{layer}.lora_up.weight": torch.zeros(1280, 4)}, tmp_path / "a.safetensors")
    assert sd15_footprint(HALF, "sd", [tmp_path / "a.safetensors"]).adapters == 2 * 1280 * 1280


# ---- activations


def test_activations_are_near_to_what_is_alive_at_once():
    size, model = StreamSize(256, 128, 1), replace(sd15_half(), depth=0)
    alive = network_bytes(size, HALF) | picture_bytes("taesd", size, HALF)
    assert estimate(model, size).activations == pytest.approx(max(alive.values()), rel=0.03)


def test_a_picture_or_the_depth_network_may_need_more_than_the_unet():
    small = StreamSize(64, 64, 1, window=AttentionWindow(1, 1))
    assert estimate(sd15_half(), small).activations == 2 * budget.DEPTH
    large = estimate(sd15_footprint(HALF, "sd"), replace(small, width=1024, height=1024))
    assert (
        large.activations
        > estimate(sd15_half(), replace(small, width=1024, height=1024)).activations
    )


# ---- what is free, and what would fit


def test_free_memory_of_the_cpu_is_what_the_system_has_available(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=12345))
    assert free_memory(CPU) == 12345


def test_free_memory_of_an_accelerator_counts_what_torch_holds_back(monkeypatch):
    for name, value in (
        ("get_memory_info", (1000, 9000)),
        ("memory_reserved", 500),
        ("memory_allocated", 200),
    ):
        monkeypatch.setattr(torch.accelerator, name, lambda _, value=value: value)
    assert free_memory(torch.device("xpu")) == 1300


def test_a_torch_that_asks_each_kind_of_device_by_itself_is_asked_so(monkeypatch):
    monkeypatch.delattr(torch.accelerator, "get_memory_info")
    figures = {"mem_get_info": (1000, 9000), "memory_reserved": 500, "memory_allocated": 200}
    module = SimpleNamespace(**{name: lambda _, v=value: v for name, value in figures.items()})
    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    assert free_memory(torch.device("xpu")) == 1300


def give(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(budget, "free_memory", lambda _: int(free))


def test_what_fits_exactly_passes_and_a_byte_less_does_not(monkeypatch):
    model, stream = sd15_half(), StreamSize(512, 512, 2)
    need = estimate(model, stream)
    assert need.total == need.weights + need.adapters + need.cache + need.activations
    give(monkeypatch, need.total)
    assert check(model, stream, CPU) == need
    give(monkeypatch, need.total - 1)
    with pytest.raises(MemoryBudgetError):
        check(model, stream, CPU)


def test_the_error_says_what_is_needed_what_is_free_and_what_would_fit(monkeypatch):
    give(monkeypatch, 8e9)
    with pytest.raises(MemoryBudgetError) as error:
        check(sd15_half(), StreamSize(512, 512, 4), CPU)
    assert str(error.value) == (
        "512x512 with 4 steps in float16 needs 9.75 GB (weights 3.05 GB, LoRAs 0.00 GB, cache "
        "6.11 GB, activations 0.59 GB) and cpu has 8.00 GB free: 384x384 with 4 steps or 512x512 "
        "with 2 steps would fit"
    )


def test_each_cuda_graph_keeps_what_is_alive_in_it():
    model, graph = sd15_half(), RuntimeConfig("graph")
    stream = StreamSize(512, 512, 8, runtime=graph)  # as many rows as a warm-up has frames
    plain, network = replace(stream, runtime=RuntimeConfig()), replace(model, picture=0, depth=0)
    step = estimate(network, plain).activations
    workspaces = 4 * 2**25
    assert estimate(network, stream).runtime == step + workspaces
    picture = 2 * model.picture * 512 * 512
    parts = step, picture, max(picture, 2 * model.depth), picture
    assert estimate(model, stream).runtime == sum(parts) + workspaces
    assert estimate(model, plain).runtime == 0
    assert "CUDA graphs and packed weights 1.03 GB" in str(estimate(model, stream))


def test_weights_that_a_compiled_step_packs_are_counted():
    fixed = replace(tiny_model(), is_fixed=True)
    stream = StreamSize(WIDTH, HEIGHT, 2, runtime=RuntimeConfig("compile"))
    assert estimate(model_footprint(fixed), stream).runtime == sum(stored(fixed.unet).values())
    assert estimate(model_footprint(tiny_model()), stream).runtime == 0


def test_a_stream_is_measured_by_its_settings():
    compiled = RuntimeConfig("compile")
    config = stream_config(
        3,
        guidance=Guidance("full", 2.0),
        window=AttentionWindow(2, 3),
        cache="float8",
        runtime=compiled,
    )
    expected = StreamSize(WIDTH, HEIGHT, 3, 2, AttentionWindow(2, 3), "float8", compiled)
    assert stream_size(config) == expected
    assert stream_size(stream_config(1, guidance=Guidance("self"))).branches == 1


def test_a_stream_that_is_changed_while_it_runs_takes_its_cache_twice():
    once, twice = (estimate(sd15_half(), StreamSize(512, 512, 2, caches=n)) for n in (1, 2))
    assert twice == replace(once, cache=2 * once.cache)


def test_the_error_says_when_nothing_would_fit(monkeypatch):
    give(monkeypatch, 3e9)
    with pytest.raises(MemoryBudgetError, match="no size would fit; close other programs"):
        check(sd15_half(), StreamSize(512, 512, 4), CPU)


@pytest.mark.parametrize("free", [4e9, 8e9, 16e9, 80e9])
@pytest.mark.parametrize(("width", "height"), [(512, 512), (768, 512), (512, 896)])
def test_the_largest_size_fits_and_the_next_one_does_not(free, width, height):
    model, stream = sd15_half(), StreamSize(width, height, 4)
    size = largest_size(model, stream, int(free))
    assert size
    assert all(side % 64 == 0 for side in size)
    assert size[0] / size[1] == pytest.approx(width / height, rel=0.34)
    assert estimate(model, replace(stream, width=size[0], height=size[1])).total <= free
    larger = replace(stream, width=size[0] + 64, height=size[1] + 64)
    assert estimate(model, larger).total > free


@pytest.mark.parametrize(("free", "steps"), [(4e9, None), (5.5e9, 1), (9e9, 3), (80e9, 8)])
def test_the_most_steps_fit_and_one_more_would_not(free, steps):
    model, stream = sd15_half(), StreamSize(512, 512, 1)
    assert largest_steps(model, stream, int(free)) == steps
    more = (steps or 0) + 1
    assert more > 8 or estimate(model, replace(stream, steps=more)).total > free


@pytest.mark.parametrize("size", [(500, 512), (512, 500)])
def test_sizes_that_the_network_cannot_take_are_refused(size):
    with pytest.raises(FrameSizeError, match=r"multiples of 64 pixels, got \d+x\d+"):
        estimate(sd15_half(), StreamSize(*size, 2))


@pytest.mark.parametrize(("width", "steps"), [(64, 0), (64, 9), (0, 1)])
def test_streams_that_cannot_be_are_refused(width, steps):
    with pytest.raises(ConfigError, match="steps 1 to 8, got"):
        StreamSize(width, 64, steps)
