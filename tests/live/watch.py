"""What a test sees of a stream that runs: its events, and its figures as they change."""

import time
from collections.abc import Callable

from live2diff_core.live.protocol import ProtocolError
from live2diff_core.live.served import ServedStream
from live2diff_core.live.statistics import LiveStatistics
from tests.live.fakes import PATIENCE, Waiting


class Ear:
    """A client of a stream that hears its events."""

    def __init__(self) -> None:
        self.heard = Waiting()

    def post(self, text: str) -> None:
        self.heard.add(text)

    def dismiss(self, error: ProtocolError | None) -> None:
        """The stream has ended."""


def taken(now: LiveStatistics) -> int:
    return now.stages["wait"].count if "wait" in now.stages else 0


def until(stream: ServedStream, condition: Callable[[LiveStatistics], bool]) -> LiveStatistics:
    """Wait until a stream's figures are so."""
    limit = time.monotonic() + PATIENCE
    while not condition(now := stream.statistics()):
        assert time.monotonic() < limit, now
        stream.wait(0.002)
    return now
