"""Curves as an SVG picture: panels side by side, both axes logarithmic."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain

WIDTH, HEIGHT = 340, 280  # of a panel, pixels
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 34, 44
COLOURS = ("#1f6feb", "#d1480f", "#1a7f37")
STEPS = (1, 2, 5)  # ticks of each power of ten
ROOM = 1.25  # above and below the curves
STYLE = "font: 12px sans-serif; fill: #24292f"


@dataclass(frozen=True)
class Curve:
    """Points (x, y), both above 0."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Curves over one quantity. ticks: of the x axis, with what is written there."""

    title: str
    x: str
    curves: Sequence[Curve]
    ticks: Mapping[float, str]


@dataclass(frozen=True)
class Axis:
    """Values to pixels, logarithmically."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)


def draw(panels: Sequence[Panel], y: str) -> str:
    """The picture; all panels have the same y axis."""
    values = [value for panel in panels for curve in panel.curves for _, value in curve.points]
    up = Axis(min(values) / ROOM, max(values) * ROOM, HEIGHT - BOTTOM, TOP)
    width = WIDTH * len(panels)
    body = chain.from_iterable(_panel(p, i * WIDTH, up) for i, p in enumerate(panels))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
        f'<g style="{STYLE}">',
        *body,
        _text(14, (TOP + HEIGHT - BOTTOM) / 2, y, "middle", turned=True),
        "</g></svg>",
    ]
    return "\n".join(lines) + "\n"


def _panel(panel: Panel, offset: float, up: Axis) -> Iterator[str]:
    across = Axis(*_reach(panel), offset + LEFT, offset + WIDTH - RIGHT)
    middle = (across.start + across.end) / 2
    yield _text(middle, TOP - 14, panel.title, "middle")
    yield _text(middle, HEIGHT - 10, panel.x, "middle")
    for value in ticks(up.low, up.high):
        height = up.at(value)
        yield _line([(across.start, height), (across.end, height)], "#d0d7de")
        yield _text(across.start - 6, height + 4, f"{value:g}", "end")
    for value, label in panel.ticks.items():
        yield _text(across.at(value), HEIGHT - BOTTOM + 16, label, "middle")
    for colour, curve in zip(COLOURS, panel.curves, strict=False):
        places = [(across.at(x), up.at(y)) for x, y in curve.points]
        yield _line(places, colour)
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
        yield _text(places[0][0] + 6, places[0][1] - 8, curve.name, "start", colour)


def _reach(panel: Panel) -> tuple[float, float]:
    """Smallest and largest x, with some room."""
    values = [x for curve in panel.curves for x, _ in curve.points]
    return min(values) / 1.1, max(values) * 1.1


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every power of ten between two values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = (step * 10.0**power for power in powers for step in STEPS)
    return [value for value in values if low <= value <= high]


def _line(places: Iterable[tuple[float, float]], colour: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _text(
    x: float, y: float, words: str, anchor: str, colour: str = "#24292f", turned: bool = False
) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} text-anchor="{anchor}" fill="{colour}"{turn}>{escape(words)}</text>'
