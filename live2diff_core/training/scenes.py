"""Procedural clips with known depth: a background, things that move before it, and a camera.

Letters: t = frames; h, w = picture; s = side of a sprite.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from .sprites import random_sprite
from .textures import Rng, crop_window, pick_photo, random_texture, room

MARGIN = 1.4  # how much larger than the picture a background is


@dataclass(frozen=True, eq=False)
class Scene:
    """A rendered clip. rgb: (t, h, w, 3) uint8; depth: (t, h, w) float32 in [0, 1], 1 = near."""

    rgb: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True, eq=False)
class Layer:
    """A thing and its way.

    sprite: (s, s, 4) uint8, premultiplied; maps: (t, 3, 3), sprite to picture; depth: (t,).
    """

    sprite: np.ndarray
    maps: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True, eq=False)
class Backdrop:
    """What is behind everything. rgb: (h, w, 3) uint8; depth: (h, w) float32 in [0, 1]."""

    rgb: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Shot:
    """How a clip is taken.

    tempo: of all motion, radians per frame; reach: of the camera, as a part of the picture.
    """

    frames: int
    height: int
    width: int
    tempo: float
    reach: float


def random_shot(rng: Rng, frames: int, height: int, width: int) -> Shot:
    """A shot with motion between none and fast."""
    still = rng.random() < 0.15
    tempo = (
        rng.uniform(0.0, 0.01) if still else float(np.exp(rng.uniform(np.log(0.02), np.log(0.18))))
    )
    reach = 0.0 if rng.random() < 0.3 else rng.uniform(0.02, 0.15)
    return Shot(frames, height, width, tempo, reach)


def render_scene(rng: Rng, shot: Shot) -> Scene:
    """Render two to six things that move before a background, nearer ones in front."""
    backdrop = _random_backdrop(rng, shot)
    depths = np.sort(rng.uniform(0.5, 1.0, rng.integers(2, 7)))
    camera = _camera(rng, shot)
    layers = [_random_layer(rng, shot, camera, float(depth)) for depth in depths]
    return _render(shot, backdrop, _behind(shot, backdrop, camera), layers)


def render_photo(rng: Rng, shot: Shot) -> Scene:
    """Render one photo under a moving camera, or a still one."""
    backdrop = _photo_backdrop(rng, shot, 1.0)
    return _render(shot, backdrop, _behind(shot, backdrop, _camera(rng, shot)), [])


def _random_backdrop(rng: Rng, shot: Shot) -> Backdrop:
    height, width = _backdrop_size(shot)
    kind = rng.random()
    if kind < 0.35:
        return Backdrop(*room(rng, height, width))
    if kind < 0.65:
        return _photo_backdrop(rng, shot, 0.5)
    depth = np.linspace(0, rng.uniform(0, 0.4), height, dtype=np.float32)[:, None]
    return Backdrop(random_texture(rng, height, width), np.repeat(depth, width, 1))


def _backdrop_size(shot: Shot) -> tuple[int, int]:
    return int(shot.height * MARGIN), int(shot.width * MARGIN)


def _photo_backdrop(rng: Rng, shot: Shot, nearest: float) -> Backdrop:
    """A window of a photo, its depth scaled to at most `nearest`."""
    height, width = _backdrop_size(shot)
    photo = pick_photo(rng, surface=False)
    window = crop_window(rng, photo.rgb.shape, width / height, 0.6)
    flip = -1 if rng.random() < 0.5 else 1
    rgb, depth = (
        cv2.resize(whole[window][:, ::flip], (width, height), interpolation=cv2.INTER_AREA)
        for whole in (photo.rgb, photo.depth)
    )
    return Backdrop(rgb, depth * np.float32(nearest))


def _sway(rng: Rng, frames: int, tempo: float) -> np.ndarray:
    """A smooth way (t,) float64 in [-1, 1], of two sines."""
    step = tempo * np.arange(frames)
    a, b = rng.uniform(0, 2 * np.pi, 2)
    way: np.ndarray = 0.75 * np.sin(a + step) + 0.25 * np.sin(b + rng.uniform(1.5, 2.5) * step)
    return way


def _similarity(scale: np.ndarray, angle: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Maps (t, 3, 3): scale and turn about the origin, then move by x, y; all (t,)."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = np.stack([cos, -sin, x, sin, cos, y, zero, zero, one], -1)
    return rows.reshape(-1, 3, 3)


def _move(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera's way. pan: (t, 2) pixels of what is at depth 1; zoom, roll: (t,)."""

    pan: np.ndarray
    zoom: np.ndarray
    roll: np.ndarray

    def maps(self, depth: float) -> np.ndarray:
        """World, with its origin in the middle of the picture, to camera: (t, 3, 3).

        What is near shifts more.
        """
        parallax = 0.4 + 0.6 * depth
        x, y = (parallax * self.pan).T
        return _similarity(self.zoom, self.roll, x, y)


