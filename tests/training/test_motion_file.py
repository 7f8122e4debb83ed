"""Files of motion weights: ours in Live2Diff's names, and AnimateDiff's as a start."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from live2diff_core.errors import WeightsKeyError, WeightsKindError
from live2diff_core.models.unet import StreamingUNet
from live2diff_core.training.motion_file import (
    beside,
    is_animatediff,
    load_motion,
    save_motion,
    to_live2diff,
)
from live2diff_core.training.start import begin
from live2diff_core.weights.bundled import load_bundled
from live2diff_core.weights.inspect import Kind, inspect
from live2diff_core.weights.model import load_model
from live2diff_core.weights.spec import ModelSpec
from tests import sd15

MIDDLE = "mid_block.motion_modules.0.temporal_transformer.norm.weight"


@pytest.fixture
def unet() -> StreamingUNet:
    """A network of its own."""
    return copy.deepcopy(sd15.tiny_unet())


def animatediff(length: int = 24, prefix: str = "", **more: Tensor) -> dict[str, Tensor]:
    """Motion weights of the tiny network as AnimateDiff publishes them: no depth mapping."""
    state = {
        key: sd15.position_table(length, t.shape[-1])[None] if key.endswith(".pe") else t
        for key, t in sd15.reference_motion(sd15.tiny_unet()).items()
        if not key.startswith("flow_conv_in.")
    }
    return {prefix + key: tensor for key, tensor in {**state, **more}.items()}


V2 = animatediff(32) | {MIDDLE: torch.ones(64)}
FORMS = {"v1": animatediff(24), "v2": V2, "v3": animatediff(32)}


def test_the_names_are_those_of_the_reference_with_its_position_tables():
    ours, theirs = to_live2diff(sd15.tiny_unet()), sd15.reference_motion(sd15.tiny_unet())
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, rtol=0, atol=1e-5)


def test_what_is_written_is_known_as_live2diffs_and_read_again_to_the_bit(tmp_path, unet):
    path = tmp_path / "motion.safetensors"
    save_motion(path, sd15.tiny_unet(), {"base": "tiny"})
    assert inspect(path).kind == Kind.LIVE2DIFF_MOTION
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "live2diff-motion", "base": "tiny"}
    begin(unet, None, has_depth=False)
    load_motion(unet, path)
    theirs = beside(sd15.tiny_unet()).state_dict()
    assert all(torch.equal(t, theirs[k]) for k, t in beside(unet).state_dict().items())


def test_a_file_has_the_rights_of_the_users_other_files(tmp_path):
    plain, path = tmp_path / "plain", tmp_path / "motion.safetensors"
    plain.touch()
    save_motion(path, sd15.tiny_unet(), {})
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("version", FORMS)
def test_animatediff_gives_the_temporal_layers_and_depth_is_silent(tmp_path, unet, version, prefix):
    state = {prefix + key: tensor for key, tensor in FORMS[version].items()}
    path = sd15.save(state, tmp_path / "mm.ckpt")
    assert is_animatediff(path)
    for parameter in beside(unet).parameters():
        parameter.zero_()
    begin(unet, path, has_depth=False)
    for side in ("temporal_down", "temporal_up"):
        theirs = getattr(sd15.tiny_unet(), side).state_dict()
        ours = getattr(unet, side).state_dict()
        assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())
    assert not unet.depth_mapping(torch.randn(2, 4, 3, 3)).any()


def test_animatediff_lacking_a_layer_is_refused(tmp_path, unet):
    state = animatediff(24)
    del state[next(key for key in state if key.endswith("to_q.weight"))]
    with pytest.raises(WeightsKeyError, match="1 missing"):
        begin(unet, sd15.save(state, tmp_path / "mm.ckpt"), has_depth=False)


def test_live2diffs_own_weights_are_taken_whole(tmp_path, unet):
    path = sd15.save(sd15.reference_motion(sd15.tiny_unet()), tmp_path / "live2diff.ckpt")
    for parameter in beside(unet).parameters():
        parameter.zero_()
    assert not is_animatediff(path)
    begin(unet, path, has_depth=False)
    theirs = beside(sd15.tiny_unet()).state_dict()
    assert all(torch.equal(t, theirs[k]) for k, t in beside(unet).state_dict().items())


def test_a_file_of_something_else_is_refused_with_what_it_is(tmp_path, unet):
    path: Path = sd15.save(sd15.checkpoint(), tmp_path / "base.safetensors")
    with pytest.raises(WeightsKindError, match="as what training starts from"):
        begin(unet, path, has_depth=False)


def test_silent_layers_leave_a_depth_mapping_that_the_base_brings(unet):
    before = copy.deepcopy(unet.depth_mapping.state_dict())
    begin(unet, None, has_depth=True)
    after = unet.depth_mapping.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert not any(t.proj_out.weight.any() for t in unet.transformers())


def test_what_is_trained_beside_the_bundled_model_is_loaded_with_it(tmp_path):
    trained = load_bundled().unet
    with torch.no_grad():
        for parameter in beside(trained).parameters():
            parameter.mul_(0.5)
    save_motion(tmp_path / "trained.safetensors", trained, {})
    spec = ModelSpec(motion=str(tmp_path / "trained.safetensors"))
    loaded = load_model(spec).unet.state_dict()
    for key, value in trained.state_dict().items():
        assert torch.equal(loaded[key], value), key


def test_motion_weights_of_another_base_are_refused_beside_the_bundled_model(tmp_path, unet):
    save_motion(tmp_path / "other.safetensors", unet, {})
    with pytest.raises(WeightsKindError, match="the base has"):
        load_model(ModelSpec(motion=str(tmp_path / "other.safetensors")))
