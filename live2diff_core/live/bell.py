"""What lets a thread wake those who wait on asyncio loops."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TypeAlias

Rung: TypeAlias = "asyncio.Future[None]"


class Bell:
    """Rings for whoever listens then, on any loop; any thread may ring it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._listeners: set[tuple[asyncio.AbstractEventLoop, Rung]] = set()

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def ring(self) -> None:
        """Wake everybody who listens."""
        with self._lock:
            listeners = tuple(self._listeners)
        for loop, rung in listeners:
            with suppress(RuntimeError):  # a loop that was closed with its listener
                loop.call_soon_threadsafe(_finish, rung)

    @contextmanager
    def listening(self) -> Iterator[Rung]:
        """A future that is done at the next ring. Look at what may have happened before you wait:
        what happens from now on rings.
        """
        loop = asyncio.get_running_loop()
        listener = loop, loop.create_future()
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener[1]
        finally:
            with self._lock:
                self._listeners.discard(listener)


def _finish(rung: Rung) -> None:
    if not rung.done():
        rung.set_result(None)
