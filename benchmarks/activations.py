"""Bytes that are alive at once in networks of full size, and what `live2diff plan` says of them.

Operations are traced without values, so every size is free; --real runs one size on the CPU in
float32 besides, with random weights (6 GB and a minute at 256x256), and compares resident memory.

    python benchmarks/activations.py [--real WxH]
"""

import argparse
import ctypes
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DPTConfig, DPTForDepthEstimation

from live2diff_core.config import Guidance, NoiseScheduleConfig, StepSelection
from live2diff_core.models.autoencoder import KLAutoencoder, TinyAutoencoder
from live2diff_core.models.unet import MotionConfig, StreamingUNet
from live2diff_core.schedule import make_schedule
from live2diff_core.stream.denoise import (
    Conditioning,
    NewFrame,
    WarmupFrames,
    make_state,
    prefill,
    step,
)
from live2diff_core.weights.budget import StreamSize, estimate, sd15_footprint
from live2diff_core.weights.depth import MIDAS_HYBRID

ALLOWED = 0.15
CPU = torch.device("cpu")
TEXT = 77, 768
SD_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
STREAMS = (
    (StreamSize(128, 128, 1), torch.float32),
    (StreamSize(256, 256, 1), torch.float32),
    (StreamSize(256, 256, 2), torch.float32),
    (StreamSize(512, 512, 2), torch.float32),
    (StreamSize(512, 512, 2), torch.float16),
    (StreamSize(512, 512, 4), torch.float16),
    (StreamSize(512, 512, 8), torch.bfloat16),
    (StreamSize(512, 512, 2, 2), torch.float16),
    (StreamSize(512, 768, 3), torch.float16),
    (StreamSize(1024, 1024, 2), torch.float16),
)
Measured = dict[str, int]  # bytes by what was run


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations make, until these are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self.now = self.peak = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        given = {id(s) for s in storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in storages(result):
            if id(storage) not in given and storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def free(self, count: int) -> None:
        """A storage is gone."""
        self.now -= count


def storages(values: object) -> Iterator[torch.UntypedStorage]:
    """Storages of all tensors in a nest of containers."""
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()


@contextmanager
def traced(dtype: torch.dtype) -> Iterator[None]:
    """Tensors without values, and this as the dtype of new ones."""
    with FakeTensorMode(allow_non_fake_inputs=True), default_dtype(dtype):
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """The dtype of new tensors and modules."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def peak(call: Callable[[], object]) -> int:
    """Bytes that a call holds at once, beyond what it is given."""
    with LiveBytes() as live:
        call()
    return live.peak


# ---- streams


@dataclass(frozen=True)
class Stream:
    """A stream on random inputs, from its first frames on."""

    unet: StreamingUNet
    size: StreamSize

    @torch.no_grad()
    def run(self, measure: Callable[[Callable[[], object]], float]) -> tuple[float, float]:
        """What the warm-up and a step measure."""
        size, sinks = self.size, self.size.window.sinks
        latents = torch.zeros(sinks, 4, size.height // 8, size.width // 8, dtype=torch.float32)
        depth = torch.zeros(sinks, 320, *latents.shape[2:])
        renoise = latents.expand(size.steps - 1, -1, -1, -1, -1)
        chosen = StepSelection(strength=0.8, steps=size.steps)
        schedule = make_schedule(NoiseScheduleConfig(), chosen, CPU)
        text, mode = torch.zeros(1, *TEXT), "none" if size.branches == 1 else "full"
        condition = Conditioning(text, Guidance(mode, 1.0), text if mode == "full" else None)
        condition = replace(condition, guides=condition.guided(self.unet, schedule))
        state = make_state(self.unet, latents, size.steps, size.branches, size.window)

        def warm_up() -> object:
            frames = WarmupFrames(latents, torch.stack(list(depth)), latents, renoise)
            return prefill(self.unet, state, schedule, condition, frames)

        def push() -> object:
            frame = NewFrame(latents[0], depth[0], latents[0], renoise[:, 0])
            return step(self.unet, state, schedule, condition, frame)

        return measure(warm_up), measure(push)


def sd15_unet() -> StreamingUNet:
    """The network in the default dtype, on the default device."""
    unet = StreamingUNet(UNet2DConditionModel(cross_attention_dim=768), MotionConfig())
    return unet.eval().requires_grad_(False)


def network_bytes(size: StreamSize, dtype: torch.dtype) -> Measured:
    """Warm-up and step of a stream, traced."""
    with traced(dtype):
        warm_up, push = Stream(sd15_unet(), size).run(peak)
    return {"warm-up": warm_up, "step": push}


# ---- the other networks

AUTOENCODERS: dict[str, Callable[[], nn.Module]] = {
    "taesd": lambda: TinyAutoencoder(AutoencoderTiny()),
    "sd": lambda: KLAutoencoder(AutoencoderKL(**SD_VAE)),
}


def picture_bytes(kind: str, size: StreamSize, dtype: torch.dtype) -> Measured:
    """Encoder and decoder of a picture, traced."""
    with traced(dtype):
        module = AUTOENCODERS[kind]().eval().requires_grad_(False)
        rgb = torch.zeros(1, 3, size.height, size.width)
        latent = torch.zeros(1, 4, size.height // 8, size.width // 8)
        return {
            "encode": peak(lambda: module.encode(rgb)),
            "decode": peak(lambda: module.decode(latent)),
        }


@cache
def depth_values() -> int:
    """Values alive in DPT-hybrid, which always sees 384x384, traced."""
    depth = DPTForDepthEstimation(DPTConfig(**MIDAS_HYBRID)).eval().requires_grad_(False)
    with traced(torch.float32):
        square = torch.zeros(1, 3, 384, 384)
        return peak(lambda: depth(pixel_values=square)) // 4


def traced_errors() -> Iterator[float]:
    """Relative error of the estimate of each stream with each autoencoder."""
    for size, dtype in STREAMS:
        network = network_bytes(size, dtype) | {"depth": depth_values() * dtype.itemsize}
        for kind in AUTOENCODERS:
            measured = network | picture_bytes(kind, size, dtype)
            yield show(size, dtype, kind, measured)


def show(size: StreamSize, dtype: torch.dtype, kind: str, measured: Measured) -> float:
    """Print a line; returns the relative error."""
    predicted = estimate(sd15_footprint(dtype, kind), size).activations
    error = predicted / max(measured.values()) - 1
    parts = ", ".join(f"{name} {count / 1e6:.0f}" for name, count in measured.items())
    rows = f"{size.width}x{size.height} N={size.steps}{' guided' * (size.branches > 1)}"
    print(
        f"{rows:20} {str(dtype).removeprefix('torch.'):8} {kind:5} "
        f"predicted {predicted / 1e6:5.0f} MB, measured {max(measured.values()) / 1e6:5.0f} MB "
        f"({error:+.1%}): {parts}",
        flush=True,
    )
    return error


# ---- resident memory


def resident_errors(size: StreamSize) -> Iterator[float]:
    """Relative error of the estimate of one stream that is really run, on this CPU in float32."""
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: what is freed is given back
    with torch.device("meta"):
        unet = sd15_unet()
    fill(unet.to_empty(device=CPU))
    warm_up, push = Stream(unet, size).run(resident)
    for kind, make in AUTOENCODERS.items():
        module = make().eval().requires_grad_(False)
        latent = torch.zeros(1, 4, size.height // 8, size.width // 8)
        decode = resident(lambda m=module, x=latent: m.decode(x))
        measured = {"warm-up": warm_up, "step": push, "decode": decode}
        yield show(size, torch.float32, kind, measured)


@torch.no_grad()
def fill(module: nn.Module) -> None:
    """Touch every page of the weights."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.fill_(0.01)


@torch.no_grad()
def resident(call: Callable[[], object]) -> int:
    """Growth of this process's peak memory in the second call, which finds all caches made."""
    call()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def status(name: str) -> int:
    """A figure of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> int:
    """Print predicted and measured bytes; 1 if one is further off than 15 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", metavar="WxH", help="run this size, too, on the CPU in float32")
    options = parser.parse_args()
    errors = [*traced_errors()]
    if options.real:
        width, height = map(int, options.real.split("x"))
        print("resident memory:")
        errors += resident_errors(StreamSize(width, height, 1))
    worst = max(map(abs, errors))
    print(f"largest error {worst:.1%}, allowed {ALLOWED:.0%}")
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
