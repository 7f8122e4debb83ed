"""Photos that ship inside the wheels of scikit-image and scikit-learn; nothing is downloaded."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from ..errors import ConfigError

LONGEST_SIDE = 640
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
DISPARITY_FILE = "motorcycle_disp.npz"

# Around what stands in front: centre x, y, radius x, y as fractions of the picture, then depth.
Ellipse = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class PhotoFile:
    """Where a photo lies; `surface` says that it shows a material and not a place."""

    package: str
    name: str
    surface: bool = False
    subjects: tuple[Ellipse, ...] = ()


PHOTO_FILES = (
    PhotoFile(
        "skimage",
        "astronaut.png",
        subjects=((0.45, 0.75, 0.45, 0.42, 0.8), (0.44, 0.24, 0.16, 0.24, 0.85)),
    ),
    PhotoFile("skimage", "coffee.png", subjects=((0.5, 0.45, 0.36, 0.4, 0.85),)),
    PhotoFile("skimage", "chelsea.png", subjects=((0.5, 0.5, 0.42, 0.55, 0.85),)),
    PhotoFile("skimage", "rocket.jpg", subjects=((0.5, 0.5, 0.05, 0.35, 0.5),)),
    PhotoFile("skimage", "motorcycle_left.png"),
    PhotoFile("skimage", "camera.png", subjects=((0.42, 0.6, 0.28, 0.5, 0.85),)),
    PhotoFile("skimage", "coins.png", surface=True),
    PhotoFile("skimage", "hubble_deep_field.jpg", surface=True),
    PhotoFile("skimage", "retina.jpg", surface=True),
    PhotoFile("skimage", "ihc.png", surface=True),
    PhotoFile("skimage", "moon.png", surface=True),
    PhotoFile("skimage", "brick.png", surface=True),
    PhotoFile("skimage", "grass.png", surface=True),
    PhotoFile("skimage", "gravel.png", surface=True),
    PhotoFile("sklearn", "china.jpg", subjects=((0.5, 0.45, 0.3, 0.3, 0.3),)),
    PhotoFile("sklearn", "flower.jpg", subjects=((0.5, 0.45, 0.28, 0.36, 0.9),)),
)


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo with a guess of its depth.

    rgb: (h, w, 3) uint8; depth: (h, w) float32 in [0, 1], 1 = near.
    """

    rgb: np.ndarray
    depth: np.ndarray
    surface: bool
    subjects: tuple[Ellipse, ...]


@cache
def load_photo_library() -> tuple[Photo, ...]:
    """Load every photo with its depth, once a process, read-only. Raises ConfigError."""
    return tuple(_load(entry) for entry in PHOTO_FILES)


def _load(entry: PhotoFile) -> Photo:
    path = _folder(entry.package) / entry.name
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise _missing(f"expected a picture at {path}")
    rgb = _shrink(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    depth = _depth(entry, rgb.shape[0], rgb.shape[1])
    rgb.flags.writeable = depth.flags.writeable = False
    return Photo(rgb, depth, entry.surface, entry.subjects)


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(f"the package {package!r} is not installed")
    return Path(spec.submodule_search_locations[0]) / FOLDERS[package]


def _missing(reason: str) -> ConfigError:
    return ConfigError(
        f"training needs the photos of scikit-image and scikit-learn, but {reason}; "
        "install them with: pip install 'live2diff[train]'"
    )


def _shrink(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    size = (round(width * factor), round(height * factor))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _depth(entry: PhotoFile, height: int, width: int) -> np.ndarray:
    """Depth (h, w) in [0, 1]: measured where it is, else a ground that nears, and the subjects."""
    if entry.name.startswith("motorcycle"):
        return _measured_depth(_folder(entry.package) / DISPARITY_FILE, height, width)
    if entry.surface:
        return np.full((height, width), 0.3, np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width, y / height
    depth = 0.05 + 0.5 * np.clip(y - 0.3, 0, 1)
    for cx, cy, rx, ry, near in entry.subjects:
        radius = np.hypot((x - cx) / rx, (y - cy) / ry)
        cover = np.clip((1.1 - radius) / 0.2, 0, 1)
        depth += cover * (np.maximum(near - 0.1 * radius, depth) - depth)
    nearness: np.ndarray = depth.astype(np.float32)
    return nearness


def _measured_depth(path: Path, height: int, width: int) -> np.ndarray:
    """Disparity (h, w) of the Middlebury motorcycle, holes filled from around, scaled to [0, 1]."""
    with np.load(path) as archive:
        disparity = archive[archive.files[0]].astype(np.float32)
    known = (np.isfinite(disparity) & (disparity > 0)).astype(np.float32)
    low, high = np.percentile(disparity[known > 0], (1, 99))
    unit = np.clip((np.where(known > 0, disparity, low) - low) / (high - low), 0, 1)
    around = cv2.blur(unit * known, (81, 81)) / (cv2.blur(known, (81, 81)) + 1e-3)
    filled = np.where(known > 0, unit, around).astype(np.float32)
    scaled: np.ndarray = cv2.resize(filled, (width, height), interpolation=cv2.INTER_AREA)
    return scaled
