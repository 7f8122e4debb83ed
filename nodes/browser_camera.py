"""The node of the camera of the browser that the graph is run from."""

from typing import Any, Literal

from .sources import RATE, Feed, LiveSource


class Live2DiffBrowserCamera:
    """The camera, or the screen, of the computer that the browser runs on."""

    CATEGORY = "Live2Diff/live"
    SEARCH_ALIASES = (
        "webcam",
        "camera",
        "screen share",
        "realtime input",
    )
    DESCRIPTION = (
        "The camera of the computer that you sit at, or its screen, even when ComfyUI runs far "
        "away. The browser asks for permission when the graph runs. Browsers give a camera to "
        "pages of https or localhost only."
    )
    RETURN_TYPES = ("LIVE2DIFF_SOURCE",)
    RETURN_NAMES = ("source",)
    OUTPUT_TOOLTIPS = ("The camera, for Live.",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the page is told."""
        return {
            "required": {
                "shows": (
                    ["camera", "screen"],
                    {"tooltip": "camera: a camera. screen: a window or screen that you choose."},
                ),
                "device": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "Which camera, by the name that the list shows; empty takes the "
                        "browser's first.",
                    },
                ),
                "rate": RATE,
                "mirror": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Left and right change places, as in a mirror."},
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def give(
        self,
        shows: Literal["camera", "screen"],
        device: str,
        rate: int,
        mirror: bool,
        unique_id: str | None = None,
    ) -> tuple[LiveSource]:
        """A source that the page feeds."""
        feed = Feed(unique_id, shows, device, rate, mirror)
        return (LiveSource(f"the browser's {shows}", feed=feed),)
