"""All noise comes from the seed, and from nowhere else."""

import pytest
import torch

from live2diff_core.stream.noise import StreamNoise

LATENT = torch.zeros(12, 8, 8)


def draw(noise: StreamNoise, frames: int = 3) -> list[torch.Tensor]:
    """What a short stream draws: the warm-up, then frame after frame."""
    tensors = list(noise.warmup(4))
    for _ in range(frames):
        tensors += noise.frame()
    return tensors


def equal(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("mode", ["fresh", "fixed"])
def test_a_seed_reproduces_everything_to_the_bit(mode):
    first = draw(StreamNoise(7, mode, 3, LATENT))
    torch.randn(5)  # the global generator has no part in it
    assert equal(first, draw(StreamNoise(7, mode, 3, LATENT)))


@pytest.mark.parametrize("mode", ["fresh", "fixed"])
def test_another_seed_draws_another_noise(mode):
    ours = draw(StreamNoise(7, mode, 3, LATENT))
    theirs = draw(StreamNoise(8, mode, 3, LATENT))
    assert not any(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    draw(StreamNoise(7, "fresh", 3, LATENT))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["fresh", "fixed"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_shapes_of_the_noise(mode, steps):
    warm, warm_again, frame, frame_again = draw(StreamNoise(0, mode, steps, LATENT), frames=1)
    assert warm.shape == (4, 12, 8, 8)
    assert warm_again.shape == (steps - 1, 4, 12, 8, 8)
    assert frame.shape == (12, 8, 8)
    assert frame_again.shape == (steps - 1, 12, 8, 8)


def test_fresh_noise_never_repeats():
    noise = StreamNoise(0, "fresh", 2, LATENT)
    warm, _ = noise.warmup(4)
    fields = [*warm, *(field for _ in range(5) for field in noise.frame())]
    for i, a in enumerate(fields):
        assert not any(torch.equal(a, b) for b in fields[:i])


def test_fixed_noise_is_one_field_a_step_for_the_whole_stream():
    noise = StreamNoise(0, "fixed", 3, LATENT)
    field, again = noise.frame()
    warm, warm_again = noise.warmup(4)
    assert equal([field, again], list(noise.frame()))
    assert all(torch.equal(frame, field) for frame in warm)
    assert all(torch.equal(warm_again[:, i], again) for i in range(4))
    assert not any(torch.equal(field, step) for step in again)


@pytest.mark.parametrize("mode", ["fresh", "fixed"])
def test_noise_is_of_unit_variance(mode):
    noise = StreamNoise(0, mode, 2, torch.zeros(16, 64, 64))
    for field in noise.frame():
        assert abs(field.mean().item()) < 0.02
        assert abs(field.std().item() - 1) < 0.02


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_does_not_depend_on_the_precision_of_latents(dtype):
    full = draw(StreamNoise(3, "fresh", 2, LATENT))
    half = draw(StreamNoise(3, "fresh", 2, LATENT.to(dtype)))
    assert equal(full, half)
