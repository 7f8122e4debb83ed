"""Folders of ComfyUI, and its VIDEO."""

import io
import logging
import tempfile
import weakref
from pathlib import Path
from typing import Any

from torch import Tensor

from ...live2diff_core.errors import SinkError
from ...live2diff_core.frames import to_bytes
from .modules import folder_paths, inside

logger = logging.getLogger(__name__)

SUFFIXES = {".safetensors", ".ckpt", ".pt", ".pth", ".bin"}
DURATION_SLACK = 1e-3  # seconds
FOLDERS = ("live2diff", "animatediff_models", "depth")  # below models/, made known to ComfyUI here


def register_folders() -> None:
    """Make our folders below models/ known to ComfyUI."""
    if paths := folder_paths():
        for name in FOLDERS:
            paths.add_model_folder_path(name, str(Path(paths.models_dir) / name))


def model_folders(name: str) -> list[Path]:
    """Where models of a kind lie; outside ComfyUI in `models`, as for the command."""
    if paths := folder_paths():
        return [Path(folder) for folder in paths.get_folder_paths(name)]
    from ...live2diff_core.weights.spec import models_folder

    return [models_folder() / name]


def lora_files() -> dict[str, Path]:
    """LoRAs in ComfyUI's model folders by their names; none outside."""
    paths = folder_paths()
    names = paths.get_filename_list("loras") if paths else []
    return {name: Path(paths.get_full_path_or_raise("loras", name)) for name in names}


def input_folders() -> dict[str, Path]:
    """Folders below ComfyUI's input folder by their names; none outside."""
    paths = folder_paths()
    names = paths.get_input_subfolders() if paths else []
    return {name: Path(paths.get_input_directory(), name) for name in names}


def output_path(prefix: str, suffix: str) -> Path:
    """A new file in ComfyUI's output folder, a temporary one outside. Raises SinkError for a prefix
    that leads out of that folder.
    """
    paths = folder_paths()
    if paths is None:
        return temporary_path(suffix)
    top = Path(paths.get_output_directory()).resolve()
    if not (top / prefix).resolve().is_relative_to(top):
        raise SinkError(f"{prefix} leads out of the output folder: choose a name below it")
    folder, name, count, *_ = paths.get_save_image_path(prefix, str(top))
    return Path(folder) / f"{name}_{count:05}_{suffix}"


def output_place(path: Path) -> dict[str, str]:
    """A file of the output folder as ComfyUI tells its page of it."""
    paths, folder = folder_paths(), ""
    if paths is not None:
        top = Path(paths.get_output_directory()).resolve()
        folder = path.parent.relative_to(top).as_posix().removeprefix(".")
    return {"filename": path.name, "subfolder": folder, "type": "output"}


def preview_picture(pixels: Tensor) -> dict[str, str]:
    """Write a picture, (h, w, 3) in [0, 1], to the temporary folder; as ComfyUI tells its page."""
    from PIL import Image

    path = temporary_path(".png")
    Image.fromarray(to_bytes(pixels).cpu().numpy()).save(path, compress_level=1)
    return {"filename": path.name, "subfolder": "", "type": "temp"}


def user_folder() -> Path | None:
    """What ComfyUI keeps from start to start; its page sees only folders in it. None outside."""
    paths = folder_paths()
    return paths and Path(paths.get_user_directory())


def video_origin(video: Any) -> Path | io.BytesIO | None:  # noqa: ANN401 - ComfyUI's VIDEO
    """The file, on disk or in memory, that a VIDEO is a part of in time and is unchanged besides;
    None where there is none.

    Outside ComfyUI a path is a VIDEO.
    """
    if isinstance(video, str | Path):
        return Path(video)
    from comfy_api.input_impl import VideoFromFile

    if type(video) is not VideoFromFile:  # another class may give other pictures
        return None
    source = video.get_stream_source()
    if _is_edited(video, VideoFromFile(source)):
        return None
    return Path(source) if isinstance(source, str) else source


def _is_edited(video: Any, whole: Any) -> bool:  # noqa: ANN401 - ComfyUI's VIDEOs
    """Whether a VIDEO is its file cropped, or trimmed by a ComfyUI that does not say how."""
    if tuple(video.get_dimensions()) != tuple(whole.get_dimensions()):
        return True
    if hasattr(video, "get_active_trim_window") or not hasattr(video, "get_duration"):
        return False
    return bool(abs(video.get_duration() - whole.get_duration()) > DURATION_SLACK)


def trim_window(video: Any) -> tuple[float, float]:  # noqa: ANN401 - ComfyUI's VIDEO
    """Where in its file a VIDEO begins, and how long it lasts, in seconds; 0: to the end."""
    window = getattr(video, "get_active_trim_window", None)
    start, duration = (0.0, 0.0) if window is None else window()
    return float(start), float(duration)


def temporary_path(suffix: str) -> Path:
    """A new file that ComfyUI removes when it starts again."""
    folder = None
    if paths := folder_paths():
        folder = paths.get_temp_directory()
        Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        prefix="live2diff_", suffix=suffix, dir=folder, delete=False
    ) as file:
        return Path(file.name)


def video_from_file(path: Path, is_temporary: bool = False) -> Any:  # noqa: ANN401 - VIDEO
    """A VIDEO around a file; outside ComfyUI the path itself.

    is_temporary: the file goes when nobody holds the VIDEO any more.
    """
    if not inside():
        return path
    from comfy_api.input_impl import VideoFromFile

    video = VideoFromFile(str(path))
    if is_temporary:
        weakref.finalize(video, _remove, path)
    return video


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # on Windows somebody may still read it
        logger.info("%s stays until ComfyUI starts again: %s", path, error)
