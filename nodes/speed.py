"""The node that has a model computed in another way."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..live2diff_core.config import (
    ATTENTIONS,
    RUNTIMES,
    AttentionKind,
    CacheKind,
    RuntimeConfig,
    RuntimeMode,
)
from . import host
from .inputs import MODEL

if TYPE_CHECKING:
    from .hosted import HostedModel


class Live2DiffSpeed:
    """The same model, computed faster or with a smaller cache."""

    CATEGORY = "Live2Diff/model"
    SEARCH_ALIASES = (
        "compile",
        "cuda graph",
        "faster",
        "fps",
    )
    DESCRIPTION = (
        "Has a model computed in another way: faster, or with a smaller cache. As it comes it "
        "changes nothing. What this computer cannot do is said before the model is loaded."
    )
    RETURN_TYPES = ("LIVE2DIFF_MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The same model, for Warm-up, Translate Video, Live and Plan.",)
    FUNCTION = "speed"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The model is asked for when the choices are known to be possible here."""
        return {"required": {"model": MODEL, **_widgets()}}

    def check_lazy_status(
        self, runtime: RuntimeMode, attention: AttentionKind, **_: object
    ) -> list[str]:
        """Raise ConfigError for what this computer cannot do before a model is loaded."""
        _check(RuntimeConfig(runtime, attention))
        return ["model"]

    def speed(
        self,
        model: "HostedModel",
        runtime: RuntimeMode,
        attention: AttentionKind,
        cache: CacheKind,
        depth_every: int,
    ) -> "tuple[HostedModel]":
        """The model on the same networks. Raises ConfigError for what cannot be done here."""
        config = RuntimeConfig(runtime, attention)
        _check(config)
        computing = replace(model.computing, depth_every=depth_every, cache=cache, runtime=config)
        return (replace(model, computing=computing),)


def _check(config: RuntimeConfig) -> None:
    from ..live2diff_core.stream.runtime import check_runtime

    check_runtime(config, host.network_device())


def _widgets() -> dict[str, Any]:
    return {
        "runtime": (
            list(RUNTIMES),
            {
                "default": "eager",
                "tooltip": "eager: as it is written. graph: replayed as CUDA graphs, two to three "
                "times as fast after a second; NVIDIA and AMD only. compile: for the CPU too, but "
                "the first frame of each size and number of steps takes one to three minutes. "
                "compile-graph: both, the fastest.",
            },
        ),
        "attention": (
            list(ATTENTIONS),
            {
                "default": "auto",
                "tooltip": "How frames look back in time. triton: a kernel of its own, for NVIDIA "
                "and AMD. cpp: one for CPUs, in C++. torch: PyTorch, everywhere. auto: the "
                "device's kernel where it runs, else torch.",
            },
        ),
        "cache": (
            ["network", "float8"],
            {
                "default": "network",
                "tooltip": "What a stream keeps of its frames. network: in the model's precision. "
                "float8: in 8 bits, half of half precision's memory, with a small error.",
            },
        ),
        "depth_every": (
            "INT",
            {
                "default": 1,
                "min": 1,
                "max": 30,
                "tooltip": "1 estimates depth for every frame, 3 for every third. More saves the "
                "depth model's time, and the structure lags behind what moves.",
            },
        ),
    }
