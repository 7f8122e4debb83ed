"""Photos, scenes and clips: ranges, reproducibility, motion, occlusion, the camera's faults."""

from pathlib import Path

import numpy as np
import pytest

from live2diff_core.errors import ConfigError
from live2diff_core.training import photos
from live2diff_core.training.clips import Clip, ClipSampler
from live2diff_core.training.scenes import (
    Backdrop,
    Layer,
    Shot,
    _render,
    render_photo,
    render_scene,
)

FRAMES, HEIGHT, WIDTH = 5, 48, 64


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    sampler = ClipSampler(3)
    return [sampler.sample(FRAMES, HEIGHT, WIDTH) for _ in range(60)]


def test_photos_are_rgb_bytes_of_moderate_size() -> None:
    loaded = [photo.rgb for photo in photos.load_photo_library()]
    assert len(loaded) >= 12
    for picture in loaded:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert max(picture.shape) <= photos.LONGEST_SIDE


def test_photo_depths_match_their_photos() -> None:
    for photo in photos.load_photo_library():
        assert photo.depth.shape == photo.rgb.shape[:2]
        assert 0 <= photo.depth.min() <= photo.depth.max() <= 1


def test_missing_photos_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"live2diff\[train\]"):
        photos.load_photo_library.__wrapped__()


def test_an_unreadable_photo_names_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(photos, "_folder", lambda package: tmp_path)
    with pytest.raises(ConfigError, match="astronaut"):
        photos.load_photo_library.__wrapped__()


def test_clips_keep_shape_type_and_range(clips: list[Clip]) -> None:
    for clip in clips:
        assert clip.clean.shape == clip.source.shape == (FRAMES, 3, HEIGHT, WIDTH)
        assert clip.depth.shape == (FRAMES, 1, HEIGHT, WIDTH)
        for part in (clip.clean, clip.source, clip.depth):
            assert part.dtype == np.float32
            assert 0 <= part.min() <= part.max() <= 1


def test_a_seed_gives_the_same_clips_and_another_seed_others(clips: list[Clip]) -> None:
    again, other = ClipSampler(3), ClipSampler(4)
    for clip in clips[:4]:
        same = again.sample(FRAMES, HEIGHT, WIDTH)
        np.testing.assert_array_equal(same.source, clip.source)
        np.testing.assert_array_equal(same.clean, clip.clean)
        np.testing.assert_array_equal(same.depth, clip.depth)
        assert not np.array_equal(other.sample(FRAMES, HEIGHT, WIDTH).clean, clip.clean)


def test_the_source_is_the_clean_clip_with_slight_faults(clips: list[Clip]) -> None:
    errors = np.array([np.abs(clip.source - clip.clean).mean() for clip in clips])
    assert errors.min() > 0
    assert errors.max() < 0.06


def test_noise_is_fresh_in_every_frame(clips: list[Clip]) -> None:
    for clip in clips:
        faults = clip.source - clip.clean
        assert not np.array_equal(faults[0], faults[1])


def test_clips_cover_dark_flat_bright_grey_and_vivid(clips: list[Clip]) -> None:
    mean = np.array([clip.clean.mean() for clip in clips])
    contrast = np.array([clip.clean.std() for clip in clips])
    colour = np.array([np.ptp(clip.clean, axis=1).mean() for clip in clips])
    assert mean.min() < 0.15
    assert mean.max() > 0.65
    assert contrast.min() < 0.08
    assert contrast.max() > 0.25
    assert colour.min() < 0.04
    assert colour.max() > 0.3


def test_clips_range_from_nearly_still_to_fast(clips: list[Clip]) -> None:
    motion = np.array([np.abs(np.diff(clip.depth, axis=0)).mean() for clip in clips])
    assert motion.min() < 1e-3
    assert motion.max() > 0.02


def test_without_tempo_nothing_moves() -> None:
    shot = Shot(FRAMES, HEIGHT, WIDTH, tempo=0.0, reach=0.1)
    for render in (render_scene, render_photo):
        scene = render(np.random.default_rng(1), shot)
        np.testing.assert_array_equal(scene.rgb[0], scene.rgb[-1])


def square(colour: tuple[int, int, int], left: int, depth: float) -> Layer:
    """An opaque square of 20 pixels that does not move."""
    sprite = np.full((20, 20, 4), 255, np.uint8)
    sprite[..., :3] = colour
    place = np.array([[1, 0, left], [0, 1, 10], [0, 0, 1]], float)
    return Layer(sprite, place[None], np.array([depth]))


def test_layers_hide_what_is_behind_them_in_colour_and_depth() -> None:
    shot = Shot(1, HEIGHT, WIDTH, tempo=0.0, reach=0.0)
    backdrop = Backdrop(
        np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.full((HEIGHT, WIDTH), 0.1, np.float32)
    )
    layers = [square((255, 0, 0), 10, 0.5), square((0, 255, 0), 20, 0.9)]
    scene = _render(shot, backdrop, np.eye(3)[None], layers)
    for column, colour, depth in (
        (12, (255, 0, 0), 0.5),
        (25, (0, 255, 0), 0.9),
        (50, (0, 0, 0), 0.1),
    ):
        assert tuple(scene.rgb[0, 20, column]) == colour
        assert scene.depth[0, 20, column] == pytest.approx(depth)


def test_layers_beyond_the_border_are_left_out() -> None:
    shot = Shot(1, HEIGHT, WIDTH, tempo=0.0, reach=0.0)
    backdrop = Backdrop(
        np.full((HEIGHT, WIDTH, 3), 9, np.uint8), np.zeros((HEIGHT, WIDTH), np.float32)
    )
    scene = _render(
        shot,
        backdrop,
        np.eye(3)[None],
        [square((255, 0, 0), -40, 0.5), square((255, 0, 0), 500, 0.5)],
    )
    assert (scene.rgb == 9).all()
