"""Recording that costs the stream nothing: a thread and a bounded queue before a sink."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock, Thread

from ..errors import SinkError
from ..frames import Frame
from .failover import caught, describe
from .latest import Latest
from .sink import Sink


class Recorder(Sink):
    """Writes to a sink, such as a VideoFileSink, on a thread of its own; write() never waits.

    The first frame is at 0 seconds, all others as long after it as their timestamps say. frames: so
    many may wait to be written, then the oldest are dropped. When the sink fails it is closed at
    once, so that what it holds can be played, and the next write() or close() raises SinkError.
    """

    def __init__(self, sink: Sink, frames: int = 30) -> None:
        self._sink, self._lock = sink, Lock()
        self._queue: Latest[Frame] = Latest(frames)
        self._start: float | None = None
        self._written = 0
        self._errors: list[Exception] = []
        self._thread = Thread(target=self._work, name="live2diff recorder", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames that the sink was too slow for."""
        return self._queue.dropped

    @property
    def written(self) -> int:
        """Frames that the sink took."""
        return self._written

    def write(self, frame: Frame) -> None:
        """Leave a frame to be written. Raises SinkError where the sink has failed meanwhile."""
        self._raise()
        if self._queue.closed:
            raise SinkError("expected an open recorder, this one has been closed; open another.")
        self._queue.put(frame)

    def close(self) -> None:
        """Write what waits and close the sink. Raises SinkError where it failed, once."""
        self._queue.close()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        with self._lock:
            failed, self._errors = self._errors, []
        if failed:
            raise SinkError(f"the recording ended: {describe(failed[0])}") from failed[0]

    def _work(self) -> None:
        with self._noted():
            while not self._queue.finished:
                frame = self._queue.take()
                if frame is not None:
                    self._write(frame)
        self._queue.close()
        with self._noted():
            self._sink.close()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        errors: list[Exception] = []
        with caught(errors):
            yield
        with self._lock:
            self._errors += errors

    def _write(self, frame: Frame) -> None:
        if self._start is None:
            self._start = frame.timestamp
        self._sink.write(replace(frame, timestamp=frame.timestamp - self._start))
        self._written += 1
