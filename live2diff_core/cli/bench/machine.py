"""What the figures were measured on."""

import platform
from pathlib import Path
from typing import Any

import torch

from ... import __version__

PROCESSORS = Path("/proc/cpuinfo")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, names and threads."""
    return {
        "live2diff": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """Name of the CPU."""
    if PROCESSORS.is_file():
        for line in PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """Name of the accelerator, or of the CPU."""
    if device.type == "cpu":
        return processor()
    ask = getattr(torch.get_device_module(device), "get_device_name", None)
    return str(device) if ask is None else str(ask(device))
