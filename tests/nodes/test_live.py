"""The Live node: what it shows, what changes while it runs, and how it ends."""

import asyncio
import gc
import math
import tempfile
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from live2diff_core.errors import (
    ConfigError,
    FrameSizeError,
    PromptError,
    SourceError,
    WeightsMissingError,
)
from live2diff_core.live.pattern import TestPattern, read_counter
from live2diff_core.live.picture import decode_picture
from live2diff_core.live.protocol import unpack_frame
from live2diff_core.live.relay import Encoded, Relay
from tests.live.fakes import END, Script
from tests.live.watch import taken, until
from tests.nodes.graph import SETTINGS, run
from tests.nodes.lives import (
    CHANGE,
    COUNT,
    Feed,
    Living,
    Tape,
    living,
    lockstep,
    own_threads,
    pictures,
    tiny,
)
from tests.pack import pack_module

host = pack_module("nodes.host")
pytestmark = pytest.mark.usefixtures("nothing_is_left")

live_stream = pack_module("nodes.live_stream")
LiveSource = pack_module("nodes.sources").LiveSource


def bundled(words: str = "ink", **inputs: Any) -> dict[str, Any]:
    model, clip = run("BundledModel")
    return {"model": model, "clip": clip, "prompt": words, **inputs}


# ---- what it shows


async def read(relay: Relay, count: int) -> list[Encoded]:
    """So many pictures, as a client gets them."""
    got: list[Encoded] = []
    with relay.reading():
        while len(got) < count:
            picture = await asyncio.wait_for(relay.wait(got[-1].sequence if got else 0), 30)
            assert picture is not None
            got.append(picture)
    return got


def test_the_pattern_comes_out_in_order_and_once_though_frames_are_dropped() -> None:
    (source,) = run("TestPattern", width=192, height=160, rate=60)
    sized = {"width": 192, "height": 192, "fit": "stretch", "steps": 1}
    with living(**bundled("blueprint", source=source, **sized)) as live:
        got = asyncio.run(read(live.stream.relay, 14))
        statistics = live.stream.statistics()
    counters = [read_counter(decode_picture(*unpack_frame(each.message))) for each in got]
    assert counters == [each.index for each in got]
    assert counters == sorted(set(counters))
    assert statistics.dropped["capture"] > 0
    assert statistics.failures == 0


def test_what_a_client_brings_is_translated() -> None:
    (source,) = run("BrowserCamera", shows="camera", device="", rate=30, mirror=False)
    tape = Tape()
    with living(**tiny(source=source, record=tape)) as live:
        inbox = live.stream.inbox
        assert (inbox.info.width, inbox.info.height) == (64, 64)
        for index, rgb in enumerate(pictures(4)):
            inbox.put(rgb, index / 30, 10 + index)
            until(live.stream, lambda now, n=index + 1: taken(now) == n)
        got = tape.sink.until_count(3)
    assert [frame.index for frame in got[:3]] == [10, 11, 12]
    assert {tuple(frame.rgb.shape) for frame in got} == {(3, 64, 64)}


# ---- what changes while it runs


@cache
def bundled_run(words: str) -> dict[int, Tensor]:
    return lockstep(bundled(words))[0]


@cache
def tiny_run(words: str = "ink", guidance: float = 1.0) -> dict[int, Tensor]:
    return lockstep(tiny(words, guidance=guidance))[0]


