"""Things that move through scenes: pictures with soft borders, drawn once, moved by affine maps.

A sprite is (s, s, 4) uint8, red green blue premultiplied by the cover in the fourth channel.
"""

import cv2
import numpy as np

from .photos import load_photo_library
from .textures import Rng, random_colour, random_texture, skin_colour

SHIFT = 4  # cv2 draws at 1/16 pixel
Point = tuple[float, float]


def random_sprite(rng: Rng, side: int) -> np.ndarray:
    """Any of the things below, (side, side, 4) uint8."""
    makers = (_ellipse, _box, _blob, _person, _head, _hand, _stick, _cut_out)
    weights = (0.13, 0.13, 0.16, 0.14, 0.16, 0.1, 0.06, 0.12)
    rgb, mask = makers[rng.choice(len(makers), p=weights)](rng, side)
    return _finish(rng, rgb, mask)


def _finish(rng: Rng, rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Light the thing from one side, darken its rim, soften its border and premultiply."""
    side = mask.shape[0]
    cover = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.5, 1.2))).astype(np.float32) / 255
    small = cv2.resize(mask, (16, 16), interpolation=cv2.INTER_AREA)
    thickness = (
        cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.5), (side, side)).astype(np.float32) / 255
    )
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.45)
    slope = np.cos(angle) * axis + np.sin(angle) * axis[:, None]
    light = (0.65 + 0.35 * thickness) * (1 + strength * slope)
    lit = np.clip(rgb * light[..., None], 0, 255) * cover[..., None]
    return np.dstack([lit, 255 * cover]).astype(np.uint8)


def _fixed(side: int, points: np.ndarray) -> np.ndarray:
    """Points (n, 2) in [0, 1] as cv2's fixed-point pixels."""
    return np.round(points * side * (1 << SHIFT)).astype(np.int32)


def _polygon(canvas: np.ndarray, points: np.ndarray, colour: list[float]) -> None:
    cv2.fillPoly(canvas, [_fixed(canvas.shape[0], points)], colour, cv2.LINE_AA, SHIFT)


def _round(
    centre: Point, radii: Point, turn: float = 0.0, wobble: np.ndarray | None = None
) -> np.ndarray:
    """The outline (48, 2) of an ellipse, its radius scaled by 1 + wobble (48,)."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    reach = 1.0 if wobble is None else 1 + wobble
    x, y = radii[0] * reach * np.cos(angle), radii[1] * reach * np.sin(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y], -1)


class _Drawing:
    """A canvas on which colours and cover are drawn together."""

    def __init__(self, rgb: np.ndarray) -> None:
        self.rgb = np.ascontiguousarray(rgb)
        self.mask: np.ndarray = np.zeros(rgb.shape[:2], np.uint8)

    def fill(self, points: np.ndarray, colour: np.ndarray) -> None:
        """Fill an outline (n, 2) in [0, 1] with a colour (3,) in [0, 255]."""
        _polygon(self.rgb, points, colour.tolist())
        _polygon(self.mask, points, [255.0])

    def detail(self, points: np.ndarray, colour: np.ndarray) -> None:
        """Draw on what is there already, without adding to the cover."""
        _polygon(self.rgb, points, colour.tolist())

    def limb(self, start: Point, end: Point, width: float, colour: np.ndarray) -> None:
        """A thick line with round ends; all in [0, 1]."""
        a, b = _fixed(self.mask.shape[0], np.array([start, end])).tolist()
        thick = max(int(width * self.mask.shape[0]), 1)
        cv2.line(self.rgb, a, b, colour.tolist(), thick, cv2.LINE_AA, SHIFT)
        cv2.line(self.mask, a, b, [255.0], thick, cv2.LINE_AA, SHIFT)


Drawn = tuple[np.ndarray, np.ndarray]


def _textured(rng: Rng, side: int, outline: np.ndarray) -> Drawn:
    mask = np.zeros((side, side), np.uint8)
    _polygon(mask, outline, [255.0])
    return random_texture(rng, side, side), mask


def _ellipse(rng: Rng, side: int) -> Drawn:
    return _textured(
        rng,
        side,
        _round((0.5, 0.5), (rng.uniform(0.2, 0.45), rng.uniform(0.2, 0.45)), rng.uniform(0, 3)),
    )


def _box(rng: Rng, side: int) -> Drawn:
    half = rng.uniform(0.15, 0.42, 2)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half * rng.uniform(0.85, 1.1, (4, 2))
    return _textured(rng, side, 0.5 + corners)


def _blob(rng: Rng, side: int) -> Drawn:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = [rng.uniform(0, 0.18) * np.sin(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5)]
    return _textured(rng, side, _round((0.5, 0.5), (0.32, 0.32), 0, np.sum(waves, 0)))


def _paint_head(rng: Rng, drawing: _Drawing, centre: Point, size: float) -> None:
    """A face with hair, brows, eyes, nose and mouth; `size` is half its height."""
    skin, hair = skin_colour(rng), random_colour(rng) * 0.5
    x, y = centre
    if rng.random() < 0.85:
        drawing.fill(_round((x, y - 0.22 * size), (0.86 * size, 0.95 * size)), hair)
    drawing.fill(_round((x, y), (0.72 * size, 0.95 * size)), skin)
    for flip in (-1, 1):
        eye = (x + flip * 0.3 * size, y - 0.12 * size)
        drawing.detail(
            _round((eye[0], eye[1] - 0.17 * size), (0.18 * size, 0.04 * size)), hair * 0.7
        )
        drawing.detail(_round(eye, (0.16 * size, 0.08 * size)), np.array([238.0, 235.0, 230.0]))
        drawing.detail(_round(eye, (0.075 * size, 0.08 * size)), random_colour(rng) * 0.25)
    drawing.detail(
        _round((x + 0.06 * size, y + 0.16 * size), (0.06 * size, 0.16 * size)), skin * 0.78
    )
    mouth = (rng.uniform(0.18, 0.32) * size, rng.uniform(0.04, 0.14) * size)
    drawing.detail(_round((x, y + 0.5 * size), mouth), skin * np.array([0.75, 0.42, 0.42]))


def _head(rng: Rng, side: int) -> Drawn:
    drawing = _Drawing(random_texture(rng, side, side))
    _polygon(drawing.mask, _round((0.5, 1.05), (0.46, 0.3)), [255.0])
    drawing.limb((0.5, 0.6), (0.5, 0.8), 0.2, skin_colour(rng))
    _paint_head(rng, drawing, (0.5, 0.42), 0.36)
    return drawing.rgb, drawing.mask


def _person(rng: Rng, side: int) -> Drawn:
    drawing = _Drawing(random_texture(rng, side, side))
    trousers, sleeve = random_colour(rng), random_colour(rng)
    spread = rng.uniform(0.03, 0.14)
    for flip in (-1, 1):
        drawing.limb((0.5 + flip * 0.06, 0.6), (0.5 + flip * spread, 0.95), 0.09, trousers)
        drawing.limb(
            (0.5 + flip * 0.13, 0.32), (0.5 + flip * 0.2, rng.uniform(0.15, 0.6)), 0.07, sleeve
        )
    _polygon(drawing.mask, _round((0.5, 0.46), (0.15, 0.2)), [255.0])
    _paint_head(rng, drawing, (0.5, 0.16), 0.12)
    return drawing.rgb, drawing.mask


def _hand(rng: Rng, side: int) -> Drawn:
    skin = skin_colour(rng)
    drawing = _Drawing(np.broadcast_to(skin.astype(np.uint8), (side, side, 3)))
    drawing.limb((0.5, 0.98), (0.5, 0.6), 0.2, skin)
    drawing.fill(_round((0.5, 0.52), (0.17, 0.16)), skin)
    for finger, reach in zip(np.linspace(-0.5, 0.5, 4), (0.3, 0.36, 0.35, 0.27), strict=True):
        root = (0.5 + 0.26 * float(finger), 0.44)
        drawing.limb(
            root, (root[0] + 0.2 * float(finger), 0.44 - reach), 0.07, skin * rng.uniform(0.85, 1.0)
        )
    drawing.limb((0.38, 0.55), (0.2, 0.42), 0.08, skin * 0.9)
    return drawing.rgb, drawing.mask


def _stick(rng: Rng, side: int) -> Drawn:
    drawing = _Drawing(random_texture(rng, side, side))
    for _ in range(rng.integers(1, 4)):
        a, b = rng.uniform(0.05, 0.95, (2, 2)).tolist()
        drawing.limb(tuple(a), tuple(b), rng.uniform(0.03, 0.12), random_colour(rng))
    return drawing.rgb, drawing.mask


def _cut_out(rng: Rng, side: int) -> Drawn:
    """The subject of a photo, within its ellipse."""
    with_subject = [photo for photo in load_photo_library() if photo.subjects]
    photo = with_subject[rng.integers(len(with_subject))]
    x, y, rx, ry, _ = photo.subjects[-1]
    height, width = photo.rgb.shape[:2]
    corners = np.array([[x - rx, y - ry], [x + rx, y - ry], [x - rx, y + ry]]) * (width, height)
    into = np.array([[0.05, 0.05], [0.95, 0.05], [0.05, 0.95]]) * side
    matrix = cv2.getAffineTransform(corners.astype(np.float32), into.astype(np.float32))
    shrunk = cv2.warpAffine(
        photo.rgb, matrix, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )
    mask = np.zeros((side, side), np.uint8)
    _polygon(mask, _round((0.5, 0.5), (0.45, 0.45)), [255.0])
    return shrunk, mask
