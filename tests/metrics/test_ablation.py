"""Without temporal layers: the same weights, and every frame on its own."""

import pytest
import torch

from live2diff_core.cache import RingStep, WholeClip, allocate
from live2diff_core.config import AttentionWindow
from live2diff_core.frames import Frame
from live2diff_core.metrics.ablation import (
    with_ranged_depth,
    without_depth,
    without_sinks,
    without_temporal_layers,
)
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from tests.tiny import changed, make_frames, same, stream_config, tiny_model

FRAMES = 11


def run(model: TranslationModel, frames: list[Frame], noise: str = "fresh") -> list[Frame]:
    with Session(model, stream_config(2, noise=noise), "ink") as session:
        return list(translate(session, frames))


def differing(ours: list[Frame], theirs: list[Frame]) -> list[int]:
    pairs = zip(ours, theirs, strict=True)
    return [a.index for a, b in pairs if not torch.equal(a.rgb, b.rgb)]


def test_it_is_the_network_without_a_state_to_the_bit():
    whole, alone = tiny_model().unet, without_temporal_layers(tiny_model()).unet
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(FRAMES, 12, 4, 6, generator=generator)
    depth = torch.randn(FRAMES, 32, 4, 6, generator=generator)
    timestep = torch.arange(FRAMES) * 50
    text = tiny_model().text.encode("ink").expand(FRAMES, -1, -1)
    state = WholeClip(FRAMES, 1, AttentionWindow(), torch.device("cpu"))
    with torch.no_grad():
        expected = whole(x, timestep, text, depth, None)
        assert torch.equal(alone(x, timestep, text, depth, state), expected)
        assert torch.equal(alone(x, timestep, text, depth, None), expected)
        assert not torch.equal(whole(x, timestep, text, depth, state), expected)


def test_weights_are_shared_not_copied():
    whole, alone = tiny_model().unet, without_temporal_layers(tiny_model()).unet
    ours, theirs = dict(alone.named_parameters()), dict(whole.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)


def test_all_else_of_the_model_stays():
    whole = tiny_model()
    alone = without_temporal_layers(whole)
    for name in ("name", "autoencoder", "depth", "text", "schedule", "defaults"):
        assert getattr(alone, name) is getattr(whole, name)
    assert (alone.device, alone.dtype) == (whole.device, whole.dtype)
    assert alone.size_multiple == whole.size_multiple
    assert not alone.unet.training


def test_the_whole_model_is_left_as_it_was():
    before = run(tiny_model(), make_frames(FRAMES))
    alone = run(without_temporal_layers(tiny_model()), make_frames(FRAMES))
    assert same(run(tiny_model(), make_frames(FRAMES)), before)
    assert differing(alone, before) == list(range(FRAMES))


@pytest.mark.parametrize("noise", ["fresh", "fixed"])
@pytest.mark.parametrize("position", [0, 5, 9])
def test_a_changed_frame_changes_itself_alone(noise, position):
    model, frames = without_temporal_layers(tiny_model()), make_frames(FRAMES)
    results = [run(model, inputs, noise) for inputs in (frames, changed(frames, position))]
    assert [len(result) for result in results] == [FRAMES, FRAMES]
    assert differing(*results) == [position]


@pytest.mark.parametrize("position", [0, 5, 9])
def test_with_temporal_layers_others_change_too(position):
    frames = make_frames(FRAMES)
    results = [run(tiny_model(), inputs) for inputs in (frames, changed(frames, position))]
    assert len(differing(*results)) > 1


# ---- without sinks, without depth


def test_without_sinks_only_streamed_frames_change():
    whole = tiny_model()
    frames = make_frames(FRAMES)
    changed_frames = differing(run(whole, frames), run(without_sinks(whole), frames))
    assert changed_frames == list(range(8, FRAMES))


def test_without_sinks_the_warm_up_frames_have_no_part():
    model, window = without_sinks(tiny_model()), AttentionWindow()
    unet = model.unet
    outputs = []
    for sinks in (0.0, 1.0):
        shapes = unet.cache_shapes(4, 6)
        layers = allocate(shapes, 1, window, torch.zeros(()))
        for layer in layers:
            layer.key[:, :, :, : window.sinks] = sinks
            layer.value[:, :, :, : window.sinks] = sinks
        state = RingStep(layers, torch.tensor([2]), window)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 12, 4, 6, generator=generator)
        depth = torch.randn(1, 32, 4, 6, generator=generator)
        with torch.no_grad():
            text = model.text.encode("ink")
            outputs.append(unet(x, torch.tensor([400]), text, depth, state))
    assert outputs[0].isfinite().all()
    assert torch.equal(*outputs)


def test_a_row_without_a_frame_stays_finite_without_sinks():
    frames = run(without_sinks(tiny_model()), make_frames(FRAMES))
    assert all(frame.rgb.isfinite().all() for frame in frames)


def test_without_depth_the_input_s_structure_has_no_part():
    model = without_depth(tiny_model())
    depth = model.depth(torch.rand(2, 3, 8, 8))
    assert depth.shape == (2, 1, 8, 8)
    assert not depth.any()


def test_a_ranged_depth_follows_the_rule_of_its_range():
    model, frames = with_ranged_depth(tiny_model()), make_frames(FRAMES)

    def ranged(rule: str) -> list[Frame]:
        with Session(model, stream_config(2, depth_range=rule), "ink") as session:
            return list(translate(session, frames))

    assert differing(ranged("running"), ranged("frame"))
    assert not differing(ranged("running"), ranged("running"))
