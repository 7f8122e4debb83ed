"""What the meters give: figures by name, what they mean, and which are missing for which reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

Better: TypeAlias = Literal["lower", "higher", ""]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure's unit, where one is better than another, and in words what it measures."""

    unit: str
    better: Better
    title: str


# In the order of tables. docs/metrics.md has the definitions.
QUANTITIES: Mapping[str, Quantity] = MappingProxyType(
    {
        "warp_error": Quantity("1", "lower", "warp error by the input's flow"),
        "warp_error_source": Quantity("1", "", "the same of the input itself"),
        "w": Quantity("levels²", "lower", "squared change by the output's own flow"),
        "ofs": Quantity("pixels", "", "mean length of the output's own flow"),
        "mawe": Quantity("levels²/pixel", "lower", "MAWE, mean over pairs"),
        "mawe_ratio_of_means": Quantity("levels²/pixel", "lower", "MAWE, ratio of the means"),
        "scuts": Quantity("cuts", "lower", "cuts that the input has not"),
        "depth_mse": Quantity("1", "lower", "squared difference of the depth maps"),
        "still_flicker": Quantity("1", "lower", "deviation over time of still regions"),
        "still_share": Quantity("1", "", "share of pixels that are still"),
        "drift": Quantity("1", "lower", "wandering of colour and contrast"),
        "drift_source": Quantity("1", "", "the same of the input itself"),
        "clip_score": Quantity("0..100", "higher", "CLIP: frame and prompt"),
        "clip_consistency": Quantity("cosine", "higher", "CLIP: neighbouring frames"),
        "latency_p50_ms": Quantity("ms", "lower", "latency, median"),
        "latency_p95_ms": Quantity("ms", "lower", "latency, 95th percentile"),
    }
)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Stands for a figure that cannot be given, and says why."""

    reason: str


Figures: TypeAlias = Mapping[str, float | LeftOut]


@dataclass(slots=True)
class Mean:
    """A running mean."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float, weight: int = 1) -> None:
        """Count a value, or the mean of several."""
        self.total += value * weight
        self.count += weight

    def value(self, without: str) -> float | LeftOut:
        """The mean so far; without says why there is none where nothing was counted."""
        return self.total / self.count if self.count else LeftOut(without)


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one output against its input, by name (QUANTITIES).

    frames: measured. pairs: of neighbouring frames that the warp error is a mean of. cuts: pairs
    left out there, as input and input have too little in common. size: (height, width) of the
    measurement. left_out: reasons for figures that are not there.
    """

    frames: int
    pairs: int
    cuts: int
    size: tuple[int, int]
    figures: Mapping[str, float]
    left_out: Mapping[str, str]

    @classmethod
    def of(
        cls, frames: int, pairs: int, cuts: int, size: tuple[int, int], all_of: Iterable[Figures]
    ) -> "Report":
        """Part what was measured from what was left out."""
        found = {name: value for figures in all_of for name, value in figures.items()}
        measured = {k: v for k in QUANTITIES if isinstance(v := found.get(k), float)}
        reasons = {k: v.reason for k in QUANTITIES if isinstance(v := found.get(k), LeftOut)}
        return cls(frames, pairs, cuts, size, measured, reasons)

    def with_figures(self, figures: Figures) -> "Report":
        """This report with figures that were measured elsewhere."""
        known: Figures = {
            **{name: LeftOut(reason) for name, reason in self.left_out.items()},
            **self.figures,
        }
        return Report.of(self.frames, self.pairs, self.cuts, self.size, (known, figures))

    def __getitem__(self, name: str) -> float:
        """A figure. Raises KeyError with the reason where it was left out."""
        if name in self.left_out:
            raise KeyError(f"{name} was left out: {self.left_out[name]}")
        return self.figures[name]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what was left out is named there only, it has no value."""
        height, width = self.size
        counts = {"frames": self.frames, "pairs": self.pairs, "cuts": self.cuts}
        size = {"size": f"{width}x{height}"}
        return {**counts, **size, **self.figures, "left_out": dict(self.left_out)}
