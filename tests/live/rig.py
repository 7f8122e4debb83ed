"""An engine of live streams on a scripted session."""

from itertools import pairwise

import torch

from live2diff_core.live.engine import Engine, Timed
from live2diff_core.live.failover import card
from live2diff_core.live.keeper import Keeper
from live2diff_core.live.settings import LiveConfig
from live2diff_core.live.statistics import Ledger
from tests.live.fakes import FakeClock, FakeGuards, FakeSession, picture, translation, value
from tests.tiny import HEIGHT, WIDTH

STAND_BY = card((WIDTH, HEIGHT), "Please stand by", "")


class Rig:
    """An engine on a scripted session; keeps what was shown as (index, value)."""

    def __init__(self, *sessions: FakeSession, latency: int = 1, **settings) -> None:
        self.clock, self.guards = FakeClock(0.0), FakeGuards()
        self.ledger = Ledger(self.clock)
        self._sessions = list(sessions or [FakeSession(latency)])
        self.session = self._sessions[0]
        config = LiveConfig(**settings)
        guards = self.guards.guards
        self.keeper = Keeper(
            lambda: self._sessions.pop(0), config, guards, self.ledger, lambda *_: None
        )
        self.engine = Engine(self.keeper, config, guards, self.ledger)
        self.shown: list[Timed] = []

    def take(self, *indices: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[tuple[int, int]]:
        """Give frames, 40 ms apart; returns what was shown since the last call."""
        return [seen for index in indices for seen in self._take(picture(index, *size))]

    def _take(self, frame) -> list[tuple[int, int]]:
        self.clock.advance(0.04)
        self.ledger.came()
        return self.note(self.engine.take(Timed(frame, self.clock()), self.clock()))

    def note(self, shown: list[Timed]) -> list[tuple[int, int]]:
        for timed in shown:
            if timed.arrived is not None:
                self.ledger.showed(timed.arrived)
        self.shown += shown
        return [(timed.frame.index, value(timed.frame)) for timed in shown]

    def control(self, **changes: object):
        return self.engine.control(changes, self.clock())

    def fill(self, lost: Exception | None = None) -> list[tuple[int, int]]:
        return self.note(self.engine.fill(lost, self.clock()))

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.ledger.snapshot("running", None).dropped)

    def check(self) -> None:
        """What must hold whatever happened."""
        frames = [timed.frame for timed in self.shown]
        real = [timed.frame.index for timed in self.shown if timed.arrived is not None]
        assert real == sorted(set(real))
        assert all(a.timestamp < b.timestamp for a, b in pairwise(frames))
        assert all(frame.rgb.shape == (3, HEIGHT, WIDTH) for frame in frames)
        assert all(frame.rgb.dtype == torch.uint8 for frame in frames)
        live = self.ledger.snapshot("running", None)
        assert live.in_flight == len(self.engine._pending)


def done(*indices: int) -> list[tuple[int, int]]:
    return [(index, translation(index)) for index in indices]


def raw(*indices: int) -> list[tuple[int, int]]:
    return [(index, index) for index in indices]
