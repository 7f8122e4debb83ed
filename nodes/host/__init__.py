"""All that the pack takes from ComfyUI; nothing else here imports its modules.

Every function works outside ComfyUI, too: a node is then plain Python on a CPU, without progress
bar and without memory rules, as tests and scripts use it.
"""

from .files import (
    SUFFIXES,
    input_folders,
    lora_files,
    model_folders,
    output_path,
    output_place,
    preview_picture,
    register_folders,
    temporary_path,
    trim_window,
    user_folder,
    video_from_file,
    video_origin,
)
from .memory import (
    OUT_OF_MEMORY,
    Copies,
    Resident,
    free_bytes,
    load,
    network_device,
    network_dtype,
    storage_device,
    unload_all,
)
from .modules import inside
from .progress import Progress, check_interrupt
from .prompt import (
    NOTICE,
    Prompt,
    Queue,
    check_caching,
    client_id,
    nothing_yet,
    on_prompt,
    queue_of,
    tell,
)
from .server import add_routes, listens_on, setting
from .weights import HeldWeight, held_weights, merged, plain_copy

__all__ = [
    "NOTICE",
    "OUT_OF_MEMORY",
    "SUFFIXES",
    "Copies",
    "HeldWeight",
    "Progress",
    "Prompt",
    "Queue",
    "Resident",
    "add_routes",
    "check_caching",
    "check_interrupt",
    "client_id",
    "free_bytes",
    "held_weights",
    "input_folders",
    "inside",
    "listens_on",
    "load",
    "lora_files",
    "merged",
    "model_folders",
    "network_device",
    "network_dtype",
    "nothing_yet",
    "on_prompt",
    "output_path",
    "output_place",
    "plain_copy",
    "preview_picture",
    "queue_of",
    "register_folders",
    "setting",
    "storage_device",
    "tell",
    "temporary_path",
    "trim_window",
    "unload_all",
    "user_folder",
    "video_from_file",
    "video_origin",
]
