"""The Speed node: what it sets reaches every stream, and what cannot be is said at once."""

from dataclasses import fields
from typing import get_args

import pytest
import torch
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

from live2diff_core import config
from live2diff_core.errors import ConfigError
from live2diff_core.live.sink import VideoFileSink
from live2diff_core.live.source import VideoFile
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream import runtime
from tests.clips import BIKES
from tests.nodes.graph import MAPPINGS, SETTINGS, images, model_and_prompt, run, sample
from tests.nodes.lives import tiny
from tests.pack import pack_module

Speed = MAPPINGS["Live2DiffSpeed"]
WIDGETS = {name: spec for name, spec in Speed.INPUT_TYPES()["required"].items() if name != "model"}
DEFAULTS = {name: options["default"] for name, (_, options) in WIDGETS.items()}


def sped(model, **changes):
    return run("Speed", model=model, **{**DEFAULTS, **changes})[0]


def warmed(**changes):
    """Stream and images of a warm-up on a model with these settings."""
    model, conditioning = model_and_prompt()
    given = {**SETTINGS, "frames": images(8), "unique_id": "1"}
    return run("Warmup", model=sped(model, **changes), conditioning=conditioning, **given)


@pytest.fixture
def depths(monkeypatch):
    """Frames whose depth was estimated."""
    estimated, estimate = [], TranslationModel.depth_features

    def counted(self, rgb, depth_range):
        estimated.append(rgb)
        return estimate(self, rgb, depth_range)

    monkeypatch.setattr(TranslationModel, "depth_features", counted)
    return estimated


# ---- what it makes of a model


def test_as_it_comes_it_changes_nothing() -> None:
    model, _ = model_and_prompt()
    same = sped(model)
    for field in fields(model):
        assert getattr(same, field.name) == getattr(model, field.name), field.name


@pytest.mark.parametrize(
    ("widget", "kinds"),
    [
        ("runtime", config.RuntimeMode),
        ("attention", config.AttentionKind),
        ("cache", config.CacheKind),
    ],
)
def test_the_choices_are_all_that_there_are(widget, kinds) -> None:
    assert WIDGETS[widget][0] == list(get_args(kinds))


def test_the_model_that_came_in_stays_as_it_was() -> None:
    model, _ = model_and_prompt()
    before = model.computing
    changed = sped(model, depth_every=4, cache="float8", attention="torch")
    assert model.computing == before
    assert changed.computing.runtime == config.RuntimeConfig("eager", "torch")
    assert (changed.computing.depth_every, changed.computing.cache) == (4, "float8")


def test_of_two_the_last_counts_and_the_range_of_depth_is_kept() -> None:
    hosted = pack_module("nodes.hosted")
    model = hosted.HostedModel(model_and_prompt()[0].model, (), hosted.Computing("frame"))
    twice = sped(sped(model, cache="float8", depth_every=3), depth_every=2)
    assert twice.computing == hosted.Computing("frame", depth_every=2)


# ---- streams


def test_depth_is_estimated_as_often_as_it_says(depths) -> None:
    stream, _ = warmed(depth_every=3)
    assert len(depths) == 3  # frames 0, 3 and 6
    sample(stream, images(5, 8), flush=True)
    assert len(depths) == 5  # 9 and 12


def test_an_8_bit_cache_is_a_quarter_and_shows_nearly_the_same() -> None:
    def streamed(cache):
        stream, _ = warmed(cache=cache)
        with stream.warm() as session:
            size = session.spec.state_bytes
        return size, sample(stream, images(6, 8), flush=True)[0]

    (whole, plain), (small, changed) = streamed("network"), streamed("float8")
    assert small < 0.3 * whole
    assert not torch.equal(plain, changed)
    assert (plain - changed).abs().mean() < 0.01


