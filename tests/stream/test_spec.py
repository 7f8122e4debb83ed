"""What a session tells about itself."""

import inspect

import pytest

from live2diff_core.config import AttentionWindow
from live2diff_core.stream.session import PARAMETERS, Session
from live2diff_core.stream.spec import REMEMBERED, Percentiles, Stopwatch, StreamSession
from tests.tiny import open_session, stream_config


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def watch_with(*seconds: float) -> Stopwatch:
    watch = Stopwatch(Clock())
    for value in seconds:
        watch.add("x", value)
    return watch


def test_a_block_is_timed_by_the_given_clock():
    clock = Clock()
    watch = Stopwatch(clock)
    with watch.measure("encode"):
        clock.now += 0.25
    assert watch.percentiles("encode") == Percentiles(250.0, 250.0)


def test_nothing_measured_is_none():
    assert Stopwatch(Clock()).percentiles("encode") == Percentiles(None, None)


@pytest.mark.parametrize("order", [1, -1])
def test_percentiles_are_the_nearest_rank_in_any_order(order):
    watch = watch_with(*(range(1, 102)[::order]))
    assert watch.percentiles("x") == Percentiles(51_000, 96_000)


def test_a_slow_twentieth_shows_in_p95_and_not_in_p50():
    got = watch_with(*[0.01] * 94, *[1.0] * 6).percentiles("x")
    assert got == Percentiles(10.0, 1000.0)


def test_only_the_latest_durations_are_remembered():
    watch = watch_with(*[9.0] * 50, *[1.0] * REMEMBERED)
    assert len(watch.durations["x"]) == REMEMBERED
    assert watch.percentiles("x") == Percentiles(1000.0, 1000.0)


def test_names_are_counted_apart():
    watch = watch_with(1.0)
    watch.add("y", 2.0)
    assert watch.percentiles("x") != watch.percentiles("y")


def test_every_parameter_of_update_is_announced_and_no_other():
    changeable = {name for name, effect in PARAMETERS.items() if effect != "reopen"}
    assert set(inspect.signature(Session.update).parameters) - {"self"} == changeable


def test_a_session_offers_the_whole_protocol():
    offered = {name for name in vars(StreamSession) if not name.startswith("_")}
    assert offered
    assert not [name for name in offered if not hasattr(Session, name)]


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_the_spec_follows_the_settings(steps):
    spec = open_session(stream_config(steps, window=AttentionWindow(3, 4))).spec
    assert (spec.first_frames, spec.chunk_frames, spec.latency_frames) == (3, 1, steps - 1)
    assert spec.needs_input
    assert spec.warmup == "frames"
    assert spec.parameters == PARAMETERS
