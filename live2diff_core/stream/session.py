"""A stream of video translation: its state, and the way of a frame from pixels to pixels."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from ..config import Guidance, StepSelection, StreamConfig
from ..errors import ConfigError, SourceError, StreamClosed, StreamNotReady
from ..frames import Frame, to_unit_range
from ..models.depth import DepthRange
from ..models.translator import TranslationModel
from .denoise import NewFrame, StreamState, WarmupFrames, make_state, prefill, step
from .fit import fit_frame
from .noise import StreamNoise
from .plan import Plan, make_condition, make_plan
from .spec import Clock, Effect, SessionSpec, SessionStats, Stopwatch

logger = logging.getLogger(__name__)

PARAMETERS: dict[str, Effect] = {
    "prompt": "re-prime",
    "strength": "re-prime",
    "steps": "re-prime",
    "seed": "re-prime",
    "guidance": "re-prime",
    "model": "re-prime",
    "noise": "reopen",
    "size": "reopen",
    "window": "reopen",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Input:
    """A real input of the network: latent (c, h, w), depth features (c0, h, w)."""

    latent: Tensor
    depth: Tensor


@dataclass(frozen=True, slots=True)
class _InFlight:
    """Where a frame that is not finished belongs, and when it came."""

    index: int
    timestamp: float
    arrived: float


class Session:
    """Translates a stream frame by frame; see `SessionSpec` for its shape.

    Weights are the model's, state is the session's: many sessions run on one model and never meet.
    A result depends on parameters, seed and inputs alone. Not thread-safe: one thread at a time.
    """

    _state: StreamState | None
    _history: deque[_Input]
    _in_flight: deque[_InFlight]
    _ready: list[Frame]
    _noise: StreamNoise | None
    _calls: int  # of the network since the state was primed, as if every row had been filled by one
    _last_index: int
    _drained: bool

    def __init__(
        self,
        model: TranslationModel,
        config: StreamConfig,
        prompt: str | Tensor,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Open a stream. prompt: words, or a text embedding (1, tokens, dim).

        Raises FrameSizeError for a size that the network cannot take, PromptError for a prompt
        without meaning to it.
        """
        self._clock, self._closed = clock, False
        self._plan = make_plan(model, config, prompt)
        self._forget()

    # ---- what it is

    @property
    def model(self) -> TranslationModel:
        """What translates now."""
        return self._plan.model

    @property
    def config(self) -> StreamConfig:
        """Settings as they are now."""
        return self._plan.config

    @property
    def spec(self) -> SessionSpec:
        """Shape of the session."""
        return SessionSpec(
            first_frames=self.config.window.sinks,
            chunk_frames=1,
            latency_frames=self._plan.schedule.steps - 1,
            needs_input=True,
            warmup="frames",
            state_bytes=self._plan.state_bytes(self.model),
            parameters=PARAMETERS,
        )

    @property
    def stats(self) -> SessionStats:
        """Counts and durations."""
        watch = self._watch
        stages = {n: watch.percentiles(n) for n in tuple(watch.durations) if n != "latency"}
        return SessionStats(
            frames_in=self._frames_in,
            frames_out=self._frames_out,
            dropped=0,
            reprimes=self._reprimes,
            latency_ms=watch.percentiles("latency"),
            stages_ms=stages,
        )

    # ---- the way of a frame

    @torch.inference_mode()
    def warmup(self, frames: Sequence[Frame]) -> list[Frame]:
        """Translate the first frames together and keep them as what every later frame attends to.

        Takes `spec.first_frames` frames; fewer are padded by repeating the last one, which is
        logged. Raises ConfigError for none, for too many, or for a second warm-up without reset().
        """
        self._check_open()
        wanted = self.config.window.sinks
        if self._state is not None:
            raise ConfigError("this session has had its warm-up: push() frames, or reset() first")
        if not 1 <= len(frames) <= wanted:
            raise ConfigError(f"a warm-up takes 1 to {wanted} frames, got {len(frames)}")
        if len(frames) < wanted:
            logger.warning(
                "the warm-up wants %d frames and got %d: the last one is repeated",
                wanted,
                len(frames),
            )
        inputs = [self._encode(frame) for frame in frames]
        self._history.extend(inputs + inputs[-1:] * (wanted - len(frames)))
        self._state, trail = self._prime(self._plan)
        self._frames_in += len(frames)
        self._last_index = frames[-1].index
        return [
            self._finish(x0, frame.index, frame.timestamp)
            for frame, x0 in zip(frames, trail[-1], strict=False)
        ]

    @torch.inference_mode()
    def push(self, frames: Sequence[Frame]) -> list[Frame]:
        """Take frames in order; returns the finished ones with their own index and timestamp.

        Raises StreamNotReady before the warm-up. When a frame is refused, those that were finished
        before it come with the next call. Live2Diff, sec. 3.3.
        """
        self._check_open()
        if self._state is None:
            raise StreamNotReady(
                f"warmup() with {self.config.window.sinks} frames comes before push()"
            )
        for frame in frames:
            arrived = self._clock()
            entry = self._encode(frame)
            if self._drained:
                self._reprime(self._plan)
            self._history.append(entry)
            self._in_flight.append(_InFlight(frame.index, frame.timestamp, arrived))
            self._frames_in += 1
            self._last_index = frame.index
            self._ready += self._step(entry)
        return self._take_ready()

    @torch.inference_mode()
    def flush(self) -> list[Frame]:
        """Finish the frames in flight. The next push() re-primes from the last real inputs."""
        self._check_open()
        while self._in_flight:
            self._ready += self._step(self._history[-1])
            self._drained = True
        return self._take_ready()

    def _take_ready(self) -> list[Frame]:
        ready, self._ready = self._ready, []
        return ready

    def _encode(self, frame: Frame) -> _Input:
        model, config = self.model, self.config
        with self._watch.measure("encode"):
            rgb = to_unit_range(frame.rgb, model.device, torch.float32)
            rgb = fit_frame(rgb, config.width, config.height, config.fit)[None]
            latent = model.encode(rgb)[0]
        with self._watch.measure("depth"):
            depth = model.depth_features(rgb, self._depth_range)[0]
        return _Input(latent, depth)

    def _step(self, entry: _Input) -> list[Frame]:
        """One network call; the frame that leaves the last row, if that row holds one."""
        assert self._state is not None
        assert self._noise is not None
        plan = self._plan
        with self._watch.measure("network"):
            frame = NewFrame(entry.latent, entry.depth, *self._noise.frame())
            x0 = step(self.model.unet, self._state, plan.schedule, plan.condition, frame)
        self._calls += 1
        if self._calls < plan.schedule.steps:
            return []
        return [self._land(x0)]

    def _land(self, x0: Tensor) -> Frame:
        """The oldest frame in flight, finished."""
        origin = self._in_flight.popleft()
        frame = self._finish(x0, origin.index, origin.timestamp)
        self._watch.add("latency", self._clock() - origin.arrived)
        return frame

    def _finish(self, x0: Tensor, index: int, timestamp: float) -> Frame:
        with self._watch.measure("decode"):
            rgb = self.model.decode(x0[None])[0]
        self._frames_out += 1
        return Frame(rgb, index, timestamp)

    # ---- changing it

    def update(
        self,
        *,
        prompt: str | Tensor | None = None,
        strength: float | None = None,
        steps: StepSelection | None = None,
        seed: int | None = None,
        guidance: Guidance | None = None,
        model: TranslationModel | None = None,
    ) -> int:
        """Change parameters and re-prime; returns the index of the first frame that shows the
        change.

        The last real inputs are warmed up anew on a second cache, which then replaces the first;
        frames in flight go on from there, none is lost. strength keeps the number of steps. model:
        a variant of the session's own with other LoRAs or strengths (`with_adapters`). A bad value
        raises ConfigError or PromptError and changes nothing. Re-priming costs about one warm-up.
        """
        self._check_open()
        config = self.config
        if strength is not None:
            if steps is not None:
                raise ConfigError("give strength or steps, not both")
            steps = StepSelection(
                strength=strength,
                steps=self._plan.schedule.steps,
                inference_steps=config.steps.inference_steps,
            )
        config = replace(
            config,
            steps=steps or config.steps,
            seed=config.seed if seed is None else seed,
            guidance=guidance or config.guidance,
        )
        model = model or self.model
        if not model.is_variant_of(self.model):
            raise ConfigError(
                f"a running session changes to variants of its own model ({self.model.name}, "
                f"with_adapters); open a new one for {model.name}"
            )
        plan = make_plan(model, config, self._plan.prompt if prompt is None else prompt)
        if self._state is None:
            self._plan = plan
            self._forget()
            return 0
        return self._reprime(plan)

    def steer(self, prompt: str | Tensor) -> None:
        """Change the prompt from the next frame on and keep what the cache holds.

        For small changes that follow each other, such as a travel between two prompts: an embedding
        costs nothing. Frames of the prompts before stay in sight of attention until they leave the
        ring; `reprime()` renews the warm-up frames, too. Raises PromptError or ConfigError.
        """
        self._check_open()
        plan = self._plan
        known = plan.condition.negative
        condition = make_condition(plan.model, plan.config.guidance, prompt, known)
        self._plan = replace(plan, condition=condition, prompt=prompt)

    def reprime(self) -> None:
        """Anchor the stream to its last real inputs, as after a scene cut. Raises StreamNotReady
        before warmup().
        """
        self._check_open()
        if self._state is None:
            raise StreamNotReady("there is nothing to re-prime from before warmup()")
        self._reprime(self._plan)

    def reset(self) -> None:
        """Forget everything but the parameters: the next frames go to warmup()."""
        self._check_open()
        self._forget()

    def close(self) -> None:
        """Free the state. Closing twice is fine."""
        self._closed = True
        self._forget()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- its state

    def _forget(self) -> None:
        self._state, self._noise, self._ready = None, None, []
        self._history = deque(maxlen=self.config.window.sinks)
        self._in_flight = deque()
        self._depth_range = DepthRange(self.config.depth_range)
        self._watch = Stopwatch(self._clock)
        self._calls = self._frames_in = self._frames_out = self._reprimes = 0
        self._last_index, self._drained = -1, False

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosed("this session is closed: open a new one")

    @torch.inference_mode()
    def _reprime(self, plan: Plan) -> int:
        """Warm a second state from the last real inputs, seat the frames in flight in it, swap.

        Returns the index of the first frame that the plan affects.
        """
        if len(self._in_flight) > plan.config.window.sinks:
            self._ready = self.flush()  # more frames than the prefill covers
        first = self._in_flight[0].index if self._in_flight else self._last_index + 1
        state, trail = self._prime(plan)
        entries = list(self._history)
        seated = plan.schedule.steps - 1
        while len(self._in_flight) > seated:
            self._ready.append(self._land(trail[-1][-len(self._in_flight)]))
        for row in range(1, len(self._in_flight) + 1):
            state.x[row] = trail[row][-row]
            state.source[row], state.depth[row] = entries[-row].latent, entries[-row].depth
        self._plan, self._state = plan, state
        self._calls = len(self._in_flight)
        self._reprimes += 1
        self._drained = False
        return first

    def _prime(self, plan: Plan) -> tuple[StreamState, Tensor]:
        """A state whose sinks are the last real inputs, and their latents on the way."""
        latents = torch.stack([entry.latent for entry in self._history])
        old = self._plan.config
        kept = old.seed == plan.config.seed and self._plan.schedule.steps == plan.schedule.steps
        if self._noise is None or not kept:
            config = plan.config
            self._noise = StreamNoise(config.seed, config.noise, plan.schedule.steps, latents)
        steps, branches = plan.schedule.steps, plan.condition.branches
        state = make_state(plan.model.unet, latents, steps, branches, plan.config.window)
        depth = torch.stack([entry.depth for entry in self._history])
        frames = WarmupFrames(latents, depth, *self._noise.warmup(len(latents)))
        with self._watch.measure("warmup"):
            trail = prefill(plan.model.unet, state, plan.schedule, plan.condition, frames)
        return state, trail


def translate(
    session: Session, frames: Iterable[Frame], before: Callable[[Frame], None] | None = None
) -> Iterator[Frame]:
    """Translate a whole stream: n frames in, n frames out, as they are finished.

    before: called with each frame that is about to be pushed, to change parameters. When the source
    breaks, every frame that it gave comes out before its SourceError is raised.
    """
    breaks: list[SourceError] = []
    source = _until_break(frames, breaks)
    first = list(islice(source, session.spec.first_frames))
    if first:
        yield from session.warmup(first)
        for frame in source:
            if before is not None:
                before(frame)
            yield from session.push([frame])
        yield from session.flush()
    if breaks:
        raise breaks[0]


def _until_break(frames: Iterable[Frame], breaks: list[SourceError]) -> Iterator[Frame]:
    try:
        yield from frames
    except SourceError as error:
        breaks.append(error)
