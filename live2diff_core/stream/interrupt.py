"""How whoever runs a stream stops it between two calls of its network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Have `check` called before every network call of this thread; what it raises stops there."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def hear() -> None:
    """Let the check, if there is one, raise."""
    check = _check.get()
    if check is not None:
        check()
