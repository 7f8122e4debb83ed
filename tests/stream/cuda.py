"""What stand-ins for torch.cuda have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Current:
    """The stream that work goes to; begins as the caller's."""

    def __init__(self, caller: Any) -> None:
        self.current = caller

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before
