"""SCuts: scene cuts that the output has beyond those of its input.

Henschel et al., "StreamingT2V" (arXiv 2403.14773): cuts that PySceneDetect's
AdaptiveDetector finds with its default settings, frames scaled as PySceneDetect scales them.
"""

import importlib
from collections.abc import Sequence
from fractions import Fraction
from types import ModuleType
from typing import Any

from .figures import Figures, LeftOut
from .picture import Picture

MISSING = (
    "the package scenedetect is not here: pip install scenedetect-headless "
    "(scenedetect where opencv-python is installed)"
)
SLACK = 2  # frames between a cut of the output and the input's own; the detector's window


def scene_detection() -> ModuleType | None:
    """The package scenedetect; None where it is not installed."""
    try:
        return importlib.import_module("scenedetect")
    except ModuleNotFoundError:
        return None


class CutDetector:
    """Finds the cuts of one video; keeps their places and nothing else.

    library: the package scenedetect. rate: frames a second, which name the detector's times.
    """

    def __init__(self, library: Any, rate: float) -> None:  # noqa: ANN401 - an optional package
        self._library = library
        self._detector = library.AdaptiveDetector()
        self._rate = Fraction(rate).limit_denominator(1001)
        self._count = 0
        self.found: list[int] = []  # first frames of new scenes

    def update(self, picture: Picture) -> None:
        """Add the next frame."""
        time = self._library.FrameTimecode(self._count, self._rate)
        self._count += 1
        cuts = self._detector.process_frame(time, self._scaled(picture).pixels[..., ::-1])
        self.found += [cut.frame_num for cut in cuts]

    def _scaled(self, picture: Picture) -> Picture:
        """About 256 pixels by the longer side, as PySceneDetect does it before it looks."""
        height, width = picture.size
        factor = self._library.scene_manager.compute_downscale_factor(max(height, width))
        return picture.scaled(max(1, round(width / factor)), max(1, round(height / factor)))


def scuts(source: CutDetector | None, output: CutDetector | None) -> Figures:
    """Cuts of the output that are not the input's own, within two frames."""
    if source is None or output is None:
        return {"scuts": LeftOut(MISSING)}
    return {"scuts": float(len(beyond(output.found, source.found)))}


def beyond(cuts: Sequence[int], own: Sequence[int]) -> list[int]:
    """Cuts that have none of the others near them."""
    return [cut for cut in cuts if all(abs(cut - other) > SLACK for other in own)]
