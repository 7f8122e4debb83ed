"""Where the network's time and operations go: read by hooks, in a short pass without compilation.

A hook waits for the device before and after its module, so this pass is slower than the stream: it
gives shares and counts, and the stream's own times are measured without it.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from torch.utils.hooks import RemovableHandle

from ...config import RuntimeConfig
from ...frames import Frame
from ...models.translator import TranslationModel
from ...stream.session import Session
from .job import DeviceClock, Job

PARTS = ("network", "temporal", "attention")
PLAIN = RuntimeConfig("eager", "torch")
Sums = dict[str, float]
Shape = Sequence[int]


@dataclass(frozen=True, slots=True)
class Split:
    """Of one step: milliseconds (medians), operations, and bytes of the weights that are used, of
    the whole network, of its temporal transformers, and of the attentions in them.
    """

    ms: Mapping[str, float]
    flops: Mapping[str, int]
    weights: Mapping[str, int]

    @property
    def temporal_share(self) -> float:
        """Part of the network's time that goes into the temporal transformers."""
        return self.ms["temporal"] / self.ms["network"]


def measure_split(job: Job, frames: Sequence[Frame]) -> Split:
    """Run frames through the modules as they are written; those after the warm-up are measured.

    Operations are counted in PyTorch's attention, as a kernel tells nothing of its own.
    """
    clock = DeviceClock(job.device)
    warm, rest = frames[: job.config.window.sinks], frames[job.config.window.sinks :]
    with _open(job, PLAIN, warm) as session:
        flops, weights = _count(session, rest[0])
    with _open(job, replace(job.config.runtime, mode="eager", overlap=False), warm) as session:
        _time(session, rest[:1], clock.settled)  # kernels are made in the first call
        spans = _time(session, rest, clock.settled)
    ms = {part: 1000 * statistics.median(span[part] for span in spans) for part in PARTS}
    return Split(ms, flops, weights)


@contextmanager
def _open(job: Job, runtime: RuntimeConfig, warm: Sequence[Frame]) -> Iterator[Session]:
    with Session(job.model, replace(job.config, runtime=runtime), job.prompt) as session:
        session.warmup(warm)
        yield session


def _time(session: Session, frames: Sequence[Frame], now: Callable[[], float]) -> list[Sums]:
    """Seconds in each part, for each frame."""
    spans = []
    for frame in frames:
        with metered(session.model, now) as sums:
            session.push([frame])
        spans.append(sums)
    return spans


def _count(session: Session, frame: Frame) -> tuple[dict[str, int], dict[str, int]]:
    """Operations of each part, and bytes of its weights, for one frame."""
    counter = FlopCounterMode(display=False, custom_mapping=FUSED)
    with (
        used_modules(session.model.unet) as used,
        counter,
        metered(session.model, counter.get_total_flops) as sums,
    ):
        session.push([frame])
    weights = {
        part: sum(_own_bytes(m) for module in modules for m in module.modules() if m in used)
        for part, modules in _parts(session.model).items()
    }
    return {part: int(count) for part, count in sums.items()}, weights


def _own_bytes(module: nn.Module) -> int:
    return sum(weight.nbytes for weight in module.parameters(recurse=False))


@contextmanager
def used_modules(root: nn.Module) -> Iterator[set[nn.Module]]:
    """Modules that run meanwhile: what a prompt's keys were made with, for one, does not."""
    used: set[nn.Module] = set()
    with ExitStack() as hooks:
        for module in root.modules():
            handle = module.register_forward_pre_hook(lambda module, _: used.add(module))
            hooks.callback(handle.remove)
        yield used


def _parts(model: TranslationModel) -> dict[str, list[nn.Module]]:
    """The modules of each part."""
    unet = model.unet
    transformers: list[nn.Module] = list(unet.transformers())
    attentions: list[nn.Module] = list(unet.attentions())
    found = ([unet.spatial, *transformers], transformers, attentions)
    return dict(zip(PARTS, found, strict=True))


@contextmanager
def metered(model: TranslationModel, read: Callable[[], float]) -> Iterator[Sums]:
    """What a meter counts while each part runs; the sums are complete at the end.

    The network is what lies between its first layer and its last.
    """
    sums = dict.fromkeys(PARTS, 0.0)
    spatial = model.unet.spatial
    _, *temporal = _parts(model).items()
    with ExitStack() as hooks:
        for handle in _hook(spatial.conv_in, spatial.conv_out, _Meter(PARTS[0], read, sums)):
            hooks.callback(handle.remove)
        for part, modules in temporal:
            for module in modules:
                for handle in _hook(module, module, _Meter(part, read, sums)):
                    hooks.callback(handle.remove)
        yield sums


@dataclass(frozen=True, slots=True)
class _Meter:
    """Takes off what is shown at the beginning of a part, adds what is shown at its end."""

    part: str
    read: Callable[[], float]
    sums: Sums

    def begin(self, *_: object) -> None:
        """Hook before the first module."""
        self.sums[self.part] -= self.read()

    def end(self, *_: object) -> None:
        """Hook after the last module."""
        self.sums[self.part] += self.read()


def _hook(first: nn.Module, last: nn.Module, meter: _Meter) -> tuple[RemovableHandle, ...]:
    return first.register_forward_pre_hook(meter.begin), last.register_forward_hook(meter.end)


def _fused(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    count: int = sdpa_flop_count(query, key, value)
    return count


# Attention over pixels on a CPU, which torch's own table leaves out.
FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused}
