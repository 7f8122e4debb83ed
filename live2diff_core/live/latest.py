"""A queue between two threads in which the newest wins."""

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

from ..errors import ConfigError

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds at most `size` items; whoever puts one never waits, the oldest goes instead.

    Items are taken in the order in which they came. Any number of threads. Raises ConfigError for a
    size below 1.
    """

    def __init__(self, size: int = 1) -> None:
        if size < 1:
            raise ConfigError(f"a queue holds at least 1 item, got size {size}")
        self._size = size
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._closed = self._poked = False
        self._dropped = 0

    def put(self, item: T) -> T | None:
        """Add the newest item. Returns what had to go for it; once closed, that is itself."""
        with self._changed:
            if self._closed:
                gone: T | None = item
            else:
                gone = self._items.popleft() if len(self._items) == self._size else None
                self._items.append(item)
                self._changed.notify()
            self._dropped += gone is not None
            return gone

    def take(self, timeout: float | None = None) -> T | None:
        """The oldest item that is left, waiting for one as long as that takes, or `timeout` seconds
        of real time.

        None where none came, where someone called poke(), and once the queue is finished.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed or self._poked, timeout)
            self._poked = False
            return self._items.popleft() if self._items else None

    def poke(self) -> None:
        """Let a take() that waits, or else the next one that would, return at once."""
        with self._changed:
            self._poked = True
            self._changed.notify()

    def close(self) -> None:
        """Take no more items; those that are in can still be taken. Closing twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    @property
    def finished(self) -> bool:
        """Closed, and all items taken."""
        with self._changed:
            return self._closed and not self._items

    @property
    def dropped(self) -> int:
        """Items that had to go so far."""
        return self._dropped

    def __len__(self) -> int:
        """Items that wait."""
        with self._changed:
            return len(self._items)
