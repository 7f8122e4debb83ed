"""The stream of a Live node: opened, told to the page, ended."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..live2diff_core.config import Guidance, StreamConfig
from ..live2diff_core.errors import WeightsMissingError
from ..live2diff_core.live.served import ServedStream, Setup
from ..live2diff_core.live.settings import LiveConfig
from ..live2diff_core.models.adapters import AdapterUse
from ..live2diff_core.models.translator import TranslationModel
from ..live2diff_core.stream.session import Session
from ..live2diff_core.weights.lora import load_unet_lora
from . import host, hub
from .hosted import HostedModel
from .images import to_images
from .inputs import NO_LORA, stream_config
from .load import tell_of_load
from .sources import LiveSource
from .text import HostTextEncoder

if TYPE_CHECKING:
    from torch import Tensor

    from .record import Recording

STREAM, ENDED = "live2diff.stream", "live2diff.ended"  # events
TOLD_EVERY = 2.0  # seconds: a page that was loaded anew learns of its stream
LOOK_UP = 0.1
CACHES = 2  # a change of the prompt takes one beside that which it replaces


@dataclass(frozen=True)
class Place:
    """Whose stream it is: who runs the graph, and the node. view: the user's name for it."""

    client: str | None
    node: str | None
    view: str = ""


@dataclass(frozen=True, eq=False)
class LiveRun:
    """A stream that runs. path: of its recording, if there is one. prompt: the id of ComfyUI's."""

    stream: ServedStream
    source: LiveSource
    place: Place
    path: Path | None
    prompt: str | None

    def wait(self) -> None:
        """Until the stream ends. Raises ComfyUI's interrupt."""
        due = 0.0
        while not self.stream.wait(LOOK_UP):
            host.check_interrupt()
            if time.monotonic() >= due:
                due = time.monotonic() + TOLD_EVERY
                self._tell(STREAM, **self._about())

    def told_end(self) -> None:
        """Tell the page that the stream has ended."""
        self._tell(ENDED, text=self.stream.statistics().error or "")

    @property
    def last_frame(self) -> "Tensor | None":
        """The newest picture as an IMAGE, None where there was none."""
        frame = self.stream.relay.frame
        return None if frame is None else to_images([frame]) / 255

    def _about(self) -> dict[str, Any]:
        feed = self.source.feed
        return {
            "key": hub.stream_key(self.place.client, self.place.node),
            "prompt": self.prompt,
            "view": f"view/{self.stream.id}",
            "feed": feed and vars(feed),
        }

    def _tell(self, event: str, **data: object) -> None:
        about = {"node": self.place.node, "stream": self.stream.id, **data}
        host.tell(self.place.client, event, about)


@contextmanager
def live_run(
    place: Place,
    hosted: HostedModel,
    clip: Any,  # noqa: ANN401 - ComfyUI's CLIP
    source: LiveSource,
    record: "Recording | None",
    settings: Mapping[str, Any],
) -> Iterator[LiveRun]:
    """A stream with the settings of a node's widgets, on ComfyUI's server until the end.

    Raises ConfigError, PromptError, FrameSizeError, MemoryBudgetError, SinkError.
    """
    hub.policy()  # without one nobody could see the stream
    tell_of_load()
    with ExitStack() as undo:
        setup = live_setup(hosted, clip, source, settings)
        path = None
        if record is not None:
            sink, path = record.open(setup.size)
            undo.callback(sink.close)
            setup = replace(setup, sinks=(sink,))
        streams = hub.streams()
        stream_id = hub.stream_id(place.client, place.node, place.view)
        stream = ServedStream(streams, stream_id, f"node {place.node}", setup, {})
        undo.callback(stream.close)
        streams.add(stream, hub.stream_key(place.client, place.node))
        undo.callback(streams.remove, stream_id)
        run = LiveRun(stream, source, place, path, host.queue_of(place.client).running_id)
        undo.callback(run.told_end)
        yield run


def live_setup(
    hosted: HostedModel,
    clip: Any,  # noqa: ANN401 - ComfyUI's CLIP
    source: LiveSource,
    settings: Mapping[str, Any],
) -> Setup:
    """What a stream is made of. Raises ConfigError, WeightsError."""
    config = live_config(settings, hosted)
    with hosted.loaded(config, CACHES):  # a LoRA is merged where the weights are
        model = reading_model(hosted, clip, settings, lambda: host.load(hosted.patchers, 0))

    def open_session() -> Session:
        with hosted.loaded(config, CACHES):
            return Session(model, config, settings["prompt"])

    return Setup(
        open_session,
        (config.width, config.height),
        LiveConfig(
            rate=settings["max_rate"] or None,
            similarity=settings["similarity"],
            on_failure=settings["on_failure"],
        ),
        source.open,
        variant=model.with_strength if model.adapters else None,
    )


def live_config(settings: Mapping[str, Any], hosted: HostedModel) -> StreamConfig:
    """A stream's settings from the widgets. Raises ConfigError."""
    config = stream_config(settings, hosted.computing)
    if settings["guidance"] <= 1:
        return config
    guidance = Guidance("full", settings["guidance"], settings["negative"])
    return replace(config, guidance=guidance)


def reading_model(
    hosted: HostedModel,
    clip: Any,  # noqa: ANN401 - ComfyUI's CLIP
    settings: Mapping[str, Any],
    settle: Callable[[], None],
) -> TranslationModel:
    """The model with the graph's CLIP, and with the LoRA whose strength can be changed.

    Raises WeightsError for a LoRA of another base.
    """
    encoder = HostTextEncoder(clip, hosted.model.text_channels, settle)
    model = replace(hosted.model, text_encoder=encoder)
    if settings["lora"] == NO_LORA:
        return model
    path = host.lora_files().get(settings["lora"])
    if path is None:
        raise WeightsMissingError(f"there is no LoRA {settings['lora']} in models/loras")
    strength = settings["lora_strength"]
    adapter = load_unet_lora(path, model.unet.spatial)
    return model.with_adapters([AdapterUse(adapter, strength, strength)])
