"""Our engine and a checkout of the reference side by side: same weights, same inputs, in turn."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor

from ..config import StreamConfig
from ..errors import ConfigError
from ..memory import give_back
from ..models.translator import TranslationModel
from ..stream.denoise import NewFrame, WarmupFrames
from ..stream.noise import StreamNoise
from ..stream.pipeline import NetworkInput, Pipeline, begin_pipeline
from ..stream.plan import Plan, make_plan
from ..stream.spec import Stopwatch
from .reference_code import import_reference
from .reference_stream import ReferenceStream, check_network, check_stream

TOKENS = 77  # of a text embedding
UNTIMED = 2  # frames before the measured ones: memory is fetched, what is compiled gets compiled
LOOK_EVERY = 0.003  # seconds
NETWORKS = 2  # whole ones that the reference keeps: one for the warm-up, one for the stream
EXACT_STEPS = 2  # up to here the reference's rows hold nothing but frames
START_UP = (
    "with {steps} steps the reference attends to rows that hold no frame yet, so its start differs"
)


class Side(Protocol):
    """One of the two; depth of frames: latents."""

    def warm_up(self, frames: WarmupFrames) -> object:
        """Take the warm-up frames through all steps."""

    def step(self, frame: NewFrame) -> Tensor | None:
        """Push a frame; x0 (c, h, w) of the one that leaves, which may be None before the first."""


class Engine:
    """Our stream, as a session runs it; noise is what the reference is given, too."""

    def __init__(self, plan: Plan, noise: StreamNoise) -> None:
        self._plan, self._noise = plan, noise
        self._pipeline: Pipeline | None = None

    @torch.inference_mode()
    def warm_up(self, frames: WarmupFrames) -> Tensor:
        """Take the warm-up frames through; returns x0 (f, c, h, w)."""
        inputs = [self._input(*pair) for pair in zip(frames.latents, frames.depth, strict=True)]
        self._pipeline, prefilling = begin_pipeline(self._plan, inputs, self._noise)
        trail = prefilling.finish(self._plan.model.unet, self._plan.condition)
        return trail[-1]

    @torch.inference_mode()
    def step(self, frame: NewFrame) -> Tensor | None:
        """One network call, and the depth mapping, which is a part of the reference's network."""
        assert self._pipeline is not None
        return self._pipeline.step(self._input(frame.latent, frame.depth))

    def _input(self, latent: Tensor, depth: Tensor) -> NetworkInput:
        model = self._plan.model
        return NetworkInput(latent, model.unet.depth_mapping(depth[None].to(model.dtype))[0])


class Feed:
    """Random inputs of a stream, the same for both: latents, depth latents, and the noise."""

    def __init__(self, model: TranslationModel, config: StreamConfig) -> None:
        factor = model.autoencoder.factor
        self._size = model.autoencoder.channels, config.height // factor, config.width // factor
        self._generator, self._device = torch.Generator().manual_seed(config.seed), model.device
        self.text = torch.randn(1, TOKENS, model.text_channels, generator=self._generator)
        self._sinks, self._config = config.window.sinks, config
        self._noise = self.noise()

    def noise(self) -> StreamNoise:
        """A stream's noise from its beginning."""
        config, like = self._config, torch.empty(self._size, device=self._device)
        return StreamNoise(config.seed, config.noise, len(config.steps.indices), like)

    def warmup(self) -> WarmupFrames:
        """The frames before the first."""
        return WarmupFrames(
            self._draw(self._sinks), self._draw(self._sinks), *self._noise.warmup(self._sinks)
        )

    def frame(self) -> NewFrame:
        """The next frame."""
        return NewFrame(self._draw(), self._draw(), *self._noise.frame())

    def _draw(self, *count: int) -> Tensor:
        size = (*count, *self._size)
        return torch.randn(size, generator=self._generator).to(self._device)


@dataclass(slots=True)
class Started:
    """A side after its warm-up and first frames; grown: bytes that this took at most, at once."""

    side: Side
    outputs: list[Tensor | None]
    grown: int


