"""Coefficients against float64 arithmetic written out by hand, and against the recorded ones."""

import json
from itertools import accumulate
from math import sqrt
from operator import mul

import pytest
import torch

from live2diff_core.config import NoiseScheduleConfig, StepSelection
from live2diff_core.metrics.parity import Recording
from live2diff_core.schedule import Schedule, alphas_cumprod, lcm_timesteps, make_schedule
from tests.golden import CASES, GOLDEN

CPU = torch.device("cpu")
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def schedule(selection: StepSelection, prediction: str = "epsilon") -> Schedule:
    return make_schedule(NoiseScheduleConfig(prediction=prediction), selection, CPU)


def alpha_bars() -> list[float]:
    """Cumulative products of 1 - beta, beta linear from 0.00085 to 0.012 over 1000 timesteps."""
    first, last = 0.00085, 0.012
    betas = [first + (last - first) * t / 999 for t in range(1000)]
    return list(accumulate((1 - beta for beta in betas), mul))


@pytest.mark.parametrize("t_index", [(0, 25, 49), (30, 36, 42), (0, 1, 2, 3, 4, 5, 6, 7)])
def test_coefficients_equal_the_formulas(t_index):
    ours, bars = schedule(StepSelection(t_index=t_index)), alpha_bars()
    assert ours.steps == len(t_index)
    for row, t in enumerate(999 - 20 * i for i in t_index):
        assert ours.timesteps[row] == t
        expected = {
            "signal": sqrt(bars[t]),
            "noise": sqrt(1 - bars[t]),
            "skip": 0.5**2 / ((10 * t) ** 2 + 0.5**2),
            "out": 10 * t / sqrt((10 * t) ** 2 + 0.5**2),
        }
        for name, value in expected.items():
            got = getattr(ours, name)
            assert got.shape == (len(t_index), 1, 1, 1)
            assert got[row].item() == pytest.approx(value, abs=1e-6), name


def test_fifty_lcm_timesteps_go_down_by_twenty():
    assert lcm_timesteps(NoiseScheduleConfig(), 50).tolist() == list(range(999, 0, -20))


@pytest.mark.parametrize("count", [1, 50, 100])
def test_lcm_timesteps_are_spread_over_training(count):
    steps = lcm_timesteps(NoiseScheduleConfig(), count).tolist()
    assert steps == [k * (1000 // count) - 1 for k in range(count, 0, -1)]


def test_strength_takes_the_end_of_the_schedule():
    by_strength = schedule(StepSelection(strength=0.4, steps=4))
    by_index = schedule(StepSelection(t_index=(30, 35, 40, 45)))
    assert torch.equal(by_strength.timesteps, by_index.timesteps)
    assert torch.equal(by_strength.signal, by_index.signal)


def test_strength_without_steps_takes_every_timestep_of_it():
    assert schedule(StepSelection(strength=0.1)).timesteps.tolist() == [99, 79, 59, 39, 19]


def test_more_strength_starts_noisier():
    starts = [schedule(StepSelection(strength=s, steps=2)).noise[0] for s in (0.2, 0.5, 1.0)]
    assert starts[0] < starts[1] < starts[2]


@pytest.mark.parametrize("name", CASES)
def test_recorded_coefficients_are_ours(name):
    (case,) = Recording(GOLDEN).cases([name])
    ours, recorded = case.schedule(), case.tensors
    assert torch.equal(ours.timesteps, recorded["sched.sub_timesteps"])
    assert torch.equal(lcm_timesteps(NoiseScheduleConfig(), 50), recorded["sched.timesteps"])
    names = {"alpha_sqrt": "signal", "beta_sqrt": "noise", "c_skip": "skip", "c_out": "out"}
    for theirs, mine in names.items():
        expected = recorded[f"sched.{theirs}"].flatten()
        gap = (getattr(ours, mine).flatten() - expected).abs().max()
        assert gap <= 1e-6, theirs


def test_the_default_training_schedule_is_the_recorded_one():
    theirs = json.loads((GOLDEN / "golden.json").read_text())["scheduler"]
    ours = NoiseScheduleConfig()
    assert (ours.train_timesteps, ours.beta_start, ours.beta_end, ours.prediction) == (
        theirs["num_train_timesteps"],
        theirs["beta_start"],
        theirs["beta_end"],
        "epsilon",
    )
    assert theirs["beta_schedule"] == "linear"
    expected = torch.tensor(alpha_bars(), dtype=torch.float64)
    torch.testing.assert_close(alphas_cumprod(ours).double(), expected, rtol=0, atol=1e-6)


def network_output(kind: str, clean, noise, signal, sigma):
    """What a perfect network of this kind answers."""
    return {"epsilon": noise, "v_prediction": signal * noise - sigma * clean, "sample": clean}[kind]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_network_gives_the_clean_latent_back(prediction):
    ours = schedule(StepSelection(t_index=(10, 25, 40)), prediction)
    clean, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    rows = slice(None)
    x = ours.add_noise(clean, noise, rows)
    output = network_output(prediction, clean, noise, ours.signal, ours.noise)
    torch.testing.assert_close(ours.predict_x0(x, output, rows), clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_one_step_equals_its_row_of_all_steps(prediction):
    ours = schedule(StepSelection(t_index=(10, 25, 40)), prediction)
    x, output = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    for method in (ours.add_noise, ours.predict_x0, ours.consistency):
        whole = method(x, output, slice(None))
        for row in range(3):
            assert torch.equal(method(x[row], output[row], row), whole[row])


def test_the_consistency_boundary_mixes_input_and_prediction():
    ours = schedule(StepSelection(t_index=(0,), inference_steps=1000))
    late = schedule(StepSelection(t_index=(999,), inference_steps=1000))  # timestep 0
    x, x0 = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 5.0)
    assert ours.consistency(x, x0, 0).item() == pytest.approx(5.0, abs=1e-4)
    assert late.timesteps.tolist() == [0]
    assert late.consistency(x, x0, 0).item() == 3.0


@pytest.mark.parametrize(
    ("count", "timesteps"),
    [
        (4, [999, 759, 499, 259]),
        (8, [999, 879, 759, 639, 499, 379, 259, 139]),
        (10, [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
    ],
)
def test_short_schedules_are_picked_of_the_fifty_that_lcm_is_distilled_on(count, timesteps):
    assert lcm_timesteps(NoiseScheduleConfig(), count).tolist() == timesteps
