"""Open sessions by key, for hosts where one graph is run again and again."""

import logging
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from ..errors import ConfigError
from .spec import StreamSession

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=StreamSession)


@dataclass(frozen=True, slots=True)
class OpenSession(Generic[S]):
    """A session of a registry and what it has done; frames are those since its opening."""

    key: Hashable
    session: S
    busy: bool
    frames_in: int
    frames_out: int
    state_bytes: int

    @property
    def in_flight(self) -> int:
        """Frames that went in and have not come out."""
        return self.frames_in - self.frames_out


@dataclass(slots=True, eq=False)
class _Entry(Generic[S]):
    """A place in the registry; session: None while it is being made."""

    key: Hashable
    owner: "weakref.ref[object] | None" = None
    session: S | None = None
    busy: bool = True
    doomed: bool = False  # to be closed as soon as it is not busy

    def belongs_to(self, owner: object) -> bool:
        return self.owner is not None and self.owner() is owner


class SessionRegistry(Generic[S]):
    """Open sessions by key, at most `limit` of them; the least recently used one makes room.

    A session belongs to an owner, such as the output of the node that warmed it up, and is closed
    when that is gone. Any thread may call; a session in use is never closed before it is left.
    limit: a number, or what gives it whenever a session is opened. orphaned: called with the key
    and session of each one whose owner is gone, on any thread, before it is closed; it must neither
    wait nor use the registry.
    """

    def __init__(
        self,
        limit: int | Callable[[], int],
        orphaned: Callable[[Hashable, S], None] = lambda *_: None,
    ) -> None:
        self._limit = limit if callable(limit) else lambda: limit
        self._orphaned = orphaned
        self._entries: dict[Hashable, _Entry[S]] = {}  # the least recently used one first
        self._lock = Lock()
        self._orphans: deque[_Entry[S]] = deque()

    @contextmanager
    def open(self, key: Hashable, owner: object, make: Callable[[], S]) -> Iterator[S]:
        """The owner's session under a key, for use by this thread until the context is left.

        The one that is there goes on if it belongs to this very owner; any other one under the key
        is closed, and `make` gives a new one. What breaks the context off closes the session.
        owner: anything that takes weak references; the context keeps it alive. Raises ConfigError
        while another context uses this key, and where all sessions that the limit allows are in
        use.
        """
        entry = self._enter(key, owner)
        completed = False
        try:
            if entry.session is None:
                entry.session = make()
            yield entry.session
            completed = True
        finally:
            self._leave(entry, completed)

    def close(self, key: Hashable) -> bool:
        """Close a session, or let it be closed when its context is left; whether there was one."""
        with self._locked():
            entry = self._entries.get(key)
            if entry is not None:
                self._end(entry)
            return entry is not None

    def close_all(self) -> int:
        """Close every session, those in use when their contexts are left; how many there were."""
        with self._locked():
            entries = list(self._entries.values())
            for entry in entries:
                self._end(entry)
            return len(entries)

    def adopt(self, old_key: Hashable, new_key: Hashable, owner: object) -> bool:
        """Hand the owner's session under one key over to another key, in place of another owner's.

        Nothing happens, and False is returned, where the owner has none there, where it has one
        under the new key already, or where one of the two is in use.
        """
        with self._locked():
            entry, other = self._entries.get(old_key), self._entries.get(new_key)
            if entry is None or entry.busy or not entry.belongs_to(owner):
                return False
            if other is not None:
                if other.busy or other.belongs_to(owner):
                    return False
                self._end(other)
            del self._entries[old_key]
            entry.key = new_key
            self._entries[new_key] = entry
            return True

    def snapshot(self) -> list[OpenSession[S]]:
        """The sessions as they are now, the least recently used one first. Waits for none."""
        with self._locked():
            found = [(e.key, e.session, e.busy) for e in self._entries.values()]
        return [
            _describe(key, session, busy) for key, session, busy in found if session is not None
        ]

    # ---- entries; the lock is held

    def _enter(self, key: Hashable, owner: object) -> _Entry[S]:
        """The owner's entry, in use from now on; a new one has no session yet."""
        with self._locked():
            entry = self._entries.get(key)
            if entry is not None and entry.busy:
                raise ConfigError(f"session {key} is in use: wait until it is left")
            if entry is not None and entry.belongs_to(owner):
                entry.busy = True
                return entry
            if entry is not None:
                self._end(entry)
            entry = _Entry(key)
            entry.owner = weakref.ref(owner, self._when_gone(entry))
            self._make_room(key)
            self._entries[key] = entry
            return entry

    def _make_room(self, key: Hashable) -> None:
        limit = self._limit()
        while len(self._entries) >= limit:
            idle = next((entry for entry in self._entries.values() if not entry.busy), None)
            if idle is None:
                raise ConfigError(
                    f"{len(self._entries)} sessions are in use and {limit} may be open: close one, "
                    "or raise the limit"
                )
            logger.warning(
                "session %s is closed before its stream ended, as %s is new and %d may be open: it "
                "begins again at its warm-up; raise the limit",
                idle.key,
                key,
                limit,
            )
            self._end(idle)

    def _leave(self, entry: _Entry[S], completed: bool) -> None:
        with self._locked():
            entry.busy = False
            if completed and not entry.doomed:
                self._entries[entry.key] = self._entries.pop(entry.key)  # the last one, now
            else:
                self._end(entry)

    def _end(self, entry: _Entry[S]) -> None:
        """Close what is not in use; `_leave` closes the rest."""
        entry.doomed = True
        if entry.busy or self._entries.get(entry.key) is not entry:
            return
        del self._entries[entry.key]
        session, entry.session, entry.owner = entry.session, None, None
        if session is not None:
            session.close()

    # ---- owners that are gone

    def _when_gone(self, entry: _Entry[S]) -> Callable[[object], None]:
        """What runs when an owner is collected: on any thread, even one that holds the lock."""

        def gone(_: object) -> None:
            self._orphans.append(entry)
            self._bury()

        return gone

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        finally:
            self._bury()

    def _bury(self) -> None:
        """Close what has no owner any more; if the lock is held, its holder does so afterwards."""
        while self._orphans and self._lock.acquire(blocking=False):
            try:
                while self._orphans:
                    entry = self._orphans.popleft()
                    if entry.session is not None:
                        self._orphaned(entry.key, entry.session)
                    self._end(entry)
            finally:
                self._lock.release()


def _describe(key: Hashable, session: S, busy: bool) -> OpenSession[S]:
    stats = session.stats
    return OpenSession(
        key, session, busy, stats.frames_in, stats.frames_out, session.spec.state_bytes
    )
