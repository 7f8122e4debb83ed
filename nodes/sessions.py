"""Streams between two runs of a graph: what a warm-up gave, and the sessions that are open."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch

from ..live2diff_core.config import StreamConfig
from ..live2diff_core.errors import ConfigError
from ..live2diff_core.frames import Frame
from ..live2diff_core.stream.session import Session
from ..live2diff_core.stream.timeline import Travel
from .conditioning import Prompt
from .hosted import HostedModel

Key = tuple[str | None, str | None]  # who runs the graph, and the node


@dataclass(frozen=True)
class Origin:
    """Which warm-up a session began with: the node that ran it, and what it was given."""

    key: Key
    digest: str


class DirectedSession(Session):
    """A session with the prompt or timeline that it follows.

    origin: its warm-up. has_begun: whether a sampler has taken it. used_by: the id of ComfyUI's
    prompt in which one did so last.
    """

    origin: Origin | None = None
    has_begun: bool = False
    used_by: str | None = None

    def __init__(self, hosted: HostedModel, config: StreamConfig, prompt: Prompt) -> None:
        super().__init__(hosted.model, config, prompt.embedding)
        self._follow(prompt)

    def take(self, prompt_id: str | None) -> None:
        """A sampler uses it, in ComfyUI's prompt of this id."""
        self.has_begun, self.used_by = True, prompt_id

    def _follow(self, prompt: Prompt) -> None:
        self._prompt, timeline = prompt, prompt.timeline
        self._travel = None if timeline is None else Travel(self, timeline, self.next_index)

    def reprimes_for(self, prompt: Prompt) -> bool:
        """Whether a run with this prompt may re-prime."""
        return prompt.timeline is not None or not prompt.is_same(self._prompt)

    def direct(self, prompt: Prompt) -> None:
        """Follow another prompt from the next frame on, by re-priming; the same is no change."""
        if not prompt.is_same(self._prompt):
            self.update(prompt=prompt.at(self.next_index))
            self._follow(prompt)

    def before(self, frame: Frame) -> None:
        """Bring the prompt to this frame's place in the timeline, if there is one."""
        if self._travel is not None:
            self._travel.before(frame)


@dataclass(frozen=True, eq=False, repr=False)
class Stream:
    """What LIVE2DIFF_STREAM carries: all that a session begins with.

    key: under which the warm-up node left a session that no sampler has taken yet.
    """

    hosted: HostedModel
    config: StreamConfig
    prompt: Prompt
    frames: tuple[Frame, ...]
    key: Key

    def __post_init__(self) -> None:
        refuse_seconds(self.prompt)

    def __repr__(self) -> str:
        """Short: ComfyUI sends it to the page with every error of a node that takes this."""
        return f"Stream({self.hosted.model.name}, {self.config.size_text})"

    @cached_property
    def origin(self) -> Origin:
        """The same for the same frames, settings and prompt of the same node."""
        digest = hashlib.sha256(repr(self.config).encode())
        for tensor in (self.prompt.embedding, *(frame.rgb for frame in self.frames)):
            digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy())
        return Origin(self.key, digest.hexdigest())

    def warm(self, translated: list[Frame] | None = None) -> DirectedSession:
        """A session after its warm-up. translated: takes the frames of that."""
        with self.hosted.running(self.config, caches=1):
            session = DirectedSession(self.hosted, self.config, self.prompt)
            session.origin = self.origin
            done = session.warmup(self.frames)
        if translated is not None:
            translated += done
        return session


def refuse_seconds(prompt: Prompt) -> None:
    """Raise ConfigError for a timeline in seconds: images have no time."""
    if prompt.timeline is not None and prompt.timeline.timeline.unit == "seconds":
        raise ConfigError(
            "this timeline counts seconds and images have no time: write it in frames (0: ink; 48: "
            "neon), or use Translate Video"
        )
