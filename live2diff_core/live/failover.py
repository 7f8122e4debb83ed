"""What a stream does when a part of it fails: what is shown, when to try again."""

import logging
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import Live2DiffError

logger = logging.getLogger(__name__)

OnFailure = Literal["hold", "passthrough", "card"]

FADE_SECONDS = 0.5
FONT = cv2.FONT_HERSHEY_SIMPLEX
BACKGROUND, TITLE_COLOUR, TEXT_COLOUR = (24, 24, 28), (240, 240, 240), (170, 170, 180)
LETTERS_A_LINE, MAX_LINES = 44, 4


@contextmanager
def caught(errors: list[Exception]) -> Iterator[None]:
    """A thread's edge: whatever is raised is logged and put into `errors`, to be surfaced.

    Our own errors explain themselves and are logged in one line, others with their way. What is
    kept has no traceback, which would hold on to a device's memory.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, Live2DiffError):
            logger.warning("%s", error)
        else:
            logger.exception("a part of a live stream failed")
        error.__traceback__ = error.__context__ = error.__cause__ = None
        errors.append(error)


def describe(error: Exception) -> str:
    """An error in a line: our own speak for themselves, others need their kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, Live2DiffError) else f"{type(error).__name__}: {text}"


class Backoff:
    """Seconds until the next try: `first`, doubled every time, at most `longest`."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def next(self) -> float:
        """How long to wait after one more failure."""
        seconds, self._next = self._next, min(2 * self._next, self._longest)
        return seconds

    def reset(self) -> None:
        """It works again."""
        self._next = self._first


def card(size: tuple[int, int], title: str, text: str) -> Tensor:
    """A picture that says what happened. size: (width, height). Returns (3, h, w) uint8."""
    width, height = size
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    lines = textwrap.wrap(text, LETTERS_A_LINE, max_lines=MAX_LINES, placeholder=" ...")
    top = _write(picture, title, height * 0.4, width / 24, TITLE_COLOUR)
    for line in lines:
        top = _write(picture, line, top, width / 36, TEXT_COLOUR)
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def _write(
    picture: np.ndarray, text: str, y: float, letter: float, colour: tuple[int, int, int]
) -> float:
    """One line, centred, `letter` pixels high at most. Returns where the next one goes."""
    (width, height), _ = cv2.getTextSize(text, FONT, 1.0, 1)
    scale = min(letter / height, 0.9 * picture.shape[1] / max(width, 1))
    left = round((picture.shape[1] - width * scale) / 2)
    thickness = max(1, round(letter / 12))
    cv2.putText(picture, text, (left, round(y)), FONT, scale, colour, thickness, cv2.LINE_AA)
    return y + 1.8 * letter


@dataclass(frozen=True, slots=True, eq=False)
class _Fade:
    """From a picture to a card, both (3, h, w) uint8."""

    start: Tensor
    card: Tensor
    words: tuple[str, str]
    began: float

    def at(self, now: float) -> Tensor:
        share = min(1.0, (now - self.began) / FADE_SECONDS)
        if share == 1:
            return self.card
        return torch.lerp(self.start.float(), self.card.float(), share).round().to(torch.uint8)


class StandIn:
    """What is shown in place of a translation. Pictures: (3, h, w) uint8 of the output's size."""

    def __init__(self) -> None:
        self._good: Tensor | None = None
        self._fade: _Fade | None = None

    def showed(self, good: Tensor) -> None:
        """Keep the latest good picture, for when it is to be held."""
        self._good, self._fade = good, None

    def held(self) -> Tensor | None:
        """The latest good picture; None before the first one."""
        return self._good

    def card(
        self, words: tuple[str, str], size: tuple[int, int], now: float, at_once: bool = False
    ) -> Tensor:
        """A card, faded in from what was shown before. words: title and text. at_once: no fade."""
        if self._fade is None or self._fade.words != words:
            self._fade = self._begin(words, size, now)
        return self._fade.card if at_once else self._fade.at(now)

    def _begin(self, words: tuple[str, str], size: tuple[int, int], now: float) -> _Fade:
        picture = card(size, *words)
        start = self._good if self._fade is None else self._fade.at(now)
        if start is None or start.shape != picture.shape:
            start = torch.zeros_like(picture)
        return _Fade(start, picture, words, now)
