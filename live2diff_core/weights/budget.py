"""How much memory a model and a stream take, told before anything is loaded.

Weights and cache are counted, activations estimated: the values that are alive at once are
proportional to the rows and pixels of what runs, with the coefficients below and those of the
autoencoders (`alive`). The attention over pixels is fused and adds nothing that grows with their
square. `benchmarks/activations.py` measures the coefficients on networks of full size and compares.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import psutil
import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from ..cache import FrameShape, cache_bytes, cache_dtype
from ..config import MAX_STEPS, AttentionWindow, CacheKind, RuntimeConfig, StreamConfig
from ..errors import ConfigError, FrameSizeError, MemoryBudgetError
from ..models.adapters import Adapter
from ..models.autoencoder import Autoencoder, KLAutoencoder, TinyAutoencoder
from ..models.translator import TranslationModel
from ..models.unet import MotionConfig, StreamingUNet
from .base import Base
from .component import component, empty
from .files import open_tensors
from .inspect import inspect
from .kinds import Kind
from .lora import load_lora
from .motion import Motion, motion_config
from .text import empty_clip

# Values alive at once:
NETWORK = 28  # in the UNet, for each row and value of its first feature map
DEPTH = 46_000_000  # in DPT-hybrid, which sees every frame at 384x384

WORKSPACE = 2**25  # bytes of each CUDA graph that are cuBLAS's: as on Hopper, elsewhere fewer

FACTOR = 8  # pixels of a latent's side, of every autoencoder for Stable Diffusion
# Parameters besides UNet and text model, for models whose files are not here yet.
PARAMETERS = {"taesd": 2_445_063, "sd": 83_653_863, "dpt_hybrid": 122_377_985}
TAESD = (Kind.TAESD, Kind.TAESD_ENCODER, Kind.TAESD_DECODER)
AUTOENCODERS: dict[str, type[Autoencoder]] = {"taesd": TinyAutoencoder, "sd": KLAutoencoder}
LARGEST_SIDE = 4096


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of a model and one stream on it.

    adapters: weights that LoRAs are merged into, beside the originals. cache: what the stream keeps
    from frame to frame; a change of its prompt needs that once more while it is made. activations:
    most of what is alive at once besides, which is in the warm-up. runtime: what CUDA graphs hold
    on to, and weights that a compiler packs anew.
    """

    weights: int
    adapters: int
    cache: int
    activations: int
    runtime: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapters + self.cache + self.activations + self.runtime

    def __str__(self) -> str:
        runtime = f", CUDA graphs and packed weights {in_gb(self.runtime)}" if self.runtime else ""
        return (
            f"{in_gb(self.total)} (weights {in_gb(self.weights)}, LoRAs {in_gb(self.adapters)}, "
            f"cache {in_gb(self.cache)}, activations {in_gb(self.activations)}{runtime})"
        )


@dataclass(frozen=True, slots=True)
class StreamSize:
    """What a stream's memory follows from; branches: 2 with full guidance, else 1. caches: 2 for a
    stream that is changed or anchored while it runs.
    """

    width: int
    height: int
    steps: int
    branches: int = 1
    window: AttentionWindow = field(default_factory=AttentionWindow)
    cache: CacheKind = "network"
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    caches: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS or min(self.width, self.height) < 1:
            raise ConfigError(f"sizes are above 0 and steps 1 to {MAX_STEPS}, got {self}")

    def __str__(self) -> str:
        return f"{self.width}x{self.height} with {self.steps} step{'s' * (self.steps > 1)}"


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """What a model's memory follows from. unet: may be on the meta device.

    weights, adapters: bytes. picture, depth: values that are alive in the autoencoder for each
    pixel, and in the depth network. packed: bytes of the weights that a compiled step has in its
    code (`stream.runtime.make_step`).
    """

    unet: StreamingUNet
    dtype: torch.dtype
    weights: int
    picture: int
    adapters: int = 0
    depth: int = DEPTH
    factor: int = FACTOR
    packed: int = 0

    @property
    def size_multiple(self) -> int:
        """Width and height in pixels must be multiples of this."""
        return self.factor * self.unet.size_multiple


# ---- of what


