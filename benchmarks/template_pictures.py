"""Draw the square pictures of the templates: a frame before and after, made by the bundled model.

python benchmarks/template_pictures.py    writes workflows/<name>.jpg, and the registry's pictures
"""

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from live2diff_core.config import StepSelection, StreamConfig
from live2diff_core.frames import Frame, to_bytes
from live2diff_core.live.pattern import TestPattern
from live2diff_core.live.source import VideoFile
from live2diff_core.metrics.charts import Charts
from live2diff_core.metrics.meter import Meter, MeterConfig
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.bundled import load_bundled
from tests.clips import BIKES, BUNNY, PHONE

ROOT = Path(__file__).resolve().parent.parent
SIDE, HEIGHT = 512, 256  # pixels, of the whole and of each half
COUNT = 40  # frames; the last one is shown
GAP = 4  # pixels between before, above, and after, below
QUALITY = 88

Frames = Callable[[], Iterator[Frame]]


def clip(path: Path, start: int) -> Iterator[Frame]:
    with VideoFile(path) as video:
        for index, frame in enumerate(islice(video, start, start + COUNT)):
            yield Frame(cropped(frame.rgb), index, index / 25)


def still(path: Path) -> Iterator[Frame]:
    """A picture that stands still, as a screen does."""
    rgb = torch.frombuffer(bytearray(Image.open(path).convert("RGB").tobytes()), dtype=torch.uint8)
    width, height = Image.open(path).size
    pixels = cropped(rgb.view(height, width, 3).movedim(-1, 0))
    for index in range(COUNT):
        yield Frame(pixels, index, index / 25)


def pattern() -> Iterator[Frame]:
    with TestPattern(SIDE, HEIGHT, 25) as source:
        yield from islice(source, COUNT)


def cropped(rgb: Tensor, width: int = SIDE, height: int = HEIGHT) -> Tensor:
    """The middle of a picture at a size, (3, height, width) uint8."""
    rows = min(rgb.shape[1], rgb.shape[2] * height // width)
    columns = rows * width // height
    top, left = (rgb.shape[1] - rows) // 2, (rgb.shape[2] - columns) // 2
    part = rgb[None, :, top : top + rows, left : left + columns].float() / 255
    sized = functional.interpolate(part, (height, width), mode="bicubic", antialias=True)
    return to_bytes(sized[0].clamp(0, 1))


# What each template shows, and where in it the frames begin.
SOURCES: dict[str, Frames] = {
    "live2diff-quickstart": lambda: clip(BUNNY, 60),
    "live2diff-quickstart.app": lambda: clip(BUNNY, 10),
    "live2diff-prompt-travel": lambda: clip(BIKES, 170),
    "live2diff-per-frame-sampler": lambda: clip(BIKES, 120),
    "live2diff-live-video": lambda: clip(BIKES, 200),
    "live2diff-live-webcam": lambda: clip(PHONE, 0),
    "live2diff-live-webcam.app": lambda: clip(PHONE, 40),
    "live2diff-live-server-camera": lambda: clip(PHONE, 70),
    "live2diff-live-test-pattern": pattern,
    "live2diff-live-socket": pattern,
    "live2diff-live-screen": lambda: still(ROOT / "docs" / "comfyui_quickstart.jpg"),
    "live2diff-live-screen-share": lambda: still(ROOT / "docs" / "serve.jpg"),
}
PROMPTS = {"live2diff-prompt-travel": "neon", "live2diff-live-socket": "popart"}


def prompt_of(name: str) -> str:
    """What the template's graph says."""
    graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    texts = [
        node["widgets_values"][0]
        for node in graph["nodes"]
        if node["type"] in ("CLIPTextEncode", "Live2DiffLive")
    ]
    return PROMPTS.get(name) or texts[0]


def translated(
    frames: Frames, prompt: str, width: int = SIDE, height: int = HEIGHT
) -> Iterator[tuple[Frame, Frame]]:
    """Input and output frame by frame."""
    config = StreamConfig(
        width, height, StepSelection(strength=0.6, steps=2), noise="fixed", seed=1
    )
    with Session(load_bundled(), config, prompt) as session:
        yield from zip(frames(), translate(session, frames()), strict=True)


def before_and_after(name: str) -> Tensor:
    *_, (given, made) = translated(SOURCES[name], prompt_of(name))
    joined = torch.cat([given.rgb, to_bytes(made.rgb)], dim=1)
    joined[:, HEIGHT - GAP // 2 : HEIGHT + GAP // 2] = 255
    return joined


def measured() -> Tensor:
    """One column of pixels over time, as the template's node draws it, beside the input."""
    meter, charts = Meter(MeterConfig(Fraction(25))), Charts(("input", "output"), SIDE // 2)
    pairs = translated(lambda: clip(BUNNY, 60), prompt_of("live2diff-measure"))
    for given, made in pairs:
        charts.add(meter.update(given.rgb, to_bytes(made.rgb)))
    return cropped(charts.draw_slices(), SIDE, SIDE)


def in_style(prompt: str, width: int, height: int) -> tuple[Tensor, Tensor]:
    """The rabbit before and after, in the middle of a picture of this size."""
    with VideoFile(BUNNY) as video:
        frames = [
            Frame(cropped(frame.rgb, width, height), index, index / 25)
            for index, frame in enumerate(islice(video, 60, 60 + COUNT))
        ]
    *_, (given, made) = translated(lambda: iter(frames), prompt, width, height)
    return given.rgb, to_bytes(made.rgb)


def icon() -> Tensor:
    """As the registry wants it, a square of 400 pixels."""
    return cropped(in_style("thermal camera", 384, 384)[1], 400, 400)


def banner() -> Tensor:
    """As the registry wants it, 21 to 9: before, and three styles."""
    styles = [in_style(style, 256, 448) for style in ("watercolor", "neon", "thermal camera")]
    return torch.cat([styles[0][0], *(made for _, made in styles)], dim=-1)


def write(path: Path, rgb: Tensor) -> None:
    Image.fromarray(rgb.movedim(0, -1).contiguous().numpy()).save(path, quality=QUALITY)


def main() -> None:
    for name in SOURCES:
        write(ROOT / "workflows" / f"{name}.jpg", before_and_after(name))
    write(ROOT / "workflows" / "live2diff-measure.jpg", measured())
    write(ROOT / "assets" / "icon.png", icon())
    write(ROOT / "assets" / "banner.jpg", banner())


if __name__ == "__main__":
    with torch.inference_mode():
        main()
