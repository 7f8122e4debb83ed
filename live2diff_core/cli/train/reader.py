"""Parts of video files, for training."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import dropwhile
from pathlib import Path

import av
from av.error import FFmpegError

from ...frames import Frame
from ...live.source import DecodedVideo, VideoFile, open_input
from ...training.footage import Length

EARLY = 1e-3  # seconds: what a file's clock rounds away


class FileReader:
    """Reads video files as every command does, from anywhere in them."""

    def length(self, path: Path) -> Length | None:
        """What a file says of itself. Raises SourceError for one that gives no frame."""
        with VideoFile(path) as video:
            frames = video.info.frames
            return None if frames is None else Length(frames, video.info.rate)

    @contextmanager
    def open(self, path: Path, start: float) -> Iterator[Iterator[Frame]]:
        """Frames from a second of the file on. Raises SourceError, also while they are read."""
        container = open_input(path)
        begin = (container.start_time or 0) / av.time_base + start
        # To the key frame before it. Where that cannot be done the frames come from the beginning,
        # and those that are too early are dropped all the same.
        with suppress(FFmpegError):
            container.seek(int(begin * av.time_base))
        with DecodedVideo(container, str(path)) as video:
            first = video.info.start
            yield dropwhile(lambda frame: first + frame.timestamp < begin - EARLY, video)
