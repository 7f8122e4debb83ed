"""LoRAs on a live session: a variant swapped in between two frames; steering a prompt."""

import threading
from functools import cache

import pytest
import torch

from live2diff_core.config import Guidance
from live2diff_core.errors import ConfigError, PromptError, StreamClosed
from live2diff_core.models.adapters import Adapter, AdapterUse, LowRank
from live2diff_core.models.text import TextEncoder
from live2diff_core.models.translator import TranslationModel
from tests.tiny import (
    distance,
    make_frames,
    make_model,
    open_session,
    reference,
    same,
    stream_config,
    tiny_model,
)

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v.weight"


@cache
def adapter() -> Adapter:
    """A strong LoRA of one layer of the UNet and of one of the text model."""
    generator = torch.Generator().manual_seed(0)
    text = next(k for k in tiny_model().text.model.state_dict() if k.endswith("0.mlp.fc1.weight"))
    weights = {
        "unet": (tiny_model().unet.spatial, ATTENTION),
        "text": (tiny_model().text.model, text),
    }
    parts = {}
    for part, (module, key) in weights.items():
        rows, columns = module.state_dict()[key].shape
        up, down = (torch.randn(size, generator=generator) for size in ((rows, 2), (2, columns)))
        parts[part] = {key: LowRank(up, down, 1.0)}
    return Adapter("strong", **parts)


def at(unet: float, text: float = 0.0) -> TranslationModel:
    return tiny_model().with_adapters([AdapterUse(adapter(), unet, text)])


# ---- variants of a model


def test_a_variant_shares_all_but_what_the_lora_touches():
    variant, model = at(1.0, 1.0), tiny_model()
    assert variant.unet.temporal_down is model.unet.temporal_down
    assert variant.autoencoder is model.autoencoder
    own, origin = variant.unet.spatial.state_dict(), model.unet.spatial.state_dict()
    changed = [key for key in own if own[key].data_ptr() != origin[key].data_ptr()]
    assert changed == [ATTENTION]
    assert not torch.equal(own[ATTENTION], origin[ATTENTION])


def test_strength_zero_is_the_origin_itself():
    variant = at(1.0, 1.0).with_adapters([AdapterUse(adapter(), 0.0, 0.0)])
    assert variant.unet.spatial is tiny_model().unet.spatial
    assert variant.text.model is tiny_model().text.model


def test_a_variant_of_a_variant_starts_from_the_origin():
    twice = at(1.0).with_adapters([AdapterUse(adapter(), 0.5)])
    once = at(0.5)
    assert torch.equal(
        twice.unet.spatial.state_dict()[ATTENTION], once.unet.spatial.state_dict()[ATTENTION]
    )
    assert twice.is_variant_of(once)
    assert once.is_variant_of(tiny_model())


def test_a_lora_cannot_be_used_twice_at_once():
    with pytest.raises(ConfigError, match="used once, got strong, strong"):
        tiny_model().with_adapters([AdapterUse(adapter()), AdapterUse(adapter(), 0.5)])


def test_the_text_strength_changes_the_embedding_alone():
    variant = at(0.0, 1.0)
    assert variant.unet.spatial is tiny_model().unet.spatial
    assert not torch.equal(variant.text.encode("ink"), tiny_model().text.encode("ink"))


# ---- on a live session


def run(changes: dict[int, TranslationModel], count: int = 20) -> list:
    """A stream whose model changes before the frames of these numbers."""
    with open_session() as session:
        frames = session.warmup(make_frames(8))
        for frame in make_frames(count)[8:]:
            if frame.index in changes:
                assert session.update(model=changes[frame.index]) <= frame.index
            frames += session.push([frame])
        return frames + session.flush()


def test_a_change_of_strength_shows_at_the_next_frame_and_loses_none():
    frames = run({14: at(1.0)})
    assert [frame.index for frame in frames] == list(range(20))
    plain = run({14: tiny_model()})  # re-primed at the same place
    assert same(frames[:13], plain[:13])
    assert all(distance([a], [b]) > 1e-3 for a, b in zip(frames[14:], plain[14:], strict=True))


