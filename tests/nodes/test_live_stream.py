"""The stream of a Live node: what its page is told, and the LoRA whose strength can be changed."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from live2diff_core.config import Guidance
from live2diff_core.errors import ConfigError, SourceError, WeightsKindError
from live2diff_core.live.settings import LiveConfig
from live2diff_core.weights.text import empty_clip
from tests import loras
from tests.live.fakes import END, Script
from tests.live.watch import until
from tests.nodes.graph import SETTINGS, run
from tests.nodes.lives import CHANGE, COUNT, Feed, living, lockstep, own_threads, pictures, tiny
from tests.pack import pack_module
from tests.tiny import make_model, tiny_model

pytestmark = pytest.mark.usefixtures("nothing_is_left")

host = pack_module("nodes.host")
prompt = pack_module("nodes.host.prompt")
live_stream = pack_module("nodes.live_stream")
LiveSource = pack_module("nodes.sources").LiveSource


# ---- what the page is told


class Page:
    """ComfyUI's server, as far as the nodes know it."""

    def __init__(self, client_id: str | None) -> None:
        self.client_id = client_id
        self.sent: list[tuple[str, dict[str, Any], str]] = []
        running = [(0, "this run", {}, {"client_id": client_id}, [])]
        self.prompt_queue = SimpleNamespace(get_current_queue_volatile=lambda: (running, []))

    def send_sync(self, event: str, data: dict[str, Any], client: str) -> None:
        self.sent.append((event, json.loads(json.dumps(data)), client))


def told(monkeypatch, client: str | None, **inputs: Any) -> list[tuple[str, dict[str, Any], str]]:
    page = Page(client)
    monkeypatch.setattr(prompt, "prompt_server", lambda: page)
    with living(**tiny(**{"source": run("SocketSource", unique_id="3")[0], **inputs})) as live:
        page.client_id = "somebody else, whose prompt waits"
        if client is not None:
            until(live.stream, lambda _: len(page.sent) > 0)
    return page.sent


def test_the_client_that_runs_the_graph_is_told_and_nobody_else(monkeypatch) -> None:
    (begin, *_, end) = told(monkeypatch, "us")
    name, about, client = begin
    assert (name, client) == ("live2diff.stream", "us")
    assert about == {
        "node": "7",
        "prompt": "this run",
        "stream": about["stream"],
        "key": about["key"],
        "view": f"view/{about['stream']}",
        "feed": {"node": "3", "shows": "program", "device": "", "rate": 30, "mirror": False},
    }
    assert end == ("live2diff.ended", {"node": "7", "stream": about["stream"], "text": ""}, "us")
    assert about["key"] not in about["view"]


def test_without_a_client_nobody_is_told(monkeypatch) -> None:
    assert told(monkeypatch, None) == []


def test_a_page_that_is_loaded_anew_hears_of_the_stream_again(monkeypatch) -> None:
    monkeypatch.setattr(live_stream, "TOLD_EVERY", 0.0)
    monkeypatch.setattr(live_stream, "LOOK_UP", 0.001)
    page = Page("us")
    monkeypatch.setattr(prompt, "prompt_server", lambda: page)
    with living(**tiny(source=run("SocketSource")[0])) as live:
        until(live.stream, lambda _: len(page.sent) > 3)
    *again, end = page.sent
    assert again[1:] == again[:-1]
    assert end[0] == "live2diff.ended"


def test_what_goes_wrong_with_the_source_is_told_in_the_end(monkeypatch) -> None:
    def gone() -> None:
        raise SourceError("the cable is loose")

    page = Page("us")
    monkeypatch.setattr(prompt, "prompt_server", lambda: page)
    with living(**tiny(source=LiveSource("loose", gone))) as live:
        until(live.stream, lambda now: now.error is not None)
    name, about, _ = page.sent[-1]
    assert name == "live2diff.ended"
    assert "the cable is loose" in about["text"]


def test_a_source_of_the_server_is_fed_by_no_page(monkeypatch) -> None:
    (source,) = run("TestPattern", width=64, height=64, rate=30)
    (begin, *_) = told(monkeypatch, "us", source=source)
    assert begin[1]["feed"] is None


def test_a_second_start_is_found_at_the_same_place(monkeypatch) -> None:
    def place(client: str, **inputs: Any) -> tuple[str, str]:
        (_, about, _), *_ = told(monkeypatch, client, **inputs)
        return about["stream"], about["key"]

    ours = place("us")
    assert place("us") == ours
    others = place("them"), place("us", unique_id="8")
    assert len({ours[0], *(each[0] for each in others)}) == 3
    assert len({ours[1], *(each[1] for each in others)}) == 3
    named, theirs = (place(client, view_name="stage") for client in ("us", "them"))
    assert named[0] == theirs[0]
    assert named[1] != theirs[1]
    assert place("us", view_name="foyer")[0] != named[0]


# ---- how it is set up


