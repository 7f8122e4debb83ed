"""What training runs is what streams run: one masked pass over a clip, and a stream frame by frame.

The stream is the real one: prefill, then one pipelined step a frame on the cache. Every row of it
is a denoising step with a cache of its own; the pass takes the clip through these steps one by one.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from live2diff_core.config import AttentionWindow, Guidance, NoiseScheduleConfig, StepSelection
from live2diff_core.schedule import make_schedule
from live2diff_core.stream.denoise import (
    Conditioning,
    NewFrame,
    WarmupFrames,
    make_state,
    prefill,
    step,
)
from live2diff_core.stream.noise import StreamNoise
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.training.motion import WholeClipPass
from tests import sd15, tiny

WINDOWS = [AttentionWindow(*sizes) for sizes in ((8, 8), (3, 4), (1, 1), (4, 9), (9, 2))]
CLOSE = 1e-4


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frames_for(window: AttentionWindow) -> int:
    """Enough for the ring to turn: twice round and three more."""
    return window.sinks + 2 * window.ring + 3


@dataclass
class Clip:
    """Inputs of a clip of t frames for N steps on a network: latent (t, c, h, w), depth latents of
    that shape, noise (N, t, c, h, w), text (1, tokens, dim).
    """

    window: AttentionWindow
    steps: int
    prediction: str = "sample"
    sd: bool = False

    def __post_init__(self) -> None:
        self.unet = sd15.tiny_unet() if self.sd else tiny.tiny_model().unet
        channels, tokens, dim = (4, 77, sd15.TEXT) if self.sd else (12, 8, 16)
        size = (frames_for(self.window), channels, 4, 6)
        self.latent, self.depth = draw(1, *size), draw(2, *size)
        self.noise, self.text = draw(3, self.steps, *size), draw(4, 1, tokens, dim)
        self.schedule = make_schedule(
            NoiseScheduleConfig(prediction=self.prediction),
            StepSelection(strength=0.8, steps=self.steps),
            torch.device("cpu"),
        )

    @torch.inference_mode()
    def streamed(self) -> Tensor:
        """x0 of every frame that leaves a stream, (t - N + 1, c, h, w)."""
        sinks, unet = self.window.sinks, self.unet
        condition = Conditioning(self.text, Guidance())
        depth = unet.depth_mapping(self.depth)
        state = make_state(unet, self.latent, self.steps, 1, self.window)
        warm = WarmupFrames(
            self.latent[:sinks], depth[:sinks], self.noise[0, :sinks], self.noise[1:, :sinks]
        )
        done = list(prefill(unet, state, self.schedule, condition, warm)[-1])
        for t in range(sinks, len(self.latent)):
            new = NewFrame(self.latent[t], depth[t], self.noise[0, t], self.renoise(t))
            x0 = step(unet, state, self.schedule, condition, new)
            if t - sinks >= self.steps - 1:
                done.append(x0)
        return torch.stack(done)

    def renoise(self, t: int) -> Tensor:
        """For the call of frame t: row r then holds the frame of r calls ago."""
        rows = [self.noise[row + 1, max(t - row, 0)] for row in range(self.steps - 1)]
        return torch.stack(rows) if rows else self.noise[:0, t]

    @torch.no_grad()
    def in_one_pass(self, window: AttentionWindow | None = None) -> Tensor:
        """x0 of every frame, (t, c, h, w): the whole clip through one step after the other."""
        network = WholeClipPass(self.unet, window or self.window)
        x = self.schedule.add_noise(self.latent, self.noise[0], 0)
        for row in range(self.steps):
            timestep = self.schedule.timesteps[row : row + 1]
            output = network(x, timestep, self.text, self.depth)
            x0 = self.schedule.predict_x0(x, output, row)
            x0 = self.schedule.consistency(x, x0, row)
            if row + 1 < self.steps:
                x = self.schedule.add_noise(x0, self.noise[row + 1], row + 1)
        return x0

    def gap(self, window: AttentionWindow | None = None) -> float:
        """Largest difference of the two, by the largest value."""
        stream = self.streamed()
        clip = self.in_one_pass(window)[: len(stream)]
        return ((clip - stream).abs().max() / stream.abs().max()).item()


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_clip_in_one_pass_equals_the_stream(window, steps):
    assert Clip(window, steps).gap() < CLOSE


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_so_it_does_for_every_prediction(prediction):
    assert Clip(AttentionWindow(), 2, prediction).gap() < CLOSE


@pytest.mark.parametrize("steps", [1, 3])
def test_so_it_does_on_stable_diffusion_s_network(steps):
    assert Clip(AttentionWindow(), steps, "epsilon", sd=True).gap() < CLOSE


WRONG = [
    AttentionWindow(8, 7),  # forgets a frame too early
    AttentionWindow(8, 9),  # keeps one too long
    AttentionWindow(7, 8),  # a warm-up frame is streamed
    AttentionWindow(7, 9),  # as many slots, other sinks
    AttentionWindow(9, 7),
    AttentionWindow(16, 8),  # most see each other
]


@pytest.mark.parametrize("window", WRONG, ids=str)
def test_any_other_mask_would_be_seen(window):
    assert Clip(AttentionWindow(), 2).gap(window) > 100 * CLOSE


def test_the_streams_rows_are_at_their_own_timesteps():
    """The proof would not hold if all rows had the timestep of one."""
    clip = Clip(AttentionWindow(), 3)
    stream = clip.streamed()
    clip.schedule = replace(clip.schedule, timesteps=clip.schedule.timesteps[:1].expand(3))
    clip_x0 = clip.in_one_pass()[: len(stream)]
    assert (clip_x0 - stream).abs().max() / stream.abs().max() > 100 * CLOSE


def test_clips_of_a_batch_do_not_see_each_other():
    clip, frames = Clip(AttentionWindow(), 1), frames_for(AttentionWindow())
    network = WholeClipPass(clip.unet, AttentionWindow())
    timesteps, text = torch.tensor([400, 700]), torch.cat([clip.text, draw(9, 1, 8, 16)])
    x, depth = draw(5, 2 * frames, 12, 4, 6), draw(6, 2 * frames, 12, 4, 6)
    with torch.no_grad():
        both = network(x, timesteps, text, depth).split(frames)
        for i in range(2):
            own = slice(i * frames, (i + 1) * frames)
            alone = network(x[own], timesteps[i : i + 1], text[i : i + 1], depth[own])
            torch.testing.assert_close(both[i], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_clip_in_one_pass_equals_a_session_from_pixels_to_pixels(steps):
    frames, model = tiny.make_frames(27), tiny.tiny_model()
    config = tiny.stream_config(steps, noise="fixed", seed=5)
    with Session(model, config, "ink") as session:
        stream = torch.stack([frame.rgb for frame in translate(session, frames)])
    clip = Clip(AttentionWindow(), steps)
    pictures = torch.stack([frame.rgb for frame in frames])
    clip.latent = model.encode(pictures)
    clip.depth = model.encode((model.depth(pictures) / 2 + 0.5).expand(-1, 3, -1, -1))
    clip.text = model.text.encode("ink")
    clip.schedule = make_schedule(model.schedule, config.steps, torch.device("cpu"))
    noise, renoise = StreamNoise(5, "fixed", steps, clip.latent).frame()
    clip.noise = torch.cat([noise[None], renoise])[:, None].expand(-1, len(frames), -1, -1, -1)
    torch.testing.assert_close(model.decode(clip.in_one_pass()), stream, rtol=0, atol=CLOSE)
