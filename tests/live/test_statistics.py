"""What a stream counts, and how it is told."""

import json
import re

import pytest

from live2diff_core.live.statistics import Ledger, LiveStatistics, prometheus
from live2diff_core.stream.spec import Percentiles
from tests.live.fakes import FakeClock

SAMPLE = re.compile(r'([a-z0-9_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+)\} (-?[0-9.e+-]+)')


def lived() -> tuple[Ledger, FakeClock]:
    """Ten seconds of 20 frames a second in and 10 out, which took 120 ms each."""
    clock = FakeClock()
    ledger = Ledger(clock)
    for k in range(200):
        clock.advance(0.05)
        ledger.came()
        if k % 2:
            ledger.dropped("capture")
        else:
            ledger.showed(clock() - 0.12)
    return ledger, clock


def test_frames_are_shown_dropped_or_on_their_way():
    ledger, _ = lived()
    ledger.came()
    ledger.came()
    ledger.dropped("rate", 1)
    live = ledger.snapshot("running", None)
    assert (live.frames_in, live.frames_out, live.in_flight) == (202, 100, 1)
    assert live.dropped == {"capture": 100, "rate": 1}
    assert live.dropped_total == 101


def test_rates_are_those_of_the_last_seconds():
    ledger, clock = lived()
    live = ledger.snapshot("running", None)
    assert live.fps_in == pytest.approx(20, abs=1)
    assert live.fps_out == pytest.approx(10, abs=1)
    clock.advance(60)
    assert ledger.snapshot("running", None).fps_in == 0


def test_rates_beyond_what_is_remembered_are_told_right():
    clock = FakeClock()
    ledger = Ledger(clock)
    for _ in range(4000):
        clock.advance(0.001)
        ledger.came()
    assert ledger.snapshot("running", None).fps_in == pytest.approx(1000, rel=0.01)


def test_rates_of_the_first_moment():
    ledger = Ledger(FakeClock())
    ledger.came()
    assert ledger.snapshot("starting", None).fps_in == 0


def test_durations_are_told_by_stage():
    ledger = Ledger(FakeClock())
    for k in range(101):
        ledger.took("engine", k / 1000)
    timing = ledger.snapshot("running", None).stages["engine"]
    assert (timing.count, timing.p50, timing.p95, timing.max) == (101, 50, 95, 100)


def test_all_of_it_is_json():
    ledger, _ = lived()
    ledger.session_took({"network": Percentiles(5.0, 7.0)})
    ledger.count("resets")
    told = json.loads(json.dumps(ledger.snapshot("failing", "the camera is gone").as_dict()))
    assert told["state"] == "failing"
    assert told["error"] == "the camera is gone"
    assert told["dropped_total"] == 100
    assert told["resets"] == 1
    assert told["stages"]["total"]["p50"] == pytest.approx(120)
    assert told["session_stages"]["network"] == {"p50": 5.0, "p95": 7.0}


def families(text: str) -> dict[str, list[tuple[str, float]]]:
    """Samples by metric; each metric is declared once, with its samples right behind it."""
    found: dict[str, list[tuple[str, float]]] = {}
    lines = text.splitlines()
    while lines:
        (_, kind, name, *_), (_, typed, same_name, type_name) = (lines.pop(0).split() for _ in "ab")
        assert (kind, typed, same_name) == ("HELP", "TYPE", name)
        assert type_name in ("counter", "gauge")
        assert (type_name == "counter") == name.endswith("_total")
        assert name not in found
        found[name] = []
        while lines and not lines[0].startswith("#"):
            sample = SAMPLE.fullmatch(lines.pop(0))
            assert sample is not None
            assert sample[1] == name
            found[name].append((sample[2], float(sample[3])))
    return found


def both(first: str = "one", second: str = "two") -> dict[str, LiveStatistics]:
    ledger, _ = lived()
    return {
        first: ledger.snapshot("running", None),
        second: Ledger(FakeClock()).snapshot("failing", "gone"),
    }


def test_prometheus_reads_it():
    text = prometheus(both())
    assert text.endswith("\n")
    found = families(text)
    assert found["live2diff_frames_in_total"] == [('stream="one"', 200), ('stream="two"', 0)]
    assert found["live2diff_frames_dropped_total"] == [('stream="one",where="capture"', 100)]
    assert found["live2diff_failing"] == [('stream="one"', 0), ('stream="two"', 1)]
    stages = dict(found["live2diff_stage_seconds"])
    assert stages['stream="one",stage="total",quantile="0.95"'] == pytest.approx(0.12)


def test_any_name_is_a_label():
    found = families(prometheus(both('a "b" \\ c\nd')))
    assert found["live2diff_frames_in_total"][0][0] == 'stream="a \\"b\\" \\\\ c\\nd"'
