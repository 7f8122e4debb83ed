"""The node that measures a translation."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..live2diff_core.errors import ConfigError
from . import host

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ..live2diff_core.live.source import Source
    from ..live2diff_core.metrics.charts import Charts
    from ..live2diff_core.metrics.figures import Report

INPUT, OUTPUT = "input", "output"
MAX_RATE = 240


class Live2DiffMetrics:
    """Flicker, drift and structure of a translation against its input."""

    CATEGORY = "Live2Diff/video"
    SEARCH_ALIASES = (
        "flicker",
        "consistency",
        "measure video",
        "warp error",
    )
    DESCRIPTION = (
        "Measures a translated video against its input: flicker, drift, cuts, kept structure. "
        "Gives a table, the figures as JSON, and a picture of one column of pixels over time. "
        "Needs no model."
    )
    RETURN_TYPES = ("STRING", "STRING", "IMAGE")
    RETURN_NAMES = ("table", "json", "picture")
    OUTPUT_TOOLTIPS = (
        "Every figure with its unit and which way is better, and what was left out and why.",
        "The same figures for a program.",
        "One column of pixels over time, input above output, and the warp error of each frame.",
    )
    FUNCTION = "measure"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What it takes."""
        return {
            "required": {
                "fit": (
                    ["crop", "stretch"],
                    {
                        "default": "crop",
                        "tooltip": "For an input of another shape than the output: crop cuts its "
                        "longer side evenly, stretch distorts it. As it was translated.",
                    },
                ),
                "rate": (
                    "FLOAT",
                    {
                        "default": 25.0,
                        "min": 1.0,
                        "max": float(MAX_RATE),
                        "step": 0.01,
                        "tooltip": "Frames a second of images; a video says so itself.",
                    },
                ),
                "column": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "Which column of pixels the picture shows: 0 is the left edge, "
                        "1 the right one.",
                    },
                ),
            },
            "optional": {
                "source": ("IMAGE", {"tooltip": "The images that were translated."}),
                "source_video": ("VIDEO", {"tooltip": "Or the video that was translated."}),
                "output": ("IMAGE", {"tooltip": "The translated images, as many."}),
                "output_video": ("VIDEO", {"tooltip": "Or the translated video."}),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def measure(
        self,
        fit: str,
        rate: float,
        column: float,
        unique_id: str | None = None,
        **videos: Any,  # noqa: ANN401 - IMAGE or VIDEO
    ) -> dict[str, Any]:
        """Measure; raises ConfigError for inputs that are missing, SourceError for lengths that
        differ.
        """
        from ..live2diff_core.metrics.table import markdown

        with opened(videos, "source", rate) as source, opened(videos, "output", rate) as output:
            report, charts = _measure((source, output), fit, column, unique_id)
        table = markdown({OUTPUT: report})
        figures = json.dumps(report.as_dict(), indent=2, allow_nan=False)
        return {"ui": {"text": [table]}, "result": (table, figures, _picture(charts))}


@contextmanager
def opened(videos: dict[str, Any], name: str, rate: float) -> "Iterator[Source]":
    """Frames of the IMAGE or of the VIDEO under a name. Raises ConfigError for none or both."""
    from .video import ImageSource, open_video

    images, video = videos.get(name), videos.get(f"{name}_video")
    if (images is None) == (video is None):
        raise ConfigError(f"connect either {name} (images) or {name}_video")
    if images is not None:
        if not images.isfinite().all():
            raise ConfigError(f"{name} has pictures with NaN or infinity: look at what made them")
        yield ImageSource(images, Fraction(rate).limit_denominator(1001))
        return
    with open_video(video) as file:
        yield file


def _measure(
    videos: "tuple[Source, Source]", fit: str, column: float, node: str | None
) -> "tuple[Report, Charts]":
    from ..live2diff_core.metrics.charts import Charts
    from ..live2diff_core.metrics.meter import Meter, MeterConfig, side_by_side
    from ..live2diff_core.metrics.structure import DepthMaps
    from ..live2diff_core.models.depth import StructureMap

    source, output = videos
    depth = DepthMaps(StructureMap(), torch.device("cpu"))
    meter = Meter(MeterConfig(float(source.info.rate), fit), depth=depth)
    charts = Charts((INPUT, OUTPUT), round(column * (output.info.width - 1)))
    progress = host.Progress(source.info.frames or 0, node)
    pixels = [(frame.rgb for frame in video) for video in videos]
    for frames in side_by_side(pixels, ("the source", "the output")):
        charts.add(meter.update(*frames))
        progress.step()
    return meter.report(), charts


def _picture(charts: "Charts") -> Any:  # noqa: ANN401 - an IMAGE, or ComfyUI's marker
    """An IMAGE of both charts; where matplotlib is missing, what hangs on it does not run."""
    try:
        drawn = [charts.draw_slices(), charts.draw_errors()]
    except ConfigError as error:
        logger.warning("%s", error)
        return host.nothing_yet()
    rgb: Tensor = torch.cat(drawn, dim=1)
    return rgb.movedim(0, -1)[None].float() / 255
