"""One pipelined call for all frames in flight equals each frame denoised on its own."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from live2diff_core.cache import RingStep, allocate
from live2diff_core.config import AttentionWindow, Guidance, NoiseScheduleConfig, StepSelection
from live2diff_core.schedule import make_schedule
from live2diff_core.stream.denoise import (
    Conditioning,
    NewFrame,
    StreamState,
    WarmupFrames,
    make_state,
    prefill,
    step,
)
from tests.tiny import tiny_model

WINDOW = AttentionWindow(3, 4)
SHAPE = (12, 4, 6)
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class Stream:
    """Given inputs of a stream of `steps` steps, and ways to run it."""

    steps: int
    frames: int = 12
    guidance: Guidance = field(default_factory=Guidance)
    prediction: str = "sample"

    def __post_init__(self) -> None:
        self.unet = tiny_model().unet
        selection = StepSelection(strength=0.8, steps=self.steps)
        config = NoiseScheduleConfig(prediction=self.prediction)
        self.schedule = make_schedule(config, selection, torch.device("cpu"))
        negative = draw(8, 1, 8, 16) if self.guidance.mode == "full" else None
        self.condition = Conditioning(draw(7, 1, 8, 16), self.guidance, negative)
        sinks, between = WINDOW.sinks, self.steps - 1
        self.warm = WarmupFrames(
            draw(1, sinks, *SHAPE),
            draw(2, sinks, 32, 4, 6),
            draw(3, sinks, *SHAPE),
            draw(4, between, sinks, *SHAPE),
        )
        self.new = [
            NewFrame(
                draw(100 + t, *SHAPE),
                draw(200 + t, 32, 4, 6),
                draw(300 + t, *SHAPE),
                draw(400 + t, between, *SHAPE),
            )
            for t in range(self.frames)
        ]

    @torch.inference_mode()
    def start(self) -> tuple[StreamState, Tensor]:
        branches = self.condition.branches
        state = make_state(self.unet, self.warm.latents, self.steps, branches, WINDOW)
        return state, prefill(self.unet, state, self.schedule, self.condition, self.warm)

    @torch.inference_mode()
    def push(self, state: StreamState, frame: NewFrame) -> Tensor:
        return step(self.unet, state, self.schedule, self.condition, frame)

    def results(self) -> list[Tensor]:
        """Warm-up frames and every streamed frame that was finished."""
        state, trail = self.start()
        out = [self.push(state, frame) for frame in self.new]
        return [*trail[-1], *out[self.steps - 1 :]]

    @torch.inference_mode()
    def one_by_one(self) -> list[Tensor]:
        """The same frames, each taken through all its steps before the next one."""
        state, trail = self.start()
        results = list(trail[-1])
        for t in range(self.frames - self.steps + 1):
            x = self.schedule.add_noise(self.new[t].latent, self.new[t].noise, 0)[None]
            for row in range(self.steps):
                x = self._single(state, t, row, x)
                if row + 1 < self.steps:
                    renoise = self.new[t + row].renoise[row]
                    x = self.schedule.add_noise(x, renoise, row + 1)
            results.append(x[0])
        return results

    def _single(self, state: StreamState, t: int, row: int, x: Tensor) -> Tensor:
        layers = allocate(self.unet.cache_shapes(4, 6), 1, WINDOW, x)
        shared = [(layer.key, layer.value) for layer in state.layers]
        for mine, (key, value) in zip(layers, shared, strict=True):
            mine.key.copy_(key[row : row + 1])
            mine.value.copy_(value[row : row + 1])
        timestep, text = self.schedule.timesteps[row : row + 1], self.condition.text
        temporal = RingStep(layers, torch.tensor([t]), WINDOW)
        output = self.unet(x, timestep, text, self.new[t].depth[None], temporal)
        for mine, (key, value) in zip(layers, shared, strict=True):
            key[row : row + 1], value[row : row + 1] = mine.key, mine.value
        return self.schedule.consistency(x, self.schedule.predict_x0(x, output, row), row)


def gap(ours: list[Tensor], theirs: list[Tensor]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_pipelined_frames_equal_frames_denoised_one_by_one(steps):
    stream = Stream(steps)
    assert gap(stream.results(), stream.one_by_one()) <= 1e-5


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_so_do_they_for_every_kind_of_prediction(prediction):
    stream = Stream(2, prediction=prediction)
    results = stream.results()
    scale = max(x.abs().max().item() for x in results)
    assert gap(results, stream.one_by_one()) <= 1e-5 * max(1.0, scale)


def test_a_prefill_tells_what_entered_each_step_and_the_result():
    stream = Stream(3)
    _, trail = stream.start()
    assert trail.shape == (4, WINDOW.sinks, *SHAPE)
    warm = stream.warm
    assert torch.equal(trail[0], stream.schedule.add_noise(warm.latents, warm.noise, 0))


def test_state_is_allocated_once_and_written_in_place():
    stream = Stream(3)
    state, _ = stream.start()
    tensors = [state.x, state.source, state.depth, state.clock]
    tensors += [t for layer in state.layers for t in (layer.key, layer.value)]
    before = [t.data_ptr() for t in tensors]
    size = state.nbytes
    for frame in stream.new:
        stream.push(state, frame)
    assert [t.data_ptr() for t in tensors] == before
    assert state.nbytes == size
    assert state.clock == len(stream.new)


def test_every_row_carries_the_source_and_depth_of_its_own_frame():
    stream = Stream(3)
    state, _ = stream.start()
    for frame in stream.new[:5]:
        stream.push(state, frame)
    for row, t in ((1, 4), (2, 3)):  # rows after the call: row 0 waits for frame 5
        assert torch.equal(state.source[row], stream.new[t].latent)
        assert torch.equal(state.depth[row], stream.new[t].depth)


# ---- guidance


@pytest.mark.parametrize("mode", ["self", "full"])
def test_guidance_of_scale_one_is_none(mode):
    plain, guided = Stream(3), Stream(3, guidance=Guidance(mode, 1.0))
    assert gap(guided.results(), plain.results()) <= 1e-5


@pytest.mark.parametrize("mode", ["self", "full"])
def test_guidance_of_another_scale_shows(mode):
    plain, guided = Stream(2), Stream(2, guidance=Guidance(mode, 2.0))
    assert gap(guided.results(), plain.results()) > 0.1


@pytest.mark.parametrize("steps", [1, 3])
def test_self_guidance_of_scale_zero_gives_the_input_back(steps):
    stream = Stream(steps, guidance=Guidance("self", 0.0))
    inputs = [*stream.warm.latents, *(frame.latent for frame in stream.new)]
    results = stream.results()
    assert gap(results, inputs[: len(results)]) <= 1e-4  # what the consistency boundary leaves


def test_full_guidance_of_scale_zero_is_the_negative_prompt_alone():
    guided, negative = Stream(2, guidance=Guidance("full", 0.0)), Stream(2)
    assert guided.condition.negative is not None
    negative.condition = Conditioning(guided.condition.negative, Guidance())
    assert gap(guided.results(), negative.results()) <= 1e-5


def test_full_guidance_extrapolates_between_the_two_prompts():
    """With one step and the same inputs the result is linear in the scale."""
    at = {s: Stream(1, 1, guidance=Guidance("full", s)).results()[:3] for s in (0.0, 1.0, 2.5)}
    expected = [a + 2.5 * (b - a) for a, b in zip(at[0.0], at[1.0], strict=True)]
    assert gap(at[2.5], expected) <= 1e-4


def test_full_guidance_doubles_the_cache_rows_and_nothing_else():
    plain, _ = Stream(3).start()
    full, _ = Stream(3, guidance=Guidance("full", 2.0)).start()
    for ours, double in zip(plain.layers, full.layers, strict=True):
        assert double.key.shape[0] == 2 * ours.key.shape[0] == 6
        assert double.key.shape[1:] == ours.key.shape[1:]
    assert full.x.shape == plain.x.shape
    assert full.rows.tolist() == [0, 1, 2, 0, 1, 2]
