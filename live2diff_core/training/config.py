"""Settings of a training run, read from a TOML file; `examples/train_motion.toml` explains them."""

import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..config import AttentionWindow, NoiseScheduleConfig, StepSelection
from ..errors import ConfigError
from ..weights.spec import BUNDLED, LoraSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Precision = Literal["no", "bf16", "fp16"]
RANDOM, SILENT, PROCEDURAL = "random", "silent", "procedural"  # names that are no files
TAESD = "taesd"

Table = TypeVar("Table")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class ModelPart:
    """What is trained, and beside which frozen networks; parts as `live2diff translate` takes them.

    base: "bundled", "random" (Stable Diffusion 1.5 with random weights), or a file, folder or hub
    id. motion: what training starts from, "silent" (layers that change nothing), Live2Diff's or
    AnimateDiff's motion weights. models: the models folder, None for the usual one.
    """

    base: str
    motion: str = SILENT
    vae: str = TAESD
    depth: str = "dpt_hybrid_384"
    text_encoder: str = "base"
    clip_skip: int = 1
    models: Path | None = None
    download: bool = False

    def __post_init__(self) -> None:
        named = {"vae", "depth", "text_encoder", "clip_skip"} - self._at_default()
        taken = {RANDOM: {"vae", "depth"}, BUNDLED: set[str]()}.get(self.base, named)
        refused = sorted(named - taken)
        _require(not refused, f"base {self.base} takes no {', '.join(refused)}: leave them out")

    def _at_default(self) -> set[str]:
        return {f.name for f in fields(self) if getattr(self, f.name) == f.default}


@dataclass(frozen=True, slots=True)
class DataPart:
    """Clips. width, height: pixels. frames: of a clip, warm-up included.

    source: "procedural", or a folder of videos. prompt: of clips without a text file beside them.
    stride: every stride-th frame of a video. workers: processes that read clips ahead.
    """

    source: str
    width: int
    height: int
    frames: int = 24
    prompt: str | None = None
    stride: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        window = AttentionWindow()
        _require(
            self.frames > window.slots,
            f"data.frames must be above {window.slots} ({window.sinks} warm-up frames and a ring "
            f"of {window.ring}), so that clips show the ring turning; got {self.frames}",
        )
        _require(min(self.width, self.height) > 0, "data.width and data.height are above 0")
        _require(self.stride >= 1, f"data.stride must be at least 1, got {self.stride}")
        _require(self.workers >= 0, f"data.workers must be 0 or more, got {self.workers}")
        _require(
            self.source != PROCEDURAL or self.prompt is not None,
            'procedural clips have no captions: give data.prompt, for the bundled model ""',
        )


@dataclass(frozen=True, slots=True)
class OptimisationPart:
    """steps: of the optimiser. batch: clips in one pass of one process; accumulation: passes a
    step. warmup: steps in which the learning rate rises. clip: norm that gradients are clipped to.
    recompute: activations are computed again for the gradients, which saves most of their memory.
    """

    steps: int
    learning_rate: float = 1e-4
    batch: int = 1
    accumulation: int = 1
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    precision: Precision = "no"
    recompute: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulation"):
            value = getattr(self, name)
            _require(value >= 1, f"optimisation.{name} must be at least 1, got {value}")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            _require(value > 0, f"optimisation.{name} must be above 0, got {value}")
        _require(min(self.warmup, self.weight_decay) >= 0, "warmup and weight_decay are 0 or more")


@dataclass(frozen=True, slots=True)
class NoisePart:
    """fixed_share: of clips whose frames all get the same noise; others get fresh noise a frame.
    timesteps: from the first up to below the second; the LCM schedule of streams lies in 19..999.
    """

    fixed_share: float = 0.0
    timesteps: tuple[int, int] = (0, 1000)

    def __post_init__(self) -> None:
        (low, high), most = self.timesteps, NoiseScheduleConfig().train_timesteps
        _require(0 <= self.fixed_share <= 1, f"noise.fixed_share: 0 to 1, not {self.fixed_share}")
        _require(
            0 <= low < high <= most,
            f"noise.timesteps are two numbers that rise, within 0..{most}; got {[low, high]}",
        )


