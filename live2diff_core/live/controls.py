"""Changes to a live stream while it runs: read, checked, made, and what is answered."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..config import Guidance, StepSelection
from ..errors import ConfigError, Live2DiffError
from ..models.text import blend
from ..models.translator import TranslationModel
from ..stream.session import Session
from .failover import describe
from .settings import Live

S = TypeVar("S", Live, "Wishes")

# What may be wrong with a change: it is refused, and the stream goes on as it is.
REFUSED = Live2DiffError, torch.OutOfMemoryError, MemoryError


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a change.

    frame: index of the first frame that shows all that was changed (a later one where the input is
    dropped before it; the event "changed" then says which), None where nothing was. effects: when
    each name takes effect, "now" or "re-prime". refused: why, by name; these changed nothing.
    """

    frame: int | None
    effects: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked of the session so far; None is as it was opened. blend: a second prompt."""

    prompt: str | None = None
    blend: str = ""
    blend_weight: float = 0.5
    strength: float | None = None
    steps: int | None = None
    seed: int | None = None
    negative: str | None = None
    model: TranslationModel | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.blend_weight <= 1:
            raise ConfigError(
                f"blend_weight must be from 0 (prompt) to 1 (blend), got {self.blend_weight}"
            )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"expected text, got {value!r}")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"expected true or false, got {value!r}")
    return value


def read_number(value: object) -> float:
    """A number of JSON. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"expected a number, got {value!r:.40}")
    if not abs(value) <= sys.float_info.max:  # JSON has whole numbers of any length
        raise ConfigError("expected a finite number")
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"expected a whole number, got {value!r}")
    return value


def _rate(value: object) -> float | None:
    return None if value is None else read_number(value)


def _model(value: object) -> TranslationModel:
    if not isinstance(value, TranslationModel):
        raise ConfigError(f"expected a variant of the stream's model, got {value!r}")
    return value


Reader = Callable[[object], object]

OF_STREAM: Mapping[str, Reader] = {
    "rate": _rate,
    "similarity": read_number,
    "pause": _flag,
    "freeze": _flag,
    "passthrough": _flag,
    "panic": _flag,
}
OF_SESSION: Mapping[str, Reader] = {
    "prompt": _text,
    "blend": _text,
    "blend_weight": read_number,
    "strength": read_number,
    "steps": _whole,
    "seed": _whole,
    "negative": _text,
    "model": _model,
}
RESET: Mapping[str, Reader] = {"reset": _flag}
READERS = {**OF_STREAM, **OF_SESSION, **RESET}


