"""All that the pack takes from ComfyUI; nothing else here imports its modules.

Every function works outside ComfyUI, too: a node is then plain Python on a CPU, without progress
bar and without memory rules, as tests and scripts use it.
"""

import io
import json
import logging
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..live2diff_core.errors import ConfigError, MemoryBudgetError, SinkError
from ..live2diff_core.frames import to_bytes, to_unit_range

logger = logging.getLogger(__name__)

SUFFIXES = {".safetensors", ".ckpt", ".pt", ".pth", ".bin"}
FOLDERS = ("live2diff", "animatediff_models", "depth")  # below models/, made known to ComfyUI here
PREVIEW_SIDE = 384  # pixels
PREVIEW_SECONDS = 1 / 30  # between two previews: ComfyUI keeps all that a slow page has not taken
OUT_OF_MEMORY = torch.cuda.OutOfMemoryError  # of every accelerator; what ComfyUI catches, too


def inside() -> bool:
    """Whether this runs in ComfyUI."""
    return "comfy.model_management" in sys.modules


def _folder_paths() -> Any:  # noqa: ANN401 - ComfyUI's module
    """What knows ComfyUI's folders; None outside."""
    return sys.modules.get("folder_paths")


def _server() -> Any:  # noqa: ANN401 - ComfyUI's PromptServer
    """The server that runs; None outside."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


# ---- devices and memory


def network_device() -> torch.device:
    """Where networks run: ComfyUI's device, or the CPU where the setting says so."""
    if not inside() or setting("Live2Diff.DevicePolicy", "auto") == "cpu":
        return torch.device("cpu")
    from comfy import model_management

    return model_management.get_torch_device()


def storage_device() -> torch.device:
    """Where weights wait while they are not used."""
    if network_device().type == "cpu":
        return torch.device("cpu")
    from comfy import model_management

    return model_management.unet_offload_device()


def network_dtype(parameters: int) -> torch.dtype:
    """The precision that ComfyUI computes a UNet of so many parameters in on `network_device`."""
    device = network_device()
    if device.type == "cpu":
        return torch.float32
    from comfy import model_management

    supported = [torch.float16, torch.bfloat16, torch.float32]
    stored = model_management.unet_dtype(device, parameters, supported)
    computed = model_management.unet_manual_cast(stored, device, supported) or stored
    return computed if computed in supported else torch.float32


class Resident:
    """A network of ours that ComfyUI moves to and from the device and may evict.

    patcher: ComfyUI's holder of it, None outside.
    """

    def __init__(self, module: nn.Module, device: torch.device | None = None) -> None:
        self.module = module
        self.patcher: Any = None
        if inside():
            from comfy.model_patcher import ModelPatcher

            self.patcher = ModelPatcher(module, device or network_device(), storage_device())


def load(patchers: Sequence[Any], needed: int) -> None:
    """Bring networks to their devices; others are evicted until `needed` bytes are free besides.

    patchers: of ComfyUI. Raises MemoryBudgetError where ComfyUI was told to keep weights off the
    device, as it does under --novram: our layers cannot run in pieces.
    """
    if not inside():
        return
    from comfy import model_management

    model_management.load_models_gpu(list(patchers), memory_required=needed, force_full_load=True)
    for patcher in patchers:
        devices = {weight.device.type for weight in patcher.model.parameters()}
        if devices - {torch.device(patcher.load_device).type}:
            raise MemoryBudgetError(
                f"ComfyUI left a part of {type(patcher.model).__name__} off the device: start it "
                "without --novram, or run all on the CPU (--cpu)"
            )


def free_bytes(weights: int) -> int:
    """Bytes that a model with its stream may have on `network_device`.

    weights: of the model. On an accelerator, all that ComfyUI's loaded models give back is counted;
    in the processor's memory the model is already.
    """
    device = network_device()
    if device.type == "cpu":
        return int(psutil.virtual_memory().available) + weights
    from comfy import model_management

    loaded = [m for m in model_management.current_loaded_models if m.device == device and m.model]
    free = model_management.get_free_memory(device)
    return int(free + sum(held.model_loaded_memory() for held in loaded))


