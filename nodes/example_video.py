"""The node of the example clip."""

from pathlib import Path
from typing import Any

from . import host

CLIP = Path(__file__).resolve().parent.parent / "assets" / "example.mp4"


class Live2DiffExampleVideo:
    """The clip that comes with the pack."""

    CATEGORY = "Live2Diff/video"
    SEARCH_ALIASES = (
        "sample clip",
        "test video",
        "demo video",
    )
    DESCRIPTION = (
        "A short clip to try things with: four seconds of Big Buck Bunny (Blender Foundation, "
        "CC BY 3.0)."
    )
    RETURN_TYPES = ("VIDEO",)
    RETURN_NAMES = ("video",)
    OUTPUT_TOOLTIPS = ("The clip, for Translate Video, Video Source or Get Video Components.",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """No inputs."""
        return {"required": {}}

    def give(self) -> tuple[Any]:
        """The clip as a VIDEO."""
        return (host.video_from_file(CLIP),)
