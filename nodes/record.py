"""The node that records a live stream."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from ..live2diff_core.live.sink import Sink

RATE = 30  # frames a second, nominal: each frame has its own time
FORMATS = ["mp4", "webm", "mkv"]
WORST = 51  # on the scale of libx264


@dataclass(frozen=True)
class Recording:
    """What LIVE2DIFF_RECORD carries: how a live stream is to be recorded.

    prefix: of the file below ComfyUI's output folder. quality: 0 (lossless) to 51.
    """

    prefix: str
    format: str
    quality: int

    def open(self, size: tuple[int, int]) -> "tuple[Sink, Path]":
        """A sink that costs the stream nothing, and its new file. size: (width, height).

        Raises SinkError.
        """
        from ..live2diff_core.live.recorder import Recorder
        from ..live2diff_core.live.sink import VideoFileSink

        path = host.output_path(self.prefix, f".{self.format}")
        return Recorder(VideoFileSink(path, size, RATE, quality=self.quality)), path


class Live2DiffRecord:
    """Records what Live shows."""

    CATEGORY = "Live2Diff/live"
    SEARCH_ALIASES = (
        "record stream",
        "save video",
        "capture",
        "mp4",
    )
    DESCRIPTION = (
        "Records a live stream to a video in ComfyUI's output folder while it runs. It never slows "
        "the stream: where the disk is too slow, frames are left out. Every run makes a new file, "
        "and one that breaks off can be played up to there."
    )
    RETURN_TYPES = ("LIVE2DIFF_RECORD",)
    RETURN_NAMES = ("record",)
    OUTPUT_TOOLTIPS = ("For the input record of Live.",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Where to, and how."""
        return {
            "required": {
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "live2diff/live",
                        "tooltip": "Beginning of the file's name, below ComfyUI's output folder.",
                    },
                ),
                "format": (
                    FORMATS,
                    {
                        "tooltip": "mp4: H.264, plays everywhere. webm: VP9, for the web. mkv: "
                        "H.264; memory does not grow, for whole nights."
                    },
                ),
                "quality": (
                    "INT",
                    {
                        "default": 18,
                        "min": 0,
                        "max": WORST,
                        "tooltip": "18 looks lossless, 28 is small. 0 is lossless in mp4 and mkv, "
                        "large, and not for every player.",
                    },
                ),
            }
        }

    def give(self, filename_prefix: str, format: str, quality: int) -> tuple[Recording]:
        """How to record."""
        return (Recording(filename_prefix, format, quality),)
