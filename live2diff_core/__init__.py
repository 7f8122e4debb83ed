"""Live2Diff: streaming video translation with uni-directional temporal attention (arXiv
2407.08701).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import StepSelection, StreamConfig
    from .stream.session import Session
    from .stream.translate import translate
    from .weights.model import load_model
    from .weights.spec import LoraSpec, ModelSpec

__version__ = "0.1.0"
__all__ = [
    "LoraSpec",
    "ModelSpec",
    "Session",
    "StepSelection",
    "StreamConfig",
    "load_model",
    "translate",
]

_HOMES = {
    "LoraSpec": ".weights.spec",
    "ModelSpec": ".weights.spec",
    "Session": ".stream.session",
    "StepSelection": ".config",
    "StreamConfig": ".config",
    "load_model": ".weights.model",
    "translate": ".stream.translate",
}


def __getattr__(name: str) -> object:
    """Import what is asked for: the errors or the version alone need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
