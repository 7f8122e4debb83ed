"""What a training run leaves behind to look at: lines of figures, and a picture of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SMOOTHED = 50  # steps that the drawn mean looks back, or a tenth of the run if that is less

Line = Mapping[str, Any]


class Record:
    """Lines of JSON in a file, each with a step. A run that goes on drops those it makes again."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.lines: list[Line] = [line for line in map(json.loads, old) if line["step"] < first]
        part = path.with_suffix(".part")
        part.write_text("".join(map(_text, self.lines)), encoding="utf-8")
        part.replace(path)

    def add(self, **figures: object) -> None:
        """Write a line, at once."""
        self.lines.append(figures)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_text(figures))


def _text(line: Line) -> str:
    return json.dumps(line) + "\n"


def draw(path: Path, steps: Sequence[Line], fixed: Sequence[Line], checks: Sequence[Line]) -> None:
    """Losses over steps and on the fixed clips, and beside them the flicker of the validation's
    clips if there is any.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # needs the extra `train`
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10 if checks else 6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if checks else 1, squeeze=False)[0]
    numbers, losses = _curve(steps, "loss")
    panels[0].semilogy(numbers, losses, linewidth=0.5, alpha=0.4, label="a step")
    panels[0].semilogy(numbers, running_mean(losses), label="running mean")
    panels[0].semilogy(*_curve(fixed, "loss"), marker="o", label="fixed clips")
    panels[0].set(title="Loss", xlabel="steps")
    panels[0].legend()
    for clip in dict.fromkeys(line["clip"] for line in checks):
        own = [line for line in checks if line["clip"] == clip]
        panels[1].plot(*_curve(own, "flicker"), marker="o", label=clip)
    if checks:
        panels[1].set(title="Flicker of the validation", xlabel="steps")
        panels[1].set_ylim(bottom=0)  # once all curves are there, or it would keep the first's top
        panels[1].legend()
    figure.savefig(path)


def _curve(lines: Sequence[Line], name: str) -> tuple[list[int], list[float]]:
    return [line["step"] for line in lines], [line[name] for line in lines]


def running_mean(values: Sequence[float]) -> list[float]:
    """Mean of each value and those before it, `SMOOTHED` at most."""
    span = max(1, min(SMOOTHED, len(values) // 10))
    windows = (values[max(0, i + 1 - span) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
