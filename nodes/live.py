"""The node that translates a live source until it is stopped."""

from typing import TYPE_CHECKING, Any

from . import host
from .inputs import (
    MODEL,
    NO_LORA,
    StreamNode,
    Widgets,
    optional_widgets,
    size_widgets,
    stream_widgets,
)

if TYPE_CHECKING:
    from .hosted import HostedModel
    from .live_stream import LiveRun
    from .record import Recording
    from .sources import LiveSource

RARE = ("noise", "fit")  # of what other nodes have, too


class Live2DiffLive(StreamNode):
    """Runs a live source through the model, shown in the node, until it is stopped."""

    CATEGORY = "Live2Diff/live"
    SEARCH_ALIASES = (
        "realtime",
        "real-time",
        "webcam",
        "stream",
        "obs",
        "video to video",
        "style transfer",
        "vj",
    )
    DESCRIPTION = (
        "Translates a camera, a screen, a video or what a program sends, live, until you press "
        "Stop. Prompt and sliders act while it runs. The picture is shown here, and on a bare page "
        "for OBS."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("last_frame",)
    OUTPUT_TOOLTIPS = ("The last picture, when the stream has been stopped.",)
    FUNCTION = "run"
    OUTPUT_NODE = True
    LAZY = ("model", "clip")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What it takes; what is rarely changed is hidden until advanced widgets are shown."""
        widgets = {**size_widgets(), **stream_widgets()}
        rare = {**_guidance(), **_live(), **_lora(), **optional_widgets()}
        return {
            "required": {
                "model": MODEL,
                "clip": (
                    "CLIP",
                    {
                        "tooltip": "Reads the prompt: the CLIP that belongs to the model.",
                        "lazy": True,
                    },
                ),
                "source": ("LIVE2DIFF_SOURCE", {"tooltip": "Where the frames come from."}),
                "prompt": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "What to see. Changes show within a second while it runs.",
                    },
                ),
                **{name: _advanced(w) if name in RARE else w for name, w in widgets.items()},
            },
            "optional": {
                "record": ("LIVE2DIFF_RECORD", {"tooltip": "From Record: records the stream."}),
                **{name: _advanced(widget) for name, widget in rare.items()},
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, **_: object) -> float:
        """A live source is never the same."""
        return float("nan")

    def run(
        self,
        model: "HostedModel",
        clip: Any,  # noqa: ANN401 - ComfyUI's CLIP
        source: "LiveSource",
        record: "Recording | None" = None,
        unique_id: str | None = None,
        **settings: Any,  # noqa: ANN401 - widgets
    ) -> dict[str, Any]:
        """Run until the source ends or the stream is stopped; the last picture, (1, h, w, 3)."""
        from .live_stream import Place, live_run

        settings = {**DEFAULTS, **settings}
        place = Place(host.client_id(), unique_id, settings["view_name"].strip())
        with live_run(place, model, clip, source, record, settings) as run:
            run.wait()
        if run.last_frame is None:
            return {"result": (host.nothing_yet(),)}
        return {"ui": _shown(run), "result": (run.last_frame,)}


def _shown(run: "LiveRun") -> dict[str, Any]:
    """The recording, where there is one, else the last picture, as ComfyUI shows results."""
    if run.path is not None and run.path.exists():
        return {"images": [host.output_place(run.path)], "animated": (True,)}
    return {"images": [host.preview_picture(run.last_frame[0])]}


def _advanced(widget: tuple[Any, dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
    kind, options = widget
    return kind, {**options, "advanced": True}


def _guidance() -> Widgets:
    return {
        "guidance": (
            "FLOAT",
            {
                "default": 1.0,
                "min": 1.0,
                "max": 15.0,
                "step": 0.1,
                "tooltip": "1 is off. Above, the prompt counts more and the negative prompt is "
                "heard, for twice the work.",
            },
        ),
        "negative": (
            "STRING",
            {"default": "", "tooltip": "What not to see; needs a guidance above 1."},
        ),
    }


def _live() -> Widgets:
    return {
        "similarity": (
            "FLOAT",
            {
                "default": 0.0,
                "min": 0.0,
                "max": 1.0,
                "step": 0.001,
                "tooltip": "Rests while the picture is this similar to the last one, such as 0.98; "
                "0 never rests.",
            },
        ),
        "max_rate": (
            "FLOAT",
            {
                "default": 0.0,
                "min": 0.0,
                "max": 240.0,
                "step": 1.0,
                "tooltip": "Frames a second, at most; 0 is as fast as it goes.",
            },
        ),
        "on_failure": (
            ["hold", "passthrough", "card"],
            {
                "tooltip": "While the source or the model fails. hold: the last picture stays. "
                "passthrough: the input is shown. card: fades to a card that says what happened."
            },
        ),
        "view_name": (
            "STRING",
            {
                "default": "",
                "tooltip": "A name of your own for the page for OBS: its address then is the same "
                "after every start.",
            },
        ),
    }


def _lora() -> Widgets:
    return {
        "lora": (
            [NO_LORA, *host.lora_files()],
            {
                "tooltip": "A LoRA whose strength can be changed while the stream runs; it changes "
                "the picture alone, not how the prompt is read."
            },
        ),
        "lora_strength": (
            "FLOAT",
            {
                "default": 1.0,
                "min": -5.0,
                "max": 5.0,
                "step": 0.05,
                "tooltip": "Strength of the LoRA; 0 is without.",
            },
        ),
    }


# Of what an API graph may leave out.
DEFAULTS = {
    name: options.get("default", kind[0] if isinstance(kind, list) else None)
    for name, (kind, options) in {
        **_guidance(),
        **_live(),
        **_lora(),
        **optional_widgets(),
    }.items()
}
