"""The node of the screen of the computer that ComfyUI runs on."""

from typing import TYPE_CHECKING, Any

from .sources import RATE, LiveSource

if TYPE_CHECKING:
    from ..live2diff_core.live.source import Source

MONITORS = 16


class Live2DiffScreen:
    """What a monitor of the computer shows that ComfyUI runs on."""

    CATEGORY = "Live2Diff/live"
    SEARCH_ALIASES = (
        "screen capture",
        "desktop",
        "window capture",
        "monitor",
    )
    DESCRIPTION = (
        "The screen of the computer that ComfyUI runs on. For the screen of the computer that you "
        "sit at, take Browser Camera and choose screen."
    )
    RETURN_TYPES = ("LIVE2DIFF_SOURCE",)
    RETURN_NAMES = ("source",)
    OUTPUT_TOOLTIPS = ("The screen, for Live.",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Which monitor, and how often."""
        tip = "1 is the first monitor; 0 is all of them in one picture."
        monitor = ("INT", {"default": 1, "min": 0, "max": MONITORS, "tooltip": tip})
        return {"required": {"monitor": monitor, "rate": RATE}}

    def give(self, monitor: int, rate: int) -> tuple[LiveSource]:
        """A source that reads the screen."""

        def open_screen() -> "Source":
            from ..live2diff_core.live.screen import Screen

            return Screen(monitor, rate)

        return (LiveSource(f"screen {monitor}", open_screen),)
