"""Warm-up and sampler: one stream, whatever way its images come."""

import gc
from functools import cache

import pytest
import torch

from live2diff_core.errors import ConfigError, FrameSizeError
from live2diff_core.stream.translate import translate
from tests.nodes.graph import MAPPINGS, SETTINGS, images, prompt, run, sample, warm_up
from tests.pack import pack_module


@cache
def whole(count: int = 6) -> torch.Tensor:
    """The images after the warm-up, in one run."""
    stream, _ = warm_up()
    return sample(stream, images(count, 8), flush=True)[0]


def test_a_stream_through_the_nodes_is_the_engines() -> None:
    stream, first = warm_up()
    rest, in_flight = sample(stream, images(6, 8), flush=True)
    frames = pack_module("nodes.images").to_frames(images(14))
    session = pack_module("nodes.sessions").DirectedSession(
        stream.hosted, stream.config, stream.prompt
    )
    expected = pack_module("nodes.images").to_images(list(translate(session, frames)))
    assert in_flight == 0
    assert torch.equal(torch.cat([first, rest]), expected)
    assert (expected - images(14)).abs().mean() > 0.05


def test_images_one_by_one_are_images_at_once() -> None:
    stream, _ = warm_up()
    single, counts = [], []
    for place in range(6):
        done, in_flight = sample(stream, images(1, 8 + place), flush=place == 5)
        counts.append(in_flight)
        single += [done] if done is not None else []
    assert counts == [1, 1, 1, 1, 1, 0]
    assert torch.equal(torch.cat(single), whole())


def test_what_errors_show_of_models_and_streams_is_short() -> None:
    stream, _ = warm_up()
    assert repr(stream) == "Stream(bundled, 64x64)"
    assert repr(stream.hosted) == "HostedModel(bundled)"


def test_nothing_finished_is_nothing() -> None:
    stream, _ = warm_up()
    assert sample(stream, images(1, 8)) == (None, 1)


def test_flush_begins_again_after_the_warm_up(sessions) -> None:
    stream, _ = warm_up()
    first, _ = sample(stream, images(4, 8), flush=True)
    assert sessions.snapshot() == []
    again, _ = sample(stream, images(4, 8), flush=True)
    assert torch.equal(first, again)


def test_two_samplers_on_one_warm_up_stay_apart(sessions) -> None:
    stream, _ = warm_up()
    ours = [sample(stream, images(3, 8), "2")[0]]
    theirs = [sample(stream, images(3, 20), "3")[0]]
    assert len(sessions.snapshot()) == 2
    ours.append(sample(stream, images(3, 11), "2", flush=True)[0])
    theirs.append(sample(stream, images(3, 23), "3", flush=True)[0])
    assert torch.equal(torch.cat(ours), whole())
    assert not torch.equal(torch.cat(theirs), whole())


def test_two_clients_with_the_same_graph_stay_apart(monkeypatch) -> None:
    host = pack_module("nodes.host")
    results = {"a": [], "b": []}
    stream, _ = warm_up()  # ComfyUI's cache gives both the same one
    for part in range(2):
        for client, done in results.items():
            monkeypatch.setattr(host, "client_id", lambda client=client: client)
            done.append(sample(stream, images(3, 8 + 3 * part), flush=part == 1)[0])
    for done in results.values():
        assert torch.equal(torch.cat(done), whole())


def test_another_warm_up_begins_anew_and_closes_the_old(sessions) -> None:
    stream, _ = warm_up()
    sample(stream, images(3, 8))
    other, _ = warm_up(seed=2)
    changed, _ = sample(other, images(6, 8))
    del stream
    gc.collect()
    assert len(sessions.snapshot()) == 1
    assert not torch.equal(changed, whole()[: len(changed)])


def test_a_dropped_warm_up_frees_its_sessions(sessions) -> None:
    stream, _ = warm_up()
    sample(stream, images(2, 8))
    assert len(sessions.snapshot()) == 1
    del stream
    gc.collect()
    assert sessions.snapshot() == []


def test_a_run_that_breaks_off_ends_the_session(sessions, monkeypatch) -> None:
    class Interrupt(BaseException):
        pass

    def interrupt(self, *_):
        raise Interrupt

    stream, _ = warm_up()
    with monkeypatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(pack_module("nodes.host").Progress, "step", interrupt)
        sample(stream, images(4, 8))
    assert sessions.snapshot() == []
    assert torch.equal(sample(stream, images(6, 8), flush=True)[0], whole())