def test_a_video_is_translated_with_it(depths, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cut = shortened(tmp_path / "cut.mp4", 12)

    def translated(**changes):
        model, conditioning = model_and_prompt()
        given = {**SETTINGS, "conditioning": conditioning, "video": cut}
        with VideoFile(run("TranslateVideo", model=sped(model, **changes), **given)[0]) as video:
            return torch.stack([frame.rgb for frame in video]).float()

    plain = translated()
    assert len(depths) == 12
    changed = translated(depth_every=6, cache="float8")
    assert len(depths) == 14
    assert changed.shape == plain.shape
    assert not torch.equal(changed, plain)


def shortened(target, frames):
    with VideoFile(BIKES, frames) as video:
        info = video.info
        with VideoFileSink(target, (info.width, info.height), info.rate, info) as sink:
            for frame in video:
                sink.write(frame)
    return target


def test_a_live_stream_is_begun_with_it() -> None:
    settings = {**pack_module("nodes.live").DEFAULTS, **SETTINGS, "guidance": 2.0}
    model = sped(tiny()["model"], depth_every=2, cache="float8", attention="torch")
    got = pack_module("nodes.live_stream").live_config(settings, model)
    assert (got.depth_every, got.cache) == (2, "float8")
    assert got.runtime == config.RuntimeConfig("eager", "torch")


def test_the_plan_and_the_room_that_is_made_count_the_smaller_cache(monkeypatch) -> None:
    model, _ = model_and_prompt()
    rooms = []
    monkeypatch.setattr(pack_module("nodes.host"), "load", lambda _, needed: rooms.append(needed))
    settings = {**SETTINGS, "t_index": "", "width": 512, "height": 512}

    def planned(model):
        stream = pack_module("nodes.inputs").stream_config(settings, model.computing)
        with model.loaded(stream, caches=1):
            pass
        (report,) = run("Plan", model=model, width=2048, height=2048, steps=8)["result"]
        (line,) = [line for line in report.splitlines() if line.startswith("cache: ")]
        return float(line.split()[1])

    whole, small = planned(model), planned(sped(model, cache="float8"))
    assert small == pytest.approx(whole / 4, rel=0.05)
    assert rooms[1] < rooms[0]


# ---- what runs the steps


@pytest.fixture
def compiled(monkeypatch):
    """Steps that ran as torch.compile gave them; compiling itself takes a minute."""
    ran = []

    def compile_step(step, **_):
        def run_step(*inputs):
            ran.append(step)
            return step(*inputs)

        return run_step

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "c++")
    monkeypatch.setattr(torch, "compile", compile_step)
    runtime._compiled.cache_clear()
    runtime._with_constants.clear()
    yield ran
    runtime._compiled.cache_clear()
    runtime._with_constants.clear()


def test_compile_reaches_the_stream(compiled) -> None:
    stream, _ = warmed(runtime="compile")
    shown, _ = sample(stream, images(4, 8), flush=True)
    assert len(compiled) == 5  # and one that brings the frame in flight out
    plain, _ = sample(warmed()[0], images(4, 8), flush=True)
    assert len(compiled) == 5
    assert torch.equal(shown, plain)


def without_compiler():
    raise InvalidCxxCompiler


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"runtime": "graph"}, "runtime graph replays CUDA graphs and the model is on cpu: choose"),
        ({"runtime": "compile"}, r"runtime compile cannot be used here: it needs a C\+\+ compiler"),
        ({"attention": "triton"}, "attention triton: it needs a GPU of NVIDIA or AMD, not cpu"),
    ],
)
def test_what_cannot_run_here_is_said_before_the_model_is_loaded(choice, words, monkeypatch):
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", without_compiler)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match=words):
        Speed().check_lazy_status(**{**DEFAULTS, **choice}, model=None)
    with pytest.raises(ConfigError, match=words):
        sped(model_and_prompt()[0], **choice)


def test_what_can_run_asks_for_the_model() -> None:
    assert Speed.INPUT_TYPES()["required"]["model"][1]["lazy"]
    assert Speed().check_lazy_status(**DEFAULTS, model=None) == ["model"]


def test_what_can_run_follows_the_device(monkeypatch) -> None:
    monkeypatch.setattr(pack_module("nodes.host"), "network_device", lambda: torch.device("meta"))
    with pytest.raises(ConfigError, match="it is for CUDA devices and CPUs, the model is on meta"):
        Speed().check_lazy_status(**{**DEFAULTS, "runtime": "compile"})
