"""Ticks on a clock of the test: nothing here waits."""

from fractions import Fraction

import pytest

from live2diff_core.errors import ConfigError
from live2diff_core.live.ticks import Ticker, Timer, check_rate


class FakeTime:
    """A clock that only sleeping and the test move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def timer(self) -> Timer:
        return Timer(lambda: self.now, self.sleep)


def test_ticks_come_at_the_rate_whatever_the_work_between_them() -> None:
    time = FakeTime()
    ticker = Ticker(Fraction(10), time.timer)
    at = []
    for work in (0.0, 0.03, 0.09, 0.0):
        at.append(ticker.wait())
        time.now += work
    assert at == pytest.approx([0, 0.1, 0.2, 0.3])
    assert time.slept == pytest.approx([0.1, 0.07, 0.01])


def test_missed_ticks_are_not_made_up_for() -> None:
    time = FakeTime()
    ticker = Ticker(Fraction(10), time.timer)
    ticker.wait()
    time.now += 5
    at = [ticker.wait() for _ in range(4)]
    assert at[0] == pytest.approx(5)
    assert at[-1] == pytest.approx(5.2)


@pytest.mark.parametrize("rate", [0, -1, 1001, Fraction(-1, 2)])
def test_a_rate_without_meaning_is_refused(rate: Fraction | int) -> None:
    with pytest.raises(ConfigError, match=r"above 0 and at most 1000"):
        check_rate(rate)
    assert check_rate(Fraction(30000, 1001)) == Fraction(30000, 1001)
