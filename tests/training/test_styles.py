"""The teachers: what they promise to the network that learns from them."""

import cv2
import numpy as np
import pytest

from live2diff_core.training.photos import load_photo_library
from live2diff_core.training.styles import STYLES, Style, paint_clip

HEIGHT, WIDTH = 96, 112
NAMES = sorted(STYLES)


def astronaut(left: int = 0) -> np.ndarray:
    """A window, `left` pixels to the right, of a photo: (h, w, 3) float32 in [0, 1]."""
    whole = cv2.resize(load_photo_library()[0].rgb, (200, 200), interpolation=cv2.INTER_AREA)
    return (
        np.ascontiguousarray(whole[10 : 10 + HEIGHT, 30 + left : 30 + left + WIDTH], np.float32)
        / 255
    )


@pytest.fixture(params=NAMES)
def style(request: pytest.FixtureRequest) -> Style:
    return STYLES[request.param]


def test_there_are_nine_and_they_are_filed_under_their_names() -> None:
    assert len(STYLES) == 9
    assert all(name == style.name for name, style in STYLES.items())


def test_phrases_are_lower_case_and_name_one_style_each() -> None:
    phrases = [phrase for style in STYLES.values() for phrase in style.phrases]
    assert all(phrase == phrase.lower().strip() and phrase for phrase in phrases)
    assert len(phrases) == len(set(phrases))
    assert all(len(style.phrases) >= 3 for style in STYLES.values())


def test_paint_keeps_shape_type_and_range_and_leaves_its_input_alone(style: Style) -> None:
    frame = astronaut()
    before = frame.copy()
    painted = style.paint(frame)
    assert painted.shape == frame.shape
    assert painted.dtype == np.float32
    assert painted.min() >= 0
    assert painted.max() <= 1
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_picture_gives_a_flat_finite_painting(style: Style, level: float) -> None:
    painted = style.paint(np.full((HEIGHT, WIDTH, 3), level, np.float32))
    assert np.isfinite(painted).all()
    assert np.ptp(painted, axis=(0, 1)).max() < 0.02


def test_paint_clip_paints_every_frame_on_its_own(style: Style) -> None:
    clip = np.stack([astronaut(0), astronaut(20)]).transpose(0, 3, 1, 2)
    painted = paint_clip(style, clip)
    assert painted.shape == clip.shape
    np.testing.assert_array_equal(painted[1].transpose(1, 2, 0), style.paint(astronaut(20)))


def test_a_moved_picture_gives_the_moved_painting(style: Style) -> None:
    move, inner = 5, slice(24, -24)
    first, second = style.paint(astronaut(0)), style.paint(astronaut(move))
    np_first = first[inner, 24 + move : WIDTH - 24 + move]
    np_second = second[inner, 24 : WIDTH - 24]
    unmoved = np.abs(first[inner, 24 : WIDTH - 24] - np_second).mean()
    moved = np.abs(np_first - np_second).mean()
    assert moved < 0.035
    assert moved < 0.3 * unmoved


def test_slight_noise_is_not_made_a_flicker(style: Style) -> None:
    noise = np.random.default_rng(0).normal(0, 0.006, (2, HEIGHT, WIDTH, 3)).astype(np.float32)
    a, b = (np.clip(astronaut() + layer, 0, 1) for layer in noise)
    assert np.abs(style.paint(a) - style.paint(b)).mean() < np.abs(a - b).mean()


def test_a_dark_picture_is_painted_much_like_the_bright_one(style: Style) -> None:
    bright, dark = style.paint(astronaut()), style.paint(astronaut() * np.float32(0.3))
    assert dark.std() > 0.5 * bright.std()
    assert np.corrcoef(bright.ravel(), dark.ravel())[0, 1] > 0.7


def test_any_two_styles_differ_clearly() -> None:
    painted = {name: STYLES[name].paint(astronaut()) for name in NAMES}
    for i, one in enumerate(NAMES):
        for other in NAMES[i + 1 :]:
            assert np.abs(painted[one] - painted[other]).mean() > 0.1, (one, other)
