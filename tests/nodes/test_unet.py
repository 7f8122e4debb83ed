"""The weights of a MODEL arrive in our network, which is made again only when it must be."""

import gc
import logging
import weakref
from types import SimpleNamespace
from uuid import uuid4

import pytest
import torch

from live2diff_core.errors import WeightsKeyError, WeightsKindError, WeightsMissingError
from tests import checkpoints, sd15
from tests.nodes import fakes
from tests.nodes.fakes import FakeModel
from tests.pack import pack_module

unet = pack_module("nodes.unet")
host = pack_module("nodes.host")
progress = pack_module("nodes.host.progress")
QUERY = "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
OURS = "spatial.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion")
    return sd15.save(sd15.reference_motion(sd15.tiny_unet()), folder / "live2diff.safetensors")


def weights_of(resident):
    return resident.module.state_dict()


# ---- what arrives


def test_a_model_with_motion_weights_is_the_network_they_came_from(motion):
    ours, expected = weights_of(unet.unet_of(FakeModel(), motion)), sd15.tiny_unet().state_dict()
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_the_models_weights_are_neither_changed_nor_shared(motion):
    model = FakeModel()
    before = {key: weight.clone() for key, weight in model.weights.items()}
    for weight in weights_of(unet.unet_of(model, motion)).values():
        weight.fill_(7)
    assert all(torch.equal(model.weights[key], before[key]) for key in before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_other_precisions_are_widened(motion, dtype):
    stored = {key: weight.to(dtype) for key, weight in fakes.tiny_weights().items()}
    ours = weights_of(unet.unet_of(FakeModel(stored), motion))
    assert {weight.dtype for weight in ours.values()} == {torch.float32}
    assert torch.equal(ours[OURS], stored[QUERY].float())


def test_scaled_weights_are_converted_as_comfyui_says_and_scales_are_no_weights(motion):
    model = FakeModel()
    model.hold(QUERY, model.weights[QUERY], convert=lambda weight, inplace: weight.mul_(3))
    for end in ("scale_weight", "scale_input", "input_scale"):
        model.hold(QUERY.replace("weight", end), torch.tensor(3.0))
    ours = weights_of(unet.unet_of(model, motion))
    assert torch.equal(ours[OURS], fakes.tiny_weights()[QUERY] * 3)


def test_what_a_layer_multiplies_its_input_by_is_part_of_its_weight(motion):
    model, smoothing = FakeModel(), torch.linspace(1, 2, 32)
    model.hold(QUERY.replace("weight", "pre_quant_scale"), smoothing)
    ours = weights_of(unet.unet_of(model, motion))
    assert torch.equal(ours[OURS], fakes.tiny_weights()[QUERY] * smoothing)


@pytest.mark.parametrize(
    ("kept_in", "kept"),
    [("backup", lambda weight: SimpleNamespace(weight=weight)), ("hook_backup", lambda w: (w, 0))],
)
def test_weights_that_are_patched_in_place_are_taken_as_they_were(motion, kept_in, kept):
    model = FakeModel()
    getattr(model, kept_in)["diffusion_model." + QUERY] = kept(model.weights[QUERY])
    model.hold(QUERY, model.weights[QUERY] * 9)
    ours = weights_of(unet.unet_of(model, motion))
    assert torch.equal(ours[OURS], model.weights[QUERY])


def test_the_network_is_ready_to_run(motion):
    module = unet.unet_of(FakeModel(), motion).module
    assert not module.training
    assert not any(weight.requires_grad for weight in module.parameters())


# ---- when it is made


def test_nothing_changed_gives_the_same_network(motion):
    model = FakeModel()
    assert unet.unet_of(model, motion) is unet.unet_of(model, motion)


def test_a_lora_more_makes_another_one_and_the_last_is_not_kept(motion):
    model = FakeModel()
    seen = weakref.ref(unet.unet_of(model, motion).module)
    model.patches_uuid = uuid4()
    model.hold(QUERY, model.weights[QUERY] * 2)
    ours = weights_of(unet.unet_of(model, motion))
    assert torch.equal(ours[OURS], model.weights[QUERY] * 2)
    gc.collect()
    assert seen() is None


def test_a_replaced_motion_file_is_read_again(tmp_path):
    state, model = sd15.reference_motion(sd15.tiny_unet()), FakeModel()
    path = sd15.save(state, tmp_path / "live2diff.safetensors")
    first = unet.unet_of(model, path)
    sd15.save({key: t if key.endswith(".pe") else t * 2 for key, t in state.items()}, path)
    second = unet.unet_of(model, path)
    key = "depth_mapping.conv_in.weight"
    assert torch.equal(weights_of(second)[key], weights_of(first)[key] * 2)


def test_another_precision_makes_another_one(motion, monkeypatch):
    model = FakeModel()
    unet.unet_of(model, motion)
    monkeypatch.setattr(host, "network_dtype", lambda _: torch.bfloat16)
    assert weights_of(unet.unet_of(model, motion))[OURS].dtype == torch.bfloat16


def test_a_network_goes_with_the_base_that_it_was_made_of(motion):
    model = FakeModel()
    seen = weakref.ref(unet.unet_of(model, motion).module)
    assert seen() is not None
    del model
    gc.collect()
    assert seen() is None


def test_an_interrupt_leaves_nothing_half_made(motion, monkeypatch):
    class Interrupted(Exception): ...

    def interrupt():
        raise Interrupted

    model = FakeModel()
    with monkeypatch.context() as patch:
        patch.setattr(progress, "check_interrupt", interrupt)
        with pytest.raises(Interrupted):
            unet.unet_of(model, motion)
    assert weights_of(unet.unet_of(model, motion)).keys() == sd15.tiny_unet().state_dict().keys()


# ---- what is refused


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("sdxl", "UNet of Stable Diffusion XL; expected .* 1.5 as the base.* take a Stable"),
        ("flux", "Flux checkpoint; expected a UNet of Stable Diffusion 1.5"),
        ("sd3", "Stable Diffusion 3"),
        ("sd2", "UNet of Stable Diffusion 2;"),
    ],
)
def test_another_base_is_named(motion, table, words):
    shapes = checkpoints.bare(checkpoints.TABLES[table])
    model = FakeModel(checkpoints.hollow(shapes, torch.float16))
    with pytest.raises(WeightsKindError, match=f"this MODEL is an? .*{words}"):
        unet.unet_of(model, motion)


