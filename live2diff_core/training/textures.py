"""Still pictures that scenes are made of: materials, patterns, rooms and landscapes.

Every function returns (h, w, 3) uint8 RGB. Letters: h, w = picture.
"""

import cv2
import numpy as np

from .photos import Photo, load_photo_library

Rng = np.random.Generator


def random_colour(rng: Rng) -> np.ndarray:
    """A colour (3,) float32 in [0, 255]: grey, pale, earthy or vivid."""
    saturation = rng.choice([0.0, 0.25, 0.55, 0.95]) * rng.uniform(0.7, 1.0)
    phase = 2 * np.pi * (rng.random() + np.array([0, 1 / 3, 2 / 3]))
    hue = np.clip(0.5 + np.cos(phase), 0, 1)
    value = rng.uniform(0.08, 1.0)
    colour: np.ndarray = (255 * value * (1 - saturation * (1 - hue))).astype(np.float32)
    return colour


def skin_colour(rng: Rng) -> np.ndarray:
    """A skin tone (3,) float32 in [0, 255], from deep brown to pale."""
    deep, pale = np.array([88, 52, 36]), np.array([246, 212, 188])
    tone: np.ndarray = (deep + rng.random() * (pale - deep)).astype(np.float32)
    return tone


def random_texture(rng: Rng, height: int, width: int) -> np.ndarray:
    """Any of the materials below."""
    makers = (plain, gradient, noise, stripes, checker, wood, photo_crop, surface_crop)
    weights = (0.1, 0.14, 0.14, 0.1, 0.06, 0.08, 0.24, 0.14)
    return makers[rng.choice(len(makers), p=weights)](rng, height, width)


def plain(rng: Rng, height: int, width: int) -> np.ndarray:
    """One colour."""
    return np.broadcast_to(random_colour(rng).astype(np.uint8), (height, width, 3)).copy()


