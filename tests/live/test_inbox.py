"""Frames that one thread puts and another takes; events instead of sleeping."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from torch import Tensor

from live2diff_core.errors import ConfigError, FrameSizeError, SourceError
from live2diff_core.frames import Frame
from live2diff_core.live.inbox import Inbox

SOON = 20  # seconds that no test takes unless it fails


def picture(level: int = 0, width: int = 8, height: int = 6) -> Tensor:
    return torch.full((3, height, width), level, dtype=torch.uint8)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_the_oldest_frame_makes_room_and_is_counted() -> None:
    inbox = Inbox(8, 6, size=2)
    assert [inbox.put(picture(k), k / 30) for k in range(5)] == [0, 0, 1, 2, 3]
    inbox.end()
    frames = list(inbox)
    assert [(frame.index, int(frame.rgb[0, 0, 0])) for frame in frames] == [(3, 3), (4, 4)]
    assert [frame.timestamp for frame in frames] == pytest.approx([3 / 30, 4 / 30])
    assert inbox.dropped == 3


def test_numbers_of_the_sender_are_kept() -> None:
    inbox = Inbox(8, 6, size=4)
    for index in (7, None, 12):
        inbox.put(picture(), 0.0, index)
    inbox.end()
    assert [frame.index for frame in inbox] == [7, 1, 12]


def test_a_reader_waits_for_a_frame_and_for_the_end(pool: ThreadPoolExecutor) -> None:
    inbox = Inbox(8, 6)
    taken: list[Frame] = []
    one_taken = Event()

    def read() -> None:
        for frame in inbox:
            taken.append(frame)
            one_taken.set()

    reader = pool.submit(read)
    assert not one_taken.is_set()
    inbox.put(picture(), 0.5)
    assert one_taken.wait(SOON)
    assert not reader.done()
    inbox.end()
    reader.result(SOON)
    assert [frame.timestamp for frame in taken] == [0.5]
    assert list(inbox) == []


def test_closing_wakes_the_reader_and_leaves_what_waits(pool: ThreadPoolExecutor) -> None:
    inbox = Inbox(8, 6)
    reader = pool.submit(list, inbox)
    inbox.close()
    assert reader.result(SOON) == []
    full = Inbox(8, 6)
    frames = iter(full)
    full.put(picture(), 0.0)
    full.close()
    full.close()
    assert list(frames) == []
    with pytest.raises(SourceError, match="closed"):
        iter(full)


def test_frames_after_the_end_are_dropped() -> None:
    inbox = Inbox(8, 6)
    inbox.end()
    assert inbox.put(picture(), 0.0) == 1
    assert list(inbox) == []


def test_what_is_put_is_taken_in_order_or_dropped(pool: ThreadPoolExecutor) -> None:
    inbox = Inbox(8, 6, size=3)
    reader = pool.submit(list, inbox)
    for k in range(2000):
        inbox.put(picture(), k / 1000)
    inbox.end()
    taken = [frame.index for frame in reader.result(SOON)]
    assert taken == sorted(set(taken))
    assert taken[-1] == 1999
    assert len(taken) + inbox.dropped == 2000


def test_any_size_is_taken_and_the_first_one_is_told() -> None:
    inbox = Inbox(8, 6, rate=25)
    assert (inbox.info.width, inbox.info.height, inbox.info.rate) == (8, 6, 25)
    assert inbox.info.frames is None
    inbox.put(picture(width=10, height=20), 0.0)
    inbox.put(picture(width=20, height=10), 0.1)
    inbox.end()
    assert (inbox.info.width, inbox.info.height) == (10, 20)
    assert [tuple(frame.rgb.shape) for frame in inbox] == [(3, 20, 10), (3, 10, 20)]


@pytest.mark.parametrize(
    "rgb",
    [
        torch.zeros(3, 6, 8),
        torch.zeros(6, 8, 3, dtype=torch.uint8),
        torch.zeros(6, 8, dtype=torch.uint8),
        torch.zeros(3, 0, 8, dtype=torch.uint8),
    ],
)
def test_what_is_no_picture_is_refused_and_takes_no_place(rgb: Tensor) -> None:
    inbox = Inbox(8, 6)
    with pytest.raises(FrameSizeError, match=r"\(3, height, width\) in uint8"):
        inbox.put(rgb, 0.0)
    inbox.end()
    assert list(inbox) == []


def test_silence_is_the_time_since_the_last_frame() -> None:
    now = [10.0]
    inbox = Inbox(8, 6, clock=lambda: now[0])
    now[0] = 12.0
    assert inbox.silence == 2.0
    inbox.put(picture(), 0.0)
    now[0] = 12.5
    assert inbox.silence == 0.5


def test_an_inbox_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError):
        Inbox(8, 6, size=0)
    with pytest.raises(ConfigError):
        Inbox(8, 6, rate=0)
