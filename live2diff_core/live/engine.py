"""The engine of a live stream: which frame is translated, and what is shown of the others."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..frames import Frame, to_bytes, to_unit_range
from ..stream.fit import fit_frame
from .controls import Answer
from .failover import OnFailure, StandIn, caught, describe
from .keeper import Guards, Keeper, StillGuard
from .settings import LiveConfig
from .statistics import Ledger
from .timing import Continuity, Pace

CPU = torch.device("cpu")
NO_SIZE = (512, 512)
STAND_INS = 25.0  # pictures a second in place of a lost source's, where no rate is set
Words = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """A frame, and when it came on the stream's clock; None for a picture without a frame."""

    frame: Frame
    arrived: float | None


class Engine:
    """Frames of the source in, frames to show out: uint8, on the CPU, each once, in order.

    Every frame that is taken is shown, or counted as dropped. Times are in seconds on the stream's
    clock. One thread.
    """

    def __init__(self, keeper: Keeper, config: LiveConfig, guards: Guards, ledger: Ledger) -> None:
        self._keeper, self._config, self._guards = keeper, config, guards
        self._ledger = ledger
        self._places, self._stand_in = Continuity(), StandIn()
        self._pending: deque[Timed] = deque()
        self._result: Tensor | None = None
        self._moving = -1  # index of the last frame that was not still
        self._input: Tensor | None = None
        self._alarmed = False
        self._set()

    def _set(self) -> None:
        live = self._keeper.live
        self._pace, self._waiting = Pace(live.rate), Pace(live.rate or STAND_INS)
        self._still: StillGuard | None = None
        if live.similarity:
            self._still = self._guards.still(live.similarity)

    # ---- the way of a frame

    def take(self, came: Timed, now: float) -> list[Timed]:
        """One frame of the source. Returns what is to be shown, perhaps nothing."""
        came = replace(came, frame=self._places.place(came.frame, now))
        self._input = came.frame.rgb
        live, alarmed = self._keeper.live, self._alarmed
        if live.pause and not live.panic:
            self._abandon("pause")
            return self._drop([came], "pause")
        if not self._pace.admits(now) and not alarmed:  # a panic shows at once
            return self._drop([came], "rate")
        self._alarmed = False
        if self._bypass is not None:
            self._abandon("bypass")
            return [self._instead(came, self._bypass, now)]
        if self._keeper.ready(now):
            errors: list[Exception] = []
            with caught(errors):
                return self._translate(came, now)
            if self._keeper.survives(errors[0], came.frame.index):
                return []
            self._keeper.fail(errors[0], now)
            self._abandon("engine", but=came)
        else:
            self._keeper.missed(came.frame)
        return [self._instead(came, self._config.on_failure, now)]

    def _translate(self, came: Timed, now: float) -> list[Timed]:
        self._pending.append(came)
        if self._is_settled(came.frame):
            return self._repeat()
        results = self._keeper.push(came.frame, now)
        if results is None:
            return [self._instead(self._pending.popleft(), "passthrough", now)]
        return self._collect(results)

    def _collect(self, results: Sequence[Frame]) -> list[Timed]:
        """Results that are waited for; of frames that have been shown otherwise, nothing."""
        pictures = [to_bytes(result.rgb).cpu() for result in results]
        shown = []
        for result, rgb in zip(results, pictures, strict=True):
            while self._pending and self._pending[0].frame.index < result.index:
                self._drop([self._pending.popleft()], "engine")
            if self._pending and self._pending[0].frame.index == result.index:
                shown.append(_with(self._pending.popleft(), rgb))
                self._result = rgb
                self._stand_in.showed(rgb)
        return shown

    # ---- still pictures

    def _is_settled(self, frame: Frame) -> bool:
        """Whether the picture is still, and the result of the last one that was not is out."""
        if self._still is None:
            return False
        if not self._still.is_still(frame.rgb) or self._result is None or self._keeper.changing:
            self._moving = frame.index
        return self._pending[0].frame.index > self._moving

    def _repeat(self) -> list[Timed]:
        """The last result once more, for this frame and the still ones in flight before it."""
        assert self._result is not None
        self._ledger.count("repeated")
        shown = [_with(came, self._result) for came in self._pending]
        self._pending.clear()
        return shown

    # ---- instead of a translation

    @property
    def _bypass(self) -> OnFailure | None:
        live = self._keeper.live
        if live.panic:
            return self._config.panic
        if live.freeze:
            return "hold"
        return "passthrough" if live.passthrough else None

    def _instead(self, came: Timed, kind: OnFailure, now: float) -> Timed:
        picture = self._picture(kind, None, now)
        if kind == "passthrough" and self._keeper.error is None:
            self._stand_in.showed(picture)
        return _with(came, picture)

    def fill(self, lost: Exception | None, now: float) -> list[Timed]:
        """What is shown while no frame comes: of a lost source at the pace, else of a panic once.

        lost: why the source is gone, None where it is not. A paused stream shows a panic alone.
        """
        alarmed, self._alarmed = self._alarmed, False
        live = self._keeper.live
        due = alarmed or (lost is not None and self._waiting.admits(now))
        if not due or (live.pause and not live.panic):
            return []
        self._ledger.count("stood_in")
        on_failure = self._config.on_failure
        without_input: OnFailure = "card" if on_failure == "card" else "hold"
        picture = self._picture(self._bypass or without_input, lost, now)
        return [Timed(self._places.again(picture, now), None)]

    def _words(self, lost: Exception | None) -> Words:
        """What a card says: title and text."""
        if self._keeper.live.panic:
            return "Please stand by", ""
        if lost is not None:
            return "No signal", describe(lost)
        error = self._keeper.error
        return ("Please stand by", "") if error is None else ("No translation", describe(error))

    def _picture(self, kind: OnFailure, lost: Exception | None, now: float) -> Tensor:
        """What stands in; where there is nothing to hold or to pass through, a card."""
        if kind == "passthrough" and self._input is not None:
            return self._fitted(self._input)
        held = self._stand_in.held()
        if kind != "card" and held is not None:
            return held
        at_once = self._keeper.live.panic
        return self._stand_in.card(self._words(lost), self._size, now, at_once)

    @property
    def _size(self) -> tuple[int, int]:
        """Width and height of the output: a session's, before there was one the input's."""
        given = NO_SIZE if self._input is None else (self._input.shape[2], self._input.shape[1])
        return self._keeper.size or given

    def _fitted(self, rgb: Tensor) -> Tensor:
        unit = to_unit_range(rgb, CPU, torch.float32)
        return to_bytes(fit_frame(unit, *self._size, "crop"))

    # ---- changes

    def control(self, changes: Mapping[str, object], now: float) -> Answer:
        """Make changes, as `Controls.apply` does."""
        before, panicked = self._keeper.live, self._keeper.live.panic
        answer = self._keeper.control(changes, self._places.index + 1, now)
        live = self._keeper.live
        if "reset" in answer.effects:
            self._keeper.reset()
        if self._keeper.error is not None or "reset" in answer.effects:
            self._abandon("engine")
        if (live.rate, live.similarity) != (before.rate, before.similarity):
            self._set()
        if self._still is not None and answer.effects:
            self._still.forget()
        self._alarmed = live.panic and (self._alarmed or not panicked)
        return answer

    # ---- frames in flight

    def drain(self, now: float) -> list[Timed]:
        """Finish the frames in flight, as the source has ended or is gone."""
        errors: list[Exception] = []
        if self._pending and self._keeper.ready(now):
            with caught(errors):
                return self._collect(self._keeper.flush())
            self._keeper.fail(errors[0], now)
        self._abandon("engine")
        return []

    def close(self) -> None:
        """Count what is in flight as dropped, and let go of the session."""
        self._abandon("stop")
        self._keeper.close()

    def _abandon(self, where: str, but: Timed | None = None) -> None:
        self._drop([came for came in self._pending if came is not but], where)
        self._pending.clear()
        self._keeper.interrupted()

    def _drop(self, frames: Sequence[Timed], where: str) -> list[Timed]:
        if frames:
            self._ledger.dropped(where, len(frames))
        return []


def _with(came: Timed, rgb: Tensor) -> Timed:
    return replace(came, frame=replace(came.frame, rgb=rgb))