def test_an_inpainting_model_is_named(motion):
    first = {"input_blocks.0.0.weight": torch.zeros(sd15.WIDTHS[0], 9, 3, 3)}
    with pytest.raises(WeightsKindError, match=r"inpainting.*the checkpoint it came from|expects"):
        unet.unet_of(FakeModel(fakes.tiny_weights() | first), motion)


def test_quantised_weights_are_refused(motion):
    packed = {QUERY: torch.zeros(32, 32, dtype=torch.uint8)}
    with pytest.raises(WeightsKindError, match=r"quantised to integers .GGUF.*\.safetensors"):
        unet.unet_of(FakeModel(fakes.tiny_weights() | packed), motion)


def test_a_layer_that_is_no_part_of_the_network_is_named(motion):
    extra = {"input_blocks.1.0.gate": torch.ones(3)}
    with pytest.raises(WeightsKeyError, match=r"this MODEL does not fit.*1 unexpected.*gate"):
        unet.unet_of(FakeModel(fakes.tiny_weights() | extra), motion)


def test_a_motion_file_that_went_away_is_named(tmp_path):
    with pytest.raises(WeightsMissingError, match=r"no file .*gone\.safetensors"):
        unet.unet_of(FakeModel(), tmp_path / "gone.safetensors")


# ---- what else a MODEL says


@pytest.mark.parametrize(
    ("predicts", "expected"),
    [(fakes.EPS, "epsilon"), (fakes.LCM, "epsilon"), (fakes.V_PREDICTION, "v_prediction")],
)
def test_what_the_network_gives_is_read_from_its_sampling(predicts, expected):
    assert unet.prediction_of(FakeModel(predicts=predicts)) == expected


@pytest.mark.parametrize("predicts", [fakes.X0, fakes.EDM, fakes.CONST, fakes.OwnSampler])
def test_other_samplings_are_refused(predicts):
    with pytest.raises(WeightsKindError, match=r"sampled as \w+; expected EPS or V_PREDICTION"):
        unet.prediction_of(FakeModel(predicts=predicts))


@pytest.mark.parametrize("zsnr", [True, False])
def test_a_noise_schedule_without_effect_is_said(zsnr, caplog):
    model = FakeModel(predicts=fakes.V_PREDICTION)
    model.sampling.zsnr = zsnr
    with caplog.at_level(logging.WARNING):
        assert unet.prediction_of(model) == "v_prediction"
    assert ("zero terminal SNR (zsnr): it has no effect" in caplog.text) == zsnr


def test_changes_that_are_no_weights_are_said_to_have_no_effect(motion, caplog):
    model = FakeModel()
    model.model_options["transformer_options"] = {
        "patches": {"output_block_patch": [print]},
        "patches_replace": {"attn2": {}},
    }
    with caplog.at_level(logging.WARNING):
        unet.unet_of(model, motion)
    assert "(attn2, output_block_patch:" in caplog.text
