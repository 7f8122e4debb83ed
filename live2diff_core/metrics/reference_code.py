"""The reference's own code, imported from a checkout; nothing of it is kept or changed.

What it takes for granted and a machine may lack is bridged here: its loaders, which want files and
libraries that a comparison has no use for, and its one device.
"""

import importlib
import io
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import ConfigError

PACKAGE = "live2diff"
LOADERS = f"{PACKAGE}.animatediff.pipeline"
PIPELINE = "AnimationDepthPipeline"  # the only name that the stream's module takes from its loaders
# Module, class, and the methods of it that a comparison calls or replaces.
PARTS = {
    "stream": (
        f"{PACKAGE}.pipeline_stream_animation_depth",
        "StreamAnimateDiffusionDepth",
        (
            "add_noise",
            "decode_image",
            "encode_depth",
            "encode_image",
            "predict_x0_batch",
            "prepare",
            "prepare_cache",
        ),
    ),
    "streaming": (
        f"{PACKAGE}.animatediff.models.unet_depth_streaming",
        "UNet3DConditionStreamingModel",
        ("prepare_cache", "set_info_for_attn"),
    ),
    "warmup": (
        f"{PACKAGE}.animatediff.models.unet_depth_warmup",
        "UNet3DConditionWarmupModel",
        ("set_info_for_attn",),
    ),
}


@dataclass(frozen=True, slots=True)
class ReferenceCode:
    """Its classes: the stream, the network that streams, and the one for the warm-up frames."""

    stream: Callable[..., Any]
    streaming: Callable[..., Any]
    warmup: Callable[..., Any]


def import_reference(checkout: Path) -> ReferenceCode:
    """Import the parts that a comparison needs; afterwards Python finds modules as before.

    Raises ConfigError for a folder that is no checkout of it, for another version, and where a
    library that it needs is missing.
    """
    for module, _, _ in PARTS.values():
        file = checkout.joinpath(*module.split(".")).with_suffix(".py")
        if not file.is_file():
            raise ConfigError(
                f"{checkout} is no checkout of the reference implementation: there is no "
                f"{file.relative_to(checkout).as_posix()}; give the folder of a clone of "
                "open-mmlab/Live2Diff"
            )
    try:
        with _importable(checkout.resolve()), quiet():
            return ReferenceCode(**{name: _found(*part) for name, part in PARTS.items()})
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(
            f"the reference in {checkout} cannot be imported here: {error}; it needs torch, "
            "diffusers and einops in versions that it knows"
        ) from error


def _found(module: str, name: str, methods: Sequence[str]) -> Callable[..., Any]:
    found: Callable[..., Any] | None = getattr(importlib.import_module(module), name, None)
    missing = [method for method in methods if not callable(getattr(found, method, None))]
    if found is None or missing:
        raise ConfigError(
            f"another version of the reference than commit e40aa03 is needed: {module} lacks "
            f"{name}{'' if found is None else f'.{missing[0]}'}"
        )
    return found


@contextmanager
def _importable(checkout: Path) -> Iterator[None]:
    """Let its package be found, without its loaders and without writing into the checkout."""
    kept = {name: module for name, module in sys.modules.items() if _is_theirs(name)}
    bytecode = sys.dont_write_bytecode
    for name in kept:
        del sys.modules[name]
    loaders = ModuleType(LOADERS)
    setattr(loaders, PIPELINE, object)
    sys.modules[LOADERS] = loaders
    sys.path.insert(0, str(checkout))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path.remove(str(checkout))
        for name in [name for name in sys.modules if _is_theirs(name)]:
            del sys.modules[name]
        sys.modules.update(kept)


def _is_theirs(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep out what it prints, since our output may be JSON, and what libraries say to it."""
    level = logging.root.manager.disable
    logging.disable(max(level, logging.WARNING))
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)


class Bridge(TorchFunctionMode):
    """While it is entered, tensors that are sent to CUDA go to a device of ours, and `randn_like`
    hands out the given fields in turn.

    Only for what is not timed: it costs Python's time at every call of torch.
    """

    def __init__(self, device: torch.device, fields: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self._device, self._fields = device, iter(fields)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Called by torch in place of each of its functions."""
        if func is torch.Tensor.cuda:
            return args[0].to(self._device)
        if func is torch.randn_like:
            return next(self._fields).to(args[0]).reshape(args[0].shape)
        if func is torch.Tensor.to:
            args = tuple(self._device if _is_cuda(value) else value for value in args)
        return func(*args, **(kwargs or {}))


def _is_cuda(value: object) -> bool:
    return isinstance(value, torch.device) and value.type == "cuda"