def unload_all() -> None:
    """Take every network off the device, as ComfyUI does when it is full."""
    if not inside():
        return
    from comfy import model_management

    model_management.unload_all_models()
    model_management.soft_empty_cache()


def merged_weight(patches: Sequence[Any], key: str) -> Tensor:
    """One weight of a MODEL with every LoRA and merge applied: a float32 tensor of its own.

    patches: of `ModelPatcher.get_key_patches`: (weight, conversion), then the changes.
    """
    (weight, convert), *changes = patches
    whole = convert(weight.to(torch.float32, copy=True), inplace=True)
    if not changes:
        return whole
    from comfy import lora

    return lora.calculate_weight(changes, whole, key)


# ---- progress


class Progress:
    """The bar and the preview of the node that is running. Each step raises ComfyUI's interrupt."""

    def __init__(self, total: int, node_id: str | None) -> None:
        self.total, self.done = max(total, 1), 0
        self._shown = -PREVIEW_SECONDS
        self._bar: Any = None
        if inside():
            from comfy.utils import ProgressBar

            self._bar = ProgressBar(self.total, node_id)

    def step(self, rgb: Tensor | None = None, count: int = 1) -> None:
        """Count what is done. rgb: (3, h, w), as a `Frame` has it, shown as the preview."""
        check_interrupt()
        self.done += count
        self.total = max(self.total, self.done)
        if self._bar is not None:
            self._bar.update_absolute(self.done, self.total, self._preview(rgb))

    def _preview(self, rgb: Tensor | None) -> tuple[str, Any, int] | None:
        if rgb is None or time.monotonic() - self._shown < PREVIEW_SECONDS:
            return None
        from PIL import Image

        self._shown = time.monotonic()
        scale = PREVIEW_SIDE / max(rgb.shape[1:])
        if scale < 1:
            unit = to_unit_range(rgb, rgb.device, torch.float32)
            rgb = functional.interpolate(unit[None], scale_factor=scale, mode="area")[0]
        picture = Image.fromarray(to_bytes(rgb).permute(1, 2, 0).cpu().numpy())
        return "JPEG", picture, max(picture.size)  # as it is: ComfyUI would enlarge it


def check_interrupt() -> None:
    """Raise ComfyUI's interrupt if the user asked for it."""
    if inside():
        from comfy import model_management

        model_management.throw_exception_if_processing_interrupted()


# ---- files


def register_folders() -> None:
    """Make our folders below models/ known to ComfyUI."""
    if paths := _folder_paths():
        for name in FOLDERS:
            paths.add_model_folder_path(name, str(Path(paths.models_dir) / name))


def model_folders(name: str) -> list[Path]:
    """Where models of a kind lie; outside ComfyUI in `models`, as for the command."""
    if paths := _folder_paths():
        return [Path(folder) for folder in paths.get_folder_paths(name)]
    from ..live2diff_core.weights.spec import models_folder

    return [models_folder() / name]


def lora_files() -> dict[str, Path]:
    """LoRAs in ComfyUI's model folders by their names; none outside."""
    paths = _folder_paths()
    names = paths.get_filename_list("loras") if paths else []
    return {name: Path(paths.get_full_path_or_raise("loras", name)) for name in names}


def input_folders() -> dict[str, Path]:
    """Folders below ComfyUI's input folder by their names; none outside."""
    paths = _folder_paths()
    names = paths.get_input_subfolders() if paths else []
    return {name: Path(paths.get_input_directory(), name) for name in names}


