"""Our network beside ComfyUI's own: the same MODEL and VAE give the same numbers.

ComfyUI's Python runs `interop/program.py` once, on networks of Stable Diffusion 1.5's form and a
tiny size, and these tests read what it found. An error is the largest difference in units of the
result's spread.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.comfy.install import NOT_FOUND, ROOT, comfyui_folder, python_of

PROGRAM = Path(__file__).parent / "interop" / "program.py"
LIMIT = 900  # seconds, of a machine with much else to do; it takes 20
SAME, DIFFERENT = 1e-4, 0.1


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the program found, by the name of the check."""
    folder = comfyui_folder()
    if folder is None:
        pytest.skip(NOT_FOUND)
    scratch = tmp_path_factory.mktemp("interop")
    ended = subprocess.run(
        [python_of(folder), PROGRAM, folder, scratch],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=scratch,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads((scratch / "found.json").read_text(encoding="utf-8"))


def test_a_checkpoint_gives_comfyuis_epsilon(found):
    assert found["a_checkpoint"]["error"] < SAME


@pytest.mark.parametrize("graph", ["a_lora", "two_loras", "a_merge_of_two_models_with_loras"])
def test_loras_and_merges_give_comfyuis_epsilon_which_is_another_one_without(found, graph):
    assert found[graph]["error"] < SAME
    assert found[graph]["error_without"] > DIFFERENT


def test_all_layers_of_the_lora_are_in_it(found):
    assert found["a_lora"]["layers"] == found["a_lora"]["expected_layers"] > 80


def test_stored_precisions_give_the_epsilon_of_their_exact_weights(found):
    assert found["half_precision_with_a_lora"]["error"] < SAME
    assert found["eight_bits"]["error"] < SAME
    assert found["scaled_eight_bits_with_a_lora"]["plain"] < SAME
    assert found["scaled_eight_bits_with_a_lora"]["lora"] < SAME


def quantised(found):
    if not found["quantised_models"]:
        pytest.skip("this ComfyUI knows no quantised layers")
    return found["quantised_models"]


QUANTISED = (
    "float8_e4m3fn",
    "float8_e5m2",
    "mxfp8",
    "nvfp4",
    "int8_tensorwise",
    "int8_tensorwise, rotated",
    "convrot_w4a4",
)


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_weights_give_the_epsilon_of_the_values_that_they_stand_for(found, kind):
    result = quantised(found)[kind]
    assert result["layers"] > 20
    for graph in ("plain", "lora", "after_a_run"):
        assert result[graph] < SAME, graph


def test_layers_that_scale_their_input_give_comfyuis_epsilon(found):
    assert quantised(found)["nvfp4, smoothed"]["plain"] < SAME


def test_depth_anything_3_gives_what_comfyuis_node_gives(found):
    result = found["depth_anything_3"]
    if not result:
        pytest.skip("this ComfyUI knows no Depth Anything 3")
    assert result["error"] < SAME
    assert result["spread"] > 0.01
    assert (result["shape"], result["once"]) == ([1, 1, 140, 252], True)


@pytest.mark.parametrize("kind", ["taesd", "kl"])
def test_a_vae_that_comes_layer_by_layer_is_whole_on_the_device_in_ours(found, kind):
    if not found["a_vae_under_dynamic_vram"]:
        pytest.skip("this ComfyUI has no dynamic VRAM")
    assert found["a_vae_under_dynamic_vram"][kind] == {
        "dynamic": True,
        "ours_is_dynamic": False,
        "devices": ["meta"],
        "once": True,
    }


def test_a_model_that_comes_layer_by_layer_is_read_where_it_lies(found):
    if not found["a_model_under_dynamic_vram"]:
        pytest.skip("this ComfyUI has no dynamic VRAM")
    assert found["a_model_under_dynamic_vram"] == {
        "dynamic": True,
        "devices": ["cpu", "meta"],
        "equal": True,
        "untouched": True,
    }


@pytest.mark.parametrize("running", ["same", "other", "part"])
def test_what_is_patched_in_place_neither_shows_in_ours_nor_is_touched(found, running):
    result = found["weights_that_are_patched_in_place"][running]
    assert result["backed_up"] > 0
    assert result["equal"]
    assert result["untouched"]


def test_a_clone_with_the_same_weights_shares_our_network(found):
    assert found["clones"] == {"same": True, "another_lora": False}


def test_the_prediction_is_that_of_comfyuis_sampling(found):
    assert found["predictions"] == {
        "unpatched": "epsilon",
        "eps": "epsilon",
        "lcm": "epsilon",
        "v_prediction": "v_prediction",
        "x0": "refused",
        "img_to_img": "refused",
    }


def test_a_noise_schedule_that_has_no_effect_is_told(found):
    assert found["noise_schedules"] == [0, 1]


@pytest.mark.parametrize("kind", ["taesd", "kl"])
def test_a_vae_gives_what_its_methods_and_our_own_autoencoder_give(found, kind):
    result = found[kind]
    assert result["shape"] == [2, 4, 8, 6]
    for compared in ("encode", "decode", "own_encode", "own_decode"):
        assert result[compared] < SAME, compared
    assert result["repeatable"]


def test_the_model_streams_under_comfyuis_memory_rules(found):
    stream = found["a_stream"]
    assert (stream["frames"], stream["finite"]) == (8, True)
    assert (stream["patchers"], stream["held_by_comfyui"]) == (2, True)