def test_strength_zero_brings_the_stream_back_to_the_bit():
    assert same(run({12: at(0.0)}), run({12: tiny_model()}))


def test_the_text_strength_reaches_the_stream():
    assert distance(run({12: at(0.0, 2.0)})[13:], run({12: tiny_model()})[13:]) > 1e-4


def test_other_sessions_of_the_model_do_not_notice():
    with open_session() as changed, open_session() as other:
        frames = other.warmup(make_frames(8))
        changed.warmup(make_frames(8))
        changed.update(model=at(1.0))
        for frame in make_frames(20)[8:]:
            changed.push([frame])
            frames += other.push([frame])
        frames += other.flush()
    assert same(frames, reference(20, stream_config()))


def test_a_variant_can_be_made_on_a_thread_while_the_stream_runs():
    made: list[TranslationModel] = []

    def prepare() -> None:
        for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
            made.append(at(strength))

    with open_session() as session:
        frames = session.warmup(make_frames(8))
        thread = threading.Thread(target=prepare)
        thread.start()
        for frame in make_frames(20)[8:]:
            frames += session.push([frame])
        thread.join()
        frames += session.flush()
    assert same(frames, reference(20, stream_config()))
    own = (model.unet.spatial.state_dict()[ATTENTION] for model in (made[-1], at(1.0)))
    assert torch.equal(*own)


def test_before_the_warm_up_a_change_is_as_if_opened_so():
    with open_session() as session:
        assert session.update(model=at(1.0)) == 0
        frames = session.warmup(make_frames(8))
    with open_session() as plain:
        assert distance(frames, plain.warmup(make_frames(8))) > 1e-3
    assert session.config == plain.config


def test_another_model_is_refused_and_nothing_changes():
    with open_session() as session:
        frames = session.warmup(make_frames(8))
        with pytest.raises(ConfigError, match="variants of its own model"):
            session.update(model=make_model())
        for frame in make_frames(20)[8:]:
            frames += session.push([frame])
        assert same(frames + session.flush(), reference(20, stream_config()))


def test_a_refused_parameter_leaves_the_model_as_it_was():
    with open_session() as session:
        session.warmup(make_frames(8))
        with pytest.raises(PromptError):
            session.update(model=at(1.0), prompt="nothing known")
        assert session.model is tiny_model()


# ---- steering


def test_steering_changes_the_next_frame_and_keeps_the_cache():
    with open_session() as steered, open_session() as plain:
        for session in (steered, plain):
            session.warmup(make_frames(8))
        steered.steer("neon")
        frames = make_frames(20)[8:]
        ours, theirs = steered.push(frames), plain.push(frames)
        assert steered.stats.reprimes == 0
        assert distance(ours[1:], theirs[1:]) > 1e-4
        assert len(ours) == len(theirs)


def test_steering_to_the_same_prompt_changes_nothing():
    with open_session() as session:
        frames = session.warmup(make_frames(8))
        for frame in make_frames(20)[8:]:
            session.steer("ink")
            frames += session.push([frame])
        assert same(frames + session.flush(), reference(20, stream_config()))


def test_steering_by_an_embedding_encodes_nothing_and_keeps_the_negative_prompt(monkeypatch):
    full = stream_config(guidance=Guidance("full", 2.0, "neon"))
    with open_session(full) as session:
        frames, embedding = session.warmup(make_frames(8)), tiny_model().text.encode("ink")
        asked: list[str] = []
        monkeypatch.setattr(TextEncoder, "encode_batch", lambda _, prompts: asked.extend(prompts))
        for frame in make_frames(20)[8:]:
            session.steer(embedding)
            frames += session.push([frame])
        frames += session.flush()
    assert asked == []
    monkeypatch.undo()
    assert same(frames, reference(20, full))


def test_a_refused_steer_changes_nothing():
    with open_session() as session:
        frames = session.warmup(make_frames(8))
        with pytest.raises(PromptError):
            session.steer("nothing known")
        for frame in make_frames(20)[8:]:
            frames += session.push([frame])
        assert same(frames + session.flush(), reference(20, stream_config()))


def test_a_closed_session_is_not_steered():
    session = open_session()
    session.close()
    with pytest.raises(StreamClosed):
        session.steer("ink")
