"""Keeps the session of a live stream right: warmed up, anchored, finite, opened anew."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..errors import Live2DiffError
from ..frames import Frame
from ..stream.session import Session
from .controls import Answer, Controls
from .failover import Backoff, caught, describe
from .settings import Live, LiveConfig
from .statistics import Ledger

# Between two looks at the session's own figures, in seconds.
FIGURES_SECONDS = 0.5


class CutGuard(Protocol):
    """Sees scene cuts; is asked about the frames that the session gets, in order."""

    def is_cut(self, rgb: Tensor) -> bool:
        """Whether (3, h, w) uint8 begins another scene."""
        ...


class StillGuard(Protocol):
    """Sees whether a picture differs from the last one that did."""

    def is_still(self, rgb: Tensor) -> bool:
        """Whether (3, h, w) uint8 hardly changes anything."""
        ...

    def forget(self) -> None:
        """What is made of a picture has changed: the next one is not still."""
        ...


class DriftGuard(Protocol):
    """Sees whether results leave the look that they had; is shown all of them."""

    def is_drifting(self, rgb: Tensor) -> bool:
        """Whether (3, h, w) in [0, 1] is far off by now."""
        ...

    def anchor(self) -> None:
        """What follows is the look."""
        ...


@dataclass(frozen=True, slots=True)
class Guards:
    """What keeps a stream right for hours. still: makes one of a threshold."""

    cut: CutGuard | None
    drift: DriftGuard | None
    still: Callable[[float], StillGuard]
    is_finite: Callable[[Tensor], bool]


# Told what happens: event, text, error, frame index.
Report = Callable[[str, str, Exception | None, int | None], None]


class Keeper:
    """A session for as long as a stream lasts.

    What a session raises in push() or flush() comes out here, too. Unless it survives(), fail()
    gives it up, and ready() opens another when its time has come. One thread.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        config: LiveConfig,
        guards: Guards,
        ledger: Ledger,
        report: Report,
    ) -> None:
        self._open_session, self._config, self._guards = open_session, config, guards
        self._ledger, self._report = ledger, report
        self._controls = Controls(Live(config.rate, config.similarity))
        self._backoff = Backoff(config.first_retry, config.longest_retry)
        self._retry_at = self._figures_at = 0.0
        self._session: Session | None = None
        self._recent: deque[Frame] = deque(maxlen=1)  # what the session got last
        self._warm = self._was_changing = False
        self._until_anchor = self._until_shown = 0  # frames
        self.error: Exception | None = None
        self.size: tuple[int, int] | None = None

    @property
    def live(self) -> Live:
        """What is set now."""
        return self._controls.live

    # ---- the way of a frame

    def ready(self, now: float) -> bool:
        """Whether there is a session; opens one where it is time to."""
        if self._session is None and now >= self._retry_at:
            errors: list[Exception] = []
            with caught(errors):
                self._adopt(self._open_session())
            if errors:
                self.fail(errors[0], now)
        return self._session is not None

    def push(self, frame: Frame, now: float) -> list[Frame] | None:
        """Results that are finished; None while the warm-up waits for more frames."""
        self._recent.append(frame)
        self._watch_for_cut(frame)
        if not self._warm and self._config.start == "wait" and self._lacking:
            return None
        results = self._checked(self._push(frame) if self._warm else self._warm_up())
        self._tell_of_change(frame.index)
        self._watch_for_drift(results)
        self._settle(results, now)
        return results

    def _push(self, frame: Frame) -> list[Frame]:
        self._was_changing = self._open.changing
        results = self._open.push([frame])
        self._was_changing = False
        if not self._open.changing:
            self._controls.settle()
        self._count_down()
        return results

    def missed(self, frame: Frame) -> None:
        """A frame that came while there was no session: the next one is warmed up by it, too."""
        self._recent.append(frame)

    def flush(self) -> list[Frame]:
        """Finish what is in flight."""
        self._anchor_later()
        return self._open.flush() if self._warm else []

    def interrupted(self) -> None:
        """Frames were kept from the session: what comes next may be another scene."""
        self._anchor_later()

    # ---- warm-up and anchors

    @property
    def _open(self) -> Session:
        assert self._session is not None
        return self._session

    @property
    def _lacking(self) -> int:
        """Real inputs that a warm-up lacks."""
        return self._open.spec.first_frames - len(self._recent)

    def _warm_up(self) -> list[Frame]:
        """The last inputs as the warm-up; where they are too few, it is renewed on more."""
        results = self._open.warmup(list(self._recent))
        self._warm, self._until_anchor = True, max(self._until_anchor, self._lacking)
        return results

    def _count_down(self) -> None:
        """Anchor when that is due."""
        if self._until_anchor and not self._open.changing:
            self._until_anchor -= 1
            if self._until_anchor == 0:
                self._anchor()

    def _anchor(self) -> None:
        """Anchor now. Where that cannot be, as there is no room for a second cache, the stream goes
        on as it is.
        """
        errors: list[Exception] = []
        with caught(errors):
            self._open.begin_update()
        if errors:
            self._ledger.count("failures")
            self._report("change failed", describe(errors[0]), errors[0], None)
            return
        self._ledger.count("reprimes")
        self._take_new_look()

    def _anchor_later(self) -> None:
        """Anchor as soon as the last real inputs are all of what comes now."""
        self._until_anchor = self._recent.maxlen or 0

    def _watch_for_cut(self, frame: Frame) -> None:
        if self._guards.cut is not None and self._guards.cut.is_cut(frame.rgb):
            self._ledger.count("scene_cuts")
            self._report("scene cut", "another scene begins", None, frame.index)
            self._anchor_later()

    def _watch_for_drift(self, results: list[Frame]) -> None:
        drift = self._guards.drift
        if drift is None:
            return
        drifting = [result for result in results if drift.is_drifting(result.rgb)]
        if drifting and not self._until_anchor:
            self._ledger.count("drifts")
            self._report("drift", "the look has changed: anchoring", None, drifting[0].index)
            self._until_anchor = 1

    def _take_new_look(self) -> None:
        if self._guards.drift is not None:
            self._guards.drift.anchor()

    def _checked(self, results: list[Frame]) -> list[Frame]:
        """Finite results, if need be those of a warm-up from the last inputs.

        Raises Live2DiffError where these are not finite either.
        """
        if self._are_finite(results):
            return results
        self._ledger.count("resets")
        self._report("reset", "a result was not finite: the stream begins anew", None, None)
        self.reset()
        results = self._warm_up()
        if self._are_finite(results):
            return results
        raise Live2DiffError(
            "expected a finite result of a fresh warm-up, got infinite values or NaN: use float32 "
            "or bfloat16, or other weights"
        )

    def _are_finite(self, results: list[Frame]) -> bool:
        return all(self._guards.is_finite(result.rgb) for result in results)

    # ---- changes

    @property
    def changing(self) -> bool:
        """Whether what was asked for does not show yet."""
        return self._open.changing or self._until_shown > 0

    def control(self, changes: Mapping[str, object], next_index: int, now: float) -> Answer:
        """Make changes, as `Controls.apply` does."""
        errors: list[Exception] = []
        with caught(errors):
            answer = self._controls.apply(changes, self._session, next_index)
            if answer.frame is not None and set(answer.effects.values()) != {"now"}:
                self._until_shown = answer.frame - next_index + 1
            return answer
        self.fail(errors[0], now)
        return Answer(None, {}, dict.fromkeys(changes, describe(errors[0])))

    def _tell_of_change(self, index: int) -> None:
        if self._until_shown:
            self._until_shown -= 1
            if self._until_shown == 0:
                self._report("changed", "the change shows from this frame on", None, index)
                self._take_new_look()

    def reset(self) -> None:
        """Begin anew with the next frame, from the last inputs."""
        self._open.reset()
        self._warm = False

    def survives(self, error: Exception, index: int) -> bool:
        """Whether what push() raised ended a change alone: the stream goes on without it, and what
        the push has finished comes with the next one.
        """
        if not self._was_changing or self._open.changing:
            return False
        self._controls.revert()
        self._until_shown = 0
        self._ledger.count("failures")
        self._report("change failed", describe(error), error, index)
        return True

    # ---- sessions that come and go

    def _adopt(self, session: Session) -> None:
        self._session, self._warm = session, False
        self._controls.bring(session)
        self.size = session.config.width, session.config.height
        self._recent = deque(self._recent, session.spec.first_frames)

    def fail(self, error: Exception, now: float) -> None:
        """Give the session up, and open another one later."""
        self._retry_at = now + self._backoff.next()
        self._ledger.count("failures")
        if self.error is None:
            self._report("engine failed", describe(error), error, None)
        self.error = error
        self.close()

    def close(self) -> None:
        """Let go of the session."""
        session, self._session, self._warm = self._session, None, False
        if session is not None:
            with caught([]):
                session.close()

    def _settle(self, results: list[Frame], now: float) -> None:
        """Results mean that all is well; look at the session's figures now and then."""
        if results and self.error is not None:
            self.error = None
            self._ledger.count("reconnects")
            self._report("engine back", "translating again", None, results[-1].index)
        if results:
            self._backoff.reset()
        if now >= self._figures_at:
            self._figures_at = now + FIGURES_SECONDS
            self._ledger.session_took(self._open.stats.stages_ms)
