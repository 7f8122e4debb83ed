"""Pictures of a measurement: what is kept, and what is drawn."""

import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from live2diff_core.errors import ConfigError
from live2diff_core.metrics import charts as module
from live2diff_core.metrics.charts import MOST, Charts
from live2diff_core.metrics.meter import Moment
from live2diff_core.metrics.picture import Picture

HEIGHT, WIDTH = 6, 5


def ramp(level):
    """Columns tell their number: level + 0.1 x."""
    row = level + 0.1 * torch.arange(WIDTH)
    return Picture.of(row.expand(3, HEIGHT, WIDTH))


def filled(frames, column=None, errors=lambda k: (0.001, 0.002)):
    charts = Charts(("input", "a"), column)
    for k in range(frames):
        charts.add(Moment(ramp(0), (ramp(0.5),), errors(k)))
    return charts


def test_a_slice_is_one_column_over_time():
    first, second = filled(3, column=4).slices()
    assert first.shape == second.shape == (HEIGHT, 3, 3)
    assert set(first.flat) == {round(0.4 * 255)}
    assert set(second.flat) == {round(0.9 * 255)}
    middle, _ = filled(1).slices()
    assert set(middle.flat) == {round(0.2 * 255)}


def test_errors_are_there_frame_by_frame_with_gaps_at_cuts():
    charts = filled(4, errors=lambda k: (None, None) if k == 0 else (0.1 * k, None))
    (times, values), (_, gaps) = charts.errors()
    assert times == [0, 1, 2, 3]
    assert values[1:] == pytest.approx([0.1, 0.2, 0.3])
    assert math.isnan(values[0])
    assert all(map(math.isnan, gaps))


@pytest.mark.parametrize("frames", [MOST - 1, MOST, 5 * MOST + 3])
def test_what_is_kept_is_bounded(frames):
    charts = filled(frames, errors=lambda k: (float(k), 1.0))
    picture, _ = charts.slices()
    (times, values), (_, ones) = charts.errors()
    step = times[1]
    assert MOST // 2 <= len(times) < MOST and MOST // 2 <= picture.shape[1] < MOST
    assert times == list(range(0, frames, step))
    means = [np.mean(range(t, min(t + step, frames))) for t in times]
    assert values == pytest.approx(means)
    assert set(ones) == {1.0}


def test_the_kept_columns_are_spread_evenly():
    charts = Charts(("input",))
    for k in range(3 * MOST):
        level = torch.full((3, 1, 1), (k % 256) / 255)
        charts.add(Moment(Picture.of(level), (), (0.0,)))
    (picture,) = charts.slices()
    assert picture[0, :, 0].tolist() == [k % 256 for k in range(0, 3 * MOST, 4)]


def test_both_are_drawn():
    charts = filled(10)
    for picture in (charts.draw_slices(), charts.draw_errors()):
        assert picture.dtype == torch.uint8
        assert picture.shape[0] == 3 and picture.shape[2] == 1000
        assert picture.float().std() > 10
    more = Charts(("input", "$a$", "_b"))
    more.add(Moment(ramp(0), (ramp(0), ramp(0)), (None, None, None)))
    assert more.draw_slices().shape[1] > charts.draw_slices().shape[1]
    assert more.draw_errors().shape == charts.draw_errors().shape


def test_a_column_beyond_the_picture_is_refused():
    for column in (-1, WIDTH):
        with pytest.raises(ConfigError, match="column must be 0 to 4 here"):
            filled(1, column)


def test_without_matplotlib_nothing_is_drawn(monkeypatch):
    assert find_spec("matplotlib")
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="matplotlib"):
        filled(2).draw_errors()
