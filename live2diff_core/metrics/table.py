"""Reports side by side, for reading."""

from collections.abc import Mapping, Sequence

from .figures import QUANTITIES, Quantity, Report

HEAD = ("figure", "what it is", "unit", "better")
NOTHING = "-"


def rows(reports: Mapping[str, Report]) -> list[tuple[str, ...]]:
    """A row for each figure that one of the reports has, the head first. reports: by their names.

    Columns: name, meaning, unit, which way is better, then a value a report.
    """
    known = [n for n in QUANTITIES if any(n in report.figures for report in reports.values())]
    body = [
        (name, *_about(QUANTITIES[name]), *(_value(report, name) for report in reports.values()))
        for name in known
    ]
    return [(*HEAD, *reports), *body]


def left_out(reports: Mapping[str, Report]) -> list[str]:
    """A line for each reason why figures are missing, with all that are missing for it."""
    missing: dict[tuple[str, str], list[str]] = {}
    for name, report in reports.items():
        for figure, reason in report.left_out.items():
            missing.setdefault((name, reason), []).append(figure)
    by_line: dict[str, list[str]] = {}
    for (name, reason), figures in missing.items():
        by_line.setdefault(f"{', '.join(figures)}: {reason}", []).append(name)
    everybody = list(reports)
    return [
        line if names == everybody else f"{line} ({', '.join(names)})"
        for line, names in by_line.items()
    ]


def markdown(reports: Mapping[str, Report]) -> str:
    """The table and what was left out, as Markdown."""
    head, *body = rows(reports)
    lines = [_line(head), _line(["---"] * len(HEAD) + ["---:"] * len(reports)), *map(_line, body)]
    missing = [f"* left out: {line}" for line in left_out(reports)]
    return "\n".join([*lines, *([""] if missing else []), *missing]) + "\n"


def _about(quantity: Quantity) -> tuple[str, str, str]:
    return quantity.title, quantity.unit, quantity.better


def _value(report: Report, name: str) -> str:
    return f"{report.figures[name]:.4g}" if name in report.figures else NOTHING


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
