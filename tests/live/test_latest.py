"""The queue between two threads: the newest wins, order holds, nobody waits in vain."""

from threading import Event, Thread

import pytest

from live2diff_core.errors import ConfigError
from live2diff_core.live.latest import Latest
from tests.live.fakes import PATIENCE


def test_the_oldest_goes_and_order_stays():
    queue: Latest[int] = Latest(2)
    assert [queue.put(item) for item in range(5)] == [None, None, 0, 1, 2]
    assert queue.dropped == 3
    assert len(queue) == 2
    assert [queue.take(), queue.take()] == [3, 4]


def test_nothing_comes_of_an_empty_queue_in_time():
    assert Latest[int]().take(timeout=0) is None


def test_a_poke_wakes_once():
    queue: Latest[int] = Latest()
    queue.poke()
    assert queue.take(timeout=PATIENCE) is None
    assert queue.take(timeout=0) is None
    queue.poke()
    queue.put(1)
    assert queue.take() == 1


def test_a_closed_queue_gives_what_it_holds_and_takes_nothing():
    queue: Latest[int] = Latest()
    queue.put(1)
    queue.close()
    assert queue.closed
    assert not queue.finished
    assert queue.put(2) == 2
    assert queue.take() == 1
    assert queue.finished
    assert queue.take() is None
    assert queue.dropped == 1


@pytest.mark.parametrize("wake", ["put", "close", "poke"])
def test_whoever_waits_is_woken(wake):
    queue: Latest[int] = Latest()
    waiting, got = Event(), []

    def take() -> None:
        waiting.set()
        got.append(queue.take(PATIENCE))

    thread = Thread(target=take)
    thread.start()
    assert waiting.wait(PATIENCE)
    {"put": lambda: queue.put(7), "close": queue.close, "poke": queue.poke}[wake]()
    thread.join(PATIENCE)
    assert got == [7 if wake == "put" else None]


def test_between_threads_all_is_taken_in_order_or_dropped():
    queue: Latest[int] = Latest(3)

    def fill() -> None:
        for item in range(2000):
            queue.put(item)
        queue.close()

    thread = Thread(target=fill)
    thread.start()
    taken = []
    while not queue.finished:
        item = queue.take(PATIENCE)
        taken += [] if item is None else [item]
    thread.join(PATIENCE)
    assert taken == sorted(set(taken))
    assert taken[-1] == 1999
    assert len(taken) + queue.dropped == 2000


def test_a_queue_for_nothing_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        Latest(0)
