"""The relay: the newest picture for every reader, encoded once and only where somebody reads."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from live2diff_core.errors import ConfigError, SinkError
from live2diff_core.frames import Frame
from live2diff_core.live import relay as module
from live2diff_core.live.picture import decode_picture
from live2diff_core.live.protocol import unpack_frame
from live2diff_core.live.relay import Encoded, Relay

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def frame(index: int) -> Frame:
    return Frame(torch.full((3, 4, 6), index / 255), index, index / 25)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows by the thread of every encoding."""
    threads: list[int] = []
    encode = module.encode_picture

    def counted(*arguments: object) -> bytes:
        threads.append(threading.get_ident())
        return encode(*arguments)

    monkeypatch.setattr(module, "encode_picture", counted)
    return threads


def test_the_newest_frame_is_given_with_its_place() -> None:
    relay = Relay(kind="raw")
    assert relay.latest() is None
    for index in (3, 4, 9):
        relay.write(frame(index))
    encoded = relay.latest()
    assert encoded is not None
    assert replace(encoded, data=b"") == Encoded(b"", "raw", 9, 9 / 25, 3, 6, 4)
    header, payload = unpack_frame(encoded.message)
    assert (header.index, header.timestamp) == (9, 9 / 25)
    assert torch.equal(decode_picture(header, payload), torch.full((3, 4, 6), 9).byte())


def test_the_newest_frame_is_looked_at_without_a_trace(encodings: list[int]) -> None:
    relay = Relay()
    assert relay.frame is None
    for index in range(3):
        relay.write(frame(index))
        assert relay.frame is not None
        assert relay.frame.index == index
    relay.close()
    assert relay.frame.index == 2
    assert relay.missed == 2  # nobody took them
    assert encodings == []


def test_nothing_is_encoded_without_a_reader(encodings: list[int]) -> None:
    relay = Relay()
    for index in range(5):
        relay.write(frame(index))
    assert encodings == []
    assert relay.missed == 4


def test_a_frame_is_encoded_once_for_all_by_the_thread_that_writes(encodings: list[int]) -> None:
    relay = Relay()
    with relay.reading(), relay.reading():
        assert relay.readers == 2
        writer = threading.Thread(target=relay.write, args=(frame(0),))
        writer.start()
        writer.join()
        first = relay.latest()
        assert first is relay.latest()
        assert first is not None
        assert first.message is first.message
    assert relay.readers == 0
    assert encodings == [writer.ident]


def test_one_picture_asked_for_twice_is_encoded_once(encodings: list[int]) -> None:
    relay = Relay()
    relay.write(frame(0))
    assert relay.latest() is relay.latest()
    assert len(encodings) == 1


def test_what_was_taken_is_not_missed() -> None:
    relay = Relay()
    for index in range(3):
        relay.write(frame(index))
        relay.latest()
    relay.write(frame(3))
    assert relay.missed == 0
    relay.write(frame(4))
    assert relay.missed == 1


async def waiting(relay: Relay, count: int) -> None:
    """Let the tasks of this loop run until so many wait."""
    while relay.bell.listeners < count:
        await asyncio.sleep(0)


async def test_readers_wait_until_a_thread_writes(encodings: list[int]) -> None:
    relay = Relay()
    tasks = [asyncio.create_task(relay.wait(0)) for _ in range(3)]
    with relay.reading():
        await waiting(relay, 3)
        await asyncio.to_thread(relay.write, frame(7))
        pictures = await asyncio.gather(*tasks)
    assert [picture.index for picture in pictures if picture] == [7, 7, 7]
    assert len(encodings) == 1


async def test_a_slow_reader_gets_the_newest_and_nothing_twice() -> None:
    relay = Relay()
    for index in range(10):
        relay.write(frame(index))
    newest = await relay.wait(2)
    assert newest is not None
    assert (newest.index, newest.sequence) == (9, 10)
    again = asyncio.create_task(relay.wait(newest.sequence))
    await waiting(relay, 1)
    relay.write(frame(10))
    later = await again
    assert later is not None
    assert later.index == 10


async def followed(relay: Relay, after: int = 0) -> list[int]:
    """Sequence numbers that a reader of all pictures gets, to the end."""
    got = []
    while (picture := await relay.wait(after, every=True)) is not None:
        after = picture.sequence
        got.append(after)
    return got


@pytest.mark.parametrize("count", [1, module.KEPT, module.KEPT + 5])
async def test_a_slow_reader_of_all_gets_each_in_order_as_far_as_they_are_kept(count: int) -> None:
    relay = Relay(kind="raw")
    with relay.reading(every=True):
        for index in range(count):
            relay.write(frame(index))
        relay.close()
        got = await followed(relay)
    assert got == list(range(1, count + 1))[-module.KEPT :]
    assert relay.missed == count - len(got)


async def test_who_wants_all_changes_nothing_for_who_wants_the_newest() -> None:
    relay = Relay()
    with relay.reading(every=True), relay.reading():
        for index in range(3):
            relay.write(frame(index))
        newest = await relay.wait(0)
        relay.close()
        assert newest is not None
        assert newest.sequence == 3
        assert await followed(relay) == [1, 2, 3]
    assert relay.missed == 0


async def test_what_came_before_a_reader_of_all_is_not_kept_for_the_next_one() -> None:
    relay = Relay()
    with relay.reading(every=True):
        for index in range(3):
            relay.write(frame(index))
    with relay.reading(every=True):
        relay.write(frame(3))
        relay.close()
        assert await followed(relay) == [4]


async def test_closing_lets_readers_go_after_the_last_picture() -> None:
    relay = Relay()
    task = asyncio.create_task(relay.wait(0))
    await waiting(relay, 1)
    relay.write(frame(0))
    await asyncio.to_thread(relay.close)
    assert (await task) is not None
    assert await relay.wait(1) is None
    last = await relay.wait(0)
    assert last is not None
    relay.close()
    with pytest.raises(SinkError, match="closed relay"):
        relay.write(frame(1))


async def test_a_reader_that_leaves_is_forgotten() -> None:
    relay = Relay()
    task = asyncio.create_task(relay.wait(0))
    await waiting(relay, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert relay.bell.listeners == 0
    relay.write(frame(0))


def test_a_loop_that_is_gone_does_not_stop_the_writer() -> None:
    relay = Relay()
    loop = asyncio.new_event_loop()
    task = loop.create_task(relay.wait(0))
    loop.run_until_complete(waiting(relay, 1))
    loop.close()
    relay.write(frame(0))
    assert relay.latest() is not None
    task.get_coro().close()
    task._log_destroy_pending = False


async def test_no_picture_is_lost_between_two_threads() -> None:
    relay, count = Relay(kind="raw"), 300
    writer = threading.Thread(target=lambda: [relay.write(frame(i)) for i in range(count)])
    seen: list[int] = []
    writer.start()
    while not seen or seen[-1] < count:
        picture = await relay.wait(seen[-1] if seen else 0)
        assert picture is not None
        seen.append(picture.sequence)
    writer.join()
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("settings", "reason"), [({"quality": 0}, "quality"), ({"kind": "png"}, "png")]
)
def test_settings_are_checked_when_a_relay_is_made(settings: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Relay(**settings)
