"""A stream whose frames clients bring and take: inbox, runner, relay."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import ConfigError, StreamClosed
from ..stream.session import Session
from ..stream.spec import Clock
from .controls import Answer
from .inbox import Inbox
from .relay import Relay
from .runner import Event, Runner
from .settings import LiveConfig
from .statistics import LiveStatistics
from .streams import Settings, Streams

logger = logging.getLogger(__name__)

WORDS = ("prompt", "blend")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a stream is made of. size: (width, height). template: makes a prompt of a client's
    words.
    """

    open_session: Callable[[], Session]
    size: tuple[int, int]
    config: LiveConfig = field(default_factory=LiveConfig)
    template: Callable[[str], str] = str
    clock: Clock = time.monotonic


class ServedStream:
    """Translates what its inbox gets and keeps the newest picture in its relay, until close().

    What happens to it is published to its clients in the hub. settings: changes to begin with.
    Raises ConfigError where one cannot be, and what `open_session` raises.
    """

    def __init__(
        self, hub: Streams, stream_id: str, name: str, setup: Setup, settings: Settings
    ) -> None:
        self._hub, self._id, self._name, self._setup = hub, stream_id, name, setup
        self._sessions = [setup.open_session()]  # raises here what would fail later
        self._inbox = self._make_inbox()
        self._inboxes = [self._inbox]
        self._relay = Relay()
        sinks, clock = [self._relay], setup.clock
        self._runner = Runner(
            self._open_inbox, self._open_session, sinks, setup.config, clock, self._tell
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
    def inbox(self) -> Inbox:
        """Where frames are to be put now."""
        return self._inbox

    @property
    def relay(self) -> Relay:
        """Where pictures come out."""
        return self._relay

    def control(self, changes: Mapping[str, object]) -> Answer:
        """Change parameters. Raises StreamClosed."""
        return self._runner.control({n: self._worded(n, value) for n, value in changes.items()})

    def statistics(self) -> LiveStatistics:
        """How the stream does."""
        return self._runner.statistics()

    def close(self) -> None:
        """Stop the threads and free the session."""
        try:
            self._runner.stop()
        except StreamClosed as error:
            logger.warning("%s: %s", self._name, error)
        self._relay.close()

    def _worded(self, name: str, value: object) -> object:
        return self._setup.template(value) if name in WORDS and isinstance(value, str) else value

    def _make_inbox(self) -> Inbox:
        return Inbox(*self._setup.size, clock=self._setup.clock)

    def _open_inbox(self) -> Inbox:
        if not self._inboxes:
            self._inbox = self._make_inbox()
            return self._inbox
        return self._inboxes.pop()

    def _open_session(self) -> Session:
        return self._sessions.pop() if self._sessions else self._setup.open_session()

    def _tell(self, event: Event) -> None:
        self._hub.publish(self._id, event.kind, event.text, event.frame)
