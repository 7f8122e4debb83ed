"""Replays recorded streams of the reference implementation and measures the difference."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ..cache import ring_slots, ring_visibility
from ..config import (
    AttentionWindow,
    CacheKind,
    Guidance,
    NoiseScheduleConfig,
    RuntimeConfig,
    StepSelection,
    TemporalConfig,
)
from ..errors import ConfigError, WeightsFormatError
from ..models.layout import lay_out
from ..models.unet import MotionConfig, StreamingUNet
from ..schedule import Schedule, make_schedule
from ..stream.denoise import (
    CacheUse,
    Conditioning,
    NewFrame,
    StreamState,
    WarmupFrames,
    make_state,
    prefill,
)
from ..stream.runtime import attention_kernel, make_step
from ..weights.files import read_safetensors
from ..weights.load import load_live2diff


@dataclass(frozen=True, slots=True)
class ParityResult:
    """Largest absolute differences of one recorded stream, in units of its latents.

    max_abs_error is NaN for a recording that ends before its first real frame, cache_max_abs_error
    None for one without cache contents.
    """

    name: str
    steps: int
    frames: int
    warmup_max_abs_error: float
    max_abs_error: float
    cache_max_abs_error: float | None
    tables_equal: bool

    def within(self, tolerance: float) -> bool:
        """Whether every error is at most the tolerance (NaN is not) and the tables are equal."""
        errors = [self.warmup_max_abs_error, self.max_abs_error]
        if self.cache_max_abs_error is not None:
            errors.append(self.cache_max_abs_error)
        return self.tables_equal and all(error <= tolerance for error in errors)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Recording:
    """A directory of recorded streams: golden.json, weights, tensor files for each case."""

    def __init__(self, directory: Path, device: torch.device | str = "cpu") -> None:
        """device: where it is replayed."""
        self.directory, self.device = directory, torch.device(device)
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
        unet.to(self.device)
        lay_out((unet,), self.device)
        return unet.eval()

    def cases(self, names: Sequence[str] = ()) -> Iterator["Case"]:
        """Recorded streams, all or the named ones. Raises ConfigError for an unknown name."""
        known = {case["case"]["name"]: case for case in self.index["cases"]}
        if not known:
            raise WeightsFormatError(f"{self.directory} holds no recorded stream")
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
        found = read_safetensors(*files)
        self.tensors = {name: tensor.to(recording.device) for name, tensor in found.items()}

    def schedule(self) -> Schedule:
        """Our coefficients for the recorded step selection."""
        case = self.facts["case"]
        t_index, strength = case.get("t_index_list"), case.get("strength")
        selection = StepSelection(
            t_index=tuple(t_index) if t_index and strength is None else None,
            strength=strength,
            inference_steps=case["num_inference_steps"],
        )
        return make_schedule(self.recording.noise, selection, self.recording.device)

    def expected(self, name: str) -> Tensor:
        """A recorded tensor, where N >= 3 the one without the reference's start-up defect."""
        clean = f"clean.{name}"
        return self[clean] if clean in self.tensors else self[f"stream.{name}"]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise WeightsFormatError(f"the recording of {self.name} has no tensor {name}")
        return self.tensors[name]


