"""A model as ComfyUI hosts it: moved to the device when it runs, evicted when others need room."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..live2diff_core.config import CacheKind, DepthRule, RuntimeConfig, StreamConfig
from ..live2diff_core.errors import MemoryBudgetError
from ..live2diff_core.models.translator import TranslationModel
from ..live2diff_core.stream.interrupt import interruptible
from ..live2diff_core.weights.budget import Footprint, estimate, model_footprint, stream_size
from . import host
from .load import tell_of_load


@dataclass(frozen=True)
class Computing:
    """How every stream of a model is computed, as in `StreamConfig`."""

    depth_range: DepthRule = "running"
    depth_every: int = 1
    cache: CacheKind = "network"
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass(frozen=True, eq=False, repr=False)
class HostedModel:
    """What LIVE2DIFF_MODEL carries.

    patchers: ComfyUI's holders of the model's networks, which live as long as this does; None for
    each outside ComfyUI.
    """

    model: TranslationModel
    patchers: tuple[Any, ...]
    computing: Computing = field(default_factory=Computing)

    def __repr__(self) -> str:
        """Short: ComfyUI sends it to the page with every error of a node that takes this."""
        return f"HostedModel({self.model.name})"

    @property
    def patcher(self) -> Any:  # noqa: ANN401 - ComfyUI's ModelPatcher
        """The UNet's holder: where RAM is scarce, ComfyUI first drops outputs that have one."""
        return self.patchers[0] if self.patchers else None

    @cached_property
    def footprint(self) -> Footprint:
        """What the model's memory follows from; counted once, as every run asks."""
        return model_footprint(self.model)

    @contextmanager
    def running(self, config: StreamConfig, caches: int) -> Iterator[None]:
        """As `loaded`; an interrupt is heard at every call of the network."""
        tell_of_load()
        with interruptible(host.check_interrupt), self.loaded(config, caches):
            yield

    @contextmanager
    def loaded(self, config: StreamConfig, caches: int) -> Iterator[None]:
        """Networks are on the device meanwhile, with room for a stream.

        caches: how many of the stream's caches are still to come; a re-prime takes one beside that
        which it replaces. Raises FrameSizeError for a size that the model cannot take,
        MemoryBudgetError when the device is full.
        """
        self.model.check_size(config.width, config.height)
        stream = stream_size(config)
        budget = estimate(self.footprint, stream)
        try:
            host.load(self.patchers, budget.activations + budget.runtime + caches * budget.cache)
            yield
        except host.OUT_OF_MEMORY as error:
            host.unload_all()
            raise MemoryBudgetError(
                f"{host.network_device()} is full: {stream} needs {budget}. Lower the size or the "
                "steps (Live2Diff Plan says what fits), close other sessions (Extensions > "
                "Live2Diff) or other programs"
            ) from error
