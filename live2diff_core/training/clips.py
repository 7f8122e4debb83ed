"""Training clips: a scene as it is, as a camera would give it, and how near everything is.

Letters: t = frames; h, w = picture.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np

from .scenes import Scene, random_shot, render_photo, render_scene
from .textures import Rng

PHOTO_SHARE = 0.25
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip for training; all float32 in [0, 1].

    clean: (t, 3, h, w), what teachers paint. source: (t, 3, h, w), the same with a camera's noise,
    blur and compression. depth: (t, 1, h, w), 1 = near.
    """

    clean: np.ndarray
    source: np.ndarray
    depth: np.ndarray


class ClipSampler:
    """Draws clips without end; the same seed draws the same ones."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def sample(self, frames: int, height: int, width: int) -> Clip:
        """Draw a clip of `frames` pictures of height x width pixels."""
        shot = random_shot(self._rng, frames, height, width)
        render = render_photo if self._rng.random() < PHOTO_SHARE else render_scene
        return _film(self._rng, render(self._rng, shot))


def _film(rng: Rng, scene: Scene) -> Clip:
    """Develop a scene with one look, then spoil the copy that the model gets to see."""
    look = _random_look(rng)
    clean = np.stack([look.develop(picture, index) for index, picture in enumerate(scene.rgb)])
    source = _spoil(rng, clean)
    return Clip(_planes(clean), _planes(source), scene.depth[:, None])


def _planes(pictures: np.ndarray) -> np.ndarray:
    """(t, h, w, 3) to (t, 3, h, w), contiguous."""
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))


@dataclass(frozen=True, eq=False)
class Look:
    """Exposure of a clip.

    curve: (256,) float32, tone curve; mix: (3, 3), white balance and saturation.
    drift, tempo: amplitude and radians per frame of a slow change of the light.
    """

    curve: np.ndarray
    mix: np.ndarray
    drift: float
    tempo: float

    def develop(self, picture: np.ndarray, index: int) -> np.ndarray:
        """(h, w, 3) uint8 to float32 in [0, 1]."""
        light = 1 + self.drift * np.sin(self.tempo * index)
        mixed = cv2.transform(self.curve[picture], self.mix * light)
        developed: np.ndarray = np.clip(mixed, 0, 1, out=mixed)
        return developed


# Tone curves: share, then ranges of gamma, black level and white level.
TONES = {
    "plain": (0.4, (0.8, 1.25), (0.0, 0.05), (0.85, 1.1)),
    "dark": (0.2, (1.0, 1.8), (0.0, 0.03), (0.15, 0.5)),
    "flat": (0.18, (0.8, 1.2), (0.1, 0.4), (0.5, 0.75)),
    "bright": (0.12, (0.5, 0.8), (0.0, 0.2), (1.0, 1.4)),
    "hard": (0.1, (0.9, 1.4), (-0.15, 0.0), (1.1, 1.5)),
}
# Saturation: share, range.
SATURATIONS = {"plain": (0.5, (0.7, 1.2)), "grey": (0.17, (0.0, 0.25)), "vivid": (0.33, (1.2, 1.9))}


def _random_look(rng: Rng) -> Look:
    names = list(TONES)
    _, gammas, blacks, whites = TONES[names[rng.choice(len(names), p=[TONES[n][0] for n in names])]]
    gamma, black, white = rng.uniform(*gammas), rng.uniform(*blacks), rng.uniform(*whites)
    curve = black + (white - black) * np.linspace(0, 1, 256) ** gamma
    drift = rng.uniform(0, 0.12) if rng.random() < 0.3 else 0.0
    return Look(
        np.clip(curve, 0, None).astype(np.float32), _random_mix(rng), drift, rng.uniform(0.02, 0.15)
    )


def _random_mix(rng: Rng) -> np.ndarray:
    """Saturation about the luminance, then a warm or cold, green or magenta balance: (3, 3)."""
    names = list(SATURATIONS)
    _, limits = SATURATIONS[names[rng.choice(len(names), p=[SATURATIONS[n][0] for n in names])]]
    saturation = rng.uniform(*limits)
    warmth, tint = rng.normal(0, 0.08), rng.normal(0, 0.04)
    balance = np.exp([warmth, tint, -warmth])
    return balance[:, None] * (saturation * np.eye(3) + (1 - saturation) * LUMA)


def _spoil(rng: Rng, clean: np.ndarray) -> np.ndarray:
    """Blur, fresh noise and compression of a camera on (t, h, w, 3) in [0, 1]."""
    blur = float(rng.uniform(0.4, 1.1)) if rng.random() < 0.3 else 0.0
    noise = np.float32(rng.choice([0.004, 0.012, 0.03]) * rng.uniform(0.5, 1.0))
    quality = int(rng.integers(25, 80)) if rng.random() < 0.3 else None
    source = _gaussian(rng, clean.shape, noise)
    for target, picture in zip(source, clean, strict=True):
        target += cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture
    np.clip(source, 0, 1, out=source)
    return (
        source if quality is None else np.stack([_compress(picture, quality) for picture in source])
    )


# Equally likely values of a normal distribution, looked up by random bytes: faster than drawing.
QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)


def _gaussian(rng: Rng, shape: tuple[int, ...], deviation: np.float32) -> np.ndarray:
    """Normal noise of `shape`, float32."""
    picks = np.frombuffer(rng.bytes(math.prod(shape)), np.uint8)
    return (deviation * QUANTILES)[picks].reshape(shape)


def _compress(picture: np.ndarray, quality: int) -> np.ndarray:
    """A round trip through JPEG of (h, w, 3) in [0, 1]."""
    levels = cv2.cvtColor((picture * 255 + 0.5).astype(np.uint8), cv2.COLOR_RGB2BGR)
    _, code = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert decoded is not None
    back = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return back.astype(np.float32) / 255
