"""The node of frames that a program sends."""

from typing import Any

from .sources import Feed, LiveSource


class Live2DiffSocketSource:
    """Frames from a program of your own, over a WebSocket."""

    CATEGORY = "Live2Diff/live"
    SEARCH_ALIASES = (
        "websocket",
        "program input",
        "touchdesigner",
        "frames from a program",
    )
    DESCRIPTION = (
        "Frames that a program sends to ComfyUI's server, and gets back translated: "
        "docs/protocol.md says how, examples/comfyui_live.py does it. While Live runs, this node "
        "shows the address, the stream's id and its key."
    )
    RETURN_TYPES = ("LIVE2DIFF_SOURCE",)
    RETURN_NAMES = ("source",)
    OUTPUT_TOOLTIPS = ("What the program sends, for Live.",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """No inputs."""
        return {"required": {}, "hidden": {"unique_id": "UNIQUE_ID"}}

    def give(self, unique_id: str | None = None) -> tuple[LiveSource]:
        """A source that a program feeds."""
        return (LiveSource("a program", feed=Feed(unique_id, "program")),)
