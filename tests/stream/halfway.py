"""Sessions before and during a change that is spread over frames."""

from live2diff_core.config import AttentionWindow, StreamConfig
from live2diff_core.frames import Frame
from live2diff_core.stream.session import Session
from tests.tiny import (
    make_frames,
    open_session,
    reference,
    steps_of,
    stream_config,
)

SINKS = 3
BEFORE = 3  # streamed frames before the change
HALF = SINKS + BEFORE
FRAMES = make_frames(HALF + 9)
STEPS = [1, 2, 3, 4]


def config(steps: int = 2, **settings) -> StreamConfig:
    return stream_config(steps, **({"window": AttentionWindow(SINKS, 3)} | settings))


def halfway(settings: StreamConfig) -> tuple[Session, list[Frame]]:
    """A session before a change, and what it gave so far."""
    session = open_session(settings)
    out = session.warmup(FRAMES[:SINKS])
    return session, out + session.push(FRAMES[SINKS:HALF])


def undisturbed(settings: StreamConfig) -> list[Frame]:
    return list(reference(len(FRAMES), settings))


def fresh(session: Session, begun: int, first: int, prompt: str = "ink") -> list[Frame]:
    """From frame number `first` on, what a session gives that is opened as this one is now and
    warmed up with the inputs before number `begun`.
    """
    opened = open_session(session.config, prompt)
    opened.warmup(FRAMES[begun - SINKS : begun])
    return opened.push(FRAMES[first:]) + opened.flush()


def indices(frames: list[Frame]) -> list[int]:
    return [frame.index for frame in frames]


def finish(session: Session, first: int = HALF) -> list[Frame]:
    """The rest, frame by frame."""
    out = [done for frame in FRAMES[first:] for done in session.push([frame])]
    return out + session.flush()


def begun(pushed: int, steps: int = 3, to: int = 3) -> tuple[Session, list[Frame]]:
    """A session `pushed` frames into a change, and what it gave so far."""
    session, out = halfway(config(steps))
    session.begin_update(prompt="neon", steps=steps_of(to))
    return session, out + session.push(FRAMES[HALF : HALF + pushed])
