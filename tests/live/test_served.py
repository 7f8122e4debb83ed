"""A stream that clients see: where its frames come from, what they may change, how it ends."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch

from live2diff_core.errors import ConfigError, PromptError, StreamClosed
from live2diff_core.live import runner
from live2diff_core.live.served import ServedStream, Setup
from live2diff_core.live.settings import LiveConfig
from live2diff_core.live.streams import Streams
from live2diff_core.models.adapters import Adapter, AdapterUse, LowRank
from live2diff_core.models.translator import TranslationModel
from tests.live.fakes import END, PATIENCE, Collector, FakeSession, Script, picture, translation
from tests.live.watch import Ear, taken, until
from tests.tiny import HEIGHT, WIDTH, tiny_model

QUIET = LiveConfig(scene_cuts=False, drift=False)


def with_lora() -> TranslationModel:
    """The tiny model with a LoRA that is off."""
    key, weight = next(
        (key, weight)
        for key, weight in tiny_model().unet.spatial.named_parameters()
        if key.endswith("to_q.weight")
    )
    change = LowRank(torch.ones(len(weight), 1), torch.ones(1, weight.shape[1]), 0.1)
    return tiny_model().with_adapters([AdapterUse(Adapter("felt", {key: change}, {}), 0.0, 0.0)])


class Stage:
    """A stream on a session and a source of the test."""

    def __init__(self, *frames: Any, **setup: Any) -> None:
        self.hub, self.session, self.sink = Streams(), FakeSession(), Collector()
        self.script = Script(*frames)
        given = {
            "open_session": lambda: self.session,
            "size": (WIDTH, HEIGHT),
            "config": QUIET,
            "open_source": lambda: self.script,
            "sinks": (self.sink,),
        }
        self.setup = Setup(**{**given, **setup})

    def start(self, settings: dict[str, Any] | None = None) -> ServedStream:
        self.stream = ServedStream(self.hub, "an-id", "a name", self.setup, settings or {})
        self.hub.add(self.stream, "a-key")
        return self.stream

    def give(self, *indices: int) -> None:
        """Frames of the source, each when the one before was taken."""
        for index in indices:
            self.script.put(picture(index))
            until(self.stream, lambda now, count=index + 1: taken(now) == count)


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(*frames: Any, **setup: Any) -> Stage:
        made.append(Stage(*frames, **setup))
        return made[-1]

    with patch.object(runner, "OUTPUT_SIZE", 1000):  # a busy computer drops what waits there
        yield make
    for each in made:
        each.script.end()
        each.hub.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("live2diff")]


# ---- frames


def test_a_source_of_its_own_is_translated_to_its_end(stage) -> None:
    play = stage()
    stream = play.start()
    play.give(*range(6))
    play.script.put(END)
    assert (stream.id, stream.name, stream.inbox) == ("an-id", "a name", None)
    assert stream.wait(PATIENCE)
    assert play.sink.values == [translation(k) for k in range(6)]
    assert stream.relay.frame.index == 5
    assert stream.relay.closed
    assert play.sink.closed > 0
    assert play.session.closed
    assert stream.statistics().state == "stopped"


def test_what_clients_bring_is_translated_and_their_end_is_its_end(stage) -> None:
    play = stage(open_source=None)
    stream = play.start()
    assert (stream.inbox.info.width, stream.inbox.info.height) == (WIDTH, HEIGHT)
    assert not stream.wait(0)
    for index in range(4):
        stream.inbox.put(picture(index).rgb, index / 25, index)
        until(stream, lambda now, count=index + 1: taken(now) == count)
    stream.inbox.end()
    assert stream.wait(PATIENCE)
    assert play.sink.values == [translation(k) for k in range(4)]


def test_a_session_that_cannot_be_opened_is_told_at_once(stage) -> None:
    def refuse() -> FakeSession:
        raise PromptError("no such style")

    play = stage(open_session=refuse)
    with pytest.raises(PromptError, match="no such style"):
        play.start()


def test_one_session_is_opened_and_another_only_when_it_fails(stage) -> None:
    opened: list[FakeSession] = []

    def open_session() -> FakeSession:
        opened.append(FakeSession())
        return opened[-1]

    config = LiveConfig(scene_cuts=False, drift=False, first_retry=0.001)
    play = stage(open_session=open_session, config=config)
    stream = play.start()
    play.give(0)
    assert len(opened) == 1
    opened[0].breaks.append(RuntimeError("the device is gone"))
    for index in range(1, 5000):
        play.give(index)
        if stream.statistics().reconnects:
            break
    assert len(opened) == 2
    assert opened[0].closed
    assert not opened[1].closed


# ---- changes


def test_a_client_hears_what_happens(stage) -> None:
    play, ear = stage(), Ear()
    stream = play.start()
    with play.hub.joined("an-id", ear):
        play.give(0)
        answer = stream.control({"seed": 3})
        play.give(1, 2, 3, 4)
        (told,) = ear.heard.until(len)
    assert (answer.frame, dict(answer.effects)) == (3, {"seed": "re-prime"})
    assert json.loads(told) == {
        "type": "event",
        "event": "changed",
        "message": "the change shows from this frame on",
        "frame": 3,
    }


def test_the_strength_of_a_lora_is_a_variant_made_on_the_callers_thread(stage) -> None:
    made: list[tuple[float, threading.Thread]] = []

    def variant(strength: float) -> TranslationModel:
        made.append((strength, threading.current_thread()))
        return tiny_model()

    play = stage(picture(0), variant=variant)
    stream = play.start()
    play.sink.until_count(1)
    answer = stream.control({"lora_strength": 2})
    assert made == [(2.0, threading.current_thread())]
    assert play.session.of("begin_update") == [{"model": tiny_model()}]
    assert (dict(answer.effects), dict(answer.refused)) == ({"lora_strength": "re-prime"}, {})
    assert answer.frame is not None


def test_a_strength_changes_together_with_the_rest(stage) -> None:
    play = stage(picture(0), variant=lambda _: tiny_model(), template="a {} city".format)
    stream = play.start()
    play.sink.until_count(1)
    changes = {"lora_strength": 1, "prompt": "neon", "seed": 4, "pause": True, "steps": 99}
    answer = stream.control(changes)
    (asked,) = play.session.of("begin_update")
    assert asked == {"prompt": "a neon city", "seed": 4, "model": tiny_model()}
    assert dict(answer.effects) == {
        "pause": "now",
        "prompt": "re-prime",
        "seed": "re-prime",
        "lora_strength": "re-prime",
    }
    assert answer.refused.keys() == {"steps"}


@pytest.mark.parametrize(
    "strength",
    ["1", None, True, [1], math.nan, math.inf, 5.01, -6, 10**400],
    ids=lambda v: str(v)[:9],
)
def test_a_strength_that_cannot_be_is_refused_and_the_rest_is_made(stage, strength) -> None:
    play = stage(picture(0), variant=with_lora().with_strength)
    stream = play.start()
    play.sink.until_count(1)
    answer = stream.control({"lora_strength": strength})
    assert (answer.frame, dict(answer.effects)) == (None, {})
    assert "expected" in answer.refused["lora_strength"]
    answer = stream.control({"seed": 4, "lora_strength": strength, "other": 1})
    assert dict(answer.effects) == {"seed": "re-prime"}
    assert answer.refused.keys() == {"lora_strength", "other"}
    assert play.session.of("begin_update") == [{"seed": 4}]
    assert stream.statistics().failures == 0


@pytest.mark.parametrize("strength", [-5, 0, 5, 0.25])
def test_every_strength_up_to_5_is_taken(stage, strength) -> None:
    play = stage(picture(0), variant=with_lora().with_strength)
    stream = play.start()
    play.sink.until_count(1)
    assert not stream.control({"lora_strength": strength}).refused
    ((model),) = [given["model"] for given in play.session.of("begin_update")]
    assert [use.unet for use in model.adapters] == [strength]


def test_a_stream_without_a_lora_has_no_strength(stage) -> None:
    play = stage(picture(0))
    stream = play.start()
    play.sink.until_count(1)
    answer = stream.control({"lora_strength": 1.0, "pause": True})
    assert dict(answer.refused) == {"lora_strength": "this stream has no LoRA"}
    assert dict(answer.effects) == {"pause": "now"}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError("full")])
def test_a_full_device_refuses_a_strength_and_the_stream_goes_on(stage, error) -> None:
    def variant(_: float) -> TranslationModel:
        raise error

    play = stage(picture(0), variant=variant)
    stream = play.start()
    play.sink.until_count(1)
    refused = {"lora_strength": f"{type(error).__name__}: full"}
    assert dict(stream.control({"lora_strength": 1}).refused) == refused
    assert stream.statistics().failures == 0


def test_what_the_session_says_of_a_variant_is_about_the_strength(stage) -> None:
    play = stage(picture(0), variant=lambda _: tiny_model())
    stream = play.start()
    play.sink.until_count(1)
    play.session.breaks.append(ConfigError("not a variant of this model"))
    answer = stream.control({"lora_strength": 1})
    assert dict(answer.refused) == {"lora_strength": "not a variant of this model"}
    assert answer.frame is None


def test_a_client_sends_no_model_of_its_own(stage) -> None:
    play = stage(picture(0), variant=lambda _: tiny_model())
    stream = play.start()
    play.sink.until_count(1)
    answer = stream.control({"model": "another"})
    assert "expected a variant" in answer.refused["model"]


# ---- settings to begin with, and the end


def test_it_begins_with_settings(stage) -> None:
    play = stage(variant=lambda _: tiny_model())
    stream = play.start({"seed": 9, "lora_strength": 0.5, "pause": True})
    assert play.session.of("begin_update") == [{"seed": 9, "model": tiny_model()}]
    assert stream.statistics().state == "paused"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"lora_strength": 1}, "lora_strength: this stream has no LoRA"),
        ({"seed": "x", "pause": 1}, "pause: .*; seed: .*|seed: .*; pause: .*"),
    ],
)
def test_settings_that_cannot_be_are_told_and_nothing_is_left(stage, settings, why) -> None:
    play = stage()
    with pytest.raises(ConfigError, match=why):
        play.start(settings)
    assert play.session.closed
    assert play.sink.closed > 0
    assert not [t for t in threading.enumerate() if t.name.startswith("live2diff")]


def test_a_closed_stream_changes_no_more(stage) -> None:
    play = stage(picture(0), variant=lambda _: tiny_model())
    stream = play.start()
    stream.close()
    stream.close()
    assert stream.wait(0)
    for changes in ({"seed": 1}, {"lora_strength": 1}):
        with pytest.raises(StreamClosed, match="start another"):
            stream.control(changes)
