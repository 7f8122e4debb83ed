"""The node that begins a stream."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..live2diff_core.errors import FrameSizeError
from . import host
from .images import to_frames, to_images
from .inputs import (
    CONDITIONING_TIP,
    MODEL,
    StreamNode,
    optional_widgets,
    size_widgets,
    stream_config,
    stream_widgets,
)

if TYPE_CHECKING:
    from .hosted import HostedModel
    from .sessions import Stream

FRAMES = 8  # sinks


class Live2DiffWarmup(StreamNode):
    """Opens a stream with its first frames."""

    CATEGORY = "Live2Diff/stream"
    SEARCH_ALIASES = (
        "start stream",
        "first frames",
        "kv cache",
    )
    DESCRIPTION = (
        "Begins a stream: translates the first 8 frames together and keeps them as what every "
        "later frame looks back at. The sampler goes on from there."
    )
    RETURN_TYPES = ("LIVE2DIFF_STREAM", "IMAGE")
    RETURN_NAMES = ("stream", "images")
    OUTPUT_TOOLTIPS = ("The stream, for one or more samplers.", "The 8 frames, translated.")
    FUNCTION = "warm_up"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Model and prompt are asked for when the frames are known to be enough."""
        tip = "8 frames or more; the first 8 are used. What follows belongs to the sampler."
        return {
            "required": {
                "model": MODEL,
                "conditioning": ("CONDITIONING", {"tooltip": CONDITIONING_TIP, "lazy": True}),
                "frames": ("IMAGE", {"tooltip": tip}),
                **size_widgets(),
                **stream_widgets(),
            },
            "optional": optional_widgets(),
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def check_lazy_status(self, frames: Tensor | None = None, **given: Any) -> list[str]:  # noqa: ANN401
        """Raise FrameSizeError for too few frames, ConfigError for widgets that cannot be."""
        if problem := _too_few(frames):
            raise FrameSizeError(problem)
        return super().check_lazy_status(**given)

    def warm_up(
        self,
        model: "HostedModel",
        conditioning: list[Any],
        frames: Tensor,
        unique_id: str | None = None,
        **settings: Any,  # noqa: ANN401 - widgets
    ) -> "tuple[Stream, Tensor]":
        """Translate the first frames, (n, h, w, 3), and leave a session for the sampler."""
        from .conditioning import read_prompt
        from .registry import SESSIONS, tell_if_dropped
        from .sessions import Stream

        if problem := _too_few(frames):
            raise FrameSizeError(problem)
        config = stream_config({"t_index": "", **settings}, model.computing)
        prompt = read_prompt(conditioning, model.model.text_channels)
        first = tuple(to_frames(frames[:FRAMES].clone()))  # of the whole batch nothing is kept
        stream = Stream(model, config, prompt, first, (host.client_id(), unique_id))
        tell_if_dropped(stream)
        progress, done = host.Progress(FRAMES, unique_id), []
        with SESSIONS.open(stream.key, stream, lambda: stream.warm(done)):
            progress.step(done[-1].rgb, FRAMES)
        return stream, to_images(done)


def _too_few(frames: Tensor | None) -> str | None:
    if frames is None or len(frames) >= FRAMES:
        return None
    return (
        f"a warm-up takes {FRAMES} frames or more, got {len(frames)}: give it the first {FRAMES} "
        "frames of the stream (Get Video Components, Image From Batch), or repeat a picture "
        f"{FRAMES} times (Repeat Image Batch)"
    )
