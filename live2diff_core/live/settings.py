"""How a live stream behaves: what is set before it starts, and what can change while it runs."""

from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from .failover import OnFailure
from .ticks import check_rate

Start = Literal["prime", "wait"]
Panic = Literal["passthrough", "card"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """How a live stream behaves; what `Live` has can be changed while it runs.

    start: with "prime" the first frame is repeated as the warm-up, so that the stream begins at
    once, and the stream is anchored anew once a warm-up of real inputs has been seen; with "wait"
    the input passes through until they are there. on_failure: while source or engine is gone, hold
    the last good picture, pass the input through (hold, where it is the input that is gone), or
    fade to a card that says what happened. panic: what the panic key shows. first_retry,
    longest_retry: seconds until a lost source or engine is opened again, doubled from the one to
    the other. silence: a source that gives nothing for so many seconds counts as lost. scene_cuts:
    anchor the stream anew in the scene after a cut. drift: anchor it anew when its look drifts.
    Raises ConfigError.
    """

    rate: float | None = None
    similarity: float = 0.0
    start: Start = "prime"
    on_failure: OnFailure = "hold"
    panic: Panic = "card"
    first_retry: float = 0.5
    longest_retry: float = 10.0
    silence: float = 5.0
    scene_cuts: bool = True
    drift: bool = True

    def __post_init__(self) -> None:
        Live(self.rate, self.similarity)
        _require(self.start in ("prime", "wait"), f"start: prime or wait, not {self.start!r}")
        _require(
            self.on_failure in ("hold", "passthrough", "card"),
            f"on_failure: hold, passthrough or card, not {self.on_failure!r}",
        )
        _require(
            self.panic in ("passthrough", "card"), f"panic: passthrough or card, not {self.panic!r}"
        )
        _require(
            0 < self.first_retry <= self.longest_retry,
            f"expected 0 < first_retry <= longest_retry, got {self.first_retry} and "
            f"{self.longest_retry}",
        )
        _require(self.silence > 0, f"silence must be above 0 seconds, got {self.silence}")


@dataclass(frozen=True, slots=True)
class Live:
    """What takes effect with the next frame.

    rate: frames a second at most; None: as fast as it goes. similarity: 0 (off) to 1, from which on
    a picture counts as still. pause: nothing is shown. freeze: the last picture stays. passthrough:
    the input is shown. panic: what `LiveConfig.panic` says is shown, whatever else is set. While
    one of these four holds, the network rests. Raises ConfigError.
    """

    rate: float | None = None
    similarity: float = 0.0
    pause: bool = False
    freeze: bool = False
    passthrough: bool = False
    panic: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None:
            check_rate(self.rate)
        _require(
            0 <= self.similarity <= 1,
            f"similarity must be from 0 (off) to 1, got {self.similarity}",
        )
