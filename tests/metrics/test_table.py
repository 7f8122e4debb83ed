"""Reports, and tables of them."""

import pytest

from live2diff_core.metrics.figures import QUANTITIES, LeftOut, Mean, Report
from live2diff_core.metrics.table import left_out, markdown, rows


def report(**figures):
    return Report.of(3, 2, 0, (4, 5), [{"warp_error": 0.25, "scuts": 1.0, **figures}])


def test_a_mean_is_of_all_that_was_counted():
    mean = Mean()
    assert mean.value("nothing") == LeftOut("nothing")
    for value in (1.0, 2.0, 6.0):
        mean.add(value)
    assert mean.value("nothing") == 3


def test_a_report_parts_figures_from_reasons():
    found = report(mawe=LeftOut("it stands still"))
    assert found.as_dict() == {
        "frames": 3,
        "pairs": 2,
        "cuts": 0,
        "size": "5x4",
        "warp_error": 0.25,
        "scuts": 1.0,
        "left_out": {"mawe": "it stands still"},
    }
    assert found["scuts"] == 1
    with pytest.raises(KeyError, match="it stands still"):
        found["mawe"]


def test_figures_from_elsewhere_take_the_place_of_reasons():
    found = report(mawe=LeftOut("a"), w=LeftOut("b")).with_figures({"mawe": 2.0})
    assert (found["mawe"], found["warp_error"]) == (2, 0.25)
    assert found.left_out == {"w": "b"}


def test_a_table_has_a_row_for_what_somebody_has():
    head, *body = rows({"a": report(drift=0.5), "b": report(drift=LeftOut("short"))})
    assert head == ("figure", "what it is", "unit", "better", "a", "b")
    assert [(row[0], *row[4:]) for row in body] == [
        ("warp_error", "0.25", "0.25"),
        ("scuts", "1", "1"),
        ("drift", "0.5", "-"),
    ]
    assert body[0][1:4] == (
        QUANTITIES["warp_error"].title,
        QUANTITIES["warp_error"].unit,
        "lower",
    )


def test_a_reason_is_said_once():
    both = LeftOut("no CLIP")
    reports = {
        "a": report(clip_score=both, clip_consistency=both, drift=LeftOut("short")),
        "b": report(clip_score=both, clip_consistency=both),
    }
    assert left_out(reports) == [
        "drift: short (a)",
        "clip_score, clip_consistency: no CLIP",
    ]
    text = markdown(reports)
    assert text.startswith("| figure | what it is | unit | better | a | b |\n| --- |")
    assert text.endswith(
        "\n\n* left out: drift: short (a)\n* left out: clip_score, clip_consistency: no CLIP\n"
    )
    assert "left out" not in markdown({"a": report()})


def test_a_name_cannot_break_the_table():
    assert "| a/b |" in markdown({"a|b": report()})
