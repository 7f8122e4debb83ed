"""Motion-aware warp error, of the output alone.

Henschel et al., "StreamingT2V" (arXiv 2403.14773): MAWE = W / (c OFS), c = 9.5, on frames
of 720x720, and `mawe.py` of its repository. The input takes no part in it. It differs from
theirs in two ways: frames are warped backwards and bilinearly, where they scatter rounded
pixels; and hidden pixels are found by comparing both flows, where they are those that nothing is
scattered to.
"""

import math

from .figures import Figures, LeftOut, Mean
from .flow import Flow, MotionTracker, length
from .picture import Image, Picture

COEFFICIENT = 9.5
SIDE = 720
LEVELS = 255
TOO_SHORT = "fewer than two frames"
NO_MOTION = "nothing moves in the output"


class MaweMeter:
    """W, OFS and MAWE of a video by its own flow, at 720x720.

    w: per pair, mean over visible pixels and channels of (warped previous - current)^2, of 0..255.
    ofs: per pair, mean over all pixels of the length of the flow to the next frame, in pixels of
    720x720. mawe: mean over pairs of w / (9.5 ofs), as their code has it; pairs without any motion
    (ofs 0) are left out of it. mawe_ratio_of_means: mean w / (9.5 mean ofs), as their paper has it.
    """

    def __init__(self, flow: Flow) -> None:
        self._motion = MotionTracker(flow)
        self._before: Image | None = None
        self._w, self._ofs, self._ratio = Mean(), Mean(), Mean()

    def update(self, picture: Picture) -> None:
        """Add the next frame, of any size."""
        picture = picture.scaled(SIDE, SIDE)
        before, self._before = self._before, picture.values
        motion = self._motion.update(picture)
        if before is None or motion is None:
            return
        ofs, change = float(length(motion.forward).mean()), motion.change(before, picture.values)
        if math.isnan(change):  # nothing is seen in both frames
            return
        self._w.add(change * LEVELS**2)
        self._ofs.add(ofs)
        if ofs > 0:
            self._ratio.add(change * LEVELS**2 / (COEFFICIENT * ofs))

    def figures(self) -> Figures:
        """The four figures so far."""
        w, ofs = self._w.value(TOO_SHORT), self._ofs.value(TOO_SHORT)
        without = NO_MOTION if self._w.count else TOO_SHORT
        return {
            "w": w,
            "ofs": ofs,
            "mawe": self._ratio.value(without),
            "mawe_ratio_of_means": _ratio(w, ofs, without),
        }


def _ratio(w: float | LeftOut, ofs: float | LeftOut, without: str) -> float | LeftOut:
    if isinstance(w, LeftOut) or isinstance(ofs, LeftOut) or ofs == 0:
        return LeftOut(without)
    return w / (COEFFICIENT * ofs)
