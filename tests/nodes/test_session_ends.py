"""A session ends with what its client's prompts name, whatever ComfyUI's cache keeps or drops."""

import gc
import logging
from types import SimpleNamespace

import pytest

from tests.nodes.graph import images, sample, warm_up
from tests.pack import pack_module

registry = pack_module("nodes.registry")
prompt_module = pack_module("nodes.host.prompt")

STREAM = {"1": {"class_type": "Live2DiffWarmup"}, "2": {"class_type": "Live2DiffSampler"}}
OTHER = {"2": {"class_type": "SaveImage"}}


class Server:
    """As much of ComfyUI's PromptServer as the pack asks of it."""

    def __init__(self):
        self.client_id = "me"
        self.running, self.waiting, self.handlers, self.told = [], [], [], []
        self.prompt_queue = SimpleNamespace(
            get_current_queue_volatile=lambda: (self.running, self.waiting)
        )

    def add_on_prompt_handler(self, handler):
        self.handlers.append(handler)

    def send_sync(self, event, data, client):
        self.told.append((event, data, client))

    def item(self, prompt, prompt_id="p", client="me"):
        return (0, prompt_id, prompt, {"client_id": client}, [])

    def post(self, prompt, client="me"):
        (handler,) = self.handlers
        assert handler({"prompt": prompt, "client_id": client})["prompt"] is prompt


@pytest.fixture
def server(monkeypatch, sessions):
    made = Server()
    monkeypatch.setattr(prompt_module, "prompt_server", lambda: made)
    pack_module("nodes.host").on_prompt(registry.end_unnamed)
    return made


@pytest.fixture
def stream(server):
    """A stream with a frame in flight, held as ComfyUI's cache holds it."""
    made, _ = warm_up()
    server.running = [server.item(STREAM, "first")]
    sample(made, images(2, 8))
    server.running = []
    return made


def test_a_prompt_that_names_the_stream_keeps_it(server, stream, sessions):
    server.post(STREAM)
    assert len(sessions.snapshot()) == 1


@pytest.mark.parametrize("other", [OTHER, {}, {"7": {"class_type": "Live2DiffSampler"}}])
def test_a_prompt_without_it_ends_it_though_its_output_is_kept(server, stream, sessions, other):
    server.post(other)
    assert sessions.snapshot() == []


def test_another_clients_prompt_ends_nothing(server, stream, sessions):
    server.post(OTHER, client="you")
    assert len(sessions.snapshot()) == 1


@pytest.mark.parametrize("sent", [None, [], "prompt", {"2": None}])
def test_what_is_no_prompt_ends_nothing(server, stream, sessions, sent):
    server.waiting = [server.item(STREAM)]
    server.post(sent)
    assert len(sessions.snapshot()) == 1


def test_a_prompt_that_waits_keeps_it(server, stream, sessions):
    server.waiting = [server.item(STREAM)]
    server.post(OTHER)
    assert len(sessions.snapshot()) == 1


def test_the_prompt_that_runs_keeps_it_until_it_has_used_it(server, stream, sessions):
    server.running = [server.item(STREAM, "second")]
    server.post(OTHER)
    server.waiting = [server.item(OTHER)]
    assert len(sessions.snapshot()) == 1
    sample(stream, images(1, 10))
    assert sessions.snapshot() == []


def test_the_prompt_that_runs_and_has_used_it_does_not_keep_it(server, stream, sessions):
    server.running = [server.item(STREAM, "first")]
    server.post(OTHER)
    assert sessions.snapshot() == []


def test_a_session_in_use_ends_when_it_is_left(server, stream, sessions):
    server.running = [server.item(STREAM, "second")]
    with sessions.open(("me", "2"), stream, stream.warm) as session:
        server.post(OTHER)
        session.push(pack_module("nodes.images").to_frames(images(1, 10), 10))
    assert sessions.snapshot() == []


def test_a_node_that_another_one_was_expanded_to_is_named_by_that(server, sessions):
    made, _ = warm_up()
    sample(made, images(1, 8), "5.0.3")
    server.post({"5": {"class_type": "Loop"}})
    assert len(sessions.snapshot()) == 1
    server.post({"6": {"class_type": "Loop"}})
    assert sessions.snapshot() == []


# ---- warm-ups that were dropped


def begin_again(caplog, **settings):
    with caplog.at_level(logging.WARNING):
        warm_up(**settings)
    return caplog.text


def test_a_warm_up_that_was_dropped_says_that_the_stream_begins_anew(server, caplog):
    made, _ = warm_up()
    sample(made, images(2, 8))
    del made
    gc.collect()
    assert "the stream of node 1 begins anew at its warm-up" in begin_again(caplog)
    assert server.told[-1] == (
        "live2diff.notice",
        {"node": "1", "notice": "begunAnew"},
        "me",
    )
    caplog.clear()
    assert begin_again(caplog) == ""


def test_another_warm_up_in_its_place_says_nothing(server, caplog):
    made, _ = warm_up()
    sample(made, images(2, 8))
    del made
    gc.collect()
    assert begin_again(caplog, seed=3) == ""


def test_a_stream_that_was_flushed_says_nothing(server, caplog):
    made, _ = warm_up()
    sample(made, images(2, 8), flush=True)
    del made
    gc.collect()
    assert begin_again(caplog) == ""
