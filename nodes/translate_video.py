"""The node that translates a video of any length."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import host
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
    from ..live2diff_core.live.source import Source
    from .hosted import HostedModel
    from .sessions import DirectedSession


class Live2DiffTranslateVideo(StreamNode):
    """Translates a video file to a video file, frame by frame."""

    CATEGORY = "Live2Diff/video"
    SEARCH_ALIASES = (
        "video to video",
        "vid2vid",
        "v2v",
        "style transfer",
        "stylize video",
        "restyle",
    )
    DESCRIPTION = (
        "Translates a whole video: the same rate, the same sound, a frame for a frame. It is "
        "written while it is made, so memory does not grow with its length. Wire it to Save Video."
    )
    RETURN_TYPES = ("VIDEO",)
    RETURN_NAMES = ("video",)
    OUTPUT_TOOLTIPS = ("The translated video, for Save Video.",)
    FUNCTION = "translate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What it takes."""
        return {
            "required": {
                "model": MODEL,
                "conditioning": ("CONDITIONING", {"tooltip": CONDITIONING_TIP, "lazy": True}),
                "video": ("VIDEO", {"tooltip": "The video, from Load Video or Create Video."}),
                **size_widgets(),
                **stream_widgets(),
            },
            "optional": optional_widgets(),
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def translate(
        self,
        model: "HostedModel",
        conditioning: list[Any],
        video: Any,  # noqa: ANN401 - ComfyUI's VIDEO
        unique_id: str | None = None,
        **settings: Any,  # noqa: ANN401 - widgets
    ) -> tuple[Any]:
        """Translate a VIDEO into a new file. Raises SourceError where it breaks."""
        from .conditioning import read_prompt
        from .sessions import DirectedSession
        from .video import new_file, open_video

        config = stream_config({"t_index": "", **settings}, model.computing)
        prompt = read_prompt(conditioning, model.model.text_channels)
        with (
            open_video(video) as source,
            model.running(config, caches=1 + (prompt.timeline is not None)),
            DirectedSession(model, config, prompt) as session,
            new_file(".mp4") as target,
        ):
            progress = host.Progress(source.info.frames or 0, unique_id)
            _write(session, source, target, progress)
        return (host.video_from_file(target, is_temporary=True),)


def _write(
    session: "DirectedSession", source: "Source", target: Path, progress: host.Progress
) -> None:
    from ..live2diff_core.live.sink import VideoFileSink
    from ..live2diff_core.stream.overlap import landed
    from ..live2diff_core.stream.translate import translate

    size = session.config.width, session.config.height
    with VideoFileSink(target, size, source.info.rate, source.info) as sink:
        for frame in landed(translate(session, source, session.before)):
            sink.write(frame)
            progress.step(frame.rgb)
