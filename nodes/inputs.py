"""Widgets that several nodes have, what they mean, and what is said of wrong ones."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..live2diff_core.config import MAX_STEPS, StepSelection, StreamConfig, parse_t_index
from ..live2diff_core.errors import ConfigError

if TYPE_CHECKING:
    from .hosted import Computing

MULTIPLE = 64  # pixels; what Stable Diffusion 1.5 takes, and so every model here
MAX_SIDE = 2048
SIDES = range(MULTIPLE, MAX_SIDE + 1, MULTIPLE)
MAX_SEED = 2**63 - 1
NO_LORA = "none"
SIZE_LIMITS = {"min": MULTIPLE, "max": 4096}  # of pictures that are brought to a stream's size

Widgets = dict[str, tuple[Any, dict[str, Any]]]

MODEL = (
    "LIVE2DIFF_MODEL",
    {"lazy": True, "tooltip": "The model: the bundled one, or your own from Apply."},
)
CONDITIONING_TIP = (
    "The prompt, from CLIP Text Encode or Prompt Travel; no areas, masks or combinations."
)


def size_widgets() -> Widgets:
    """Width and height of the translated picture."""
    return {side: _side(side) for side in ("width", "height")}


def _side(side: str) -> tuple[str, dict[str, Any]]:
    tip = f"{side.capitalize()} of the translated picture in pixels, a multiple of {MULTIPLE}."
    options = {"default": 512, "min": MULTIPLE, "max": MAX_SIDE, "step": MULTIPLE, "tooltip": tip}
    return "INT", options


STEPS = (
    "INT",
    {
        "default": 2,
        "min": 1,
        "max": MAX_STEPS,
        "tooltip": "Denoising steps that run as one batch. More: finer, slower, more memory, and "
        "each adds a frame of latency.",
    },
)


def stream_widgets() -> Widgets:
    """Settings of a stream besides its size."""
    return {
        "steps": STEPS,
        "denoise": (
            "FLOAT",
            {
                "default": 0.6,
                "min": 0.02,
                "max": 1.0,
                "step": 0.01,
                "tooltip": "How far the picture may go from the input: 0.3 keeps it, 0.8 repaints "
                "it.",
            },
        ),
        "seed": (
            "INT",
            {
                "default": 0,
                "min": 0,
                "max": MAX_SEED,
                "control_after_generate": True,
                "tooltip": "The same seed and the same input give the same frames on one device.",
            },
        ),
        "noise": (
            ["fixed", "fresh"],
            {
                "default": "fixed",
                "tooltip": "fixed: one field of noise for the whole stream, steadier. fresh: new "
                "noise for every frame, livelier; the paper's way.",
            },
        ),
        "fit": (
            ["crop", "stretch"],
            {
                "default": "crop",
                "tooltip": "For a source of another shape: crop cuts its longer side evenly, "
                "stretch distorts it.",
            },
        ),
    }


def optional_widgets() -> Widgets:
    """Settings that few need."""
    return {
        "t_index": (
            "STRING",
            {
                "default": "",
                "tooltip": "Steps by their place in the schedule of 50, noisiest first, such as "
                "30,36,42. Overrides steps and denoise; empty leaves it to them.",
            },
        )
    }


def check_size(width: int, height: int) -> None:
    """Raise ConfigError for sides that no model here takes."""
    for name, side in (("width", width), ("height", height)):
        if side % MULTIPLE or not MULTIPLE <= side <= MAX_SIDE:
            near = min(max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE), MAX_SIDE)
            raise ConfigError(
                f"{name} must be a multiple of {MULTIPLE} from {MULTIPLE} to {MAX_SIDE}, got "
                f"{side}; the nearest is {near}"
            )


class SizedNode:
    """What the nodes have in common that take a model and a size.

    ComfyUI shows what a check before the run finds once for each input that the check names: so it
    names one. What depends on several is checked when the node's turn comes, before what is lazy is
    made: nothing is loaded for widgets that cannot be.
    """

    LAZY: tuple[str, ...] = ("model",)

    def check_lazy_status(self, **given: Any) -> list[str]:  # noqa: ANN401 - inputs
        """Raise ConfigError for widgets that cannot be; else ask for the rest."""
        check_size(given["width"], given["height"])
        return list(self.LAZY)


class StreamNode(SizedNode):
    """What the nodes have in common that begin a stream."""

    LAZY = ("model", "conditioning")

    @classmethod
    def VALIDATE_INPUTS(cls, t_index: str | None = None) -> bool | str:
        """What is wrong with the steps, in words; a linked one is None."""
        try:
            if t_index is not None and t_index.strip():
                StepSelection(parse_t_index(t_index))
        except ConfigError as error:
            return str(error)
        return True

    def check_lazy_status(self, **given: Any) -> list[str]:  # noqa: ANN401 - inputs
        """Raise ConfigError for widgets that cannot be; else ask for the rest."""
        step_selection({"t_index": "", **given})
        return super().check_lazy_status(**given)


def step_selection(settings: Mapping[str, Any]) -> StepSelection:
    """Timesteps by t_index, else by denoise and steps. Raises ConfigError."""
    if settings["t_index"].strip():
        return StepSelection(parse_t_index(settings["t_index"]))
    return StepSelection(strength=settings["denoise"], steps=settings["steps"])


def stream_config(settings: Mapping[str, Any], computing: "Computing") -> StreamConfig:
    """A stream's settings from its node's widgets. Raises ConfigError."""
    check_size(settings["width"], settings["height"])
    return StreamConfig(
        width=settings["width"],
        height=settings["height"],
        steps=step_selection(settings),
        noise=settings["noise"],
        seed=settings["seed"] % (MAX_SEED + 1),  # what others draw goes up to 2^64
        fit=settings["fit"],
        depth_range=computing.depth_range,
        depth_every=computing.depth_every,
        cache=computing.cache,
        runtime=computing.runtime,
    )