def beside(
    model: TranslationModel,
    checkout: Path,
    config: StreamConfig,
    frames: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Figures of the reference's code and of ours, frame by frame in turn on the model's weights.

    checkout: a clone of open-mmlab/Live2Diff. frames: measured ones; progress is told how many are
    done. Times are those of the network's step alone: no pixels, no depth estimation. The reference
    runs as it does without TensorRT. peak_bytes: weights, which are shared here, as often as each
    side alone holds them (the reference: twice), and what building, warm-up and the first frames
    took beside. largest_difference: of x0, from the first whole frame on; None if it is not finite.
    note: what to know about it, or None. Raises ConfigError for a folder that is no such checkout,
    and for a model or settings that the reference cannot take; FrameSizeError as a session does.
    """
    feed = Feed(model, config)
    check_network(model.unet)
    plan = make_plan(model, config, feed.text)
    check_stream(plan)
    steps = plan.schedule.steps
    if frames < steps:
        raise ConfigError(f"{steps} steps want {steps} measured frames or more, got {frames}")
    code = import_reference(checkout)
    warmup, first = feed.warmup(), [feed.frame() for _ in range(UNTIMED)]
    theirs = start(lambda: ReferenceStream(code, plan), warmup, first, model.device)
    ours = start(lambda: Engine(plan, feed.noise()), warmup, first, model.device)
    inputs = (feed.frame() for _ in range(frames))
    figures = alternate(theirs, ours, inputs, steps, progress)
    weights = sum(weight.nbytes for weight in model.unet.parameters())
    figures["reference"]["peak_bytes"] = NETWORKS * weights + theirs.grown
    figures["ours"]["peak_bytes"] = weights + ours.grown
    note = START_UP.format(steps=steps) if steps > EXACT_STEPS else None
    return figures | {"frames": frames, "note": note}


def start(
    make: Callable[[], Side], warmup: WarmupFrames, first: Iterable[NewFrame], device: torch.device
) -> Started:
    """Build a side, warm it up and push the first frames."""
    with growth(device) as grown:
        side = make()
        side.warm_up(warmup)
        outputs = [_kept(side.step(frame)) for frame in first]
    return Started(side, outputs, grown())


def alternate(
    theirs: Started,
    ours: Started,
    inputs: Iterable[NewFrame],
    steps: int,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Push frames into both in turn, so that what disturbs the machine disturbs both."""
    watch, sides = Stopwatch(time.perf_counter), {"reference": theirs, "ours": ours}
    for done, frame in enumerate(inputs, start=1):
        for name, started in sides.items():
            _wait(frame.latent.device)
            with watch.measure(name):
                x0 = started.side.step(frame)
                _wait(frame.latent.device)
            started.outputs.append(_kept(x0))
        progress(done)
    times = {name: watch.percentiles(name) for name in sides}
    p50 = {name: time.p50 or math.nan for name, time in times.items()}
    pairs = zip(theirs.outputs[steps - 1 :], ours.outputs[steps - 1 :], strict=True)
    return {
        **{name: {"p50_ms": time.p50, "p95_ms": time.p95} for name, time in times.items()},
        "ratio": p50["reference"] / p50["ours"],
        "largest_difference": largest_difference(pairs),
    }


def largest_difference(pairs: Iterable[tuple[Tensor | None, Tensor | None]]) -> float | None:
    """Of all frames that both gave; None if it is not finite."""
    gaps = [(a - b).abs().max() for a, b in pairs if a is not None and b is not None]
    largest = torch.stack(gaps).max().item()  # unlike max(), keeps a NaN
    return largest if math.isfinite(largest) else None


def _kept(x0: Tensor | None) -> Tensor | None:
    """A copy: a side may write its next result into the same place."""
    return None if x0 is None else x0.float().cpu().clone()


def _wait(device: torch.device) -> None:
    """Until what is queued on an accelerator is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def growth(device: torch.device) -> Iterator[Callable[[], int]]:
    """Bytes by which the memory in use grew at most while the block ran, told afterwards.

    On a CPU that is the process's resident memory, looked at every few milliseconds.
    """
    give_back()
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)
        before = torch.accelerator.memory_allocated(device)
        yield lambda: torch.accelerator.max_memory_allocated(device) - before
        return
    resident = psutil.Process().memory_info
    before, peak, over = resident().rss, [0], threading.Event()

    def look() -> None:
        peak.append(max(peak.pop(), resident().rss - before))

    def watch() -> None:
        while not over.wait(LOOK_EVERY):
            look()

    thread = threading.Thread(target=watch, name="growth", daemon=True)
    thread.start()
    try:
        yield lambda: peak[-1]
    finally:
        over.set()
        thread.join()
        look()
