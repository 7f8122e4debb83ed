"""All figures of translated videos against their input, taken frame by frame."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..config import Fit
from ..errors import FrameSizeError, SourceError
from .clip import Clip, ClipMeter, without_clip
from .cuts import CutDetector, scene_detection, scuts
from .drift import DriftMeter
from .figures import Figures, LeftOut, Report
from .flicker import WarpErrorMeter
from .flow import DisFlow, Flow, Motion, MotionTracker
from .mawe import MaweMeter
from .picture import Picture, fitted
from .still import Lengths, StillFlickerMeter, StillRegions
from .structure import DepthMaps, DepthMeter

NO_DEPTH = "no depth model was given"
NO_CLOCK = "no report of the translation was given (--report)"


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """Settings of a measurement.

    rate: frames a second. fit: how frames of another size are brought to the size of the first
    output. drift_seconds: length of the stretches that drift compares. prompt: for the CLIP score.
    """

    rate: float = 25.0
    fit: Fit = "crop"
    drift_seconds: float = 1.0
    prompt: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One frame of input and outputs at the size of the measurement.

    errors: warp error of input and outputs for the pair that it ends; None for the first frame and
    at a cut of the input.
    """

    source: Picture
    outputs: tuple[Picture, ...]
    errors: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """What the meters of every output need of the input's next frame."""

    picture: Picture
    motion: Motion | None
    rest: Lengths
    depth: Tensor | None


class Meter:
    """Measures any number of outputs against one input; memory does not grow with length.

    The input's flow, its still regions and its depth are computed once for all outputs.
    """

    def __init__(
        self,
        config: MeterConfig | None = None,
        flow: Flow | None = None,
        depth: DepthMaps | None = None,
        clip: Clip | None = None,
    ) -> None:
        """flow: DIS where none is given. Without depth or clip their figures are left out."""
        self._config, self._flow = config or MeterConfig(), flow or DisFlow()
        self._depth, self._clip = depth, clip
        prompt = self._config.prompt
        self._prompt = clip.text(prompt) if clip and prompt else None
        self._library: Any = scene_detection()
        self._motion, self._still = MotionTracker(self._flow), StillRegions()
        self._source = WarpErrorMeter()
        self._drift = self._new_drift()
        self._cut_detector = self.new_cuts()
        self._outputs: list[_OutputMeter] = []
        self._size: tuple[int, int] | None = None
        self._shapes: list[tuple[int, ...]] = []
        self._frames = self._pairs = self._cuts = 0

    def update(self, source: Tensor, *outputs: Tensor) -> Moment:
        """Add the next frame of each: (3, h, w), uint8 or floating point in [0, 1].

        Everything is measured at the size of the first output. Raises FrameSizeError when a size
        or the number of outputs changes.
        """
        size = self._check_alike((source, *outputs))
        fit = self._config.fit
        own, *pictures = (Picture.of(fitted(rgb, size, fit)) for rgb in (source, *outputs))
        step = self._advance(own)
        error = self._source.update(own, step.motion)
        errors = [o.update(p, step) for o, p in zip(self._outputs, pictures, strict=True)]
        return Moment(own, tuple(pictures), (error, *errors))

    def reports(self) -> tuple[Report, ...]:
        """Figures so far, one report an output."""
        source: Figures = {
            "warp_error_source": self._source.value(),
            "drift_source": self._drift.value(),
        }
        counts = self._frames, self._pairs, self._cuts, self._size or (0, 0)
        return tuple(
            Report.of(*counts, (source, scuts(self._cut_detector, output.cuts), *output.figures()))
            for output in self._outputs
        )

    def report(self) -> Report:
        """Figures so far of the only output. Raises FrameSizeError where there is not one."""
        reports = self.reports()
        if len(reports) != 1:
            raise FrameSizeError(
                f"expected one output, got {len(reports)}; call update(source, output) first, or "
                "reports() for several"
            )
        return reports[0]

    def new_cuts(self) -> CutDetector | None:
        """A cut detector; None where its package is not installed."""
        return CutDetector(self._library, self._config.rate) if self._library else None

    def _new_drift(self) -> DriftMeter:
        return DriftMeter(self._config.rate, self._config.drift_seconds)

    def _new_output(self) -> "_OutputMeter":
        clip = ClipMeter(self._clip, self._prompt) if self._clip else None
        return _OutputMeter(self._flow, self._new_drift(), self.new_cuts(), self._depth, clip)

    def _advance(self, picture: Picture) -> _Step:
        motion = self._motion.update(picture)
        self._frames += 1
        self._cuts += motion is not None and motion.is_cut
        self._pairs += motion is not None and not motion.is_cut
        self._drift.update(picture)
        if self._cut_detector is not None:
            self._cut_detector.update(picture)
        depth = self._depth(picture.rgb) if self._depth else None
        return _Step(picture, motion, self._still.update(picture, motion), depth)

    def _check_alike(self, frames: Sequence[Tensor]) -> tuple[int, int]:
        shapes = [tuple(rgb.shape) for rgb in frames]
        if self._size is None:
            _, *outputs = shapes
            if not outputs or any(len(shape) != 3 or shape[0] != 3 for shape in shapes):
                raise FrameSizeError(
                    f"expected a source and outputs of (3, height, width), got {shapes}"
                )
            self._shapes, self._size = shapes, (outputs[0][1], outputs[0][2])
            self._outputs = [self._new_output() for _ in outputs]
        if shapes != self._shapes:
            raise FrameSizeError(
                f"expected shapes {self._shapes} as before (source first), got {shapes}. Use one "
                "meter for each video, and one size in it."
            )
        return self._size