def far(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().mean().item()


def test_a_prompt_shows_from_the_frame_on_that_was_answered() -> None:
    shown, answer, changed = lockstep(bundled("neon"), {"prompt": "ink"})
    neon, ink = bundled_run("neon"), bundled_run("ink")
    assert (dict(answer.effects), dict(answer.refused)) == ({"prompt": "re-prime"}, {})
    assert changed == [answer.frame]
    assert CHANGE <= answer.frame < CHANGE + 4
    for index in range(answer.frame):
        assert torch.equal(shown[index], neon[index])
    for index in range(answer.frame, COUNT):
        colours = [each[index].mean((1, 2)) for each in (shown, ink, neon)]
        assert far(colours[0], colours[1]) < 0.25 * far(colours[0], colours[2]), index
        assert far(shown[index], ink[index]) < 0.5 * far(shown[index], neon[index]), index


@pytest.mark.parametrize(
    ("changes", "guidance"),
    [
        ({"strength": 0.3}, 1.0),
        ({"steps": 3}, 1.0),
        ({"steps": 1, "strength": 0.5}, 1.0),
        ({"seed": 99}, 1.0),
        ({"negative": "neon"}, 3.0),
    ],
)
def test_other_settings_show_from_the_frame_on_that_was_answered(changes, guidance) -> None:
    shown, answer, changed = lockstep(tiny(guidance=guidance), changes)
    before = tiny_run(guidance=guidance)
    assert dict(answer.effects) == dict.fromkeys(changes, "re-prime")
    assert changed == [answer.frame]
    assert all(torch.equal(shown[i], before[i]) for i in range(answer.frame))
    assert all(not torch.equal(shown[i], before[i]) for i in range(answer.frame, COUNT))


REFUSED = [
    ({"prompt": "oil on canvas"}, "names no style"),
    ({"prompt": 3}, "expected text"),
    ({"strength": 1.5}, "at most 1"),
    ({"strength": "0.5"}, "expected a number"),
    ({"steps": 9}, "1 to 8"),
    ({"seed": -1}, "seed"),
    ({"negative": "ink"}, "needs full guidance"),
    ({"lora_strength": 1.0}, "no LoRA"),
    ({"denoise": 0.5}, "has no 'denoise'"),
]


def test_what_cannot_be_is_refused_and_changes_nothing() -> None:
    tape, feed = Tape(), Feed()
    with living(**tiny(source=feed.source, record=tape)) as live:
        for rgb, (changes, why) in zip(pictures(), REFUSED, strict=False):
            feed.give(live.stream, rgb)
            answer = live.stream.control(changes)
            assert (answer.frame, dict(answer.effects)) == (None, {})
            assert all(why in answer.refused[name] for name in changes)
        feed.end()
        live.wait()
    assert len(tape.sink.indices) == len(REFUSED)
    for frame in tape.sink.got.items:
        assert torch.equal(frame.rgb.float() / 255, tiny_run()[frame.index])


# ---- how it ends


def test_stop_ends_it_and_leaves_nothing_but_its_last_picture(monkeypatch) -> None:
    sessions = []

    def noted(*arguments: Any) -> Any:
        session = Session(*arguments)
        sessions.append(weakref.ref(session))
        return session

    Session = live_stream.Session
    monkeypatch.setattr(live_stream, "Session", noted)
    (source,) = run("TestPattern", width=64, height=64, rate=60)
    live = Living(**tiny(source=source))
    until(live.stream, lambda now: now.frames_out >= 10)
    shown = live.stream.relay
    live.stop()
    assert live.error is None
    assert live.last_frame.shape == (1, 64, 64, 3)
    assert live.last_frame.dtype == torch.float32
    assert 0 <= live.last_frame.min() < live.last_frame.max() <= 1
    expected = shown.frame.rgb.movedim(0, -1)
    assert torch.equal((live.last_frame[0] * 255).round().byte(), expected)
    assert own_threads() == []
    del live, shown
    gc.collect()
    assert len(sessions) == 1
    assert sessions[0]() is None


def test_an_interrupt_ends_it_as_cleanly(monkeypatch) -> None:
    class Interrupt(BaseException):
        pass

    def interrupt() -> None:
        if live:
            raise Interrupt

    live: list[Living] = []
    monkeypatch.setattr(host, "check_interrupt", interrupt)
    (source,) = run("TestPattern", width=64, height=64, rate=60)
    live.append(Living(**tiny(source=source, record=Tape())))
    live[0].wait()
    assert isinstance(live[0].error, Interrupt)
    assert live[0].stream.statistics().state == "stopped"
    assert live[0].stream.relay.closed


def test_the_end_of_the_source_ends_it() -> None:
    source = LiveSource("short", lambda: TestPattern(64, 64, 60, frames=9, paced=True))
    tape = Tape()
    live = Living(**tiny(source=source, record=tape))
    live.wait()
    assert live.error is None
    assert live.last_frame.shape == (1, 64, 64, 3)
    assert tape.sink.indices[-1] == 8
    assert tape.sink.closed > 0


def test_the_last_picture_is_shown_as_a_result() -> None:
    with living(**tiny(source=run("TestPattern", width=64, height=64, rate=60)[0])) as live:
        until(live.stream, lambda now: now.frames_out > 0)
    (shown,) = live.outputs["ui"]["images"]
    assert shown["type"] == "temp"
    path = Path(tempfile.gettempdir()) / shown["filename"]
    rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    path.unlink()
    (last,) = live.outputs["result"]
    assert np.abs(rgb / 255 - last[0].numpy()).max() < 0.003


def test_a_stream_that_never_showed_anything_gives_nothing() -> None:
    (source,) = run("SocketSource")
    with living(**tiny(source=source)) as live:
        pass
    assert live.outputs == {"result": (None,)}  # what outside ComfyUI stands for its blocker


def test_a_source_that_is_not_there_yet_is_waited_for() -> None:
    def open_source() -> Any:
        tries.append(1)
        if len(tries) < 2:
            raise SourceError("no camera yet")
        return TestPattern(64, 64, 60, paced=True)

    tries: list[int] = []
    with living(**tiny(source=LiveSource("late", open_source))) as live:
        until(live.stream, lambda now: now.frames_out > 3)
    assert len(tries) == 2
    assert live.error is None


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"prompt": "oil on canvas"}, PromptError, "names no style"),
        ({"width": 100}, ConfigError, "multiple of 64"),
        ({"denoise": math.nan}, ConfigError, "strength"),
        ({"similarity": math.nan}, ConfigError, "similarity"),
        ({"max_rate": math.nan}, ConfigError, "rate"),
        ({"guidance": math.nan}, ConfigError, "guidance"),
        ({"t_index": "9,x"}, ConfigError, "t_index"),
        ({"on_failure": "explode"}, ConfigError, "on_failure"),
        ({"lora": "gone.safetensors"}, WeightsMissingError, r"no LoRA gone\.safetensors"),
    ],
)
def test_what_cannot_be_is_said_before_a_frame_is_taken(changes, error, why) -> None:
    def open_source() -> Script:
        opened.append(1)
        return Script(END)

    opened: list[int] = []
    source, tape = LiveSource("unused", open_source), Tape()
    inputs = {**tiny(source=source, record=tape), **changes}
    with pytest.raises(error, match=why):
        run("Live", **{**SETTINGS, **inputs})
    assert (opened, tape.sink.indices) == ([], [])


def test_a_size_that_this_model_cannot_take_is_refused(monkeypatch) -> None:
    inputs = tiny(source=LiveSource("unused", lambda: Script(END)))
    monkeypatch.setattr(pack_module("nodes.inputs"), "MULTIPLE", 4)
    with pytest.raises(FrameSizeError, match="multiples of 8"):
        run("Live", **{**SETTINGS, **inputs, "width": 68})
