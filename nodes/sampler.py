"""The node that translates images one after the other."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from . import host
from .images import to_frames, to_images
from .inputs import CONDITIONING_TIP

if TYPE_CHECKING:
    from ..live2diff_core.frames import Frame
    from .sessions import DirectedSession, Stream


class Live2DiffSampler:
    """Pushes images through a stream and keeps its cache from run to run."""

    CATEGORY = "Live2Diff/stream"
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
        from .conditioning import read_prompt
        from .registry import SESSIONS

        prompt, channels = stream.prompt, stream.hosted.model.text_channels
        if conditioning is not None:
            prompt = read_prompt(conditioning, channels)
            stream.check(prompt)
        key, progress = (host.client_id(), unique_id), host.Progress(len(images), unique_id)
        SESSIONS.adopt(stream.key, key, stream)
        with (
            SESSIONS.open(key, stream, stream.warm) as session,
            stream.hosted.running(stream.config, fresh=False),
        ):
            session.direct(prompt)
            done = _push(session, images, progress)
            done += session.flush() if flush else []
            in_flight = session.in_flight
        if flush:
            SESSIONS.close(key)
        return to_images(done) if done else host.nothing_yet(), in_flight


def _push(session: "DirectedSession", images: Tensor, progress: host.Progress) -> "list[Frame]":
    done: list[Frame] = []
    for frame in to_frames(images, session.stats.frames_in):
        session.before(frame)
        done += session.push([frame])
        progress.step(done[-1].rgb if done else None)
    return done
