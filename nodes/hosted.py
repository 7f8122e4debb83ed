"""A model as ComfyUI hosts it: moved to the device when it runs, evicted when others need room."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..live2diff_core.config import DepthRule, StreamConfig
from ..live2diff_core.errors import MemoryBudgetError
from ..live2diff_core.models.translator import TranslationModel
from ..live2diff_core.weights.budget import StreamSize, estimate, model_footprint
from . import host


@dataclass(frozen=True, eq=False)
class HostedModel:
    """What LIVE2DIFF_MODEL carries.

    patchers: ComfyUI's holders of the model's networks, which live as long as this does; None for
    each outside ComfyUI.
    """

    model: TranslationModel
    depth_range: DepthRule
    patchers: tuple[Any, ...]

    @contextmanager
    def running(self, config: StreamConfig, fresh: bool) -> Iterator[None]:
        """Networks are on the device meanwhile, with room for a stream.

        fresh: whether the stream's cache is still to come. Raises FrameSizeError for a size that
        the model cannot take, MemoryBudgetError when the device is full.
        """
        self.model.check_size(config.width, config.height)
        stream = stream_size(config)
        budget = estimate(model_footprint(self.model), stream)
        host.load(self.patchers, budget.activations + fresh * budget.cache)
        try:
            yield
        except host.OUT_OF_MEMORY as error:
            host.free_cached()
            raise MemoryBudgetError(
                f"{self.model.device} is full: {stream} needs {budget}. Lower the size or the "
                "steps (Live2Diff Plan says what fits), or close other programs and sessions"
            ) from error


def stream_size(config: StreamConfig) -> StreamSize:
    """What a stream's memory follows from."""
    return StreamSize(config.width, config.height, len(config.steps.indices))
