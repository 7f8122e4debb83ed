"""Batches: reproducible, and a picture fades into its style with the first timestep."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from live2diff_core.training.batches import (
    BLEND_SHARE,
    EMPTY_PROMPT_SHARE,
    FULL_EFFECT,
    NO_EFFECT,
    Batch,
    BatchSampler,
    Request,
)
from live2diff_core.training.styles import STYLES

CLIPS, FRAMES, HEIGHT, WIDTH = 3, 2, 32, 48
INK, NEON = STYLES["ink"], STYLES["neon"]
PROMPTS = "ink drawing", "neon lights"


def sample(seed: int) -> Batch:
    return BatchSampler(seed).sample(CLIPS, FRAMES, HEIGHT, WIDTH)


def parts(batch: Batch) -> list[torch.Tensor]:
    return [batch.source, batch.clean, batch.painted]


def equal(first: Batch, second: Batch) -> bool:
    pictures = all(map(torch.equal, parts(first), parts(second)))
    return pictures and [r.prompts for r in first.requests] == [r.prompts for r in second.requests]


@pytest.fixture(scope="module")
def batch() -> Batch:
    return sample(0)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return np.random.default_rng(0).random((FRAMES, 3, HEIGHT, WIDTH), np.float32)


def test_all_pictures_have_one_shape_type_and_range(batch):
    for part in parts(batch):
        assert part.shape == (CLIPS, FRAMES, 3, HEIGHT, WIDTH)
        assert part.dtype == torch.float32
        assert 0 <= part.min() <= part.max() <= 1
    assert len(batch.requests) == CLIPS


def test_a_seed_gives_the_same_batch_and_another_seed_another(batch):
    assert equal(sample(0), batch)
    assert not torch.equal(sample(1).clean, batch.clean)


def test_a_sampler_goes_on_with_other_clips_and_requests(batch):
    sampler = BatchSampler(0)
    assert equal(sampler.sample(CLIPS, FRAMES, HEIGHT, WIDTH), batch)
    following = sampler.sample(CLIPS, FRAMES, HEIGHT, WIDTH)
    assert not torch.equal(following.clean, batch.clean)
    assert [r.prompts for r in following.requests] != [r.prompts for r in batch.requests]


def test_every_clip_is_painted_as_its_own_request_asks(batch):
    for request, clean, painted in zip(batch.requests, batch.clean, batch.painted, strict=True):
        expected = torch.from_numpy(request.paint(clean.numpy())).float()
        torch.testing.assert_close(painted, expected, rtol=0, atol=1e-6)
        assert torch.equal(painted, clean) == (request.first is None)


# ---- what denoising should give


@pytest.mark.parametrize(
    ("timestep", "part"),
    [
        (0, "clean"),
        (NO_EFFECT, "clean"),
        (FULL_EFFECT, "painted"),
        (999, "painted"),
    ],
)
def test_at_the_ends_the_target_is_one_picture_to_the_bit(batch, timestep, part):
    target = batch.target(torch.full((CLIPS,), timestep))
    assert torch.equal(target, getattr(batch, part))


def test_between_the_ends_the_style_fades_in_evenly(batch):
    quarters = [NO_EFFECT + k * (FULL_EFFECT - NO_EFFECT) / 4 for k in (1, 2, 3)]
    targets = [batch.target(torch.full((CLIPS,), timestep)) for timestep in quarters]
    steps = [batch.clean, *targets, batch.painted]
    for before, after in pairwise(steps):
        torch.testing.assert_close(after - before, (batch.painted - batch.clean) / 4)


def test_every_clip_has_its_own_timestep(batch):
    target = batch.target(torch.tensor([NO_EFFECT, FULL_EFFECT, NO_EFFECT]))
    assert torch.equal(target[0], batch.clean[0])
    assert torch.equal(target[1], batch.painted[1])
    assert torch.equal(target[2], batch.clean[2])


# ---- requests


@pytest.mark.parametrize(
    "request_",
    [
        Request(None, None, 0.0, ("", "")),
        Request(INK, None, 0.7, PROMPTS),
        Request(INK, NEON, 0.3, PROMPTS),
    ],
    ids=["none", "one style", "blended"],
)
def test_a_request_is_one_embedding(text, request_):
    embedding = request_.encode(text)
    assert embedding.shape == (1, 20, 16)
    assert embedding.isfinite().all()


def test_an_embedding_is_blended_only_where_a_second_style_is_asked_for(text):
    ink, neon = text.encode(PROMPTS[0]), text.encode(PROMPTS[1])
    assert torch.equal(Request(INK, None, 0.5, PROMPTS).encode(text), ink)
    assert torch.equal(Request(INK, NEON, 0.0, PROMPTS).encode(text), ink)
    assert torch.equal(Request(INK, NEON, 1.0, PROMPTS).encode(text), neon)
    between = Request(INK, NEON, 0.5, PROMPTS).encode(text)
    assert not torch.equal(between, ink)
    assert not torch.equal(between, neon)


def test_without_a_style_nothing_is_painted(clean):
    np.testing.assert_array_equal(Request(None, None, 0.0, ("", "")).paint(clean), clean)


def test_a_blended_request_paints_the_mixture(clean):
    ink, neon = (Request(style, None, 0.5, PROMPTS).paint(clean) for style in (INK, NEON))
    assert np.abs(ink - neon).max() > 0.2
    for weight, expected in ((0.0, ink), (1.0, neon), (0.5, (ink + neon) / 2)):
        painted = Request(INK, NEON, weight, PROMPTS).paint(clean)
        np.testing.assert_allclose(painted, expected, atol=1e-6)


def test_requests_are_plain_blended_or_empty_in_their_shares(text):
    sampler = BatchSampler(0)
    drawn = [sampler._request() for _ in range(2000)]
    empty = sum(request.first is None for request in drawn)
    blended = sum(request.second is not None for request in drawn)
    assert empty / len(drawn) == pytest.approx(EMPTY_PROMPT_SHARE, abs=0.02)
    assert blended / len(drawn) == pytest.approx(BLEND_SHARE, abs=0.02)
    for request in drawn:
        for style, prompt in zip((request.first, request.second), request.prompts, strict=True):
            if style is not None:
                assert text.named_styles(prompt) == [style.name]
        if request.first is None:
            assert request.prompts[0] == ""
        assert request.first != request.second or request.first is None
