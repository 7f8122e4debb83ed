"""Settings are valid or refused with a reason."""

from dataclasses import FrozenInstanceError
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from live2diff_core.config import (
    MAX_STEPS,
    AttentionWindow,
    Guidance,
    StepSelection,
    StreamConfig,
)
from live2diff_core.errors import ConfigError

STEPS = StepSelection(strength=0.5, steps=2)


def selection_or_none(**settings) -> StepSelection | None:
    try:
        return StepSelection(**settings)
    except ConfigError:
        return None


def is_fit_to_run(selection: StepSelection) -> bool:
    indices = selection.indices
    ascending = all(a < b for a, b in pairwise(indices))
    in_range = all(0 <= i < selection.inference_steps for i in indices)
    return 1 <= len(indices) <= MAX_STEPS and ascending and in_range


@given(
    strength=st.none() | st.floats(allow_nan=True),
    steps=st.none() | st.integers(-2, 12),
    inference_steps=st.integers(-1, 1100),
)
@example(strength=1.0, steps=8, inference_steps=8)
@example(strength=0.2, steps=8, inference_steps=50)
def test_any_selection_by_strength_is_fit_to_run_or_refused(strength, steps, inference_steps):
    got = selection_or_none(strength=strength, steps=steps, inference_steps=inference_steps)
    assert got is None or (is_fit_to_run(got) and steps in (None, len(got.indices)))


@given(st.lists(st.integers(-2, 60), max_size=10), st.integers(-1, 60))
def test_any_selection_by_index_is_fit_to_run_or_refused(t_index, inference_steps):
    got = selection_or_none(t_index=tuple(t_index), inference_steps=inference_steps)
    assert got is None or (is_fit_to_run(got) and got.indices == tuple(t_index))


@given(
    strength=st.floats(0, 1, exclude_min=True),
    steps=st.integers(1, MAX_STEPS),
    inference_steps=st.integers(8, 1000),
)
def test_enough_kept_timesteps_are_never_refused(strength, steps, inference_steps):
    got = selection_or_none(strength=strength, steps=steps, inference_steps=inference_steps)
    assert (got is None) == (int(inference_steps * strength) < steps)


@pytest.mark.parametrize(
    ("settings", "indices"),
    [
        ({"strength": 1.0, "steps": 1}, (0,)),
        ({"strength": 0.4, "steps": 2}, (30, 40)),
        ({"strength": 0.4, "steps": 3}, (30, 36, 43)),
        ({"strength": 0.1}, (45, 46, 47, 48, 49)),
        ({"strength": 1.0, "steps": 8, "inference_steps": 8}, tuple(range(8))),
        ({"t_index": (30, 36, 42)}, (30, 36, 42)),
    ],
)
def test_indices_of_a_selection(settings, indices):
    assert StepSelection(**settings).indices == indices


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "either t_index or strength"),
        ({"strength": 0.0}, "above 0"),
        ({"strength": 1.01}, "at most 1"),
        ({"strength": float("nan"), "steps": 1}, "strength"),
        ({"strength": 0.5, "steps": 0}, "1 to 8"),
        ({"strength": 0.5, "steps": 9}, "1 to 8"),
        ({"strength": 0.02, "steps": 2}, "raise the strength or lower the steps"),
        ({"strength": 0.5}, "set steps"),
        ({"t_index": ()}, "1 to 8 indices, got 0"),
        ({"t_index": tuple(range(9))}, "got 9"),
        ({"t_index": (3, 3)}, "ascend"),
        ({"t_index": (4, 3)}, "ascend"),
        ({"t_index": (-1,)}, "0..49"),
        ({"t_index": (50,)}, "0..49"),
        ({"t_index": (3,), "strength": 0.5}, "leave strength and steps out"),
        ({"t_index": (3,), "steps": 1}, "leave strength and steps out"),
        ({"t_index": (0,), "inference_steps": 0}, "inference_steps"),
        ({"t_index": (0,), "inference_steps": 1001}, "inference_steps"),
    ],
)
def test_a_wrong_selection_is_refused_with_its_reason(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        StepSelection(**settings)


@pytest.mark.parametrize(("sinks", "ring"), [(0, 8), (8, 0), (-1, 8)])
def test_a_window_needs_sinks_and_a_ring(sinks, ring):
    with pytest.raises(ConfigError, match="at least 1"):
        AttentionWindow(sinks, ring)


def test_slots_are_sinks_and_ring():
    assert AttentionWindow().slots == 16
    assert AttentionWindow(3, 9).slots == 12


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode": "both"}, "none, self or full, not both"),
        ({"scale": -0.1}, "between 0 and 30"),
        ({"scale": 31}, "between 0 and 30"),
        ({"scale": float("nan")}, "between 0 and 30"),
    ],
)
def test_wrong_guidance_is_refused(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        Guidance(**settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"width": 0}, "size must be positive, got 0x64"),
        ({"height": -8}, "128x-8"),
        ({"noise": "none"}, "fresh or fixed, not 'none'"),
        ({"fit": "pad"}, "refuse, stretch or crop, not 'pad'"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_a_wrong_stream_setting_is_refused(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        StreamConfig(**({"width": 128, "height": 64, "steps": STEPS} | settings))


def test_the_size_reads_as_people_write_it():
    assert StreamConfig(128, 64, STEPS).size_text == "128x64"


def test_settings_cannot_be_changed_behind_a_session():
    with pytest.raises(FrozenInstanceError):
        StreamConfig(128, 64, STEPS).seed = 5  # type: ignore[misc]


def test_a_config_error_is_also_a_value_error():
    with pytest.raises(ValueError, match="strength"):
        StepSelection(strength=2)
