"""How near the bundled model comes to the styles that it imitates: a table of docs/evaluation.md.

Streams three real clips in every style and compares the 15th picture with what the style's own
function paints of that frame. Grain is noise that the style does not have: the deviation of the
output from a smooth copy of itself (Gaussian, 3 pixels) where the painted picture lies within 0.03
of its own smooth copy, with a margin of 4 pixels; root of the mean square, of values 0..1.
Distance is the mean absolute difference to the painted picture, 0..1.

    python benchmarks/styles.py [--before FOLDER] [--output docs]

--before: earlier weights, beside those of now; styles that they do not know are left out there.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from evaluation import CLIPS, DOCS, read, write

from live2diff_core.config import StreamConfig
from live2diff_core.errors import PromptError
from live2diff_core.frames import Frame
from live2diff_core.models.translator import TranslationModel
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.training.styles import STYLES, paint_clip
from live2diff_core.weights.bundled import load_bundled

FRAMES, COMPARED = 16, 14
SMOOTH, FLAT, MARGIN = 3.0, 0.03, 9
Figures = dict[str, tuple[float, float] | None]


def grain(picture: np.ndarray, painted: np.ndarray) -> float | None:
    """Of (h, w, 3) pictures, 0..1; None where the painted one is nowhere smooth."""
    rough = np.abs(painted - _smooth(painted)).max(-1) > FLAT
    flat = cv2.dilate(rough.astype(np.uint8), np.ones((MARGIN, MARGIN), np.uint8)) == 0
    if not flat.any():
        return None
    return float(np.sqrt(np.square((picture - _smooth(picture))[flat]).mean()))


def _smooth(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), SMOOTH)


def measure(model: TranslationModel, clips: list[list[Frame]]) -> Figures:
    """Grain and distance of every style; None for those that the model does not know."""
    return {style: _measured(model, style, clips) for style in STYLES}


def _measured(
    model: TranslationModel, style: str, clips: list[list[Frame]]
) -> tuple[float, float] | None:
    size = model.defaults.width, model.defaults.height
    config = StreamConfig(*size, model.defaults.steps, noise="fixed")
    grains, distances = [], []
    for clip in clips:
        try:
            with Session(model, config, style) as session:
                frame = list(translate(session, clip))[COMPARED]
        except PromptError:
            return None
        picture = frame.rgb.float().clamp(0, 1).permute(1, 2, 0).numpy()
        source = clip[COMPARED].rgb.float().numpy()[None] / 255
        painted = paint_clip(STYLES[style], source)[0].transpose(1, 2, 0)
        found = grain(picture, painted)
        if found is not None:
            grains.append(found)
        distances.append(float(np.abs(picture - painted).mean()))
    return statistics.mean(grains), statistics.mean(distances)


def table(now: Figures, before: Figures | None) -> Iterator[str]:
    """Lines of Markdown."""
    kinds = [("", now)] if before is None else [(" before", before), (" now", now)]
    names = [f"{what}{when}" for what in ("grain x 1000", "distance x 1000") for when, _ in kinds]
    yield "| | " + " | ".join(names) + " |"
    yield "| --- |" + " --- |" * len(names)
    for style in STYLES:
        cells = (_cell(figures[style], part) for part in (0, 1) for _, figures in kinds)
        yield f"| {style} | " + " | ".join(cells) + " |"
    known = [s for s in STYLES if all(figures[s] is not None for _, figures in kinds)]
    means = (_mean(figures, known, part) for part in (0, 1) for _, figures in kinds)
    yield f"| mean of {len(known)} | " + " | ".join(means) + " |"


def _cell(figures: tuple[float, float] | None, part: int) -> str:
    return "-" if figures is None else f"{figures[part] * 1000:.1f}"


def _mean(figures: Figures, styles: list[str], part: int) -> str:
    values = [found[part] for style in styles if (found := figures[style]) is not None]
    return f"{statistics.mean(values) * 1000:.1f}"


def main() -> int:
    """Measure, and write the table between the page's markers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--output", type=Path, default=DOCS)
    options = parser.parse_args()
    torch.set_num_threads(2)
    model = load_bundled()
    clips = [read(clip, FRAMES, (model.defaults.width, model.defaults.height)) for clip in CLIPS]
    before = measure(load_bundled(options.before), clips) if options.before else None
    write(options.output / "evaluation.md", list(table(measure(model, clips), before)), "styles")
    return 0


if __name__ == "__main__":
    sys.exit(main())