def _camera(rng: Rng, shot: Shot) -> Camera:
    def way(amplitude: float) -> np.ndarray:
        return amplitude * _sway(rng, shot.frames, shot.tempo)

    pan = np.stack([way(2 * shot.reach * shot.width), way(shot.reach * shot.height)], -1)
    return Camera(pan, 1 + shot.reach + way(shot.reach), way(0.6 * shot.reach))


def _behind(shot: Shot, backdrop: Backdrop, camera: Camera) -> np.ndarray:
    """Maps (t, 3, 3) of the background to the picture."""
    height, width = backdrop.depth.shape
    to_middle = _move(shot.width / 2, shot.height / 2)
    maps: np.ndarray = to_middle @ camera.maps(0.0) @ _move(-width / 2, -height / 2)
    return maps


def _random_layer(rng: Rng, shot: Shot, camera: Camera, depth: float) -> Layer:
    """A thing that moves, turns, sways and comes nearer, now and then beyond the border."""
    side = int(shot.height * rng.uniform(0.3, 0.6) * (0.4 + depth)) + 8
    calm = 0.0 if rng.random() < 0.2 else rng.uniform(0.3, 1.0)
    home = rng.uniform(-0.45, 0.45, 2) * (shot.width, shot.height)

    def way(amplitude: float) -> np.ndarray:
        scaled: np.ndarray = calm * amplitude * _sway(rng, shot.frames, shot.tempo)
        return scaled

    nearing = way(0.25)
    x, y = home[0] + way(0.4 * shot.width), home[1] + way(0.25 * shot.height)
    local = _similarity(1 + nearing, rng.normal(0, 0.2) + way(0.5), x, y)
    local[:, 0, 1] += way(0.12)  # a shear: cloth, hair, a body that leans
    maps = (
        _move(shot.width / 2, shot.height / 2)
        @ camera.maps(depth)
        @ local
        @ _move(-side / 2, -side / 2)
    )
    return Layer(random_sprite(rng, side), maps, np.clip(depth + 0.15 * nearing, 0, 1))


def _render(shot: Shot, backdrop: Backdrop, behind: np.ndarray, layers: list[Layer]) -> Scene:
    rgb = np.empty((shot.frames, shot.height, shot.width, 3), np.uint8)
    depth = np.empty((shot.frames, shot.height, shot.width), np.float32)
    size = (shot.width, shot.height)
    for index in range(shot.frames):
        matrix = behind[index, :2]
        cv2.warpAffine(
            backdrop.rgb, matrix, size, dst=rgb[index], borderMode=cv2.BORDER_REFLECT_101
        )
        cv2.warpAffine(
            backdrop.depth, matrix, size, dst=depth[index], borderMode=cv2.BORDER_REFLECT_101
        )
        for layer in layers:
            _lay(rgb[index], depth[index], layer, index)
    return Scene(rgb, np.clip(depth, 0, 1, out=depth))


def _lay(rgb: np.ndarray, depth: np.ndarray, layer: Layer, index: int) -> None:
    """Put a layer over rgb (h, w, 3) and depth (h, w), in the rectangle that it covers."""
    matrix = layer.maps[index]
    area = _bounds(matrix, layer.sprite.shape[0], depth.shape)
    if area is None:
        return
    left, top, right, bottom = area
    local = _move(-left, -top) @ matrix
    piece = cv2.warpAffine(layer.sprite, local[:2], (right - left, bottom - top))
    cover = piece[..., 3].astype(np.float32) * np.float32(1 / 255)
    under = rgb[top:bottom, left:right]
    keep = cv2.merge([1 - cover] * 3)
    under[...] = cv2.add(
        cv2.multiply(under, keep, dtype=cv2.CV_8U), np.ascontiguousarray(piece[..., :3])
    )
    distance = depth[top:bottom, left:right]
    distance[...] = (1 - cover) * distance + cover * np.float32(layer.depth[index])


def _bounds(
    matrix: np.ndarray, side: int, shape: tuple[int, ...]
) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what a sprite covers in a picture of `shape`; None outside."""
    corners = matrix[:2] @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]])
    left, top = np.maximum(np.floor(corners.min(1)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(corners.max(1)).astype(int) + 1, (shape[1], shape[0]))
    if right - left < 2 or bottom - top < 2:
        return None
    return int(left), int(top), int(right), int(bottom)
