"""The node that says what a stream needs."""

from typing import TYPE_CHECKING, Any

from . import host
from .inputs import MODEL, SIDES, STEPS, SizedNode, size_widgets

if TYPE_CHECKING:
    from .hosted import HostedModel


class Live2DiffPlan(SizedNode):
    """Memory needed, free, and what would fit."""

    CATEGORY = "Live2Diff/model"
    SEARCH_ALIASES = (
        "vram",
        "memory",
        "out of memory",
        "what fits",
    )
    DESCRIPTION = (
        "Says how much memory a stream needs, how much is free, and which size and steps would "
        "fit, before anything runs."
    )
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("report",)
    OUTPUT_TOOLTIPS = ("The plan in words.",)
    FUNCTION = "plan"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What it takes."""
        return {"required": {"model": MODEL, **size_widgets(), "steps": STEPS}}

    @classmethod
    def IS_CHANGED(cls, **_: object) -> float:
        """Free memory changes by itself."""
        return float("nan")

    def plan(self, model: "HostedModel", width: int, height: int, steps: int) -> dict[str, Any]:
        """The plan, shown in the node and given as text."""
        from ..live2diff_core.weights.budget import StreamSize
        from ..live2diff_core.weights.plan import make_plan, plan_text

        footprint, device = model.footprint, host.network_device()
        free = host.free_bytes(footprint.weights)
        how = model.computing
        stream = StreamSize(width, height, steps, cache=how.cache, runtime=how.runtime)
        plan = make_plan(footprint, stream, device, free, SIDES)
        text = plan_text(plan)
        return {"ui": {"text": [text]}, "result": (text,)}
