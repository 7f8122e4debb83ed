"""The node of the test pattern."""

from typing import TYPE_CHECKING, Any

from .sources import RATE, LiveSource, picture_size

if TYPE_CHECKING:
    from ..live2diff_core.live.source import Source


class Live2DiffTestPattern:
    """Shapes that move, with the number of each frame burnt in."""

    CATEGORY = "Live2Diff/live"
    SEARCH_ALIASES = (
        "test card",
        "test source",
        "calibration",
    )
    DESCRIPTION = (
        "A moving picture without a camera, to see that all works before the show. Each frame "
        "carries its number, for people in digits and for programs in bars."
    )
    RETURN_TYPES = ("LIVE2DIFF_SOURCE",)
    RETURN_NAMES = ("source",)
    OUTPUT_TOOLTIPS = ("The pattern, for Live.",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Size and rate."""
        return {"required": {**picture_size(512, 512), "rate": RATE}}

    def give(self, width: int, height: int, rate: int) -> tuple[LiveSource]:
        """A source that paints."""

        def open_pattern() -> "Source":
            from ..live2diff_core.live.pattern import TestPattern

            return TestPattern(width, height, rate, paced=True)

        return (LiveSource("the test pattern", open_pattern),)
