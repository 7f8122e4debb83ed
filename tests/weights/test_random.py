"""Models of random weights: of the right size, the same every time, and fit to run."""

import pytest
import torch
from accelerate import init_empty_weights
from torch import nn

from live2diff_core.config import StreamConfig
from live2diff_core.errors import MemoryBudgetError
from live2diff_core.models.depth import StructureMap
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights import random
from live2diff_core.weights.budget import PARAMETERS, StreamSize
from live2diff_core.weights.random import random_model, random_text, sd15
from tests.tiny import make_frames, steps_of
from tests.untrained import HEIGHT, TEXT, WIDTH, tiny_networks

CPU = torch.device("cpu")
STREAM = StreamSize(WIDTH, HEIGHT, 2)


def make(dtype: torch.dtype = torch.float32, seed: int = 0) -> TranslationModel:
    return random_model(tiny_networks, STREAM, CPU, dtype, seed)


def modules(model: TranslationModel) -> nn.ModuleList:
    assert isinstance(model.autoencoder, nn.Module)
    assert isinstance(model.depth, nn.Module)
    return nn.ModuleList([model.unet, model.autoencoder, model.depth])


def count(module: object) -> int:
    assert isinstance(module, nn.Module)
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_weight_has_a_value_in_the_precision_that_was_asked_for(dtype):
    for name, tensor in modules(make(dtype)).state_dict().items():
        assert tensor.device == CPU, name
        assert tensor.dtype == dtype or not tensor.is_floating_point(), name
        assert tensor.isfinite().all(), name


def test_a_layer_starts_as_torch_starts_it():
    unet = make().unet
    assert unet.spatial.conv_norm_out.weight.eq(1).all()
    bound = unet.spatial.conv_out.weight[0].numel() ** -0.5
    assert 0.5 * bound < unet.spatial.conv_out.weight.abs().max() <= bound


def test_what_is_no_weight_is_as_in_any_other_model():
    made, plain = make(), tiny_networks()
    buffers = dict(plain.unet.named_buffers()) | dict(plain.depth.named_buffers())
    ours = dict(made.unet.named_buffers()) | dict(made.depth.named_buffers())
    assert ours.keys() == buffers.keys()
    assert all(torch.equal(ours[name], buffer) for name, buffer in buffers.items())


def test_a_seed_gives_the_same_weights_again_and_another_gives_others():
    first, again, other = (modules(make(seed=seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "0.spatial.conv_in.weight"
    assert not torch.equal(first[name], other[name])


def test_the_seed_of_the_program_is_left_alone():
    before = torch.get_rng_state()
    make()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_stream_on_it_has_pictures(dtype):
    model = make(dtype)
    config = StreamConfig(WIDTH, HEIGHT, steps_of(2))
    session = Session(model, config, random_text(model))
    frames = list(translate(session, make_frames(11, WIDTH, HEIGHT)))
    assert len(frames) == 11
    assert all(frame.rgb.isfinite().all() for frame in frames)
    assert frames[-1].rgb.std() > 0.01


def test_a_text_of_no_words_has_the_shape_of_one():
    model = make()
    assert random_text(model).shape == (1, 77, TEXT)
    assert torch.equal(random_text(model, 3), random_text(model, 3))
    assert not torch.equal(random_text(model, 3), random_text(model, 4))


def test_a_machine_without_the_memory_refuses_before_a_weight_is_made(monkeypatch):
    def never(*_):
        raise AssertionError("weights were made")

    monkeypatch.setattr(random, "_fill", never)
    with pytest.raises(MemoryBudgetError):
        random_model(tiny_networks, StreamSize(2**20, 2**20, 8), CPU, torch.float32)


@pytest.mark.parametrize(("full", "kind"), [(False, "taesd"), (True, "sd")])
def test_the_full_size_is_that_of_the_real_networks(full, kind):
    with init_empty_weights():
        networks = sd15(full)
    assert count(networks.autoencoder) == PARAMETERS[kind]
    assert count(networks.depth) == PARAMETERS["dpt_hybrid"]
    assert networks.unet.spatial.config.block_out_channels == (320, 640, 1280, 1280)
    assert networks.unet.spatial.config.cross_attention_dim == 768


def test_the_structure_map_takes_the_place_of_depth():
    with init_empty_weights():
        assert isinstance(sd15(structure=True).depth, StructureMap)
