"""The node of a camera of the computer that ComfyUI runs on."""

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from .sources import RATE, LiveSource, picture_size

if TYPE_CHECKING:
    from ..live2diff_core.live.source import Source

UNLISTED = ["0", "1", "2", "3"]  # where a list would have to open every camera


class Live2DiffServerCamera:
    """A camera that is plugged into the computer that ComfyUI runs on."""

    CATEGORY = "Live2Diff/live"
    SEARCH_ALIASES = (
        "webcam",
        "usb camera",
        "capture card",
        "camera",
    )
    DESCRIPTION = (
        "A camera or capture card of the computer that ComfyUI runs on: no browser in between, so "
        "less delay. If it is unplugged, the stream holds its picture and waits for its return."
    )
    RETURN_TYPES = ("LIVE2DIFF_SOURCE",)
    RETURN_NAMES = ("source",)
    OUTPUT_TOOLTIPS = ("The camera, for Live.",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The cameras that are there now."""
        tip = (
            "Which camera. Linux lists them by name (press R to look again); elsewhere they have "
            "numbers, 0 is the first."
        )
        return {
            "required": {
                "device": (camera_names(), {"tooltip": tip}),
                **picture_size(640, 480),
                "rate": RATE,
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, device: str | None = None) -> bool:
        """A camera that is not there yet may come; the stream waits for it."""
        return True

    def give(self, device: str, width: int, height: int, rate: int) -> tuple[LiveSource]:
        """A source that opens the camera."""

        def open_camera() -> "Source":
            from ..live2diff_core.live.camera import Camera

            return Camera(device, width, height, rate)

        return (LiveSource(f"camera {device}", open_camera),)


def camera_names() -> list[str]:
    """What to choose from: names, and paths of cameras whose names others have, too."""
    if not sys.platform.startswith("linux"):
        return UNLISTED
    from ..live2diff_core.live.camera import DEVICES, list_cameras

    cameras = list_cameras()
    count = Counter(name for _, name in cameras)
    paths = {index: str(DEVICES / f"video{index}") for index, _ in cameras}
    return [paths[i] if count[name] > 1 else name for i, name in cameras] or UNLISTED[:1]
