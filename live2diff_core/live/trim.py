"""A part of a video file, from one time to another."""

from collections.abc import Generator
from dataclasses import replace
from itertools import chain
from os import PathLike

from ..errors import SourceError
from ..frames import Frame
from .source import OneReading, VideoFile

TICK = 1e-6  # seconds; timestamps are rounded


class TrimmedVideo(OneReading):
    """The frames of a file that are shown from `start` on, for `duration` seconds; 0: to the end.

    start: seconds on the file's own clock, as ComfyUI's VIDEO counts them. Frames are counted from
    0, their timestamps from the first one; the sound begins with it. What comes before is decoded,
    and nothing of it is kept. Raises SourceError where no frame is left, and as VideoFile does.
    """

    def __init__(self, path: str | PathLike[str], start: float, duration: float = 0.0) -> None:
        self._file = VideoFile(path)
        self._name = str(path)
        self._begin = start - self._file.info.start
        self._end = self._begin + duration if duration > 0 else float("inf")
        shown = self._shown()
        try:
            first = next(shown, None)
            if first is None:
                raise SourceError(
                    f"{path}: expected frames from {start:.2f} s on"
                    + (f", for {duration:.2f} s" if duration > 0 else "")
                    + ", got none: the video is shorter. Trim it elsewhere."
                )
        except SourceError:
            self._file.close()
            raise
        self._info = replace(
            self._file.info,
            frames=self._count(first),
            start=self._file.info.start + first.timestamp,
        )
        self._frames: Generator[Frame, None, None] = self._renumbered(first, shown)

    def close(self) -> None:
        """Free the decoder and the file."""
        super().close()
        self._frames.close()
        self._file.close()

    def _shown(self) -> Generator[Frame, None, None]:
        for frame in self._file:
            if frame.timestamp >= self._end - TICK:
                return
            if frame.timestamp >= self._begin - TICK:
                yield frame

    def _renumbered(
        self, first: Frame, rest: Generator[Frame, None, None]
    ) -> Generator[Frame, None, None]:
        for index, frame in enumerate(chain([first], rest)):
            yield Frame(frame.rgb, index, frame.timestamp - first.timestamp)

    def _count(self, first: Frame) -> int | None:
        """How many frames there are, about."""
        frames, rate = self._file.info.frames, self._file.info.rate
        if frames is None:
            return None
        end = min(self._end, float(frames / rate))
        return max(1, round((end - first.timestamp) * rate))
