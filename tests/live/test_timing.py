"""Clocks that jump, rates that hold, frames that follow each other whatever the source does."""

import pytest
import torch

from live2diff_core.live.timing import MAX_AHEAD, Continuity, Pace, Steady
from tests.live.fakes import FakeClock, picture


def test_a_steady_clock_stands_where_the_other_jumps_back():
    clock = FakeClock(1000.0)
    steady = Steady(clock)
    clock.advance(2)
    assert steady() == pytest.approx(2)
    clock.advance(-500)
    assert steady() == pytest.approx(2)
    clock.advance(1)
    assert steady() == pytest.approx(3)
    clock.advance(3600)
    assert steady() == pytest.approx(3603)


def admitted(pace: Pace, arrivals: list[float]) -> list[float]:
    return [now for now in arrivals if pace.admits(now)]


@pytest.mark.parametrize(
    ("source", "rate", "expected"), [(60, 30, 300), (30, 30, 300), (24, 30, 240), (50, 20, 200)]
)
def test_a_pace_holds_on_the_whole(source, rate, expected):
    arrivals = [k / source for k in range(10 * source)]
    assert len(admitted(Pace(rate), arrivals)) == pytest.approx(expected, abs=2)


def test_jitter_costs_no_frames_of_a_source_at_the_pace():
    late = [0.0, 0.008, -0.007, 0.005, -0.009]
    arrivals = [k / 30 + late[k % 5] for k in range(300)]
    assert len(admitted(Pace(30), arrivals)) == 300


def test_what_a_gap_left_out_is_not_made_up_for():
    pace = Pace(10)
    assert pace.admits(0.0)
    after = [60 + k / 100 for k in range(100)]
    assert len(admitted(pace, after)) in (10, 11)


def test_without_a_rate_all_goes_through():
    assert admitted(Pace(None), [0.0, 0.0, 0.001]) == [0.0, 0.0, 0.001]


def test_frames_of_a_source_keep_their_places():
    places = Continuity()
    given = [picture(index) for index in (40, 41, 45, 46)]
    placed = [places.place(frame, frame.timestamp + 7) for frame in given]
    assert [(f.index, f.timestamp) for f in placed] == [(f.index, f.timestamp) for f in given]


def test_a_source_that_begins_again_goes_on_after_the_last_frame():
    places = Continuity()
    for index in range(3):
        places.place(picture(index), 10 + index / 25)
    back = [places.place(picture(index), 15 + index / 25) for index in (0, 1, 3)]
    assert [frame.index for frame in back] == [3, 4, 6]
    passed = 15 - (10 + 2 / 25)
    assert [f.timestamp for f in back] == pytest.approx([0.08 + passed + k / 25 for k in (0, 1, 3)])


@pytest.mark.parametrize("jump", [-5000.0, -0.04, MAX_AHEAD + 30])
def test_a_source_whose_clock_jumps_is_taken_at_this_clock(jump):
    places = Continuity()
    places.place(picture(0), 0.0)
    jumped = [picture(1), picture(2)]
    placed = [
        places.place(type(f)(f.rgb, f.index, f.timestamp + jump), f.timestamp + 0.01)
        for f in jumped
    ]
    assert [f.timestamp for f in placed] == pytest.approx([0.05, 0.09])


def test_pictures_between_two_frames_do_not_push_the_frames_apart():
    places = Continuity()
    places.place(picture(5), 1.0)
    between = [places.again(torch.zeros(3, 2, 2), 1.0 + k) for k in (1, 2)]
    assert [f.index for f in between] == [5, 5]
    assert [f.timestamp for f in between] == pytest.approx([1.2, 2.2])
    after = places.place(picture(6), 4.0)
    assert after.index == 6
    assert after.timestamp == pytest.approx(3.2)


def test_pictures_before_the_first_frame_have_places():
    places = Continuity()
    assert places.again(torch.zeros(3, 2, 2), 3.0).index == 0
    assert places.place(picture(0), 3.5).index == 0


def test_time_that_stands_still_still_rises():
    places = Continuity()
    times = [places.place(picture(0), 1.0).timestamp for _ in range(4)]
    assert times == sorted(set(times))
