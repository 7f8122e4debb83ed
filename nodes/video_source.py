"""The node of a video, a folder of pictures or a stream of the network as a live source."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..live2diff_core.errors import ConfigError
from . import host
from .sources import LiveSource

if TYPE_CHECKING:
    from ..live2diff_core.live.addresses import AddressRule
    from ..live2diff_core.live.source import Source

NO_FOLDER = "none"
FOLDER_RATE = 25  # pictures a second
REMOTE, PRIVATE = "Live2Diff.RemoteVideo", "Live2Diff.PrivateVideo"  # settings


class Live2DiffVideoSource:
    """A video that plays as a camera would."""

    CATEGORY = "Live2Diff/live"
    SEARCH_ALIASES = (
        "video file input",
        "rtsp",
        "ip camera",
        "image sequence",
        "stream input",
    )
    DESCRIPTION = (
        "Plays a video in real time, again and again if you like: to rehearse, or as a background. "
        "Connect a VIDEO (Load Video), or choose a folder of pictures, or write the address of a "
        "camera of the network. To translate every frame of a file, take Translate Video."
    )
    RETURN_TYPES = ("LIVE2DIFF_SOURCE",)
    RETURN_NAMES = ("source",)
    OUTPUT_TOOLTIPS = ("The video, for Live.",)
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """One of three: a video, a folder, an address."""
        return {
            "required": {
                "loop": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Begin again at the end; off, the stream ends there.",
                    },
                )
            },
            "optional": {
                "video": ("VIDEO", {"tooltip": "A video, from Load Video or Create Video."}),
                "folder": (
                    [NO_FOLDER, *host.input_folders()],
                    {
                        "default": NO_FOLDER,
                        "tooltip": "A folder below ComfyUI's input folder: its pictures by their "
                        f"names, {FOLDER_RATE} a second.",
                    },
                ),
                "url": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "An rtsp or http address. Off until Settings > Live2Diff allows "
                        "it.",
                    },
                ),
            },
        }

    @classmethod
    def IS_CHANGED(cls, url: str | None = "", **_: object) -> object:
        """The settings decide about addresses; one that is linked is None here."""
        return (url is None or bool(url.strip())) and (
            host.setting(REMOTE, False),
            host.setting(PRIVATE, False),
        )

    def give(
        self,
        loop: bool,
        video: Any = None,  # noqa: ANN401 - ComfyUI's VIDEO
        folder: str = NO_FOLDER,
        url: str = "",
    ) -> tuple[LiveSource]:
        """A source that plays. Raises ConfigError unless it is given one thing to play, SourceError
        for a video or folder that cannot be read.
        """
        chosen = video is not None, folder != NO_FOLDER, bool(url.strip())
        if sum(chosen) != 1:
            raise ConfigError(
                "connect a VIDEO, or choose a folder, or write a URL: exactly one of the three, "
                f"got {sum(chosen)}"
            )
        if url.strip():
            return (LiveSource("the network", partial(_play, _network(url.strip()), loop)),)
        if video is not None:
            return (LiveSource("the video", partial(_rehearse, _video(video), loop)),)
        return (LiveSource(f"folder {folder}", partial(_rehearse, _folder(folder), loop)),)


def _play(open_source: "Callable[[], Source]", loop: bool) -> "Source":
    from ..live2diff_core.live.folder import Loop

    return Loop(open_source) if loop else open_source()


def _rehearse(open_source: "Callable[[], Source]", loop: bool) -> "Source":
    """Play in real time."""
    from ..live2diff_core.live.folder import Paced

    return Paced(_play(open_source, loop))


def _checked(open_source: "Callable[[], Source]") -> "Callable[[], Source]":
    """Raise SourceError here rather than on the stream's thread."""
    open_source().close()
    return open_source


def _video(video: Any) -> "Callable[[], Source]":  # noqa: ANN401 - ComfyUI's VIDEO
    from .video import ImageSource, opened_file

    origin = host.video_origin(video)
    if origin is None:
        parts = video.get_components()
        return _checked(partial(ImageSource, parts.images, parts.frame_rate))
    if not isinstance(origin, Path):
        copy = host.temporary_path("")  # until ComfyUI starts again
        copy.write_bytes(origin.getbuffer())
        origin = copy
    return _checked(partial(opened_file, origin, *host.trim_window(video)))


def _folder(name: str) -> "Callable[[], Source]":
    from ..live2diff_core.live.folder import ImageFolder

    folder = host.input_folders().get(name)
    if folder is None:
        raise ConfigError(f"there is no folder {name} in ComfyUI's input folder")
    return _checked(partial(ImageFolder, folder, FOLDER_RATE))


def _network(url: str) -> "Callable[[], Source]":
    from ..live2diff_core.live.addresses import AddressRule

    rule = AddressRule(host.setting(REMOTE, False), host.setting(PRIVATE, False))
    if not (rule.allow_remote or rule.allow_private):
        raise ConfigError(
            "video from the network is switched off: Settings > Live2Diff > Sources allows remote "
            "addresses, or private ones"
        )
    return partial(_open_network, url, rule)


def _open_network(url: str, rule: "AddressRule") -> "Source":
    """A file of the network in real time; a camera, which has no length, keeps its own time."""
    from ..live2diff_core.live.folder import Paced
    from ..live2diff_core.live.network import NetworkVideo

    video = NetworkVideo(url, rule)
    return video if video.info.frames is None else Paced(video)