def sd15_footprint(dtype: torch.dtype, autoencoder: str, loras: Sequence[Path] = ()) -> Footprint:
    """Stable Diffusion 1.5 with Live2Diff's motion weights and DPT-hybrid, without their files.

    autoencoder: taesd or sd. loras: files, of which weights and shapes are looked at. Raises
    WeightsError for those.
    """
    unet, text = _sd15_networks()
    parameters = sum(p.numel() for network in (unet, text) for p in network.parameters())
    parameters += PARAMETERS[autoencoder] + PARAMETERS["dpt_hybrid"]
    adapters = [load_lora(path, unet.spatial, text) for path in loras]
    return Footprint(
        unet=unet,
        dtype=dtype,
        weights=parameters * dtype.itemsize,
        picture=AUTOENCODERS[autoencoder].alive,
        adapters=merged_bytes(adapters, unet.spatial, text, dtype),
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """A base and motion weights that are open, and files and folders of the rest; None: the base's
    own, or for depth none at all.
    """

    base: Base
    motion: Motion
    autoencoder: Path | None = None
    depth: Path | None = None
    text: Path | None = None


def files_footprint(parts: Parts, dtype: torch.dtype) -> Footprint:
    """A base with motion weights from their headers, LoRAs apart. Raises WeightsError."""
    paths = (parts.depth, parts.text)
    parameters = sum(stored_parameters(path) for path in paths if path is not None)
    parameters += parts.base.parameters(parts.text is None, parts.autoencoder is None)
    parameters += parts.motion.file.parameters
    picture = KLAutoencoder.alive
    if parts.autoencoder is not None:
        autoencoder = inspect(parts.autoencoder)
        parameters += autoencoder.parameters
        if autoencoder.kind in TAESD:
            picture = TinyAutoencoder.alive
    return Footprint(
        unet=_network(parts.base, parts.motion),
        dtype=dtype,
        weights=parameters * dtype.itemsize,
        picture=picture,
        depth=0 if parts.depth is None else DEPTH,
    )


def stored_parameters(path: Path) -> int:
    """Values in a file or in a network's folder, from the headers."""
    return (component(path) if path.is_dir() else open_tensors(path)).parameters


def _network(base: Base, motion: Motion) -> StreamingUNet:
    spatial = empty(UNet2DConditionModel, base.settings, str(base.file.path))
    with init_empty_weights():
        return StreamingUNet(spatial, motion_config(motion))


def model_footprint(model: TranslationModel) -> Footprint:
    """A model that is loaded, with its LoRAs."""
    origin = model.origin or model
    parts = (origin.unet, origin.text_encoder, origin.autoencoder, origin.depth)
    modules = [part for part in parts if isinstance(part, nn.Module)]
    weights = sum(_bytes(module) for module in modules)
    adapters = [use.adapter for use in model.adapters]
    text = model.text_encoder.model if model.text_encoder else None
    return Footprint(
        unet=model.unet,
        dtype=model.dtype,
        weights=weights,
        picture=model.autoencoder.alive,
        adapters=merged_bytes(adapters, model.unet.spatial, text, model.dtype),
        depth=DEPTH if model.depth.relative else 0,
        factor=model.autoencoder.factor,
        packed=_bytes(model.unet) if model.is_fixed and model.device.type == "cpu" else 0,
    )


def _bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def merged_bytes(
    adapters: Iterable[Adapter], unet: nn.Module, text: nn.Module | None, dtype: torch.dtype
) -> int:
    """Bytes of the weights that the adapters are merged into: copies beside the originals."""
    adapters = list(adapters)
    values = _touched(unet, (key for adapter in adapters for key in adapter.unet))
    if text is not None:
        values += _touched(text, (key for adapter in adapters for key in adapter.text))
    return values * dtype.itemsize


def _touched(module: nn.Module, keys: Iterable[str]) -> int:
    """Values of the weights of these names, each counted once."""
    own = dict(module.named_parameters())
    return sum(own[key].numel() for key in set(keys))


@cache
def _sd15_networks() -> tuple[StreamingUNet, CLIPTextModel]:
    with torch.device("meta"):
        spatial = UNet2DConditionModel(cross_attention_dim=768)
        return StreamingUNet(spatial, MotionConfig()), empty_clip()


def stream_size(config: StreamConfig) -> StreamSize:
    """What the memory of a stream with these settings follows from."""
    return StreamSize(
        width=config.width,
        height=config.height,
        steps=len(config.steps.indices),
        branches=2 if config.guidance.mode == "full" else 1,
        window=config.window,
        cache=config.cache,
        runtime=config.runtime,
    )


# ---- how much


def estimate(model: Footprint, stream: StreamSize) -> Budget:
    """Bytes of a model and one stream on it. Raises FrameSizeError for sides that do not fit."""
    unet, dtype, multiple = model.unet, model.dtype, model.size_multiple
    if stream.width % multiple or stream.height % multiple:
        raise FrameSizeError(
            f"widths and heights are multiples of {multiple} pixels, got "
            f"{stream.width}x{stream.height}"
        )
    height, width = stream.height // model.factor, stream.width // model.factor
    first = unet.depth_mapping.conv_out.out_channels
    frame = FrameShape(height * width, int(unet.spatial.config.in_channels), first)
    shapes, rows = unet.cache_shapes(height, width), stream.steps * stream.branches
    kept = cache_bytes(shapes, rows, stream.window, cache_dtype(stream.cache, dtype))
    kept += stream.steps * frame.nbytes(2, dtype)
    kept += stream.window.sinks * frame.nbytes(1, dtype)  # the last inputs, to re-prime from
    row = NETWORK * frame.pixels * first
    network = max(stream.window.sinks, stream.steps) * stream.branches * row
    picture = model.picture * stream.width * stream.height
    alive = max(network, picture, model.depth)
    runtime = model.packed if stream.runtime.compiles else 0
    if stream.runtime.records:  # each graph has memory of its own: step, encoding, depth, decoding
        graphs = (rows * row, picture, max(picture, model.depth), picture)
        runtime += sum(graphs) * dtype.itemsize + len(graphs) * WORKSPACE
    caches = stream.caches * kept
    return Budget(model.weights, model.adapters, caches, alive * dtype.itemsize, runtime)


def free_memory(device: torch.device) -> int:
    """Bytes of a device that can be had now."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    of_all = hasattr(torch.accelerator, "get_memory_info")  # from 2.10, before it each had its own
    memory = torch.accelerator if of_all else torch.get_device_module(device)
    free, _ = memory.get_memory_info(device) if of_all else memory.mem_get_info(device)
    return int(free + memory.memory_reserved(device) - memory.memory_allocated(device))


def check(model: Footprint, stream: StreamSize, device: torch.device) -> Budget:
    """The estimate. Raises MemoryBudgetError, with what would fit, if the device lacks memory."""
    budget, free = estimate(model, stream), free_memory(device)
    if budget.total <= free:
        return budget
    raise MemoryBudgetError(
        f"{stream} in {str(model.dtype).removeprefix('torch.')} needs {budget} and {device} has "
        f"{in_gb(free)} free: {_advice(model, stream, free)}"
    )


def _advice(model: Footprint, stream: StreamSize, free: int) -> str:
    size, steps = largest_size(model, stream, free), largest_steps(model, stream, free)
    fitting = [str(replace(stream, width=size[0], height=size[1]))] if size else []
    fitting += [str(replace(stream, steps=steps))] if steps else []
    if fitting:
        return f"{' or '.join(fitting)} would fit"
    return "no size would fit; close other programs, or choose float16 or another device"


def largest_size(
    model: Footprint, stream: StreamSize, free: int, sides: range | None = None
) -> tuple[int, int] | None:
    """The largest width and height in about the stream's shape that fit at its steps, if any.

    sides: ascending multiples of the first, the model's if None.
    """
    fitting, multiple = None, model.size_multiple
    for size in _sizes(sides or range(multiple, LARGEST_SIDE + 1, multiple), stream):
        if estimate(model, replace(stream, width=size[0], height=size[1])).total > free:
            break
        fitting = size
    return fitting


def _sizes(sides: range, stream: StreamSize) -> Iterator[tuple[int, int]]:
    """Sizes in about the shape of a stream, growing."""
    across = stream.width >= stream.height
    longer, shorter = sorted((stream.width, stream.height), reverse=True)
    for length in sides:
        other = max(sides.step, round(length * shorter / longer / sides.step) * sides.step)
        yield (length, other) if across else (other, length)


def largest_steps(model: Footprint, stream: StreamSize, free: int) -> int | None:
    """The most steps that fit at the stream's size, if any."""
    counts = range(MAX_STEPS, 0, -1)
    return next(
        (n for n in counts if estimate(model, replace(stream, steps=n)).total <= free), None
    )


def in_gb(count: int) -> str:
    """Bytes in GB of 10^9."""
    return f"{count / 1e9:.2f} GB"
