"""What is run on a GPU in one command: every part of it can be started, and none hides another."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Job, jobs, main
from live2diff_core.cli import make_parser
from live2diff_core.config import RUNTIMES


def commands(quick: bool) -> dict[str, Job]:
    found = list(jobs("cuda", Path("figures"), quick))
    named = {job.name: job for job in found}
    assert len(named) == len(found)
    return named


@pytest.mark.parametrize("quick", [False, True])
def test_every_command_is_understood(quick: bool) -> None:
    for job in commands(quick).values():
        program, *arguments = job.command
        if program in gpu.LIVE2DIFF:
            assert make_parser().parse_args(arguments).device == "cuda"
        elif "pytest" in arguments:
            assert all(Path(path).exists() for path in arguments if path.endswith(".py"))


@pytest.mark.parametrize("name", ["live-graph", "growth"])
def test_every_script_knows_its_options(name: str) -> None:
    program, script, *options = commands(quick=False)[name].command
    told = subprocess.run(
        [program, script, "--help"], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    assert all(option in told for option in options if option.startswith("--"))


def test_every_runtime_and_precision_is_compared_with_the_recordings() -> None:
    seen = {name.removeprefix("parity-") for name in commands(quick=True) if "parity" in name}
    expected = {f"{r}-{dtype}-{cache}" for r in RUNTIMES for dtype, cache in gpu.TOLERANCES}
    assert seen == expected


def test_what_fails_is_named_and_the_rest_goes_on(monkeypatch, tmp_path, capfd) -> None:
    def python(name: str, program: str, **environment: str) -> Job:
        return Job(name, (sys.executable, "-c", program), environment)

    made = [
        python("first", "import sys; print('half'); sys.exit('no GPU')"),
        python("second", "import os; print(os.environ['MADE_FOR'])", MADE_FOR="this"),
    ]
    monkeypatch.setattr(gpu, "jobs", lambda *_: iter(made))
    assert main(["--output", str(tmp_path / "new")]) == 1
    told = capfd.readouterr()
    assert "first: FAILED (1)" in told.out and "second: ok" in told.out
    assert told.err.strip() == "failed: first"
    assert (tmp_path / "new/first.txt").read_text() == "half\n"
    assert "no GPU" in (tmp_path / "new/first.log").read_text()
    assert (tmp_path / "new/second.txt").read_text() == "this\n"
    assert main(["--output", str(tmp_path), "--only", "second"]) == 0
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path), "--only", "third"])