class _OutputMeter:
    """The meters of one output."""

    def __init__(
        self,
        flow: Flow,
        drift: DriftMeter,
        cuts: CutDetector | None,
        depth: DepthMaps | None,
        clip: ClipMeter | None,
    ) -> None:
        self.cuts = cuts
        self._warp, self._mawe, self._drift = WarpErrorMeter(), MaweMeter(flow), drift
        self._still, self._structure = StillFlickerMeter(), DepthMeter()
        self._depth, self._clip = depth, clip

    def update(self, picture: Picture, step: _Step) -> float | None:
        """Add the next frame; gives the pair's warp error."""
        self._mawe.update(picture)
        self._still.update(picture, step.rest)
        self._drift.update(picture)
        if self.cuts is not None:
            self.cuts.update(picture)
        if self._depth is not None and step.depth is not None:
            self._structure.update(step.depth, self._depth(picture.rgb))
        if self._clip is not None:
            self._clip.update(picture.rgb)
        return self._warp.update(picture, step.motion)

    def figures(self) -> Iterator[Figures]:
        """All of them but cuts."""
        yield {"warp_error": self._warp.value(), "drift": self._drift.value()}
        yield self._mawe.figures()
        yield self._still.figures()
        missing: Figures = {"depth_mse": LeftOut(NO_DEPTH)}
        yield missing if self._depth is None else self._structure.figures()
        yield without_clip() if self._clip is None else self._clip.figures()
        yield {name: LeftOut(NO_CLOCK) for name in ("latency_p50_ms", "latency_p95_ms")}


def side_by_side(videos: Sequence[Iterable[Tensor]], names: Sequence[str]) -> Iterator[list[Any]]:
    """Frames of the same number, until all end. Raises SourceError where one ends early."""
    readers = [iter(video) for video in videos]
    count = 0
    while True:
        frames = [next(reader, None) for reader in readers]
        ended = [name for name, frame in zip(names, frames, strict=True) if frame is None]
        if len(ended) == len(frames):
            return
        if ended:
            raise SourceError(
                f"expected videos of one length, but {', '.join(ended)} ended after {count} frames "
                f"and others go on. Frames are compared by their number: cut them alike, or ask "
                f"for the first {count} alone (--frames {count})."
            )
        yield frames
        count += 1


def measure(
    source: Iterable[Tensor], output: Iterable[Tensor], meter: Meter | None = None
) -> Report:
    """Measure one output against its input.

    source, output: as many frames, (3, h, w), uint8 or floating point in [0, 1]. meter: a new one
    with the settings, flow, depth and CLIP that are wanted; DIS flow alone where none is given.
    Raises SourceError for another number of frames, FrameSizeError.
    """
    meter = meter or Meter()
    for frames in side_by_side((source, output), ("the source", "the output")):
        meter.update(*frames)
    return meter.report()
