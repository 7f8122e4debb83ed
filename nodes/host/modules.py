"""ComfyUI's modules, where this runs in it."""

import sys
from typing import Any


def inside() -> bool:
    """Whether this runs in ComfyUI."""
    return "comfy.model_management" in sys.modules


def folder_paths() -> Any:  # noqa: ANN401 - ComfyUI's module
    """What knows ComfyUI's folders; None outside."""
    return sys.modules.get("folder_paths")


def prompt_server() -> Any:  # noqa: ANN401 - ComfyUI's PromptServer
    """The server that runs; None outside."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
