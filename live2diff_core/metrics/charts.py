"""Pictures of a measurement: a column of pixels over time, and the warp error over time."""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .figures import Mean
from .meter import Moment
from .picture import Pixels

MOST = 1024  # columns and points; what is longer is thinned out
WIDTH, ROW, CURVE, MARGIN, DPI = 10.0, 1.9, 2.8, 0.4, 100  # inches, and pixels in one

Curve: TypeAlias = tuple[list[int], list[float]]


class Charts:
    """Collects what the pictures show; memory does not grow with length.

    names: of input and outputs. column: the one that is followed, from the left at the size of
    the measurement; the middle one where none is given. Of long videos every k-th column of time
    is kept, and the errors of k pairs are one mean, k a power of two.
    """

    def __init__(self, names: Sequence[str], column: int | None = None) -> None:
        self.names, self._column = tuple(names), column
        self._slices = [_EveryKth() for _ in names]
        self._errors = [_Means() for _ in names]

    def add(self, moment: Moment) -> None:
        """Take the next frame. Raises ConfigError for a column that is not in the picture."""
        width = moment.source.size[1]
        column = width // 2 if self._column is None else self._column
        if not 0 <= column < width:
            raise ConfigError(f"column must be 0 to {width - 1} here, got {column}")
        for strip, picture in zip(self._slices, (moment.source, *moment.outputs), strict=True):
            strip.add(picture.pixels[:, column].copy())
        for means, error in zip(self._errors, moment.errors, strict=True):
            means.add(error)

    def slices(self) -> list[Pixels]:
        """The X-t slice of each video: (h, time, 3)."""
        return [np.stack(kept.values, axis=1) for kept in self._slices]

    def errors(self) -> list[Curve]:
        """Of each video the numbers of frames and their warp errors; a cut is a gap (nan)."""
        return [kept.curve() for kept in self._errors]

    def draw_slices(self) -> Tensor:
        """The X-t slices, input above outputs: (3, h, w) uint8. Raises ConfigError."""
        figure, panels = _figure(ROW * len(self.names), len(self.names))
        frames = self._slices[0].seen
        for panel, name, picture in zip(panels, self.names, self.slices(), strict=True):
            extent = (0, frames, picture.shape[0], 0)
            panel.imshow(picture, aspect="auto", interpolation="nearest", extent=extent)
            panel.set_ylabel("row")
            panel.set_title(_shown(name), fontsize=9, loc="left")
        panels[-1].set_xlabel("frame")
        return _pixels(figure)

    def draw_errors(self) -> Tensor:
        """Warp error over time, a curve a video: (3, h, w) uint8. Raises ConfigError."""
        figure, (panel,) = _figure(CURVE, 1)
        for name, (times, values) in zip(self.names, self.errors(), strict=True):
            own = {"linestyle": "--", "color": "0.4"} if name == self.names[0] else {}
            panel.plot(times, [1e4 * value for value in values], label=_shown(name), **own)
        panel.set(xlabel="frame", ylabel="warp error x 10⁴", ylim=(0, None))
        panel.grid(alpha=0.4)
        panel.legend(fontsize=8)
        return _pixels(figure)


class _EveryKth:
    """Every k-th value of a sequence, fewer than MOST."""

    def __init__(self) -> None:
        self.values: list[Pixels] = []
        self.seen, self._step = 0, 1

    def add(self, value: Pixels) -> None:
        """Take the next value, or leave it out."""
        if self.seen % self._step == 0:
            self.values.append(value)
        self.seen += 1
        if len(self.values) == MOST:
            del self.values[1::2]
            self._step *= 2


class _Means:
    """Means of k neighbouring numbers each, of those that there are, fewer than MOST."""

    def __init__(self) -> None:
        self._bins: list[Mean] = []
        self._seen, self._step = 0, 1

    def add(self, number: float | None) -> None:
        """Count the next number."""
        if self._seen % self._step == 0:
            self._bins.append(Mean())
        if number is not None:
            self._bins[-1].add(number)
        self._seen += 1
        if len(self._bins) == MOST and self._seen % self._step == 0:
            pairs = zip(self._bins[::2], self._bins[1::2], strict=True)
            self._bins = [Mean(a.total + b.total, a.count + b.count) for a, b in pairs]
            self._step *= 2

    def curve(self) -> Curve:
        """Where each mean begins, and the means; nan where there was no number."""
        times = [self._step * place for place in range(len(self._bins))]
        return times, [b.total / b.count if b.count else math.nan for b in self._bins]


def check_charts() -> None:
    """Raise ConfigError where pictures cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise ConfigError("the pictures need matplotlib: pip install matplotlib")


def _figure(height: float, rows: int) -> tuple[Any, list[Any]]:
    """A figure without a window, and its panels from above."""
    check_charts()
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(WIDTH, height + MARGIN), dpi=DPI, layout="constrained")
    return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


def _pixels(figure: Any) -> Tensor:  # noqa: ANN401 - matplotlib's Figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    rgba = torch.from_numpy(np.array(canvas.buffer_rgba()))
    return rgba[..., :3].permute(2, 0, 1).contiguous()


def _shown(name: str) -> str:
    """A name as matplotlib writes it: neither as a formula nor, for an underscore, not at all."""
    return " " * name.startswith("_") + name.replace("$", r"\$")
