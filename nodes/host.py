"""All that the pack takes from ComfyUI; nothing else here imports its modules.

Every function works outside ComfyUI, too: a node is then plain Python on a CPU, without progress
bar and without memory rules, as tests and scripts use it.
"""

import json
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..live2diff_core.errors import MemoryBudgetError

logger = logging.getLogger(__name__)

SUFFIXES = {".safetensors", ".ckpt", ".pt", ".pth", ".bin"}
FOLDERS = ("live2diff", "animatediff_models", "depth")  # below models/, made known to ComfyUI here
PREVIEW_SIDE = 512  # pixels
OUT_OF_MEMORY = torch.cuda.OutOfMemoryError  # of every accelerator; what ComfyUI catches, too


def inside() -> bool:
    """Whether this runs in ComfyUI."""
    return "comfy.model_management" in sys.modules


# ---- devices and memory


def network_device() -> torch.device:
    """Where networks run: ComfyUI's device, or the CPU where the setting says so."""
    if not inside() or setting("Live2Diff.DevicePolicy", "auto") == "cpu":
        return torch.device("cpu")
    from comfy import model_management

    return model_management.get_torch_device()


def storage_device() -> torch.device:
    """Where weights wait while they are not used."""
    if not inside():
        return torch.device("cpu")
    from comfy import model_management

    return model_management.unet_offload_device()


def network_dtype(parameters: int) -> torch.dtype:
    """The precision that ComfyUI runs a UNet of so many parameters in on `network_device`."""
    device = network_device()
    if not inside() or device.type == "cpu":
        return torch.float32
    from comfy import model_management

    supported = [torch.float16, torch.bfloat16, torch.float32]
    dtype = model_management.unet_dtype(device, parameters, supported)
    return dtype if dtype in supported else torch.float16


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
                "without --novram, or set the device policy of Live2Diff to cpu"
            )


def loaded_bytes(patchers: Sequence[Any]) -> int:
    """Bytes of networks that are on their devices already. patchers: of ComfyUI."""
    return sum(patcher.loaded_size() for patcher in patchers) if inside() else 0


def free_cached() -> None:
    """Give memory back that torch holds without using it."""
    if not inside():
        return
    from comfy import model_management

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
        self._bar: Any = None
        if inside():
            from comfy.utils import ProgressBar

            self._bar = ProgressBar(self.total, node_id)

    def step(self, rgb: Tensor | None = None, count: int = 1) -> None:
        """Count what is done. rgb: (3, h, w) in [0, 1], shown as the preview."""
        check_interrupt()
        self.done += count
        self.total = max(self.total, self.done)
        if self._bar is not None:
            self._bar.update_absolute(self.done, self.total, None if rgb is None else _preview(rgb))


def _preview(rgb: Tensor) -> tuple[str, Any, int]:
    from PIL import Image

    pixels = (rgb.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return "JPEG", Image.fromarray(pixels), PREVIEW_SIDE


def check_interrupt() -> None:
    """Raise ComfyUI's interrupt if the user asked for it."""
    if inside():
        from comfy import model_management

        model_management.throw_exception_if_processing_interrupted()


# ---- files


def register_folders() -> None:
    """Make our folders below models/ known to ComfyUI."""
    if "folder_paths" not in sys.modules:
        return
    import folder_paths

    for name in FOLDERS:
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        folder_paths.folder_names_and_paths[name][1].update(SUFFIXES)


def model_folders(name: str) -> list[Path]:
    """Where models of a kind lie; outside ComfyUI in `models`, as for the command."""
    if "folder_paths" in sys.modules:
        import folder_paths

        return [Path(folder) for folder in folder_paths.get_folder_paths(name)]
    from ..live2diff_core.weights.spec import models_folder

    return [models_folder() / name]


def video_file(video: Any) -> tuple[Path, bool]:  # noqa: ANN401 - ComfyUI's VIDEO
    """The file of a VIDEO, and whether it was written for this; outside ComfyUI a path."""
    if isinstance(video, str | Path):
        return Path(video), False
    source = video.get_stream_source() if _is_whole_file(video) else None
    if isinstance(source, str):
        return Path(source), False
    if source is None:
        path = temporary_path(".mp4")
        video.save_to(str(path))
    else:
        path = temporary_path("")
        path.write_bytes(source.getbuffer())
    return path, True


def _is_whole_file(video: Any) -> bool:  # noqa: ANN401 - ComfyUI's VIDEO
    """Whether a VIDEO stands for a file from its beginning to its end."""
    from comfy_api.input_impl import VideoFromFile

    if not isinstance(video, VideoFromFile):
        return False
    trims = ("_VideoFromFile__start_time", "_VideoFromFile__duration")  # of later releases
    return not any(getattr(video, name, 0) for name in trims)


def temporary_path(suffix: str) -> Path:
    """A new file that ComfyUI removes when it starts again."""
    folder = None
    if "folder_paths" in sys.modules:
        import folder_paths

        folder = folder_paths.get_temp_directory()
        Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        prefix="live2diff_", suffix=suffix, dir=folder, delete=False
    ) as file:
        return Path(file.name)


def video_from_file(path: Path) -> Any:  # noqa: ANN401 - ComfyUI's VIDEO
    """A VIDEO around a file; outside ComfyUI the path itself."""
    if not inside():
        return path
    from comfy_api.input_impl import VideoFromFile

    return VideoFromFile(str(path))


# ---- the prompt that runs


def client_id() -> str | None:
    """Who sent the prompt that is running."""
    if "server" not in sys.modules:
        return None
    import server

    instance = getattr(server.PromptServer, "instance", None)
    return getattr(instance, "client_id", None)


def nothing_yet() -> Any:  # noqa: ANN401 - ComfyUI's marker
    """An output that keeps what hangs on it from running; None outside ComfyUI."""
    if not inside():
        return None
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


# ---- settings and routes


def setting(name: str, default: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """A setting of ComfyUI's default user, as the settings page stores it."""
    if "folder_paths" not in sys.modules:
        return default
    import folder_paths

    path = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8")).get(name, default)
    except (OSError, ValueError, AttributeError) as error:
        logger.warning("%s cannot be read (%s): %s is %r", path, error, name, default)
        return default


def add_routes(add: Callable[[Any], None]) -> None:
    """Let a function add routes to ComfyUI's server, if there is one."""
    if "server" not in sys.modules:
        return
    import server

    instance = getattr(server.PromptServer, "instance", None)
    if instance is not None:
        add(instance.routes)
