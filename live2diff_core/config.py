"""Settings of a stream: frozen, validated once when they are made."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

from .errors import ConfigError

NoiseMode = Literal["fresh", "fixed"]
GuidanceMode = Literal["none", "self", "full"]
Fit = Literal["refuse", "stretch", "crop"]
DepthRule = Literal["running", "frame"]
Prediction = Literal["epsilon", "v_prediction", "sample"]
RuntimeMode = Literal["eager", "graph", "compile", "compile-graph"]
AttentionKind = Literal["auto", "torch", "triton", "cpp"]
KernelKind = Literal["triton", "cpp"]
RUNTIMES: tuple[RuntimeMode, ...] = get_args(RuntimeMode)
ATTENTIONS: tuple[AttentionKind, ...] = get_args(AttentionKind)
CacheKind = Literal["network", "float8"]

MAX_STEPS = 8


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class AttentionWindow:
    """What a frame attends to: `sinks` warm-up frames and the last `ring` ones, itself included."""

    sinks: int = 8
    ring: int = 8

    def __post_init__(self) -> None:
        _require(self.sinks >= 1, f"sinks must be at least 1, got {self.sinks}")
        _require(self.ring >= 1, f"ring must be at least 1, got {self.ring}")

    @property
    def slots(self) -> int:
        """Cache slots, L."""
        return self.sinks + self.ring


@dataclass(frozen=True, slots=True)
class StepSelection:
    """Which timesteps of the LCM schedule a frame passes, noisiest first.

    t_index: ascending indices into the schedule of `inference_steps` timesteps; it excludes
    strength and steps. strength: (0, 1], the part of the schedule that is run. steps: 1 to 8,
    spread evenly over that part; None takes every timestep of it, as the reference does.
    """

    t_index: tuple[int, ...] | None = None
    strength: float | None = None
    steps: int | None = None
    inference_steps: int = 50

    def __post_init__(self) -> None:
        _require(
            1 <= self.inference_steps <= 1000,
            f"inference_steps must be 1 to 1000, got {self.inference_steps}",
        )
        if self.t_index is None:
            self._check_strength()
        else:
            self._check_t_index(self.t_index)

    def _check_strength(self) -> None:
        strength, steps = self.strength, self.steps
        if strength is None:
            raise ConfigError("give either t_index or strength")
        _require(0 < strength <= 1, f"strength must be above 0 and at most 1, got {strength}")
        _require(
            steps is None or 1 <= steps <= MAX_STEPS, f"steps must be 1 to {MAX_STEPS}, got {steps}"
        )
        _require(
            self._kept >= (steps or 1),
            f"strength {strength} keeps {self._kept} of {self.inference_steps} timesteps, "
            f"{steps or 1} steps need more: raise the strength or lower the steps",
        )
        _require(
            len(self.indices) <= MAX_STEPS,
            f"strength {strength} of {self.inference_steps} timesteps gives {len(self.indices)} "
            f"steps, at most {MAX_STEPS} run in one batch: set steps",
        )

    def _check_t_index(self, t_index: tuple[int, ...]) -> None:
        _require(
            self.strength is None and self.steps is None,
            "t_index names the timesteps itself: leave strength and steps out",
        )
        _require(
            1 <= len(t_index) <= MAX_STEPS,
            f"t_index must hold 1 to {MAX_STEPS} indices, got {len(t_index)}",
        )
        ascending = all(a < b for a, b in pairwise(t_index))
        _require(ascending, f"t_index must ascend (noisiest first), got {list(t_index)}")
        _require(
            t_index[0] >= 0 and t_index[-1] < self.inference_steps,
            f"t_index must lie in 0..{self.inference_steps - 1}, got {list(t_index)}",
        )

    @property
    def _kept(self) -> int:
        return min(int(self.inference_steps * (self.strength or 0)), self.inference_steps)

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices into the whole schedule of `inference_steps` timesteps, ascending."""
        if self.t_index is not None:
            return self.t_index
        start, count = self.inference_steps - self._kept, self.steps or self._kept
        return tuple(start + i * self._kept // count for i in range(count))


def parse_t_index(text: str) -> tuple[int, ...]:
    """Read `30, 36, 42`. Raises ConfigError."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"t_index is numbers such as 20,35, not {text!r}")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True, slots=True)
class Guidance:
    """Classifier-free guidance: x0 = base + scale (x0_prompt - base).

    mode "none": the prompt alone (the reference). "self": the base is the input frame itself,
    residual CFG with self-negative (StreamDiffusion, arXiv 2312.12491, sec. 3.2), no extra network
    rows. "full": the base is the network under `negative`, which doubles the rows and the cache.
    """

    mode: GuidanceMode = "none"
    scale: float = 1.0
    negative: str = ""

    def __post_init__(self) -> None:
        _require(
            self.mode in ("none", "self", "full"), f"guidance: none, self or full, not {self.mode}"
        )
        _require(
            0 <= self.scale <= 30, f"guidance scale must be between 0 and 30, got {self.scale}"
        )


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """How a frame's networks are computed; what they compute is the same.

    mode: "eager" runs them as they are written, "graph" replays them as CUDA graphs, "compile" runs
    the denoising step through `torch.compile`, "compile-graph" does both. attention: the temporal
    attention's step in PyTorch, as a Triton kernel for GPUs or in C++ for CPUs; "auto" takes the
    kernel of the device where it can be had, else PyTorch. overlap: a GPU encodes a frame and
    estimates its depth while the network still denoises the one before; it pays for who takes
    pictures as `stream.overlap.Landing` does, in place of waiting for each.
    """

    mode: RuntimeMode = "eager"
    attention: AttentionKind = "auto"
    overlap: bool = False

    def __post_init__(self) -> None:
        _require(self.mode in RUNTIMES, f"runtime: {' or '.join(RUNTIMES)}, not {self.mode!r}")
        _require(
            self.attention in ATTENTIONS,
            f"attention: {' or '.join(ATTENTIONS)}, not {self.attention!r}",
        )

    @property
    def compiles(self) -> bool:
        """Whether `torch.compile` is used."""
        return self.mode in ("compile", "compile-graph")

    @property
    def records(self) -> bool:
        """Whether CUDA graphs are replayed."""
        return self.mode in ("graph", "compile-graph")


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Everything a session is opened with besides model and prompt.

    width, height: pixels of the translated picture. noise "fresh" draws anew for every frame (the
    reference), "fixed" uses one field for the whole stream (steadier). fit: what happens to a frame
    of another size. depth_range: how a depth estimator's map is brought to [-1, 1], with extremes
    that follow the stream, or with those of each frame alone (the reference; flickers).
    depth_every: depth is estimated for every k-th frame and kept for those between. cache: the
    keys and values are kept in the network's dtype, or in 8 bits each (float8 e4m3).
    """

    width: int
    height: int
    steps: StepSelection
    noise: NoiseMode = "fresh"
    seed: int = 0
    guidance: Guidance = field(default_factory=Guidance)
    window: AttentionWindow = field(default_factory=AttentionWindow)
    fit: Fit = "refuse"
    depth_range: DepthRule = "running"
    depth_every: int = 1
    cache: CacheKind = "network"
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        _require(self.width > 0 and self.height > 0, f"size must be positive, got {self.size_text}")
        _require(self.noise in ("fresh", "fixed"), f"noise: fresh or fixed, not {self.noise!r}")
        _require(
            self.fit in ("refuse", "stretch", "crop"),
            f"fit: refuse, stretch or crop, not {self.fit!r}",
        )
        _require(
            self.depth_range in ("running", "frame"),
            f"depth_range: running or frame, not {self.depth_range!r}",
        )
        _require(self.depth_every >= 1, f"depth_every must be at least 1, got {self.depth_every}")
        _require(
            self.cache in ("network", "float8"), f"cache: network or float8, not {self.cache!r}"
        )
        _require(0 <= self.seed < 2**63, f"seed must be in 0..2^63-1, got {self.seed}")

    @property
    def size_text(self) -> str:
        """The size as people write it, WxH."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class NoiseScheduleConfig:
    """The schedule that a network was trained with; the defaults are Live2Diff's."""

    train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: Prediction = "epsilon"


@dataclass(frozen=True, slots=True)
class TemporalConfig:
    """Shape of the temporal transformers; the defaults are Live2Diff's.

    max_positions: length of the position table, the most slots that a window may have. Positions
    are sinusoidal and computed, so it may exceed the 24 of the reference.
    """

    heads: int = 8
    norm_groups: int = 32
    max_positions: int = 128
    attentions: int = 2
