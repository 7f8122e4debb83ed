"""Devices, and networks that ComfyUI moves between them."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import nn

from ...live2diff_core.errors import MemoryBudgetError
from .modules import inside
from .server import setting

OUT_OF_MEMORY = torch.cuda.OutOfMemoryError  # of every accelerator; what ComfyUI catches, too


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


class Copies:
    """Networks of ours that hold a copy of weights of ComfyUI's: one for each network of its.

    A copy goes with the network that it was made of, and when another one takes its place.
    """

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Any, tuple[Hashable, Resident]] = WeakKeyDictionary()

    def of(self, network: Any, source: Hashable, make: Callable[[], Resident]) -> Resident:  # noqa: ANN401
        """The copy that was made of a network from the same source, else a new one.

        source: all that the copy follows from besides the network.
        """
        known, resident = self._made.get(network, (None, None))
        if resident is None or known != source:
            self._made.pop(network, None)  # before the next one takes its memory
            resident = make()
            self._made[network] = source, resident
        return resident


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