def test_another_conditioning_takes_effect() -> None:
    stream, _ = warm_up()
    _, clip = run("BundledModel")
    same, _ = sample(stream, images(6, 8), flush=True, conditioning=prompt(clip, "neon"))
    assert torch.equal(same, whole())
    sample(stream, images(3, 8))
    changed, _ = sample(stream, images(3, 11), flush=True, conditioning=prompt(clip, "ink"))
    unchanged = whole()[2:]
    assert len(changed) == len(unchanged)
    assert (changed - unchanged).abs().mean() > 0.05


def test_a_timeline_is_followed_from_run_to_run() -> None:
    model, clip = run("BundledModel")
    (travel,) = run("PromptTravel", clip=clip, timeline="0: neon; 10: neon; 11: ink")
    settings = warm_settings(model, travel)
    stream, _ = run("Warmup", **settings)
    together, _ = sample(stream, images(6, 8), flush=True)
    parts = [sample(stream, images(2, 8 + 2 * n), flush=n == 2)[0] for n in range(3)]
    assert torch.equal(torch.cat(parts), together)
    plain = whole()
    assert torch.allclose(together[0], plain[0])
    assert (together[-1] - plain[-1]).abs().mean() > 0.05


def test_a_timeline_that_is_edited_ahead_changes_nothing_now(sessions) -> None:
    model, clip = run("BundledModel")
    first, edited = (
        run("PromptTravel", clip=clip, timeline=f"0: neon; 10: chalk; {then}")[0]
        for then in ("80: ink", "90: ink; 99: neon")
    )
    stream, _ = run("Warmup", **warm_settings(model, first))
    undisturbed = sample(stream, images(12, 8), "2")[0]
    before, _ = sample(stream, images(6, 8), "3")
    after, _ = sample(stream, images(6, 14), "3", conditioning=edited)
    assert torch.equal(before, undisturbed[: len(before)])
    difference = (after - undisturbed[len(before) :]).abs().mean(dim=(1, 2, 3))
    assert difference.max() < 0.05
    assert (before[0] - after[-1]).abs().mean() > 0.05


def test_only_the_first_frames_are_kept_of_a_whole_clip() -> None:
    stream, _ = warm_up(frames=images(20))
    assert (
        sum(frame.rgb.nbytes for frame in stream.frames)
        == stream.frames[0].rgb.untyped_storage().nbytes()
    )


def test_an_interrupt_is_heard_at_every_call_of_the_network(sessions, monkeypatch) -> None:
    class Interrupt(BaseException):
        pass

    calls = []

    def interrupt():
        calls.append(1)
        if len(calls) == 2:
            raise Interrupt

    monkeypatch.setattr(pack_module("nodes.host"), "check_interrupt", interrupt)
    with pytest.raises(Interrupt):
        warm_up(steps=4)
    assert len(calls) == 2
    assert sessions.snapshot() == []


def warm_settings(model, conditioning):
    return {
        **SETTINGS,
        "model": model,
        "conditioning": conditioning,
        "frames": images(8),
        "unique_id": "1",
    }


def test_a_timeline_in_seconds_needs_a_video() -> None:
    model, clip = run("BundledModel")
    (travel,) = run("PromptTravel", clip=clip, timeline="0s: neon; 1s: ink")
    with pytest.raises(ConfigError, match="write it in frames"):
        run("Warmup", **warm_settings(model, travel))
    stream, _ = warm_up()
    with pytest.raises(ConfigError, match="write it in frames"):
        sample(stream, images(1, 8), conditioning=travel)


def test_too_few_frames_are_refused_before_a_model_is_loaded() -> None:
    node = MAPPINGS["Live2DiffWarmup"]()
    with pytest.raises(FrameSizeError, match="got 5"):
        node.check_lazy_status(frames=images(5), **SETTINGS)
    asked = node.check_lazy_status(frames=images(8), **SETTINGS)
    assert asked == ["model", "conditioning"]


def test_the_limit_closes_the_least_recently_used(sessions, monkeypatch) -> None:
    monkeypatch.setattr(pack_module("nodes.registry"), "SESSION_LIMIT", 2)
    stream, _ = warm_up()
    for node in ("2", "3", "4"):
        sample(stream, images(1, 8), node)
    assert {opened.key[1] for opened in sessions.snapshot()} == {"3", "4"}
