"""live2diff parity: its exit code, its lines and its JSON."""

import json
import math
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import pytest

from live2diff_core.cli import main, parity
from live2diff_core.metrics.parity import ParityResult
from tests.golden import CASES, GOLDEN

FIELDS = {
    "name": str,
    "steps": int,
    "frames": int,
    "warmup_max_abs_error": float,
    "max_abs_error": float,
    "cache_max_abs_error": float,
    "tables_equal": bool,
}
GOOD = {"warmup": 1e-5, "stream": 2e-5, "cache": 3e-5, "tables_equal": True}


def result(name: str, **changes: Any) -> ParityResult:
    values = GOOD | changes
    errors = values["warmup"], values["stream"], values["cache"]
    return ParityResult(name, 2, 32, *errors, values["tables_equal"])


def answer_with(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let every replay end like this, without running it."""
    monkeypatch.setattr(parity, "replay", lambda case, *_: result(case.name, **changes))


@pytest.fixture(scope="module")
def replayed() -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of all recorded streams."""
    with redirect_stdout(StringIO()) as out:
        code = main(["parity", str(GOLDEN), "--json"])
    return code, json.loads(out.getvalue())


def test_the_json_has_exactly_its_fields(replayed):
    _, data = replayed
    assert list(data) == ["cases"]
    for case in data["cases"]:
        assert list(case) == list(FIELDS)
        assert all(type(case[name]) is kind for name, kind in FIELDS.items())


def test_all_recorded_streams_are_reproduced(replayed):
    code, data = replayed
    assert code == 0
    shapes = [(case["name"], case["steps"], case["frames"]) for case in data["cases"]]
    assert shapes == [(CASES[0], 2, 32), (CASES[1], 4, 30)]
    for case in data["cases"]:
        assert case["tables_equal"]
        assert all(0 <= case[name] <= 1e-3 for name in FIELDS if name.endswith("error"))


def test_one_case_may_be_chosen_and_no_tolerance_is_a_difference(capsys):
    assert main(["parity", str(GOLDEN), "--case", CASES[0], "--tolerance", "0"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{CASES[0]}: DIFFERENT; steps 2, frames 32,")


@pytest.mark.parametrize(
    ("changes", "code", "verdict"),
    [
        ({}, 0, "ok"),
        ({"warmup": 0.1}, 1, "DIFFERENT"),
        ({"stream": 0.1}, 1, "DIFFERENT"),
        ({"cache": 0.1}, 1, "DIFFERENT"),
        ({"stream": math.nan}, 1, "DIFFERENT"),
        ({"tables_equal": False}, 1, "DIFFERENT"),
    ],
)
def test_any_difference_decides_lines_and_exit_code(monkeypatch, capsys, changes, code, verdict):
    answer_with(monkeypatch, **changes)
    assert main(["parity", str(GOLDEN)]) == code
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in lines] == [f"{name}: {verdict}" for name in CASES]


def test_the_tolerance_is_the_largest_error_that_passes(monkeypatch, capsys):
    answer_with(monkeypatch)
    assert main(["parity", str(GOLDEN), "--tolerance", "3e-5"]) == 0
    assert main(["parity", str(GOLDEN), "--tolerance", "2e-5"]) == 1


def test_a_difference_shows_in_the_json_and_the_exit_code(monkeypatch, capsys):
    answer_with(monkeypatch, tables_equal=False)
    assert main(["parity", str(GOLDEN), "--json", "--case", CASES[1]]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [(case["name"], case["tables_equal"]) for case in data["cases"]] == [(CASES[1], False)]


def test_an_unknown_case_is_refused_with_those_that_are_there(capsys):
    assert main(["parity", str(GOLDEN), "--case", "n9"]) == 1
    assert f"ConfigError: no such case: n9; there are {', '.join(CASES)}" in capsys.readouterr().err


def test_a_folder_without_a_recording_is_refused(tmp_path, capsys):
    assert main(["parity", str(tmp_path)]) == 1
    assert "WeightsFormatError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "warmup", "stream"),
    [(["--cache", "float8"], 1e-4, 0.3), (["--dtype", "float16"], 0.05, 0.05)],
)
def test_less_precise_ways_differ_as_little_as_is_said(capsys, options, warmup, stream):
    given = ["parity", str(GOLDEN), "--case", CASES[0], "--json", "--tolerance", str(stream)]
    main([*given, *options])
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert case["tables_equal"]
    assert case["warmup_max_abs_error"] < warmup
    assert 1e-3 < case["max_abs_error"] < stream
