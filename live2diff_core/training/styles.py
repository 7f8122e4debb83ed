"""Styles taught by classical image processing: smooth functions of one frame.

Letters: h, w = picture; t = frames. Every threshold is a smoothstep and every statistic a wide
Gaussian, so that a picture that moves by a pixel is painted as the same painting moved by a pixel,
and sensor noise is not amplified.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
TONE_MEAN = 0.5
TONE_SPREAD = 0.24
Painter = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Style:
    """A style: what prompts call it, and its painter of a frame.

    phrases: lower case, no two styles share one. paint: (h, w, 3) float32 in [0, 1] to the same.
    """

    name: str
    phrases: tuple[str, ...]
    paint: Painter


def paint_clip(style: Style, clip_clean: np.ndarray) -> np.ndarray:
    """Paint every frame of a clip. (t, 3, h, w) float32 in [0, 1] to the same."""
    painted = np.empty_like(clip_clean)
    for target, frame in zip(painted, clip_clean, strict=True):
        hwc = np.ascontiguousarray(frame.transpose(1, 2, 0))
        target[...] = style.paint(hwc).transpose(2, 0, 1)
    return painted


def _smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Hermite step from 0 below `low` to 1 above `high` (`low` may be the larger one)."""
    u = np.clip((x - low) * np.float32(1 / (high - low)), 0, 1)
    return u * u * (3 - 2 * u)


def _line_scale(height: int) -> float:
    """Width of lines, 1.25 at 160 pixels of height; grows with the root of the size.

    Thinner ones are beyond what the network learns to draw: it makes them faint, not thin.
    """
    return float(1.25 * (height / 160) ** 0.5)