def output_path(prefix: str, suffix: str) -> Path:
    """A new file in ComfyUI's output folder, a temporary one outside. Raises SinkError for a prefix
    that leads out of that folder.
    """
    paths = _folder_paths()
    if paths is None:
        return temporary_path(suffix)
    top = Path(paths.get_output_directory()).resolve()
    if not (top / prefix).resolve().is_relative_to(top):
        raise SinkError(f"{prefix} leads out of the output folder: choose a name below it")
    folder, name, count, *_ = paths.get_save_image_path(prefix, str(top))
    return Path(folder) / f"{name}_{count:05}_{suffix}"


def output_place(path: Path) -> dict[str, str]:
    """A file of the output folder as ComfyUI tells its page of it."""
    paths, folder = _folder_paths(), ""
    if paths is not None:
        top = Path(paths.get_output_directory()).resolve()
        folder = path.parent.relative_to(top).as_posix().removeprefix(".")
    return {"filename": path.name, "subfolder": folder, "type": "output"}


def user_folder() -> Path | None:
    """What ComfyUI keeps from start to start; its page sees folders in it alone. None outside."""
    paths = _folder_paths()
    return paths and Path(paths.get_user_directory())


def video_origin(video: Any) -> Path | io.BytesIO | None:  # noqa: ANN401 - ComfyUI's VIDEO
    """The file that a VIDEO is from its beginning to its end, on disk or in memory; None where it
    is none.

    Outside ComfyUI a path is a VIDEO.
    """
    if isinstance(video, str | Path):
        return Path(video)
    from comfy_api.input_impl import VideoFromFile

    trims = ("_VideoFromFile__start_time", "_VideoFromFile__duration")  # of later releases
    if not isinstance(video, VideoFromFile) or any(getattr(video, name, 0) for name in trims):
        return None
    source = video.get_stream_source()
    return Path(source) if isinstance(source, str) else source


def temporary_path(suffix: str) -> Path:
    """A new file that ComfyUI removes when it starts again."""
    folder = None
    if paths := _folder_paths():
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


# ---- the prompt that runs


def client_id() -> str | None:
    """Who sent the prompt that is running."""
    return getattr(_server(), "client_id", None)


def tell(client: str | None, event: str, data: Mapping[str, Any]) -> None:
    """Send an event to the page or program of one client, and to nobody without one."""
    server = _server()
    if server is not None and client is not None:
        server.send_sync(event, data, client)


def check_caching() -> None:
    """Raise ConfigError where ComfyUI was started so that no stream can go on from run to run."""
    if not inside():
        return
    from comfy.cli_args import args

    if getattr(args, "cache_none", False):
        raise ConfigError(
            "ComfyUI was started with --cache-none: the warm-up begins anew in every run, so no "
            "stream goes on. Start it without, or turn flush on and give the whole clip at once"
        )


def nothing_yet() -> Any:  # noqa: ANN401 - ComfyUI's marker
    """An output that keeps what hangs on it from running; None outside ComfyUI."""
    if not inside():
        return None
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


# ---- settings and routes


def setting(name: str, default: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """A setting of ComfyUI's default user, as the settings page stores it."""
    folder = user_folder()
    if folder is None:
        return default
    path = folder / "default" / "comfy.settings.json"
    value = _settings(path).get(name)
    return default if value is None else value


def _settings(path: Path) -> dict[str, Any]:
    """What a file of settings holds; what it held before while it is being written."""
    try:
        _known_settings[path] = dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        _known_settings.pop(path, None)
    except (OSError, ValueError, TypeError) as error:
        logger.warning("%s cannot be read (%s): its last settings stay", path, error)
    return _known_settings.get(path, {})


_known_settings: dict[Path, dict[str, Any]] = {}


def listens_on() -> list[str]:
    """Addresses that ComfyUI's server listens on."""
    if not inside():
        return ["127.0.0.1"]
    from comfy.cli_args import args

    return [address.strip() for address in args.listen.split(",")]


def add_routes(add: Callable[[Any], None]) -> None:
    """Let a function add routes to ComfyUI's server, if there is one."""
    if server := _server():
        add(server.routes)
