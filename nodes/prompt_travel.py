"""The node that writes prompts over time."""

from typing import Any

from torch import Tensor

from ..live2diff_core.errors import ConfigError
from .inputs import Widgets


class Live2DiffPromptTravel:
    """A timeline of prompts as a CONDITIONING."""

    CATEGORY = "Live2Diff/conditioning"
    SEARCH_ALIASES = (
        "prompt schedule",
        "prompt timeline",
        "keyframes",
        "prompt interpolation",
    )
    DESCRIPTION = (
        "Prompts over time: a stream travels from each one to the next. Two keys side by side are "
        "a cut. Other nodes than Live2Diff's see the first prompt."
    )
    RETURN_TYPES = ("CONDITIONING",)
    RETURN_NAMES = ("conditioning",)
    OUTPUT_TOOLTIPS = ("The schedule, for Warm-up, Sampler and Translate Video.",)
    FUNCTION = "schedule"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What it takes."""
        widgets: Widgets = {
            "clip": (
                "CLIP",
                {"tooltip": "The CLIP that belongs to the model; it reads the prompts."},
            ),
            "timeline": (
                "STRING",
                {
                    "default": "0: ink; 48: neon",
                    "multiline": True,
                    "tooltip": "frame: prompt, separated by ; or new lines: 0: ink; 48: neon. In "
                    "seconds, for Translate Video: 0s: ink; 4s: neon.",
                },
            ),
        }
        return {"required": widgets}

    @classmethod
    def VALIDATE_INPUTS(cls, timeline: str | None = None) -> bool | str:
        """What is wrong with the timeline, in words."""
        from ..live2diff_core.stream.timeline import parse_timeline

        try:
            if timeline is not None:
                parse_timeline(timeline)
        except ConfigError as error:
            return str(error)
        return True

    def schedule(self, clip: Any, timeline: str) -> tuple[list[Any]]:  # noqa: ANN401 - a CLIP
        """Encode each prompt once. Raises ConfigError for a timeline that cannot be read."""
        from ..live2diff_core.models.text import align_embeddings
        from ..live2diff_core.stream.timeline import EncodedTimeline, parse_timeline
        from .conditioning import TIMELINE, single_entry

        if clip is None:
            raise ConfigError("this checkpoint has no CLIP: connect one by Load CLIP")

        def encode(prompt: str) -> tuple[Tensor, dict[str, Any]]:
            return single_entry(clip.encode_from_tokens_scheduled(clip.tokenize(prompt)))

        parsed = parse_timeline(timeline)
        entries = {prompt: encode(prompt) for prompt in parsed.prompts}
        aligned = align_embeddings([entry[0] for entry in entries.values()], encode("")[0])
        encoded = EncodedTimeline(parsed, dict(zip(entries, aligned, strict=True)))
        settings = entries[parsed.keys[0][1]][1]
        return ([[encoded.at(0, 0.0), {**settings, TIMELINE: encoded}]],)
