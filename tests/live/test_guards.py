"""Guards on real clips: every cut is found, and nothing else is taken for one."""

from collections.abc import Iterable
from functools import cache

import pytest
import torch
from torch import Tensor

from live2diff_core.config import StepSelection, StreamConfig
from live2diff_core.errors import ConfigError
from live2diff_core.live.guards import Drift, SceneCut, Similarity, is_finite
from live2diff_core.live.source import VideoFile
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.bundled import load_bundled
from tests.clips import BIKES, BUNNY, PHONE

CLIPS = {"bunny": BUNNY, "bikes": BIKES, "phone": PHONE}
# Joints that the film itself has, checked by eye: number of the first frame after each.
FILMED = {"bunny": [], "bikes": [30, 76, 137, 187, 242], "phone": []}
LATE = 2  # frames after a cut at which it is told


@cache
def pictures(name: str) -> tuple[Tensor, ...]:
    """A clip, every fourth pixel of large ones."""
    step = 1 if name == "phone" else 4
    with VideoFile(CLIPS[name]) as source:
        return tuple(frame.rgb[:, ::step, ::step].clone() for frame in source)


def told(guard: SceneCut, stream: Iterable[Tensor]) -> list[int]:
    return [number for number, rgb in enumerate(stream) if guard.is_cut(rgb)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noisy(rgb: Tensor, amount: float, seed: int) -> Tensor:
    return (rgb + amount * draw(*rgb.shape, seed=seed)).clamp(0, 255).to(torch.uint8)


def brighter(rgb: Tensor, amount: int) -> Tensor:
    return (rgb.int() + amount).clamp(0, 255).to(torch.uint8)


def shaken(rgb: Tensor, share: float, seed: int) -> Tensor:
    """Moved in both directions by up to a share of the width."""
    most = max(1, int(share * rgb.shape[2]))
    generator = torch.Generator().manual_seed(seed)
    down, across = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    return torch.roll(rgb, (down, across), (1, 2))


# ---- cuts


@pytest.mark.parametrize("name", CLIPS)
def test_cuts_of_a_film_are_found_and_nothing_else(name):
    assert told(SceneCut(), pictures(name)) == [number + LATE for number in FILMED[name]]


@pytest.mark.parametrize("threshold", [0.15, 0.28])  # the default is 0.2
@pytest.mark.parametrize("order", [("bunny", "bikes", "phone"), ("phone", "bunny", "bikes")])
def test_joints_of_clips_are_found_with_a_margin(order, threshold):
    stream, cuts = [], []
    for name in order:
        cuts += [len(stream)] if stream else []
        cuts += [len(stream) + number for number in FILMED[name]]
        stream += pictures(name)
    assert told(SceneCut(threshold, spacing=8), stream) == [number + LATE for number in cuts]


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("amount", [-255, 60, 120, 255])
def test_a_flash_is_no_cut(amount, length):
    stream = [
        brighter(rgb, amount) if number % 20 >= 20 - length else rgb
        for number, rgb in enumerate(pictures("phone"))
    ]
    assert told(SceneCut(), stream) == []


def test_a_strobe_is_no_cut():
    stream = [brighter(rgb, 150 * (n % 2)) for n, rgb in enumerate(pictures("phone"))]
    assert told(SceneCut(), stream) == []


@pytest.mark.parametrize("name", ["bunny", "phone"])
def test_a_shaken_camera_is_no_cut(name):
    stream = [shaken(rgb, 0.03, seed) for seed, rgb in enumerate(pictures(name))]
    assert told(SceneCut(), stream) == []


def test_a_noisy_camera_is_no_cut_and_its_cuts_are_found():
    stream = [*pictures("phone")[:40], *pictures("bunny")[:40]]
    stream = [noisy(rgb, 12, seed) for seed, rgb in enumerate(stream)]
    assert told(SceneCut(), stream) == [40 + LATE]


def test_lights_that_stay_on_are_a_cut():
    stream = [brighter(rgb, 120 * (n >= 30)) for n, rgb in enumerate(pictures("phone"))]
    assert told(SceneCut(), stream) == [30 + LATE]


def test_cuts_in_short_order_are_told_as_one_at_the_end_of_the_spacing():
    stream = [rgb for n in range(8) for rgb in pictures(("phone", "bunny")[n % 2])[:6]]
    assert told(SceneCut(spacing=16), stream) == [6 + LATE, 6 + LATE + 16, 6 + LATE + 32]
    assert told(SceneCut(spacing=1), stream) == [6 * n + LATE for n in range(1, 8)]


def test_without_flashes_a_cut_is_told_at_once():
    stream = [*pictures("phone")[:10], *pictures("bunny")[:10]]
    assert told(SceneCut(flash=0), stream) == [10]


def test_pictures_of_another_size_are_no_cut():
    stream = [rgb[:, :: 1 + n % 2, :: 1 + n % 2] for n, rgb in enumerate(pictures("phone")[:20])]
    assert told(SceneCut(), stream) == []


# ---- pictures that hardly change


def test_a_still_picture_with_noise_is_skipped_until_one_is_due():
    guard, rgb = Similarity(longest=5), pictures("phone")[0]
    skipped = [guard.is_still(noisy(rgb, 4, seed)) for seed in range(13)]
    assert skipped == [False, *[True] * 5] * 2 + [False]
    assert guard.saved == 10


@pytest.mark.parametrize("name", CLIPS)
def test_most_pictures_of_a_moving_scene_are_translated(name):
    guard = Similarity()
    for rgb in pictures(name):
        guard.is_still(rgb)
    assert guard.saved < 0.25 * len(pictures(name))


def test_slow_change_is_not_swallowed():
    """Each picture is like the one before; the one that was kept is what counts."""
    guard, grey = Similarity(0.98, longest=1000), torch.full((3, 48, 64), 100)
    kept = [n for n in range(40) if not guard.is_still((grey + n).to(torch.uint8))]
    assert kept == [0, 6, 12, 18, 24, 30, 36]  # 0.02 of 255 is 5.1


def test_a_small_thing_that_moves_counts():
    guard, rgb = Similarity(), pictures("phone")[0]
    moved = rgb.clone()
    moved[:, 60:70, 80:90] = 255 - moved[:, 60:70, 80:90]
    assert not guard.is_still(rgb)
    assert guard.is_still(rgb)
    assert not guard.is_still(moved)


def test_threshold_one_skips_what_is_equal_alone():
    guard, rgb = Similarity(1.0), pictures("phone")[0]
    answers = [guard.is_still(rgb), guard.is_still(rgb), guard.is_still(brighter(rgb, 1))]
    assert answers == [False, True, False]


def test_what_is_forgotten_is_not_skipped():
    guard, rgb = Similarity(), pictures("phone")[0]
    guard.is_still(rgb)
    guard.forget()
    assert not guard.is_still(rgb)
    assert guard.is_still(rgb)


# ---- finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_spoiled_pixel_is_found(value, dtype):
    rgb = torch.ones(3, 512, 512, dtype=dtype)  # whose sum is too much for half precision
    assert is_finite(rgb)
    rgb[1, 100, 200] = float(value)
    assert not is_finite(rgb)


# ---- drift

DRIFTS = {
    "fades": lambda rgb, k: rgb * (1 - k),
    "burns": lambda rgb, k: rgb + (1 - rgb) * k,
    "greys": lambda rgb, k: rgb + (rgb.mean(dim=0, keepdim=True) - rgb) * k,
    "flattens": lambda rgb, k: (rgb[:1] + (rgb[:1].mean() - rgb[:1]) * k).expand(3, -1, -1),
}


def colourful(number: int) -> Tensor:
    """Pictures of one look that flicker: colours of their own in [0, 1]."""
    return (0.5 + 0.3 * draw(3, 48, 64, seed=number) + 0.02 * draw(1, seed=number)).clamp(0, 1)


@pytest.mark.parametrize("kind", DRIFTS)
def test_drift_is_found_before_the_look_is_lost(kind):
    guard, change = Drift(), DRIFTS[kind]
    assert not any(guard.is_drifting(change(colourful(n), 0.0)) for n in range(100))
    lost = [n / 200 for n in range(200) if guard.is_drifting(change(colourful(n), n / 200))]
    assert 0.1 < lost[0] <= 0.7


def test_flicker_is_no_drift_and_an_anchor_is_a_new_look():
    guard = Drift()
    assert not any(guard.is_drifting(colourful(n) * (0.8 + 0.2 * (n % 2))) for n in range(200))
    darker = [guard.is_drifting(colourful(n) * 0.5) for n in range(60)]
    assert darker[-1]
    guard.anchor()
    assert not any(guard.is_drifting(colourful(n) * 0.5) for n in range(60))


def test_bytes_drift_as_numbers_do():
    asked = [Drift(), Drift()]
    for n in range(120):
        rgb = (colourful(n) * (1 - n / 120) * 255).to(torch.uint8)
        answers = [asked[0].is_drifting(rgb), asked[1].is_drifting(rgb.float() / 255)]
        assert answers[0] == answers[1]
    assert answers[0]


def test_a_sound_stream_does_not_drift_in_200_frames():
    config = StreamConfig(64, 32, StepSelection(strength=0.8, steps=1), fit="crop")
    session, guard = Session(load_bundled(), config, "ink"), Drift()
    with VideoFile(BIKES, max_frames=208) as source:
        drifted = [f.index for f in translate(session, source) if guard.is_drifting(f.rgb)]
    assert drifted == []


# ---- refused


@pytest.mark.parametrize(
    "make",
    [
        lambda: SceneCut(threshold=0),
        lambda: SceneCut(threshold=1.5),
        lambda: SceneCut(flash=-1),
        lambda: SceneCut(spacing=0),
        lambda: Similarity(threshold=0),
        lambda: Similarity(threshold=1.1),
        lambda: Similarity(longest=0),
        lambda: Drift(limit=0),
        lambda: Drift(limit=1),
        lambda: Drift(half_life=0),
        lambda: Drift(settle=0),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ConfigError, match="got"):
        make()