@torch.inference_mode()
def replay(
    case: Case,
    unet: StreamingUNet,
    runtime: RuntimeConfig | None = None,
    cache: CacheKind = "network",
) -> ParityResult:
    """Run one recorded stream through our code, in the network's dtype, and compare.

    Raises WeightsFormatError, and ConfigError for a runtime that cannot be had here.
    """
    schedule, frames = case.schedule(), len(case["stream.latents"])
    runtime = runtime or RuntimeConfig()
    condition = Conditioning(case["prompt_embeds"].to(_dtype(unet)), Guidance())
    condition = replace(condition, guides=condition.guided(unet, schedule))
    latents, window = case["warmup.latents"], case.recording.window
    use = CacheUse(cache, attention_kernel(runtime, cache, latents.device, _dtype(unet)))
    state = make_state(unet, latents, schedule.steps, 1, window, use)
    step = make_step(runtime, state, fixed=unet)
    x0 = prefill(unet, state, schedule, condition, _warmup_frames(case, unet, schedule.steps))[-1]
    warmup_error = _error(x0, case["warmup.x0"])
    cache_errors = _cache_errors(case, state, "after_warmup")
    errors, tables = [], [_coefficients_equal(case, schedule)]
    for t in range(frames):
        tables.append(_tables_equal(case, state, t))
        frame = _new_frame(case, unet, schedule.steps, t)
        x0 = step(unet, state, schedule, condition, frame)
        if t >= schedule.steps - 1:
            errors.append(_error(x0, case.expected("x0")[t]))
        cache_errors += _cache_errors(case, state, f"after_frame_{t:02d}")
    return ParityResult(
        name=case.name,
        steps=schedule.steps,
        frames=frames,
        warmup_max_abs_error=warmup_error,
        max_abs_error=_largest(errors) if errors else math.nan,
        cache_max_abs_error=_largest(cache_errors) if cache_errors else None,
        tables_equal=all(tables),
    )


def _warmup_frames(case: Case, unet: StreamingUNet, steps: int) -> WarmupFrames:
    latents = case["warmup.latents"]
    renoise = latents.new_zeros(0, *latents.shape)
    if steps > 1:
        renoise = case["noise.warmup_renoise"].transpose(1, 2)  # (n, c, f, h, w) -> (n, f, ...)
    depth = unet.depth_mapping(case["warmup.depth"].to(_dtype(unet)))
    return WarmupFrames(latents, depth, case["noise.warmup_encode"], renoise)


def _new_frame(case: Case, unet: StreamingUNet, steps: int, t: int) -> NewFrame:
    latent = case["stream.latents"][t]
    renoise = latent.new_zeros(0, *latent.shape)
    if steps > 1:
        renoise = case["noise.stream_renoise"][t]
    depth = unet.depth_mapping(case["stream.depth"][t : t + 1].to(_dtype(unet)))[0]
    return NewFrame(latent, depth, case["noise.stream_encode"][t], renoise)


def _dtype(unet: StreamingUNet) -> torch.dtype:
    return unet.depth_mapping.conv_in.weight.dtype


def _error(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


def _largest(errors: list[float]) -> float:
    return torch.tensor(errors).max().item()  # unlike max(), keeps a NaN


def _coefficients_equal(case: Case, schedule: Schedule) -> bool:
    """Timesteps exactly, coefficients to what float32 leaves."""
    recorded = {
        "alpha_sqrt": schedule.signal,
        "beta_sqrt": schedule.noise,
        "c_skip": schedule.skip,
        "c_out": schedule.out,
    }
    return torch.equal(schedule.timesteps, case["sched.sub_timesteps"]) and all(
        torch.allclose(ours.flatten(), case[f"sched.{name}"], rtol=1e-4, atol=1e-6)
        for name, ours in recorded.items()
    )


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


def _cache_errors(case: Case, state: StreamState, when: str) -> list[float]:
    """Differences of the recorded layers and pixels, in slots that a real frame sees.

    Rows 2 and up of a stream with N >= 3 were recorded with the reference's start-up defect: only
    their sinks count.
    """
    age = state.clock - 1 - state.rows  # of the frame that was just pushed; -1 after the warm-up
    if "clean.x0" in case.tensors:
        age = torch.where(state.rows < 2, age, -1)
    visible = ring_visibility(age, state.window).visible[:, 0]
    errors = []
    for layer, cache in enumerate(state.layers):
        recorded = case.tensors.get(f"kv.L{layer}.{when}")
        if recorded is None:
            continue
        pixels = case.facts["kv_pixels"][str(layer)]
        for index, ours in enumerate(cache.read(torch.float32)):
            # (n, p, e, slots, d) -> (n, p, slots, c)
            mine = ours[:, pixels].transpose(2, 3).flatten(3)
            gap = (mine - recorded[:, index]).abs().amax((1, 3))  # (n, slots)
            errors.append(gap[visible].max().item())
    return errors
