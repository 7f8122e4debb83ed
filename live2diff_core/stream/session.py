"""A stream of video translation: its state, and the way of a frame from pixels to pixels."""

import logging
import time
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import Guidance, StepSelection, StreamConfig
from ..errors import ConfigError, StreamClosed, StreamNotReady
from ..frames import Frame, to_unit_range
from ..memory import give_back
from ..models.translator import TranslationModel
from .codec import Codec
from .fit import fit_frame
from .overlap import CallersLane, Lane, make_lane
from .pipeline import InFlight, NetworkInput, Pipeline, begin_pipeline
from .plan import Plan, make_plan
from .spec import Clock, SessionSpec, SessionStats, Stopwatch
from .transition import PARAMETERS, Change, Transition, steered

logger = logging.getLogger(__name__)

PADDED = "the warm-up wants %d frames and got %d: the last one is repeated"


class Session:
    """Translates a stream frame by frame; see `SessionSpec` for its shape.

    Weights are the model's, state is the session's: many sessions run on one model and never meet.
    A result depends on parameters, seed and inputs alone. Not thread-safe: one thread at a time.
    """

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
        # What was asked for last; a pipeline has its own until a transition is through.
        self._plan = make_plan(model, config, prompt)
        self._forget()

    def _forget(self) -> None:
        self._pipeline: Pipeline | None = None
        self._transition: Transition | None = None
        self._history: deque[NetworkInput] = deque(maxlen=self.config.window.sinks)
        self._in_flight: deque[InFlight] = deque()
        self._ready: list[Frame] = []
        self._codec = Codec(self.model, self.config)
        self._lane: Lane = CallersLane()
        self._depth: Tensor | None = None  # of the last frame whose depth was estimated
        self._watch = Stopwatch(self._clock)
        self._seen = self._frames_in = self._frames_out = self._reprimes = 0
        self._last_index = -1

    # ---- what it is

    @property
    def model(self) -> TranslationModel:
        """What translates now, or will when a begun update is through."""
        return self._plan.model

    @property
    def config(self) -> StreamConfig:
        """Settings as they are now, or will be when a begun update is through."""
        return self._plan.config

    @property
    def in_flight(self) -> int:
        """Frames that went in and are not finished."""
        return len(self._in_flight)

    @property
    def next_index(self) -> int:
        """Number of the frame that comes next."""
        return self._last_index + 1

    @property
    def changing(self) -> bool:
        """Whether a begun update is under way, which another one would replace."""
        return self._transition is not None

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
        if self._pipeline is not None:
            raise ConfigError("this session has had its warm-up: push() frames, or reset() first")
        if not 1 <= len(frames) <= wanted:
            raise ConfigError(f"a warm-up takes 1 to {wanted} frames, got {len(frames)}")
        if len(frames) < wanted:
            logger.warning(PADDED, wanted, len(frames))
        self._lane = make_lane(self.config.runtime, self.model.device)
        inputs = [self._lane.run(self._encode, frame) for frame in frames]
        self._history.extend(inputs + inputs[-1:] * (wanted - len(frames)))
        self._pipeline, trail = self._prime(self._plan)
        self._frames_in = self._frames_out = len(frames)
        self._last_index = frames[-1].index
        return [
            Frame(self._decode(x0), frame.index, frame.timestamp)
            for frame, x0 in zip(frames, trail[-1], strict=False)
        ]

    @torch.inference_mode()
    def push(self, frames: Sequence[Frame]) -> list[Frame]:
        """Take frames in order; returns the finished ones with their own index and timestamp.

        Raises StreamNotReady before the warm-up. When a frame is refused, those that were finished
        before it come with the next call. Live2Diff, sec. 3.3.
        """
        self._check_open()
        if self._pipeline is None:
            raise StreamNotReady(
                f"warmup() with {self.config.window.sinks} frames comes before push()"
            )
        for frame in frames:
            arrived = self._clock()
            entry = self._lane.run(self._encode, frame)
            if self._pipeline.drained:
                self._reprime(self._plan)
            x0 = self._step(self._pipeline, entry)
            self._history.append(entry)
            self._in_flight.append(InFlight(frame.index, frame.timestamp, arrived))
            self._frames_in += 1
            self._last_index = frame.index
            self._land(x0)
            if self._transition is not None:
                self._advance(self._transition, entry)
        return self._take_ready()

    @torch.inference_mode()
    def flush(self) -> list[Frame]:
        """Finish the frames in flight. The next push() re-primes from the last real inputs."""
        self._check_open()
        transition = self._transition
        if transition is not None and transition.primed:
            while not transition.holds_all(self.in_flight):
                self._drain()
            self._take_over(transition.pipeline, transition.waiting)
        elif self._in_flight:
            self._transition = None  # the re-prime after a flush is all that is left to do
        while self._in_flight:
            self._drain()
        if self._pipeline is not None and self._transition is None:
            self._pipeline.drained |= self._pipeline.plan is not self._plan
        return self._take_ready()

    def _take_ready(self) -> list[Frame]:
        ready, self._ready = self._ready, []
        return ready

    def _encode(self, frame: Frame) -> NetworkInput:
        config = self.config
        with self._watch.measure("encode"):
            rgb = to_unit_range(frame.rgb, self.model.device, torch.float32)
            rgb = fit_frame(rgb, config.width, config.height, config.fit)[None]
            latent = self._codec.encode(rgb)[0]
        with self._watch.measure("depth"):
            if self._depth is None or self._seen % config.depth_every == 0:
                self._depth = self._codec.depth_features(rgb)[0]
        self._seen += 1
        return NetworkInput(latent, self._depth)

    def _step(self, pipeline: Pipeline, entry: NetworkInput) -> Tensor | None:
        with self._watch.measure("network"):
            return pipeline.step(entry)

    def _drain(self) -> None:
        """One network call that brings no frame of its own."""
        assert self._pipeline is not None
        self._land(self._step(self._pipeline, self._history[-1]))
        self._pipeline.drained = True

    def _advance(self, transition: Transition, entry: NetworkInput) -> None:
        """The frame's part of a begun update. What raises here ends the update, not the stream."""
        assert self._pipeline is not None
        asked = self._plan
        self._transition, self._plan = None, self._pipeline.plan
        with self._watch.measure("transition"):
            x0 = transition.advance(entry)
        transition.waiting += [] if x0 is None else [self._decode(x0)]
        if not transition.holds_all(self.in_flight):
            self._transition, self._plan = transition, asked
            return
        self._take_over(transition.pipeline, transition.waiting)
        self._plan = transition.pipeline.plan
        if asked is not self._plan:  # more was asked for meanwhile
            self._transition = Transition(*begin_pipeline(asked, self._history))
            self._plan = asked

    def _land(self, x0: Tensor | None) -> None:
        """The oldest frame in flight is finished, if the last row held one."""
        if x0 is not None:
            self._emit(self._decode(x0))

    def _decode(self, x0: Tensor) -> Tensor:
        with self._watch.measure("decode"):
            return self._codec.decode(x0[None])[0]

    def _emit(self, rgb: Tensor) -> None:
        origin = self._in_flight.popleft()
        self._ready.append(Frame(rgb, origin.index, origin.timestamp))
        self._frames_out += 1
        self._watch.add("latency", self._clock() - origin.arrived)

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
        plan = Change(prompt, strength, steps, seed, guidance, model).applied_to(self._plan)
        if self._pipeline is None:
            self._plan = plan
            return self.next_index
        return self._reprime(plan)

    @torch.inference_mode()
    def begin_update(
        self,
        *,
        prompt: str | Tensor | None = None,
        strength: float | None = None,
        steps: StepSelection | None = None,
        seed: int | None = None,
        guidance: Guidance | None = None,
        model: TranslationModel | None = None,
    ) -> int:
        """Change parameters as `update` does, with the work spread over the frames to come.

        The last real inputs are warmed up on a second cache, one network call with each of the next
        N frames (N: the new number of steps); frames after them go into both caches, until those
        before them have come out. Returns the index of the first frame of the change, where frames
        are numbered without gaps; those before it stay as they were. Another begin_update waits
        for that and then begins with all that was asked for meanwhile, so that a value which
        changes with every frame is seen to change. update, reprime and a flush of frames in flight
        make all changes at once; reset and close drop what is in flight, as always.
        """
        self._check_open()
        plan = Change(prompt, strength, steps, seed, guidance, model).applied_to(self._plan)
        if self._pipeline is None or self._pipeline.drained:  # all is re-primed before a next frame
            self._plan = plan
            return self.next_index
        ahead = 0
        if self._transition is None or not self._transition.begun:
            self._transition = Transition(*begin_pipeline(plan, self._history))
        else:
            most = self._pipeline.plan.schedule.steps - 1
            ahead = self._transition.frames_left(self.in_flight, most)
        self._plan = plan
        return self.next_index + ahead + plan.schedule.steps

    def steer(self, prompt: str | Tensor) -> None:
        """Change the prompt from the next frame on and keep what the cache holds.

        For small changes that follow each other, such as a travel between two prompts: an embedding
        costs nothing. Frames of the prompts before stay in sight of attention until they leave the
        ring; `reprime()` renews the warm-up frames, too. Where an update has begun, both plans are
        steered. Raises PromptError or ConfigError.
        """
        self._check_open()
        running = self._pipeline
        plan = steered(self._plan, prompt)
        if running is not None:
            whole = running.plan is self._plan
            running.plan = plan if whole else steered(running.plan, prompt)
        if self._transition is not None:
            coming = self._transition.pipeline
            coming.plan = plan if coming.plan is self._plan else steered(coming.plan, prompt)
        self._plan = plan

    def reprime(self) -> None:
        """Anchor the stream to its last real inputs, as after a scene cut. Raises StreamNotReady
        before warmup().
        """
        self._check_open()
        if self._pipeline is None:
            raise StreamNotReady("there is nothing to re-prime from before warmup()")
        self._reprime(self._plan)

    def reset(self) -> None:
        """Forget everything but the parameters: the next frames go to warmup()."""
        self._check_open()
        self._forget()
        give_back()

    def close(self) -> None:
        """Free the state. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._forget()
            give_back()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosed("this session is closed: open a new one")

    @torch.inference_mode()
    def _reprime(self, plan: Plan) -> int:
        """Warm a second state from the last real inputs, seat the frames in flight in it, swap.

        Returns the index of the first frame that the plan affects.
        """
        self._transition = None
        if len(self._in_flight) > plan.config.window.sinks:
            self._ready = self.flush()  # more frames than the prefill covers
        first = self._in_flight[0].index if self._in_flight else self.next_index
        pipeline, trail = self._prime(plan)
        while len(self._in_flight) >= plan.schedule.steps:
            self._land(trail[-1][-len(self._in_flight)])
        latest = len(self._history) - len(self._in_flight)
        pipeline.seat(list(self._history)[latest:], trail)
        self._take_over(pipeline)
        self._plan = plan
        return first

    def _take_over(self, pipeline: Pipeline, finished: Sequence[Tensor] = ()) -> None:
        for rgb in finished:
            self._emit(rgb)
        self._pipeline, self._transition = pipeline, None
        self._reprimes += 1

    def _prime(self, plan: Plan) -> tuple[Pipeline, Tensor]:
        """A pipeline whose sinks are the last real inputs, and their latents on the way."""
        old = self._pipeline
        noise = None if old is None else old.noise_for(plan)
        pipeline, prefilling = begin_pipeline(plan, self._history, noise)
        with self._watch.measure("warmup"):
            trail = prefilling.finish(plan.model.unet, plan.condition)
            give_back()  # a warm-up takes more than the steps after it
        return pipeline, trail
