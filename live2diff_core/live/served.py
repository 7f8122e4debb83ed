"""A stream that clients see and steer, and whose frames they bring where it has no other source."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..errors import ConfigError, StreamClosed
from ..models.translator import TranslationModel
from ..stream.session import Session
from ..stream.spec import Clock
from .controls import REFUSED, Answer, read_number
from .failover import describe
from .inbox import Inbox
from .relay import Relay
from .runner import Event, Runner
from .settings import LiveConfig
from .sink import Sink
from .source import Source
from .statistics import LiveStatistics
from .streams import Settings, Streams
from .teams import release_team

logger = logging.getLogger(__name__)

WORDS = ("prompt", "blend")
STRENGTH, MODEL = "lora_strength", "model"  # what clients say, and what a session is asked for


@dataclass(frozen=True, slots=True)
class Setup:
    """What a stream is made of. size: (width, height).

    open_source: where frames come from; None where clients bring them. sinks: what gets the
    pictures besides the clients. template: makes a prompt of a client's words. variant: the model
    at a strength of its LoRA, made on the caller's thread; None for a stream without.
    """

    open_session: Callable[[], Session]
    size: tuple[int, int]
    config: LiveConfig = field(default_factory=LiveConfig)
    open_source: Callable[[], Source] | None = None
    sinks: tuple[Sink, ...] = ()
    template: Callable[[str], str] = str
    variant: Callable[[float], TranslationModel] | None = None
    clock: Clock = time.monotonic


class ServedStream:
    """Translates its source, or what its inbox gets, and keeps the newest picture in its relay,
    until the source ends or close().

    What happens to it is published to its clients in the hub. settings: changes to begin with.
    Raises ConfigError where one cannot be, and what `open_session` raises.
    """

    def __init__(
        self, hub: Streams, stream_id: str, name: str, setup: Setup, settings: Settings
    ) -> None:
        self._hub, self._id, self._name, self._setup = hub, stream_id, name, setup
        self._sessions = [setup.open_session()]  # raises here what would fail later
        self._inbox = self._make_inbox() if setup.open_source is None else None
        self._inboxes = [self._inbox] if self._inbox else []
        self._relay = Relay()
        self._runner = Runner(
            setup.open_source or self._open_inbox,
            self._open_session,
            [self._relay, *setup.sinks],
            setup.config,
            setup.clock,
            self._tell,
        )
        self._runner.start()
        refused = self.control(settings).refused if settings else {}
        if refused:
            self.close()
            raise ConfigError("; ".join(f"{name}: {why}" for name, why in refused.items()))

    @property
    def id(self) -> str:
        """For those who may see it."""
        return self._id

    @property
    def name(self) -> str:
        """For people."""
        return self._name

    @property
    def inbox(self) -> Inbox | None:
        """Where clients put frames now; None where the stream has a source of its own."""
        return self._inbox

    @property
    def relay(self) -> Relay:
        """Where pictures come out."""
        return self._relay

    def control(self, changes: Mapping[str, object]) -> Answer:
        """Change parameters. Raises StreamClosed."""
        changes = {name: self._worded(name, value) for name, value in changes.items()}
        if STRENGTH not in changes:
            return self._runner.control(changes)
        strength = changes.pop(STRENGTH)
        try:
            changes[MODEL] = self._variant(strength)
        except REFUSED as error:
            answer = self._runner.control(changes) if changes else Answer(None)
            return replace(answer, refused={**answer.refused, STRENGTH: describe(error)})
        return _renamed(self._runner.control(changes))

    def statistics(self) -> LiveStatistics:
        """How the stream does."""
        return self._runner.statistics()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the stream, seconds of real time; whether it has come."""
        return self._runner.wait(timeout)

    def close(self) -> None:
        """Stop the threads and free the session."""
        try:
            self._runner.stop()
        except StreamClosed as error:
            logger.warning("%s: %s", self._name, error)
        self._relay.close()

    def _worded(self, name: str, value: object) -> object:
        return self._setup.template(value) if name in WORDS and isinstance(value, str) else value

    def _variant(self, strength: object) -> TranslationModel:
        """Raises Live2DiffError for a strength that cannot be, and without a LoRA."""
        if self._setup.variant is None:
            raise ConfigError("this stream has no LoRA")
        try:
            return self._setup.variant(read_number(strength))
        finally:
            release_team()

    def _make_inbox(self) -> Inbox:
        return Inbox(*self._setup.size, clock=self._setup.clock)

    def _open_inbox(self) -> Inbox:
        if self._inboxes:
            return self._inboxes.pop()
        self._inbox = inbox = self._make_inbox()
        return inbox

    def _open_session(self) -> Session:
        return self._sessions.pop() if self._sessions else self._setup.open_session()

    def _tell(self, event: Event) -> None:
        self._hub.publish(self._id, event.kind, event.text, event.frame)


def _renamed(answer: Answer) -> Answer:
    """An answer about the model as one about the LoRA's strength, which it was asked for."""

    def rename(names: Mapping[str, str]) -> dict[str, str]:
        return {STRENGTH if name == MODEL else name: text for name, text in names.items()}

    return replace(answer, effects=rename(answer.effects), refused=rename(answer.refused))