class Controls:
    """Current settings of a stream, and changes to them. One thread, the session's."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._wishes = self._shown = Wishes()

    def apply(
        self, changes: Mapping[str, object], session: Session | None, next_index: int
    ) -> Answer:
        """Make changes; good ones are made even where others are refused.

        session: None where there is none now, which refuses what is for it. next_index: of the
        frame that comes next. "reset" is answered and left to the caller. Raises whatever a session
        raises that fails.
        """
        refused = {name: _unknown(name) for name in changes if name not in READERS}
        if session is None:
            absent = changes.keys() & (OF_SESSION.keys() | RESET.keys())
            refused |= dict.fromkeys(absent, "the stream has no session now: try again")
        live = _read(changes, OF_STREAM, refused)
        self.live = _changed(self.live, live, refused)
        resets = [name for name, wanted in _read(changes, RESET, refused).items() if wanted]
        effects = {name: "now" for name in (*live, *resets) if name not in refused}
        ahead = 0
        if session is not None:
            wished = _read(changes, OF_SESSION, refused)
            ahead = self._update(wished, session, refused)
            for name in wished.keys() - refused.keys():
                effects[name] = session.spec.parameters[PARTS[name]]
        return Answer(next_index + ahead if effects else None, effects, refused)

    def bring(self, session: Session) -> None:
        """Ask of a new session all that was asked of those before it. Raises as an update does."""
        parameters = _parameters(self._wishes, list(PARTS), session, {})
        if parameters:
            session.update(**parameters)
        self._shown = self._wishes

    def settle(self) -> None:
        """All that was asked of the session is shown."""
        self._shown = self._wishes

    def revert(self) -> None:
        """What was asked of the session and is not shown yet came to nothing."""
        self._wishes = self._shown

    def _update(
        self, values: Mapping[str, object], session: Session, refused: dict[str, str]
    ) -> int:
        """Ask the session for what was not refused; frames until the one that shows it."""
        wishes = _changed(self._wishes, values, refused)
        names = [name for name in values if name not in refused]
        parameters = _parameters(wishes, names, session, refused)
        names = [name for name in names if name not in refused]
        if not names:
            return 0
        try:
            ahead = session.begin_update(**parameters) - session.next_index
        except REFUSED as error:
            refused |= dict.fromkeys(names, describe(error))
            return 0
        self._wishes = replace(self._wishes, **{name: getattr(wishes, name) for name in names})
        return ahead


def _unknown(name: str) -> str:
    known = ["lora_strength" if known == "model" else known for known in READERS]  # `ServedStream`
    return f"a stream has no {name!r:.40}; it has {', '.join(known)}"


def _read(
    changes: Mapping[str, object], readers: Mapping[str, Reader], refused: dict[str, str]
) -> dict[str, object]:
    """The changes that have a reader here, as it reads them; what it cannot read is refused."""
    values = {}
    for name in readers:
        if name in changes and name not in refused:
            try:
                values[name] = readers[name](changes[name])
            except ConfigError as error:
                refused[name] = str(error)
    return values


def _changed(settings: S, values: Mapping[str, object], refused: dict[str, str]) -> S:
    """Settings with one value after the other; those that may not be are refused."""
    for name, value in values.items():
        try:
            changed: dict[str, Any] = {name: value}
            settings = replace(settings, **changed)
        except ConfigError as error:
            refused[name] = str(error)
    return settings


# ---- what a session is asked for


def _prompt(wishes: Wishes, session: Session) -> str | Tensor | None:
    """Words, or the embedding between two prompts. Raises ConfigError or PromptError."""
    if wishes.prompt is None:
        if wishes.blend:
            raise ConfigError("a blend needs to know its first prompt: send prompt with it")
        return None
    text = (wishes.model or session.model).text
    first = text.encode(wishes.prompt)
    if not wishes.blend:
        return wishes.prompt
    with torch.inference_mode():
        first, second = text.align(first, text.encode(wishes.blend))
        return blend(first, second, wishes.blend_weight)


def _steps(wishes: Wishes, session: Session) -> StepSelection | None:
    if wishes.strength is None and wishes.steps is None:
        return None
    now = session.config.steps
    strength = now.strength if wishes.strength is None else wishes.strength
    if strength is None:
        raise ConfigError("this stream names its timesteps: send strength with steps")
    return StepSelection(
        strength=strength,
        steps=len(now.indices) if wishes.steps is None else wishes.steps,
        inference_steps=now.inference_steps,
    )


def _guidance(wishes: Wishes, session: Session) -> Guidance | None:
    guidance = session.config.guidance
    if wishes.negative is None:
        return None
    if guidance.mode != "full":
        raise ConfigError(
            "a negative prompt needs full guidance (in ComfyUI a guidance above 1), this stream "
            f"was opened with {guidance.mode}"
        )
    return replace(guidance, negative=wishes.negative)


Builder = Callable[[Wishes, Session], object]

BUILDERS: Mapping[str, tuple[Builder, Sequence[str]]] = {
    # A blend is an embedding, which another text encoder makes anew.
    "prompt": (_prompt, ("prompt", "blend", "blend_weight", "model")),
    "steps": (_steps, ("strength", "steps")),
    "seed": (lambda wishes, _: wishes.seed, ("seed",)),
    "guidance": (_guidance, ("negative",)),
    "model": (lambda wishes, _: wishes.model, ("model",)),
}
PARTS = {name: parameter for parameter, (_, names) in BUILDERS.items() for name in names}


def _parameters(
    wishes: Wishes, names: Sequence[str], session: Session, refused: dict[str, str]
) -> dict[str, Any]:
    """What names of the wishes are to a session's update; what cannot be is refused."""
    parameters = {}
    for parameter, (build, makes) in BUILDERS.items():
        asked = [name for name in names if name in makes and name not in refused]
        if asked:
            try:
                parameters[parameter] = build(wishes, session)
            except Live2DiffError as error:
                refused |= dict.fromkeys(asked, str(error))
    return {name: value for name, value in parameters.items() if value is not None}
