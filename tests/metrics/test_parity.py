"""The engine equals the recorded reference, and the comparison notices when it does not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from live2diff_core import cache
from live2diff_core.cache import Visibility
from live2diff_core.errors import ConfigError, WeightsFormatError
from live2diff_core.metrics import parity
from live2diff_core.metrics.parity import Case, ParityResult, Recording, replay
from live2diff_core.models import temporal
from live2diff_core.models.unet import StreamingUNet
from tests.golden import CASES, GOLDEN

TOLERANCE = 1e-4
LOOSE = 1e-3  # what a mistake must exceed by far


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording(GOLDEN)


@pytest.fixture(scope="module")
def network(recording) -> StreamingUNet:
    """For whoever only runs it."""
    return recording.network()


def short_case(recording: Recording, frames: int = 3) -> Case:
    """The start of the smaller recording."""
    (case,) = recording.cases([CASES[0]])
    case.tensors["stream.latents"] = case.tensors["stream.latents"][:frames]
    return case


@pytest.mark.parametrize(("name", "steps", "frames"), [(CASES[0], 2, 32), (CASES[1], 4, 30)])
def test_a_recorded_stream_is_reproduced(recording, network, name, steps, frames):
    (case,) = recording.cases([name])
    result = replay(case, network)
    assert (result.name, result.steps, result.frames) == (name, steps, frames)
    assert result.tables_equal
    assert result.warmup_max_abs_error <= TOLERANCE
    assert result.max_abs_error <= TOLERANCE
    assert result.cache_max_abs_error <= TOLERANCE
    assert result.within(TOLERANCE)


def test_the_start_of_a_stream_is_within_too(recording, network):
    assert replay(short_case(recording), network).within(TOLERANCE)


# ---- mistakes in the network


def spoil_weight(network: StreamingUNet) -> None:
    network.temporal_up[1][0].attentions[1].to_qkv.weight[-1, 0] += 0.5


def skip_depth(network: StreamingUNet) -> None:
    network.depth_mapping.conv_out.weight.zero_()
    network.depth_mapping.conv_out.bias.zero_()


def silence_temporal_layers(network: StreamingUNet) -> None:
    for side in (network.temporal_down, network.temporal_up):
        for transformers in side:
            for transformer in transformers:
                transformer.start_silent()


@pytest.mark.parametrize("spoil", [spoil_weight, skip_depth, silence_temporal_layers])
def test_a_spoiled_network_is_noticed(recording, spoil: Callable):
    network = recording.network()
    with torch.no_grad():
        spoil(network)
    result = replay(short_case(recording), network)
    assert not result.within(LOOSE)
    assert result.tables_equal


def test_values_without_position_are_noticed(recording, network, monkeypatch):
    attend = temporal.attend

    def forgetful(query, key, value, tables, view):
        return attend(
            query, key, value, replace(tables, value=torch.zeros_like(tables.value)), view
        )

    monkeypatch.setattr(temporal, "attend", forgetful)
    result = replay(short_case(recording), network)
    assert result.max_abs_error > LOOSE
    assert not result.within(LOOSE)


def test_positions_that_stand_still_are_noticed_when_the_ring_turns(
    recording, network, monkeypatch
):
    ring_visibility = cache.ring_visibility

    def still(age, window):
        view = ring_visibility(age, window)
        slots = torch.arange(window.slots).expand_as(view.keys)
        own = cache.ring_slots(age, window)[:, None]
        return Visibility(slots, own, view.visible)

    monkeypatch.setattr(cache, "ring_visibility", still)
    before, after = short_case(recording, frames=8), short_case(recording, frames=12)
    assert replay(before, network).within(TOLERANCE)  # nothing moves before the ring is full
    assert not replay(after, network).within(LOOSE)


def test_wrong_tables_are_noticed_by_themselves(recording, network, monkeypatch):
    monkeypatch.setattr(parity, "ring_slots", lambda age, window: cache.ring_slots(age, window) + 1)
    result = replay(short_case(recording), network)
    assert result.max_abs_error <= TOLERANCE
    assert not result.tables_equal
    assert not result.within(LOOSE)


# ---- differences in the recording


@pytest.mark.parametrize(
    ("tensor", "place", "change"),
    [
        ("stream.x0", (2, 0, 0, 0), 0.01),
        ("stream.x0", (2, 0, 0, 0), float("nan")),
        ("warmup.x0", (0, 3, 1, 1), 0.01),
        ("warmup.x0", (0, 3, 1, 1), float("nan")),
        ("kv.L0.after_warmup", (1, 1, 0, 7, 0), 0.01),
        ("kv.L0.after_warmup", (1, 1, 0, 7, 0), float("nan")),
        ("sched.sub_timesteps", (1,), 1),
        ("stream.update_idx", (1, 1), 1),
        ("stream.pe_idx", (2, 0, 3), 1),
        ("stream.attn_bias", (2, 0, 3), -1.0),
    ],
)
def test_a_difference_from_the_recording_is_noticed(recording, network, tensor, place, change):
    case = short_case(recording)
    case.tensors[tensor][place] += change
    assert not replay(case, network).within(LOOSE)


def test_what_no_frame_holds_is_not_compared(recording, network):
    case = short_case(recording)
    case.tensors["stream.x0"][0] += 1.0  # with two steps no frame is done yet
    case.tensors["kv.L0.after_warmup"][:, :, :, 8:] += 1.0  # the ring is empty
    case.tensors["stream.update_idx"][0, 1] += 1
    assert replay(case, network).within(TOLERANCE)


@pytest.mark.parametrize("field", range(3))
def test_no_error_may_be_large_or_nan(field):
    errors = [0.0, 0.0, 0.0]
    assert ParityResult("x", 2, 9, *errors, tables_equal=True).within(TOLERANCE)
    assert not ParityResult("x", 2, 9, *errors, tables_equal=False).within(TOLERANCE)
    for bad in (2 * TOLERANCE, float("nan")):
        errors[field] = bad
        assert not ParityResult("x", 2, 9, *errors, tables_equal=True).within(TOLERANCE)


# ---- recordings that cannot be used


def test_a_directory_without_a_recording_is_refused(tmp_path):
    with pytest.raises(WeightsFormatError, match="expected a recording"):
        Recording(tmp_path)


def test_a_recording_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "golden.json").write_text("{")
    with pytest.raises(WeightsFormatError, match=r"golden\.json"):
        Recording(tmp_path)


def test_a_recording_without_its_weights_is_refused(tmp_path):
    (tmp_path / "golden.json").write_bytes((GOLDEN / "golden.json").read_bytes())
    with pytest.raises(WeightsFormatError, match="unet-01-of-03"):
        Recording(tmp_path).network()


def test_an_unknown_case_is_refused_with_those_that_are_there(recording):
    with pytest.raises(ConfigError, match="no such case: n9; there are n2_16x16, n4_16x16"):
        list(recording.cases(["n2_16x16", "n9"]))


def test_all_cases_or_the_named_ones(recording):
    assert tuple(case.name for case in recording.cases()) == CASES
    assert [case.name for case in recording.cases([CASES[1]])] == [CASES[1]]