def test_the_widgets_are_the_streams_settings() -> None:
    given = {"max_rate": 12.0, "similarity": 0.98, "on_failure": "card", "guidance": 2.0}
    setup = set_up(**given, negative="neon", denoise=0.5, steps=3, seed=2**64 - 1, height=128)
    assert setup.config == LiveConfig(12.0, 0.98, on_failure="card")
    assert setup.size == (64, 128)
    with setup.open_session() as session:
        config = session.config
    assert config.guidance == Guidance("full", 2.0, "neon")
    assert (config.steps.strength, config.steps.steps, config.seed) == (0.5, 3, 2**63 - 1)
    assert (config.noise, config.fit, config.depth_range) == ("fixed", "crop", "running")


def test_what_is_left_out_is_off() -> None:
    setup = set_up()
    assert (setup.config, setup.variant, setup.sinks) == (LiveConfig(), None, ())
    with setup.open_session() as session:
        assert session.config.guidance == Guidance()


def set_up(**widgets: Any) -> Any:
    inputs = tiny()
    settings = {**pack_module("nodes.live").DEFAULTS, **SETTINGS, "prompt": "ink", **widgets}
    source = LiveSource("unused", lambda: Script(END))
    return live_stream.live_setup(inputs["model"], inputs["clip"], source, settings)


def test_a_place_that_is_taken_is_told_and_nothing_is_left() -> None:
    given = {**SETTINGS, "view_name": "stage"}
    with living(**tiny(source=Feed().source, view_name="stage")) as live:
        before = own_threads()
        with pytest.raises(ConfigError, match="has this id already: node 7"):
            run("Live", **{**given, **tiny(source=Feed().source)})
        assert own_threads() == before
        assert live.stream.statistics().state != "stopped"


# ---- a LoRA


@pytest.fixture
def lora(tmp_path: Path, monkeypatch) -> str:
    """A LoRA for the tiny model's UNet and for Stable Diffusion's text model."""
    fc1 = "encoder.layers.0.mlp.fc1"
    unet = loras.layer_shapes(tiny_model().unet.spatial)
    text = {fc1: loras.layer_shapes(empty_clip())[fc1]}
    factors = loras.make_factors({"unet": unet, "text": text}, alpha=0.1)
    path = loras.written(tmp_path, loras.kohya(factors))
    monkeypatch.setattr(host, "lora_files", lambda: {"felt": path})
    return "felt"


@cache
def plain() -> dict[int, Tensor]:
    return lockstep(tiny())[0]


def test_a_lora_changes_the_picture_and_its_part_for_the_text_is_left_out(lora, caplog) -> None:
    shown, *_ = lockstep(tiny(lora=lora, lora_strength=1.0))
    assert all((shown[i] - plain()[i]).abs().mean() > 1e-3 for i in range(COUNT))
    assert "put Load LoRA before the text encoder" in caplog.text


def test_at_strength_0_it_is_as_if_it_were_not_there(lora) -> None:
    shown, *_ = lockstep(tiny(lora=lora, lora_strength=0.0))
    assert all(torch.equal(shown[i], plain()[i]) for i in range(COUNT))


def test_its_strength_changes_while_the_stream_runs(lora) -> None:
    shown, answer, changed = lockstep(
        tiny(lora=lora, lora_strength=0.0), {"lora_strength": 1.0, "seed": 1}
    )
    assert dict(answer.effects) == {"lora_strength": "re-prime", "seed": "re-prime"}
    assert changed == [answer.frame]
    assert answer.frame >= CHANGE
    for index in range(COUNT):
        assert torch.equal(shown[index], plain()[index]) is (index < answer.frame)


@pytest.mark.parametrize("strength", [5.5, float("nan")])
def test_a_strength_beyond_5_is_refused(lora, strength) -> None:
    with pytest.raises(ConfigError, match="expected -5 to 5"):
        run("Live", **{**SETTINGS, **tiny(source=Feed().source, lora=lora, lora_strength=strength)})


def test_a_lora_of_another_base_is_refused(tmp_path, monkeypatch) -> None:
    factors = loras.make_factors({"unet": loras.PARTS["unet"]})
    path = loras.written(tmp_path, loras.kohya(factors))
    monkeypatch.setattr(host, "lora_files", lambda: {"felt": path})
    with pytest.raises(WeightsKindError, match="trained for the same base"):
        run("Live", **{**SETTINGS, **tiny(source=Feed().source, lora="felt")})


@pytest.mark.parametrize("with_lora", [False, True])
def test_a_lora_is_merged_where_the_network_runs(lora, monkeypatch, with_lora) -> None:
    """ComfyUI moves the network when it loads it; here it is moved to another precision."""
    model = make_model()
    hosted = pack_module("nodes.hosted").HostedModel(model, ())

    def load(patchers: object, needed: int) -> None:
        for network in (model.unet, model.autoencoder):
            network.to(torch.float64)

    monkeypatch.setattr(host, "load", load)
    feed = Feed()
    inputs = {**tiny(source=feed.source), "model": hosted}
    with living(**inputs, **({"lora": lora} if with_lora else {})) as live:
        feed.give(live.stream, *pictures(3))
        until(live.stream, lambda now: now.frames_out > 0 or now.failures > 0)
        if with_lora:
            live.stream.control({"lora_strength": 0.5})
            feed.give(live.stream, *pictures(3))
    assert live.stream.statistics().failures == 0
