"""The Apply node: its lists, what it says of wrong files, and that its model streams."""

import json
import os

import pytest
import torch

from live2diff_core.errors import WeightsKindError, WeightsMissingError
from live2diff_core.models.depth import StructureMap
from tests import checkpoints, sd15
from tests.nodes.fakes import V_PREDICTION, FakeModel, fake_vae, taesd_weights
from tests.nodes.graph import SETTINGS, images, run
from tests.pack import pack_module

host = pack_module("nodes.host")
Apply = pack_module("nodes.apply").Live2DiffApply
MOTION = "live2diff.safetensors"


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A models folder with motion weights alone."""
    monkeypatch.setenv("LIVE2DIFF_MODELS", str(tmp_path))
    sd15.save(sd15.reference_motion(sd15.tiny_unet()), tmp_path / "live2diff" / MOTION)
    return tmp_path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def choices(name):
    return Apply.INPUT_TYPES()["required"][name][0]


def applied(**changes):
    """The HostedModel of a tiny SD 1.5."""
    inputs = {
        "model": FakeModel(),
        "vae": fake_vae(),
        "motion_weights": MOTION,
        "depth_model": "structure",
        "depth_range": "running",
    }
    return run("Apply", **{**inputs, **changes})[0]


# ---- lists


def test_motion_files_are_those_of_both_folders_with_live2diffs_first(models):
    touch(models / "animatediff_models" / "deep" / "mm.ckpt")
    touch(models / "live2diff" / "z.ckpt")
    touch(models / "live2diff" / "readme.txt")
    assert choices("motion_weights") == [MOTION, "z.ckpt", "deep/mm.ckpt"]


def test_depth_models_are_files_and_transformers_folders_after_structure(models):
    touch(models / "depth" / "dpt_hybrid_384.pt")
    for file in ("config.json", "model.safetensors", "part/more.safetensors"):
        touch(models / "depth" / "deep" / "anything-hf" / file)
    assert choices("depth_model") == ["structure", "deep/anything-hf", "dpt_hybrid_384.pt"]


def test_a_depth_model_beside_the_motion_weights_is_no_motion_file(models):
    touch(models / "live2diff" / "dpt_hybrid_384.pt")
    assert choices("motion_weights") == [MOTION]
    assert choices("depth_model") == ["structure", "dpt_hybrid_384.pt"]


def test_links_are_followed_where_they_lead_somewhere(models, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    touch(elsewhere / "mine.ckpt")
    (models / "live2diff" / "linked").symlink_to(elsewhere)
    (models / "live2diff" / "nowhere.ckpt").symlink_to(elsewhere / "gone.ckpt")
    assert choices("motion_weights") == ["linked/mine.ckpt", MOTION]


def test_an_empty_folder_is_shown_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE2DIFF_MODELS", str(tmp_path / "nothing"))
    (placeholder,) = choices("motion_weights")
    assert placeholder == "(no motion weights found)"
    assert "put live2diff.ckpt" in Apply.VALIDATE_INPUTS(placeholder)


# ---- before a run


def test_good_files_pass(models):
    assert Apply.VALIDATE_INPUTS(MOTION) is True
    assert Apply.VALIDATE_INPUTS(None) is True  # linked
    assert Apply().check_lazy_status(depth_model="structure") == ["model", "vae"]


def test_a_missing_motion_file_comes_with_where_it_belongs(models):
    problem = Apply.VALIDATE_INPUTS("live2diff.ckpt")
    assert str(models / "live2diff") in problem
    assert "`live2diff convert`" in problem


def test_a_missing_depth_model_comes_with_where_it_belongs(models):
    with pytest.raises(WeightsMissingError, match=r"dpt_hybrid_384\.pt") as caught:
        Apply().check_lazy_status(depth_model="midas.pt")
    assert str(models / "depth") in str(caught.value)


def test_animatediffs_motion_module_is_named(models):
    shapes = checkpoints.animatediff(32, middle=True)
    path = models / "animatediff_models" / "mm_sd_v15_v2.safetensors"
    path.parent.mkdir()
    checkpoints.write_safetensors(path, shapes)
    problem = Apply.VALIDATE_INPUTS(path.name)
    assert "is an AnimateDiff v2 motion module; expected a Live2Diff motion module" in problem


def test_a_replaced_file_is_seen_under_its_old_name(models):
    def seen():
        return Apply.IS_CHANGED(MOTION, "structure", depth_range="running", model=None, vae=None)

    before = seen()
    assert before == seen()
    os.utime(models / "live2diff" / MOTION, ns=(1, 1))
    assert before != seen()


def test_another_device_policy_is_seen(models, monkeypatch):
    before = Apply.IS_CHANGED(MOTION, "structure")
    monkeypatch.setattr(host, "network_device", lambda: torch.device("meta"))
    assert before != Apply.IS_CHANGED(MOTION, "structure")


# ---- what comes out


def test_the_model_is_of_the_parts_that_were_connected(models):
    hosted = applied(model=FakeModel(predicts=V_PREDICTION), depth_range="frame")
    model = hosted.model
    assert hosted.computing.depth_range == "frame"
    assert model.schedule.prediction == "v_prediction"
    assert model.text_encoder is None
    assert isinstance(model.depth, StructureMap)
    assert (model.defaults.width, model.defaults.steps.indices) == (512, (30, 36, 42))
    assert "live2diff" in model.name


@pytest.mark.parametrize("vae", [fake_vae(), fake_vae(taesd_weights())])
def test_its_stream_shows_the_input_and_the_prompt(models, vae):
    hosted, frames = applied(vae=vae), images(8)

    def warmed(pictures, seed):
        prompt = torch.randn(1, 5, sd15.TEXT, generator=torch.Generator().manual_seed(seed))
        given = {**SETTINGS, "model": hosted, "frames": pictures, "unique_id": "1"}
        return run("Warmup", conditioning=[[prompt, {}]], **given)[1]

    first = warmed(frames, 1)
    assert first.shape == (8, 64, 64, 3)
    assert torch.equal(first, warmed(frames, 1))
    assert not torch.equal(first, warmed(frames, 2))
    assert not torch.equal(first, warmed(1 - frames, 1))


def test_a_depth_model_is_loaded_from_its_folder(models, monkeypatch):
    loaded = []

    def load_depth(path, device, dtype):
        loaded.append((path, device, dtype))
        return StructureMap()

    monkeypatch.setattr("live2diff_core.weights.depth.load_depth", load_depth)
    folder = models / "depth" / "anything-hf"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "depth_anything"}))
    applied(depth_model="anything-hf")
    assert loaded == [(folder, torch.device("cpu"), torch.float32)]


def test_a_vae_of_another_base_is_refused_before_weights_are_merged(models, monkeypatch):
    monkeypatch.setattr(host, "merged", None)
    with pytest.raises(WeightsKindError, match=r"this VAE is not Stable Diffusion 1\.5's"):
        applied(vae=fake_vae(latent_channels=16))


def test_another_model_as_depth_is_refused_by_name(models):
    with pytest.raises(WeightsKindError, match=r"expected Depth Anything 3 .* got Module: connect"):
        applied(depth=FakeModel())


class DepthAnything3Net(torch.nn.Module):
    """Distance to the left edge, and sky on the right."""

    def forward(self, pixels):
        self.seen = pixels
        count, _, height, width = pixels.shape
        ramp = torch.linspace(1, 3, width).expand(count, height, width)
        return {"depth": ramp, "sky": (ramp > 2.5).float()}


def test_depth_is_inverse_and_nothing_where_the_sky_is():
    network = DepthAnything3Net()
    estimator = pack_module("nodes.depth").HostDepth(network, torch.float32)
    near = estimator(torch.rand(2, 3, 48, 96))
    assert network.seen.shape == (2, 3, 252, 504)
    assert near.shape == (2, 1, 48, 96)
    assert near[0, 0, 0, 0] == pytest.approx(1.0, abs=0.02)
    assert near[0, 0, 0, 47] == pytest.approx(0.5, abs=0.01)
    assert near[..., 80:].max() == 0
