"""A whole stream, from a source's first frame to its last."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from ..errors import SourceError
from ..frames import Frame
from .session import Session


def translate(
    session: Session, frames: Iterable[Frame], before: Callable[[Frame], None] | None = None
) -> Iterator[Frame]:
    """Translate a whole stream: n frames in, n frames out, as they are finished.

    before: called with each frame that is about to be pushed, to change parameters. When the source
    breaks, every frame that it gave comes out before its SourceError is raised.
    """
    breaks: list[SourceError] = []
    source = _until_break(frames, breaks)
    first = list(islice(source, session.spec.first_frames))
    if first:
        yield from session.warmup(first)
        for frame in source:
            if before is not None:
                before(frame)
            yield from session.push([frame])
        yield from session.flush()
    if breaks:
        raise breaks[0]


def _until_break(frames: Iterable[Frame], breaks: list[SourceError]) -> Iterator[Frame]:
    try:
        yield from frames
    except SourceError as error:
        breaks.append(error)