def _blur(x: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _wide_blur(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of a large radius, computed on an eighth of the pixels a side."""
    height, width = x.shape[:2]
    small = cv2.resize(x, (max(width // 8, 1), max(height // 8, 1)), interpolation=cv2.INTER_AREA)
    return cv2.resize(_blur(small, sigma / 8), (width, height), interpolation=cv2.INTER_LINEAR)


def _blend(base: np.ndarray, colour: tuple[float, float, float], amount: np.ndarray) -> np.ndarray:
    """Lay `colour` over base (h, w, 3) with opacity amount (h, w)."""
    mixed: np.ndarray = base + amount[..., None] * (np.array(colour, np.float32) - base)
    return mixed


def _flat(colour: tuple[float, float, float], like: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.float32), (*like.shape[:2], 3))


def _ramp(stops: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    """Palette (1024, 3) float32 through evenly spaced stops."""
    places = np.linspace(0, 1, len(stops))
    fine = np.linspace(0, 1, 1024)
    return np.stack(
        [np.interp(fine, places, channel) for channel in zip(*stops, strict=True)], -1
    ).astype(np.float32)


def _look_up(palette: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3) of a palette (1024, 3) at unit (h, w) in [0, 1]."""
    colours: np.ndarray = palette[(np.clip(unit, 0, 1) * 1023).astype(np.int32)]
    return colours


def _steps(unit: np.ndarray, count: int, softness: float) -> np.ndarray:
    """Round unit (h, w) to `count` flat levels in [0, 1] with soft borders.

    Winnemoeller et al. 2006, sec. 3.3.
    """
    scaled = np.clip(unit, 0, 1) * count - 0.5
    base = np.floor(scaled)
    risen = base + _smoothstep(0.5 - softness, 0.5 + softness, scaled - base)
    rounded: np.ndarray = np.clip(risen / (count - 1), 0, 1)
    return rounded


def _expose(rgb: np.ndarray) -> np.ndarray:
    """Lift dark and flat parts: draw the luminance's local mean and spread to fixed values.

    (h, w, 3) in [0, 1] to about the same range, not clipped; local is a third of the height.
    """
    luma = rgb @ LUMA
    reach = 0.3 * luma.shape[0]
    mean = _wide_blur(luma, reach)
    spread = np.sqrt(_wide_blur(np.square(luma - mean), reach))
    gain = TONE_SPREAD / (0.1 * TONE_SPREAD + 0.9 * spread + 0.012)
    level = TONE_MEAN + 0.4 * (mean - 0.5) - mean * gain
    lit: np.ndarray = rgb * gain[..., None] + level[..., None]
    return lit


def _tone(lit: np.ndarray, sigma: float) -> np.ndarray:
    """Smoothed luminance (h, w) of an exposed picture."""
    return _blur(lit @ LUMA, sigma)


def _edges(lit: np.ndarray, sigma: float) -> np.ndarray:
    """Strength (h, w) of colour edges, about 1 at the clear ones whatever the local contrast."""
    soft = _blur(lit, sigma)
    dx = cv2.Sobel(soft, cv2.CV_32F, 1, 0, scale=0.25)
    dy = cv2.Sobel(soft, cv2.CV_32F, 0, 1, scale=0.25)
    steep = sigma * np.sqrt((dx * dx + dy * dy).max(-1))
    usual = _wide_blur(steep, 0.1 * lit.shape[0])
    strength: np.ndarray = steep / (1.25 * usual + 0.06)
    return strength


def _creases(tone: np.ndarray, sigma: float) -> np.ndarray:
    """Strength (h, w) of thin dark details and dark sides of edges, about 1 at the clear ones.

    A difference of Gaussians (XDoG, Winnemoeller et al. 2012, eq. 6) over what is usual around it.
    """
    darker = np.maximum(_blur(tone, 1.8 * sigma) - tone, 0)
    darkness: np.ndarray = darker / (1.6 * _wide_blur(darker, 0.1 * tone.shape[0]) + 0.05)
    return darkness


def _contours(lit: np.ndarray, scale: float, sigma: float) -> np.ndarray:
    """Lines (h, w) in [0, 1] along edges, and through dark details such as eyes and mouths."""
    edges = _smoothstep(0.85, 1.5, _edges(lit, sigma * scale))
    details = _smoothstep(0.55, 1.15, _creases(_tone(lit, 1.0 * scale), 1.5 * scale))
    lines: np.ndarray = np.maximum(edges, details)
    return lines


def _ink(rgb: np.ndarray) -> np.ndarray:
    scale = _line_scale(rgb.shape[0])
    lit = _expose(rgb)
    tone = _tone(lit, 1.1 * scale)
    lines = np.maximum(
        _smoothstep(0.45, 1.0, _creases(tone, 1.6 * scale)),
        0.9 * _smoothstep(1.0, 1.5, _edges(lit, 1.1 * scale)),
    )
    blacks = _smoothstep(0.27, 0.19, _blur(tone, 1.0 * scale))
    return _blend(_flat((0.98, 0.95, 0.87), rgb), (0.05, 0.04, 0.06), np.maximum(lines, blacks))


NEON_HUES = _ramp(
    ((0.25, 0.2, 1.0), (1.0, 0.1, 0.85), (1.0, 0.35, 0.2), (0.1, 1.0, 0.55), (0.0, 0.85, 1.0))
)


def _neon(rgb: np.ndarray) -> np.ndarray:
    scale = _line_scale(rgb.shape[0])
    lit = _expose(rgb)
    core = _contours(lit, scale, 1.2)
    glow = _blur(core, 3.5 * scale)
    hue = _look_up(NEON_HUES, _tone(lit, 5 * scale))
    light = hue * (core + 0.9 * glow)[..., None] + np.array([0.02, 0.01, 0.05], np.float32)
    painted: np.ndarray = np.clip(_blend(light, (1, 1, 1), 0.35 * np.square(core)), 0, 1)
    return painted


SEPIA = _ramp(((0.25, 0.13, 0.06), (0.56, 0.35, 0.18), (0.83, 0.64, 0.4), (0.98, 0.9, 0.72)))


def _comic(rgb: np.ndarray) -> np.ndarray:
    scale = _line_scale(rgb.shape[0])
    lit = _expose(rgb)
    flat = _look_up(SEPIA, _steps(_tone(lit, 1.6 * scale), 4, 0.12))
    return _blend(flat, (0.12, 0.05, 0.02), _contours(lit, scale, 1.3))


BLUES = _ramp(((0.02, 0.1, 0.42), (0.04, 0.22, 0.64), (0.1, 0.36, 0.82)))


def _blueprint(rgb: np.ndarray) -> np.ndarray:
    scale = _line_scale(rgb.shape[0])
    lit = _expose(rgb)
    return _blend(
        _look_up(BLUES, _tone(lit, 2 * scale)), (0.93, 0.97, 1.0), _contours(lit, scale, 1.0)
    )


def _chalk(rgb: np.ndarray) -> np.ndarray:
    scale = _line_scale(rgb.shape[0])
    lit = _expose(rgb)
    strokes = _blur(_contours(lit, scale, 1.4), 0.9 * scale)
    smear = 0.55 * _smoothstep(0.45, 0.95, _tone(lit, 2.2 * scale))
    dust = np.clip(strokes + smear, 0, 0.95)
    return _blend(_flat((0.09, 0.22, 0.17), rgb), (0.97, 0.96, 0.88), dust)


HEAT = _ramp(
    (
        (0.0, 0.0, 0.05),
        (0.2, 0.0, 0.45),
        (0.6, 0.0, 0.55),
        (0.9, 0.15, 0.2),
        (1.0, 0.5, 0.0),
        (1.0, 0.85, 0.1),
        (1.0, 1.0, 0.9),
    )
)


def _thermal(rgb: np.ndarray) -> np.ndarray:
    return _look_up(HEAT, _tone(_expose(rgb), 1.8 * _line_scale(rgb.shape[0])))


POP_WARM = _ramp(((0.4, 0.0, 0.55), (1.0, 0.05, 0.5), (1.0, 0.5, 0.0), (1.0, 0.95, 0.1)))
POP_COOL = _ramp(((0.1, 0.0, 0.5), (0.0, 0.3, 1.0), (0.0, 0.85, 0.85), (0.75, 1.0, 0.3)))


def _popart(rgb: np.ndarray) -> np.ndarray:
    scale = _line_scale(rgb.shape[0])
    lit = _expose(rgb)
    soft = _blur(rgb, 2.5 * scale)
    warmth = (soft[..., 0] - soft[..., 2]) / (soft.sum(-1) + 0.08)
    cool = _smoothstep(0.04, -0.04, warmth)[..., None]
    level = _steps(_tone(lit, 1.6 * scale), 4, 0.12)
    flat = (1 - cool) * _look_up(POP_WARM, level) + cool * _look_up(POP_COOL, level)
    return _blend(flat, (0.0, 0.0, 0.0), _contours(lit, scale, 1.3))


def _vivid(lit: np.ndarray, saturation: float) -> np.ndarray:
    """Colours farther from grey: (h, w, 3) to the same, clipped to [0, 1]."""
    grey = (lit @ LUMA)[..., None]
    return np.clip(grey + saturation * (lit - grey), 0, 1)


def _watercolor(rgb: np.ndarray) -> np.ndarray:
    """Pale washes of the picture's own colours on paper, darker where washes end."""
    scale = _line_scale(rgb.shape[0])
    lit = _expose(rgb)
    wash = _vivid(_blur(lit, 1.5 * scale), 2.4)
    pale = 1 - 0.62 * (1 - wash)
    rims = 0.45 * _blur(_smoothstep(0.8, 1.6, _edges(lit, 1.6 * scale)), 0.8 * scale)
    return _blend(np.array((1.0, 0.985, 0.95), np.float32) * pale, (0.2, 0.18, 0.3), rims)


PHOSPHOR = _ramp(((0.0, 0.03, 0.01), (0.02, 0.35, 0.05), (0.12, 0.8, 0.18), (0.75, 1.0, 0.65)))


def _nightvision(rgb: np.ndarray) -> np.ndarray:
    scale = _line_scale(rgb.shape[0])
    tone = _tone(_expose(rgb), 1.0 * scale)
    bloom = _blur(_smoothstep(0.65, 1.0, tone), 5 * scale)
    return _look_up(PHOSPHOR, 0.9 * tone + 0.35 * bloom)


def _table(*styles: Style) -> dict[str, Style]:
    return {style.name: style for style in styles}


STYLES = _table(
    Style(
        "ink",
        ("ink sketch", "ink drawing", "pen and ink drawing", "black ink lines on paper", "ink"),
        _ink,
    ),
    Style(
        "neon", ("neon lights", "glowing neon outlines", "neon sign", "neon glow", "neon"), _neon
    ),
    Style(
        "comic",
        (
            "sepia comic",
            "comic book",
            "vintage comic page",
            "cartoon in sepia tones",
            "sepia",
            "comic",
        ),
        _comic,
    ),
    Style(
        "blueprint",
        ("blueprint", "technical blueprint", "architect's blueprint", "blueprint lines"),
        _blueprint,
    ),
    Style(
        "chalk",
        ("chalk drawing", "chalk on a blackboard", "blackboard", "chalkboard", "chalk"),
        _chalk,
    ),
    Style(
        "thermal",
        (
            "thermal camera",
            "heat map",
            "infrared thermal image",
            "thermal vision",
            "infrared",
            "thermal",
        ),
        _thermal,
    ),
    Style(
        "popart",
        ("pop art", "pop art poster", "andy warhol print", "bright screen print", "popart"),
        _popart,
    ),
    Style(
        "watercolor",
        ("watercolor painting", "watercolour", "aquarelle", "pale watercolor wash", "watercolor"),
        _watercolor,
    ),
    Style(
        "nightvision",
        ("night vision", "night vision goggles", "green night vision", "nightvision"),
        _nightvision,
    ),
)