def gradient(rng: Rng, height: int, width: int) -> np.ndarray:
    """Four corner colours, blended."""
    corners = np.stack([random_colour(rng) for _ in range(4)]).reshape(2, 2, 3)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def cloud(rng: Rng, height: int, width: int) -> np.ndarray:
    """Smooth noise (h, w) float32 in [0, 1] of three octaves."""
    cells = int(rng.integers(2, 9))
    total = np.zeros((height, width), np.float32)
    for octave in range(3):
        grid = rng.random((cells << octave, cells << octave), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / (1 << octave)
    unit: np.ndarray = np.clip(total / 1.75, 0, 1)
    return unit


def _mix(rng: Rng, unit: np.ndarray) -> np.ndarray:
    """Blend two random colours by unit (h, w) in [0, 1]."""
    palette = np.linspace(random_colour(rng), random_colour(rng), 256).astype(np.uint8)
    return palette[(unit * 255).astype(np.uint8)]


def noise(rng: Rng, height: int, width: int) -> np.ndarray:
    """Clouds between two colours, soft or with clear borders."""
    contrast = rng.uniform(1.0, 6.0)
    return _mix(rng, np.clip(0.5 + contrast * (cloud(rng, height, width) - 0.5), 0, 1))


def _waves(rng: Rng, height: int, width: int, warp: float) -> np.ndarray:
    """Parallel waves (h, w) in [-1, 1] of a random direction, bent by noise of `warp` periods."""
    angle = rng.uniform(0, np.pi)
    period = rng.uniform(0.08, 0.4) * max(height, width)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    phase = (np.cos(angle) * x + np.sin(angle) * y) / period
    if warp:
        phase = phase + warp * cloud(rng, height, width)
    wave: np.ndarray = np.sin(2 * np.pi * phase)
    return wave


def stripes(rng: Rng, height: int, width: int) -> np.ndarray:
    """Stripes with antialiased borders."""
    return _mix(rng, np.clip(0.5 + 3 * _waves(rng, height, width, 0), 0, 1))


def checker(rng: Rng, height: int, width: int) -> np.ndarray:
    """A chequered board, or a lattice, of two wave trains."""
    product = _waves(rng, height, width, 0) * _waves(rng, height, width, 0)
    return _mix(rng, np.clip(0.5 + 4 * product, 0, 1))


def wood(rng: Rng, height: int, width: int) -> np.ndarray:
    """Bent rings of two close colours."""
    return _mix(rng, 0.5 + 0.5 * _waves(rng, height, width, rng.uniform(1, 4)))


def photo_crop(rng: Rng, height: int, width: int) -> np.ndarray:
    """A part of a photo of a place or a person."""
    return _crop(rng, pick_photo(rng, surface=False).rgb, height, width)


def surface_crop(rng: Rng, height: int, width: int) -> np.ndarray:
    """A part of a photo of a material, tinted on occasion."""
    crop = _crop(rng, pick_photo(rng, surface=True).rgb, height, width)
    if rng.random() < 0.5:
        return crop
    return cv2.transform(crop, np.diag(0.4 + 0.6 / 255 * random_colour(rng)))


def pick_photo(rng: Rng, *, surface: bool) -> Photo:
    """A photo of a material (`surface`) or of a place."""
    fitting = [photo for photo in load_photo_library() if photo.surface == surface]
    return fitting[rng.integers(len(fitting))]


def crop_window(
    rng: Rng, shape: tuple[int, ...], aspect: float, smallest: float
) -> tuple[slice, slice]:
    """A window with width / height = aspect; `smallest`: least part of the greatest possible."""
    full_height = min(shape[0], shape[1] / aspect)
    height = max(int(full_height * rng.uniform(smallest, 1.0)), 8)
    width = min(max(int(height * aspect), 8), shape[1])
    top = int(rng.integers(shape[0] - height + 1))
    left = int(rng.integers(shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def _crop(rng: Rng, picture: np.ndarray, height: int, width: int) -> np.ndarray:
    window = picture[crop_window(rng, picture.shape, width / height, 0.35)]
    if rng.random() < 0.5:
        window = window[:, ::-1]
    return cv2.resize(window, (width, height), interpolation=cv2.INTER_AREA)


def room(rng: Rng, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A floor, a wall or sky, and boxes. Returns rgb, and depth (h, w) float32 in [0, 0.5]."""
    horizon = int(height * rng.uniform(0.35, 0.75))
    floor = random_texture(rng, height - horizon, width)
    picture = np.concatenate([_upper(rng, horizon, width), floor])
    depth = np.full((height, width), 0.08, np.float32)
    depth[horizon:] = np.linspace(0.1, 0.5, height - horizon, dtype=np.float32)[:, None]
    for _ in range(rng.integers(0, 6)):
        _stand_box(rng, picture, depth, horizon)
    return cv2.GaussianBlur(picture, (3, 3), 0.6), depth


def _upper(rng: Rng, height: int, width: int) -> np.ndarray:
    """A wall of any material, or a sky."""
    if rng.random() < 0.5:
        return random_texture(rng, height, width)
    top, bottom = np.array([70, 130, 220], np.float32), np.array([225, 235, 245], np.float32)
    ramp = np.linspace(top, bottom, height)[:, None] * rng.uniform(0.5, 1.0)
    white = np.clip(3 * cloud(rng, height, width) - 1.5, 0, 1)[..., None] * rng.random()
    return (ramp + white * (250 - ramp)).astype(np.uint8)


def _stand_box(rng: Rng, picture: np.ndarray, depth: np.ndarray, horizon: int) -> None:
    """Draw a box into picture (h, w, 3) and depth (h, w): on the wall, or standing on the floor."""
    height, width = depth.shape
    box_height, box_width = (int(s * rng.uniform(0.12, 0.45)) + 2 for s in (height, width))
    on_floor = rng.random() < 0.5
    foot = int(rng.integers(horizon, height)) if on_floor else int(rng.integers(2, max(horizon, 3)))
    top, left = max(foot - box_height, 0), int(rng.integers(width - box_width))
    area = slice(top, foot), slice(left, left + box_width)
    picture[area] = random_texture(rng, foot - top, box_width)
    if rng.random() < 0.6:
        frame = random_colour(rng).tolist()
        cv2.rectangle(
            picture, (left, top), (left + box_width, foot), frame, max(height // 64, 1), cv2.LINE_AA
        )
    if on_floor:
        depth[area] = depth[min(foot, height - 1), 0]
