"""Work of a GPU beside the network's: pixels go in and come out while it denoises."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from ..config import RuntimeConfig
from ..errors import Live2DiffError
from ..frames import Frame, to_bytes
from .cuda_graph import recording_stream
from .pipeline import NetworkInput


class Lane(Protocol):
    """Where a frame's latent and depth are made, which need no frame before it."""

    def run(self, encode: Callable[[Frame], NetworkInput], frame: Frame) -> NetworkInput:
        """What a frame is for the network, for the caller's queue to go on with."""


class CallersLane:
    """The caller's own queue: one thing after another."""

    def run(self, encode: Callable[[Frame], NetworkInput], frame: Frame) -> NetworkInput:
        """As `Lane.run`."""
        return encode(frame)


class CudaLane:
    """A queue of its own on a CUDA device, which does not wait for what the caller's has to do.

    The caller's queue waits for the result, not the caller. What is there when it is made can be
    read on it; weights must stay where they are from then on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        if self._stream == recording_stream(device):  # PyTorch has 32, and begins anew
            self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(self._callers)

    @property
    def _callers(self) -> torch.cuda.Stream:
        return torch.cuda.current_stream(self._device)

    def run(self, encode: Callable[[Frame], NetworkInput], frame: Frame) -> NetworkInput:
        """As `Lane.run`. A frame that is on the device already may still be in the making."""
        if frame.rgb.is_cuda:
            self._stream.wait_stream(self._callers)
            frame.rgb.record_stream(self._stream)
        try:
            with torch.cuda.stream(self._stream):
                entry = encode(frame)
        finally:  # what it works on may be freed when this has failed
            self._callers.wait_stream(self._stream)
        for tensor in (entry.latent, entry.depth):  # not to be freed before it was used
            tensor.record_stream(self._callers)
        return entry


def make_lane(config: RuntimeConfig, device: torch.device) -> Lane:
    """Where the frames of a stream are encoded."""
    return CudaLane(device) if config.overlap else CallersLane()


@dataclass(frozen=True, slots=True, eq=False)
class _Coming:
    """A picture on its way. done: when it is there; None: it is."""

    frame: Frame
    done: torch.cuda.Event | None = None

    def wait(self) -> Frame:
        if self.done is not None:
            self.done.synchronize()
        return self.frame


class Landing:
    """Brings finished pictures to the host as uint8 in 0..255.

    From a CUDA device they come one call late, so that nobody waits for what the device has only
    just been asked for; from elsewhere at once.
    """

    def __init__(self) -> None:
        self._coming: list[_Coming] = []

    def take(self, frames: Sequence[Frame]) -> list[Frame]:
        """Start these on their way. Returns those that have arrived, in order."""
        started = [_start(frame) for frame in frames]
        arrived = self.rest()
        self._coming = started
        return arrived if any(one.done is not None for one in started) else arrived + self.rest()

    def rest(self) -> list[Frame]:
        """Wait for those that are on their way."""
        arrived = [one.wait() for one in self._coming]
        self._coming = []
        return arrived


def _start(frame: Frame) -> _Coming:
    rgb = to_bytes(frame.rgb)
    if not rgb.is_cuda:
        return _Coming(replace(frame, rgb=rgb.cpu()))
    there = rgb.to("cpu", non_blocking=True)  # in pinned memory
    done = torch.cuda.current_stream(rgb.device).record_event()
    return _Coming(replace(frame, rgb=there), done)


def landed(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Pictures of a stream on the host, as `Landing` brings them; where the stream breaks, those
    that were finished come first.
    """
    landing = Landing()
    try:
        for frame in frames:
            yield from landing.take([frame])
    except Live2DiffError:
        yield from landing.rest()
        raise
    yield from landing.rest()
