"""The command itself: exit codes, and errors without a traceback."""

import pytest

from live2diff_core import __version__, errors
from live2diff_core.cli import main, parity

COMMANDS = (
    *("translate", "demo", "metrics", "inspect", "plan", "doctor"),
    *("convert", "parity", "bench", "train"),
)


def stopped(arguments: list[str]) -> int | str | None:
    """Exit code of a command that the parser ends."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def break_parity(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(parity, "Recording", broken)


def test_the_version_is_printed(capsys):
    assert stopped(["--version"]) == 0
    assert capsys.readouterr().out == f"live2diff {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    assert stopped([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: live2diff {command}")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["translate"], "required: input, output"),
        (["translate", "a.mp4", "b.mp4", "--lora", "felt:0.7.1"], "NAME[:UNET[:TEXT]]"),
        (["translate", "a.mp4", "b.mp4", "--prompt", "ink", "--size", "9"], "WIDTHxHEIGHT"),
        (["translate", "a.mp4", "b.mp4", "--prompt", "ink", "--t-index", "a"], "such as 20,35"),
        (["translate", "a.mp4", "b.mp4", "--prompt", "ink", "--fit", "fill"], "invalid choice"),
        (["metrics", "a.mp4"], "required: --source"),
        (["metrics", "a.mp4", "--source", "b.mp4", "--flow", "sparse"], "invalid choice: 'sparse'"),
        (["bench", "--size", "big"], "WIDTHxHEIGHT"),
        (["parity", ".", "--tolerance", "much"], "invalid float value: 'much'"),
        (["train", "other"], "invalid choice: 'other'"),
        (["demo", "--loud"], "unrecognized arguments: --loud"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_reason(capsys, arguments, reason):
    assert stopped(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("usage: live2diff")
    assert reason in shown.err
    assert not shown.out


@pytest.mark.parametrize(
    "kind",
    [
        errors.Live2DiffError,
        errors.ConfigError,
        errors.PromptError,
        errors.FrameSizeError,
        errors.StreamClosed,
        errors.WeightsKeyError,
        errors.SourceError,
        errors.SinkError,
    ],
)
def test_an_error_is_exit_code_1_with_its_name_and_message(monkeypatch, capsys, kind):
    break_parity(monkeypatch, kind("expected this, got that"))
    assert main(["parity", "."]) == 1
    shown = capsys.readouterr()
    assert shown.err == f"live2diff: {kind.__name__}: expected this, got that\n"
    assert not shown.out


def test_an_interrupt_is_exit_code_130_without_a_traceback(monkeypatch, capsys):
    break_parity(monkeypatch, KeyboardInterrupt())
    assert main(["parity", "."]) == 130
    assert capsys.readouterr().err == "live2diff: interrupted\n"


def test_a_mistake_of_our_own_is_not_hidden(monkeypatch):
    break_parity(monkeypatch, ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError, match="ours"):
        main(["parity", "."])
