"""What LIVE2DIFF_SOURCE carries: where the frames of a live stream come from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .inputs import SIZE_LIMITS

if TYPE_CHECKING:
    from ..live2diff_core.live.source import Source

FASTEST = 60  # frames a second
RATE = (
    "INT",
    {"default": 30, "min": 1, "max": FASTEST, "tooltip": "Frames a second, at most."},
)


@dataclass(frozen=True)
class Feed:
    """Frames that a client brings over the socket: the page that runs the graph, or a program.

    node: id of the source node. The rest is for the page: what it shows, which camera (as the
    browser calls it; empty: the first), frames a second, and whether left and right change places.
    """

    node: str | None
    shows: Literal["camera", "screen", "program"]
    device: str = ""
    rate: int = 30
    mirror: bool = False


@dataclass(frozen=True, eq=False)
class LiveSource:
    """Where frames come from: the server opens a source, or a client brings them.

    name: for people. open: called on the stream's own thread, and again when the source is lost.
    """

    name: str
    open: "Callable[[], Source] | None" = None
    feed: Feed | None = None


def picture_size(width: int, height: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Widgets for the size of a source's pictures, which the stream scales and cuts."""
    return {
        name: ("INT", {"default": side, **SIZE_LIMITS, "tooltip": tip})
        for name, side, tip in (
            ("width", width, "Width of its pictures in pixels."),
            ("height", height, "Height of its pictures in pixels."),
        )
    }
