"""How long a change of a LoRA's strength takes at the size of Stable Diffusion 1.5.

python benchmarks/lora_change.py [--dtype float16] [--device cpu] [--rank N] [--repeats 3] [--json]

Weights and factors are made up: only their sizes matter. The change is prepared beside the running
network, so its time delays no frame; what it holds besides is the weights that LoRAs touch (until
the swap, those of the variant that runs come on top).
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence

import psutil
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from live2diff_core.models.adapters import Changes, LowRank, variant

OUTER = ("conv_in", "conv_out", "time_embedding")
Case = list[tuple[Changes, float]]


def attention(name: str) -> bool:
    """What trainers change by default: linear layers of the transformers."""
    return "transformer_blocks" in name


def lcm(name: str) -> bool:
    """What LCM-LoRA changes: all but the first and last layers."""
    return not name.startswith(OUTER)


def used(device: torch.device) -> int:
    """Bytes of memory in use now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


class Peak:
    """Most memory in use while it is open, in bytes; on the CPU by looking often."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes, self._over = device, 0, threading.Event()

    def __enter__(self) -> "Peak":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self.bytes = max(self.bytes, used(self.device))


def filled(shape: Sequence[int], like: Tensor) -> Tensor:
    """Small random numbers, repeated: cheaper than as many random ones."""
    total = torch.Size(shape).numel()
    return (0.02 * like).repeat(total // len(like) + 1)[:total].view(*shape)


def make_unet(dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """The UNet of Stable Diffusion 1.5 with made-up weights."""
    random = torch.randn(1 << 16).to(device, dtype)
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    state = {key: filled(t.shape, random) for key, t in unet.state_dict().items()}
    unet.load_state_dict(state, assign=True)
    return unet.eval().requires_grad_(False)


def make_changes(unet: nn.Module, wanted: Callable[[str], bool], rank: int) -> Changes:
    """Factors in float16 on the CPU, as a file brings them."""
    random = torch.randn(1 << 16).half()
    return {
        f"{name}.weight": LowRank(
            filled((layer.weight.shape[0], rank, *[1] * (layer.weight.ndim - 2)), random),
            filled((rank, *layer.weight.shape[1:]), random),
            1.0,
        )
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and wanted(name)
    }


def measure(unet: nn.Module, case: Case, before: int, repeats: int) -> dict[str, float]:
    """Seconds of each change, and megabytes that the variant holds and at most while it is made.

    before: bytes in use before the first case, which the peak counts from.
    """
    device = next(unet.parameters()).device
    seconds = []
    with Peak(device) as peak:
        for _ in range(repeats):
            start = time.perf_counter()
            made = variant(unet, case)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
            pairs = zip(made.parameters(), unet.parameters(), strict=True)
            sizes = [new.nbytes for new, old in pairs if new is not old]
            del made, pairs
    return {
        "layers": len(sizes),
        "first_s": round(seconds[0], 3),
        "best_s": round(min(seconds), 3),
        "held_mb": round(sum(sizes) / 1e6),
        "peak_mb": round((peak.bytes - before) / 1e6),
    }


def main() -> int:
    """Print what a change costs for a usual LoRA, for LCM-LoRA, and for both at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--rank", type=int, help="of all LoRAs, instead of 32 and 64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    unet = make_unet(getattr(torch, options.dtype), options.device)
    size = sum(p.nbytes for p in unet.parameters()) / 1e6
    print(f"UNet of {size:.0f} MB, {torch.get_num_threads()} threads", file=sys.stderr)
    usual = make_changes(unet, attention, options.rank or 32), 0.8
    fast = make_changes(unet, lcm, options.rank or 64), 1.0
    before, results = used(options.device), {}
    for name, case in (("usual LoRA", [usual]), ("LCM-LoRA", [fast]), ("both", [usual, fast])):
        results[name] = found = measure(unet, case, before, options.repeats)
        line = ", ".join(f"{key} {value:g}" for key, value in found.items())
        print(f"{name}: {line}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"dtype": options.dtype, "unet_mb": round(size), "cases": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
