"""A Live node that runs on a thread of its own, as ComfyUI runs it, and what it is fed with."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from live2diff_core.frames import Frame
from live2diff_core.live import runner
from live2diff_core.live.served import ServedStream
from tests.live.fakes import END, PATIENCE, Collector, Script
from tests.live.watch import Ear, taken, until
from tests.nodes.graph import SETTINGS, images, run
from tests.pack import pack_module
from tests.tiny import tiny_model

NODE = "7"  # the Live node's id in its graph
COUNT, CHANGE = 12, 4  # frames of a lockstep stream, and the one before which something changes


def tiny(words: str = "ink", **inputs: Any) -> dict[str, Any]:
    """Inputs of a Live node on the tiny model."""
    model = tiny_model()
    hosted = pack_module("nodes.hosted").HostedModel(model, ())
    clip = pack_module("nodes.bundled_model").BundledClip(model.text)
    return {"model": hosted, "clip": clip, "prompt": words, **inputs}


class Tape:
    """A record input that keeps what it gets, in place of a file."""

    def __init__(self) -> None:
        self.sink = Collector()

    def open(self, size: tuple[int, int]) -> tuple[Collector, None]:
        self.size = size
        return self.sink, None


class Feed:
    """A source that gives one frame after the other, each when the one before was taken."""

    def __init__(self) -> None:
        self.script = Script()
        self.given = 0

    @property
    def source(self) -> Any:
        return pack_module("nodes.sources").LiveSource("a test", lambda: self.script)

    def give(self, stream: ServedStream, *pictures: Tensor) -> None:
        """Pictures (3, h, w)."""
        for rgb in pictures:
            self.script.put(Frame(rgb, self.given, self.given / 25))
            self.given += 1
            until(stream, lambda now: taken(now) == self.given)

    def end(self) -> None:
        self.script.put(END)


class Living:
    """A Live node at work."""

    def __init__(self, **inputs: Any) -> None:
        self._hub = pack_module("nodes.live_stream").hub.streams()
        self._inputs = {**SETTINGS, "unique_id": NODE, **inputs}
        self._before = [stream for stream, _ in self._hub.list()]
        self.error: BaseException | None = None
        self.outputs: dict[str, Any] = {}
        self._thread = Thread(target=self._work, name="a prompt", daemon=True)
        # A busy computer drops pictures that wait to be shown, which tests count.
        with patch.object(runner, "OUTPUT_SIZE", 1000):
            self._thread.start()
            self.stream = self._found()

    def _work(self) -> None:
        try:
            with torch.inference_mode():
                self.outputs = run("Live", **self._inputs)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self._inputs.clear()

    def _found(self) -> ServedStream:
        limit = time.monotonic() + PATIENCE
        while self._thread.is_alive() and time.monotonic() < limit:
            for stream, _ in self._hub.list():
                if stream not in self._before:
                    return stream
            self._thread.join(0.002)
        raise AssertionError("no stream has begun") from self.error

    def stop(self) -> None:
        """As the Stop button does."""
        self._hub.remove(self.stream.id)
        self.wait()

    def wait(self) -> None:
        """Until the node has ended."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    @property
    def last_frame(self) -> Any:
        return self.outputs["result"][0]


@contextmanager
def living(**inputs: Any) -> Iterator[Living]:
    """A node that is stopped in the end, and has then ended well."""
    live = Living(**inputs)
    try:
        yield live
    finally:
        live.stop()
    if live.error is not None:
        raise live.error


def pictures(count: int = COUNT) -> list[Tensor]:
    """A quiet real scene, (3, h, w) uint8."""
    return [(one * 255).round().byte() for one in images(count).movedim(-1, 1)]


def lockstep(inputs: dict[str, Any], changes: dict[str, object] | None = None) -> Any:
    """Pictures by index, the answer, and the frame from which the change is said to show."""
    tape, feed, ear = Tape(), Feed(), Ear()
    answer, frames = None, pictures()
    with living(source=feed.source, record=tape, **inputs) as live:
        streams = pack_module("nodes.live_stream").hub.streams()
        with streams.joined(live.stream.id, ear):
            feed.give(live.stream, *frames[:CHANGE])
            if changes is not None:
                answer = live.stream.control(changes)
            feed.give(live.stream, *frames[CHANGE:])
            feed.end()
            live.wait()
    assert live.stream.statistics().failures == 0
    shown = {frame.index: frame.rgb.float() / 255 for frame in tape.sink.got.items}
    assert list(shown) == list(range(COUNT))  # every one, once, in order
    events = [json.loads(text) for text in ear.heard.items]
    changed = [event["frame"] for event in events if event["event"] == "changed"]
    return shown, answer, changed


def own_threads() -> list[str]:
    """Threads of streams and recordings that are still there."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("live2diff")]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