@dataclass(frozen=True, slots=True)
class ValidationPart:
    """Videos that are translated while training goes on, by a stream as users have it.

    every: steps between two validations. frames: of each clip. strength, steps: of the stream.
    loras: as `--lora` takes them, such as the LCM-LoRA, for validation alone.
    """

    clips: tuple[Path, ...]
    prompt: str
    every: int
    frames: int = 48
    strength: float = 0.6
    steps: int = 2
    loras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(bool(self.clips), "validation.clips names no video")
        names = [clip.stem for clip in self.clips]
        _require(len(set(names)) == len(names), f"validation.clips share a name: {names}")
        for clip in self.clips:
            _require(clip.is_file(), f"validation.clips: there is no file {clip}")
        _require(self.every >= 1, f"validation.every must be at least 1, got {self.every}")
        _require(self.frames >= 2, f"validation.frames must be at least 2, got {self.frames}")
        _ = self.selection, self.adapters

    @property
    def selection(self) -> StepSelection:
        """Steps of the stream."""
        return StepSelection(strength=self.strength, steps=self.steps)

    @property
    def adapters(self) -> tuple[LoraSpec, ...]:
        """LoRAs of the stream."""
        return tuple(map(LoraSpec.parse, self.loras))


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A run. directory: holds checkpoints, log and pictures. seed: decides clips, noise, timesteps.
    checkpoint_every: steps.
    """

    model: ModelPart
    data: DataPart
    optimisation: OptimisationPart
    directory: Path
    noise: NoisePart = field(default_factory=NoisePart)
    validation: ValidationPart | None = None
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, f"seed must be in 0..2^63-1, got {self.seed}")
        _require(
            self.checkpoint_every >= 1,
            f"checkpoint_every must be at least 1, got {self.checkpoint_every}",
        )

    def decides(self) -> dict[str, Any]:
        """What a run that goes on must share with the one that began: all that decides a step."""
        shown = asdict(self)
        for name in ("directory", "validation", "checkpoint_every"):
            del shown[name]
        for name in ("models", "download"):
            del shown["model"][name]
        del shown["data"]["workers"], shown["optimisation"]["steps"]
        shown["noise"]["timesteps"] = list(self.noise.timesteps)
        return shown


def read_config(path: Path) -> TrainConfig:
    """Read a run's settings. Raises ConfigError, naming the file and the entry."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    try:
        return _table(TrainConfig, data, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _table(kind: type[Table], data: Mapping[str, Any], where: str) -> Table:
    """A dataclass from a table of TOML; where: its name and a dot."""
    hints = get_type_hints(kind)
    unknown = sorted(data.keys() - hints.keys())
    _require(
        not unknown,
        f"unknown entries {_named(where, unknown)}; there are {_named(where, sorted(hints))}",
    )
    needed = [
        f.name
        for f in fields(kind)  # type: ignore[arg-type]  # of dataclasses alone
        if f.default is MISSING and f.default_factory is MISSING
    ]
    missing = [name for name in needed if name not in data]
    _require(not missing, f"{_named(where, missing)} must be given")
    return kind(**{name: _value(hints[name], data[name], where + name) for name in data})


def _named(where: str, names: list[str]) -> str:
    return ", ".join(f"{where}{name}" for name in names)


def _value(kind: object, value: object, where: str) -> object:
    """A value of TOML as an annotation asks for it."""
    if isinstance(kind, types.UnionType):  # an optional one: TOML has no None
        kind = get_args(kind)[0]
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(_expected(where, "a table", value))
        return _table(kind, value, f"{where}.")
    if get_origin(kind) is tuple:
        return _list(get_args(kind), value, where)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        _require(value in choices, _expected(where, " or ".join(map(repr, choices)), value))
        return value
    accepted, name, make = _PLAIN[kind]
    _require(type(value) in accepted, _expected(where, name, value))
    return make(value)


def _list(kinds: tuple[object, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise ConfigError(_expected(where, "a list", value))
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    _require(len(value) == len(kinds), _expected(where, f"a list of {len(kinds)}", value))
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_value(kind, one, f"{where}[{i}]") for i, (kind, one) in pairs)


# What TOML gives for an annotation, how that is called, and what makes it.
_PLAIN: dict[object, tuple[tuple[type, ...], str, Callable[[Any], object]]] = {
    str: ((str,), "a text", str),
    Path: ((str,), "a path", Path),
    int: ((int,), "a whole number", int),
    float: ((float, int), "a number", float),
    bool: ((bool,), "true or false", bool),
}


def _expected(where: str, what: str, got: object) -> str:
    return f"{where} is {what}, got {got!r}"
