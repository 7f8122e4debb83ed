"""Replays recorded streams of the reference implementation and measures the difference."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ..cache import ring_slots, ring_visibility
from ..config import (
    AttentionWindow,
    Guidance,
    NoiseScheduleConfig,
    StepSelection,
    TemporalConfig,
)
from ..errors import ConfigError, WeightsFormatError
from ..models.unet import MotionConfig, StreamingUNet
from ..schedule import Schedule, make_schedule
from ..stream.denoise import (
    Conditioning,
    NewFrame,
    StreamState,
    WarmupFrames,
    make_state,
    prefill,
    step,
)
from ..weights.load import load_live2diff, read_safetensors


@dataclass(frozen=True, slots=True)
class ParityResult:
    """Largest absolute differences of one recorded stream, in units of its latents."""

    name: str
    steps: int
    frames: int
    warmup_max_abs_error: float
    max_abs_error: float
    cache_max_abs_error: float
    tables_equal: bool

    def within(self, tolerance: float) -> bool:
        """Whether every error is at most the tolerance (NaN is not) and the tables are equal."""
        errors = self.warmup_max_abs_error, self.max_abs_error, self.cache_max_abs_error
        return self.tables_equal and all(error <= tolerance for error in errors)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Recording:
    """A directory of recorded streams: golden.json, weights, tensor files for each case."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        index = directory / "golden.json"
        try:
            self._read(json.loads(index.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsFormatError(
                f"{directory} has no readable golden.json ({error!r}); expected a recording"
            ) from error

    def _read(self, index: dict[str, Any]) -> None:
        self.index = index
        streaming = self.index["motion"]["motion_module_kwargs"]
        attention = streaming["attention_kwargs"]
        self.window = AttentionWindow(
            attention["sink_size"], attention["window_size"] - attention["sink_size"]
        )
        self.temporal = TemporalConfig(
            heads=streaming["num_attention_heads"],
            max_positions=streaming["temporal_position_encoding_max_len"],
            attentions=len(streaming["attention_block_types"]),
        )
        scheduler = self.index["scheduler"]
        self.noise = NoiseScheduleConfig(
            scheduler["num_train_timesteps"], scheduler["beta_start"], scheduler["beta_end"]
        )

    def network(self) -> StreamingUNet:
        """The recorded network in float32."""
        spatial = UNet2DConditionModel(**self.index["unet"])
        unet = StreamingUNet(spatial, MotionConfig(temporal=self.temporal))
        files = [self.directory / weights["file"] for weights in self.index["weights"]]
        load_live2diff(unet, read_safetensors(*files), str(self.directory))
        return unet.eval()

    def cases(self, names: Sequence[str] = ()) -> Iterator["Case"]:
        """Recorded streams, all or the named ones. Raises ConfigError for an unknown name."""
        known = {case["case"]["name"]: case for case in self.index["cases"]}
        unknown = sorted(set(names) - known.keys())
        if unknown:
            raise ConfigError(f"no such case: {', '.join(unknown)}; there are {', '.join(known)}")
        for name, facts in known.items():
            if not names or name in names:
                yield Case(self, facts)


class Case:
    """One recorded stream."""

    def __init__(self, recording: Recording, facts: dict[str, Any]) -> None:
        self.recording, self.facts = recording, facts
        self.name: str = facts["case"]["name"]
        files = [recording.directory / file["file"] for file in facts["files"]]
        self.tensors = read_safetensors(*files)
        layers: list[str] = facts["layer_names"]
        self.layers = {i: name for i, name in enumerate(layers)}

    def schedule(self) -> Schedule:
        """Our coefficients for the recorded step selection."""
        case = self.facts["case"]
        t_index = case.get("t_index_list")
        selection = StepSelection(
            t_index=None if t_index is None else tuple(t_index),
            strength=case.get("strength"),
            inference_steps=case["num_inference_steps"],
        )
        return make_schedule(self.recording.noise, selection, torch.device("cpu"))

    def expected(self, name: str) -> Tensor:
        """A recorded tensor, where N >= 3 the one without the reference's start-up defect."""
        return self.tensors.get(f"clean.{name}", self.tensors[f"stream.{name}"])


@torch.inference_mode()
def replay(case: Case, unet: StreamingUNet) -> ParityResult:
    """Run one recorded stream through our code and compare."""
    schedule, tensors = case.schedule(), case.tensors
    condition = Conditioning(tensors["prompt_embeds"], Guidance())
    state = make_state(unet, tensors["warmup.latents"], schedule.steps, 1, case.recording.window)
    warmup = WarmupFrames(
        tensors["warmup.latents"],
        unet.depth_mapping(tensors["warmup.depth"]),
        tensors["noise.warmup_encode"],
        tensors["noise.warmup_renoise"].transpose(1, 2),  # (n, c, f, h, w) -> (n, f, c, h, w)
    )
    x0 = prefill(unet, state, schedule, condition, warmup)[-1]
    warmup_error = _error(x0, tensors["warmup.x0"])
    cache_errors = [_cache_error(case, state, "after_warmup")]
    errors, tables = [0.0], [_coefficients_equal(case, schedule)]
    for t in range(len(tensors["stream.latents"])):
        frame = NewFrame(
            tensors["stream.latents"][t],
            unet.depth_mapping(tensors["stream.depth"][t : t + 1])[0],
            tensors["noise.stream_encode"][t],
            tensors["noise.stream_renoise"][t],
        )
        tables.append(_tables_equal(case, state, t))
        x0 = step(unet, state, schedule, condition, frame)
        if t >= schedule.steps - 1:
            errors.append(_error(x0, case.expected("x0")[t]))
        cache_errors.append(_cache_error(case, state, f"after_frame_{t:02d}"))
    frames = len(tensors["stream.latents"])
    return ParityResult(
        case.name,
        schedule.steps,
        frames,
        warmup_error,
        _largest(errors),
        _largest(cache_errors),
        all(tables),
    )


def _error(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


def _largest(errors: list[float]) -> float:
    return torch.tensor(errors).max().item()  # unlike max(), keeps a NaN


def _coefficients_equal(case: Case, schedule: Schedule) -> bool:
    recorded = case.tensors["sched.sub_timesteps"]
    return torch.equal(schedule.timesteps, recorded)


def _tables_equal(case: Case, state: StreamState, t: int) -> bool:
    """Slots, positions and visibility of every row that holds a real frame."""
    age = state.clock - state.rows
    real = age >= 0
    view = ring_visibility(age, state.window)
    visible = case.expected("attn_bias")[t] == 0
    shown = visible & real[:, None]
    return (
        torch.equal(ring_slots(age, state.window)[real], case.expected("update_idx")[t][real])
        and torch.equal(view.visible[:, 0][real], visible[real])
        and torch.equal(view.keys[:, 0][shown], case.expected("pe_idx")[t][shown])
    )


def _cache_error(case: Case, state: StreamState, when: str) -> float:
    """Largest difference over recorded layers and pixels, in slots a real frame sees.

    Rows 2 and up of a stream with N >= 3 were recorded with the reference's start-up defect: only
    their sinks count.
    """
    age = state.clock - 1 - state.rows  # of the frame that was just pushed; -1 after the warm-up
    if "clean.x0" in case.tensors:
        age = torch.where(state.rows < 2, age, -1)
    visible = ring_visibility(age, state.window).visible[:, 0]
    errors = [0.0]
    for layer, cache in enumerate(state.layers):
        recorded = case.tensors.get(f"kv.L{layer}.{when}")
        if recorded is None:
            continue
        pixels = case.facts["kv_pixels"][str(layer)]
        for index, ours in enumerate((cache.key, cache.value)):
            # (n, p, e, slots, d) -> (n, p, slots, c)
            mine = ours[:, pixels].transpose(2, 3).flatten(3)
            gap = (mine - recorded[:, index]).abs().amax((1, 3))  # (n, slots)
            errors.append(gap[visible].max().item())
    return _largest(errors)
