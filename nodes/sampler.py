"""The node that translates images one after the other."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from . import host
from .images import ImageBatch, to_frames
from .inputs import CONDITIONING_TIP

if TYPE_CHECKING:
    from ..live2diff_core.frames import Frame
    from .conditioning import Prompt
    from .sessions import DirectedSession, Stream


class Live2DiffSampler:
    """Pushes images through a stream and keeps its cache from run to run."""

    CATEGORY = "Live2Diff/stream"
    SEARCH_ALIASES = (
        "stream sampler",
        "frame by frame",
        "video to video",
        "per frame",
    )
    DESCRIPTION = (
        "Translates the next images of a stream. It remembers where it was: each run goes on from "
        "the one before, until the warm-up changes or flush ends the stream."
    )
    RETURN_TYPES = ("IMAGE", "INT")
    RETURN_NAMES = ("images", "in_flight")
    OUTPUT_TOOLTIPS = (
        "The frames that are finished, in order. As long as there is none, what hangs here waits.",
        "Frames that went in and come out with later images, or with flush.",
    )
    FUNCTION = "sample"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What it takes."""
        return {
            "required": {
                "stream": ("LIVE2DIFF_STREAM", {"tooltip": "The stream, from Warm-up."}),
                "images": ("IMAGE", {"tooltip": "The next frames of the stream: one or many."}),
                "flush": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "Give the frames in flight, too, and end the stream: the next "
                        "run begins after the warm-up again. On for whole clips, off for a live "
                        "input.",
                    },
                ),
            },
            "optional": {
                "conditioning": (
                    "CONDITIONING",
                    {
                        "tooltip": "Another prompt than the warm-up's, at once: the last frames "
                        f"are warmed up anew with it. {CONDITIONING_TIP}"
                    },
                )
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, **_: object) -> str | None:
        """ComfyUI's cache knows no clients: what one got is not another's."""
        return host.client_id()

    def sample(
        self,
        stream: "Stream",
        images: Tensor,
        flush: bool,
        conditioning: list[Any] | None = None,
        unique_id: str | None = None,
    ) -> tuple[Any, int]:
        """Translate images (n, h, w, 3); gives those that are finished, and the count in flight.

        A run that breaks off ends the session.
        """
        from .registry import SESSIONS, end_unnamed

        prompt = _prompt(stream, conditioning)
        if not flush:
            host.check_caching()
        key = (host.client_id(), unique_id)
        SESSIONS.adopt(stream.key, key, stream)
        with (
            SESSIONS.open(key, stream, stream.warm) as session,
            stream.hosted.running(stream.config, caches=int(session.reprimes_for(prompt))),
        ):
            session.take(host.queue_of(key[0]).running_id)
            session.direct(prompt)
            done = ImageBatch(session.in_flight + len(images), session.config)
            for frame in _finished(session, images, flush, host.Progress(len(images), unique_id)):
                done.add(frame)
            in_flight = session.in_flight
        if flush:
            SESSIONS.close(key)
        end_unnamed(key[0])
        return done.images if done.count else host.nothing_yet(), in_flight


def _prompt(stream: "Stream", conditioning: list[Any] | None) -> "Prompt":
    """What the images are translated with. Raises PromptError, ConfigError for seconds."""
    from .conditioning import read_prompt
    from .sessions import refuse_seconds

    if conditioning is None:
        return stream.prompt
    prompt = read_prompt(conditioning, stream.hosted.model.text_channels)
    refuse_seconds(prompt)
    return prompt


def _finished(
    session: "DirectedSession", images: Tensor, flush: bool, progress: host.Progress
) -> "Iterator[Frame]":
    for frame in to_frames(images, session.next_index):
        session.before(frame)
        done = session.push([frame])
        progress.step(done[-1].rgb if done else None)
        yield from done
    if flush:
        yield from session.flush()
