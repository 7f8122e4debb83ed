"""Prompt travel: which prompts a frame lies between, and the embedding there."""

import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..frames import Frame
from ..models.text import TextEncoder, blend
from .session import Session

Unit = Literal["frames", "seconds"]
Key = tuple[float, str]

ENTRY = re.compile(r"(?:^|[;\n])\s*(\d+(?:\.\d+)?)\s*(s?)\s*:")
EXPECTED = "expected `frame: prompt` or `seconds s: prompt`, separated by `;`: 0: ink; 48: neon"


@dataclass(frozen=True, slots=True)
class Mix:
    """What a frame shows: from prompt `first` at weight 0 to prompt `second` at weight 1."""

    first: str
    second: str
    weight: float


@dataclass(frozen=True, slots=True)
class PromptTimeline:
    """Prompts at points in time, (frame number or seconds, prompt), kept in the order of time.

    unit: what all keys count; frames are whole. Before the first key and after the last one their
    prompts hold. Raises ConfigError.
    """

    keys: tuple[Key, ...]
    unit: Unit = "frames"

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(sorted(self.keys)))
        times = [time for time, _ in self.keys]
        if self.unit not in ("frames", "seconds"):
            raise ConfigError(f"a timeline counts frames or seconds, not {self.unit!r}")
        if not times:
            raise ConfigError(f"a timeline has no prompt: {EXPECTED}")
        for time in times:
            if not 0 <= time < math.inf or (self.unit == "frames" and time % 1):
                raise ConfigError(f"a timeline has a key at {time:g} {self.unit}: {EXPECTED}")
        for earlier, later in pairwise(times):
            if earlier == later:
                raise ConfigError(f"a timeline has two prompts at {later:g} {self.unit}: keep one")

    @property
    def prompts(self) -> tuple[str, ...]:
        """Each prompt once, in the order of time."""
        return tuple(dict.fromkeys(prompt for _, prompt in self.keys))

    def at(self, index: int, timestamp: float) -> Mix:
        """What the frame of this number, at this time in seconds, lies between."""
        now = index if self.unit == "frames" else timestamp
        passed = bisect_right(self.keys, now, key=lambda key: key[0])
        if passed == 0 or passed == len(self.keys):
            prompt = self.keys[max(passed - 1, 0)][1]
            return _settled(prompt)
        (start, first), (end, second) = self.keys[passed - 1 : passed + 1]
        if first == second or now == start:
            return _settled(first)
        return Mix(first, second, (now - start) / (end - start))


def parse_timeline(text: str) -> PromptTimeline:
    """Read `0: ink; 48: neon` (frames) or `0s: ink; 4s: chalk` (seconds); 0 needs no unit.

    Prompts may hold colons and semicolons. Raises ConfigError, also where units are mixed.
    """
    before, *found = ENTRY.split(text)
    entries = list(zip(found[::3], found[1::3], found[2::3], strict=True))
    if before.strip():
        raise ConfigError(f"a timeline begins with {before.strip()!r}: {EXPECTED}")
    units = {unit for time, unit, _ in entries if float(time)} or {u for _, u, _ in entries}
    if len(units) > 1:
        raise ConfigError(f"a timeline counts frames or seconds, not both: {text!r}")
    keys = tuple((float(time), prompt.strip(" \t\n;")) for time, _, prompt in entries)
    return PromptTimeline(keys, "seconds" if units == {"s"} else "frames")


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTimeline:
    """A timeline with the embedding of each of its prompts, all of one shape, so that all blend.

    embeddings: prompt -> (1, tokens, dim); `align_embeddings` brings them to one length. Raises
    ConfigError for a prompt without an embedding and for embeddings of different shapes.
    """

    timeline: PromptTimeline
    embeddings: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        prompts = self.timeline.prompts
        lacking = [prompt for prompt in prompts if prompt not in self.embeddings]
        if lacking:
            raise ConfigError(f"a timeline lacks the embedding of its prompt {lacking[0]!r}")
        shapes = {tuple(self.embeddings[prompt].shape) for prompt in prompts}
        if len(shapes) > 1:
            raise ConfigError(
                f"embeddings of a timeline have one shape, got {sorted(shapes)}: bring them to one "
                "length with align_embeddings"
            )

    def at(self, index: int, timestamp: float) -> Tensor:
        """The embedding of the frame of this number, at this time in seconds."""
        return self.embed(self.timeline.at(index, timestamp))

    @torch.inference_mode()
    def embed(self, mix: Mix) -> Tensor:
        """The embedding of a mix, (1, tokens, dim), on the arc between its prompts'."""
        return blend(self.embeddings[mix.first], self.embeddings[mix.second], mix.weight)


@torch.inference_mode()
def encode_timeline(encoder: TextEncoder, timeline: PromptTimeline) -> EncodedTimeline:
    """A timeline whose prompts are encoded, each once.

    Raises PromptError for a prompt that the encoder refuses.
    """
    encoded = encoder.align(*(encoder.encode(prompt) for prompt in timeline.prompts))
    return EncodedTimeline(timeline, dict(zip(timeline.prompts, encoded, strict=True)))


class Travel:
    """Takes a session along a timeline; give `before` to `translate`.

    The session shows what the timeline has at frame number `index`, `timestamp` in seconds. On the
    way from one prompt to the next every frame has an embedding of its own; the warm-up frames are
    renewed each time that the ring has passed, and on arrival.
    """

    def __init__(
        self, session: Session, encoded: EncodedTimeline, index: int = 0, timestamp: float = 0.0
    ) -> None:
        self._session, self._encoded = session, encoded
        self._mix = encoded.timeline.at(index, timestamp)
        self._steered = 0

    def before(self, frame: Frame) -> None:
        """Bring the session's prompt to this frame's place in the timeline."""
        mix = self._encoded.timeline.at(frame.index, frame.timestamp)
        if mix == self._mix:
            return
        self._mix = mix
        self._session.steer(self._encoded.embed(mix))
        self._steered += 1
        if mix.weight == 0 or self._steered >= self._session.config.window.ring:
            self._session.reprime()
            self._steered = 0


def _settled(prompt: str) -> Mix:
    return Mix(prompt, prompt, 0.0)
