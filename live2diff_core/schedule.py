"""LCM coefficients of the denoising steps (Live2Diff, sec. 3.3; LCM, arXiv 2310.04378, sec. 4)."""

from dataclasses import dataclass

import torch
from diffusers import LCMScheduler
from torch import Tensor

from .config import NoiseScheduleConfig, Prediction, StepSelection

LCM_ORIGIN = (
    50  # timesteps that a consistency model is distilled on; shorter schedules pick of them
)


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Coefficients of N steps, each (N,) or (N, 1, 1, 1); row r is step r, 0 the noisiest."""

    timesteps: Tensor
    signal: Tensor  # a = sqrt(alpha_bar)
    noise: Tensor  # b = sqrt(1 - alpha_bar)
    skip: Tensor  # c_skip
    out: Tensor  # c_out
    prediction: Prediction

    @property
    def steps(self) -> int:
        """N, the number of denoising steps in flight."""
        return len(self.timesteps)

    def add_noise(self, clean: Tensor, noise: Tensor, step: int | slice) -> Tensor:
        """x = a clean + b noise at one step, or row by row for a slice of steps."""
        return self.signal[step] * clean + self.noise[step] * noise

    def predict_x0(self, x: Tensor, output: Tensor, step: int | slice) -> Tensor:
        """The network's output as a clean latent, before the consistency boundary is applied."""
        signal, noise = self.signal[step], self.noise[step]
        if self.prediction == "epsilon":
            return (x - noise * output) / signal
        if self.prediction == "v_prediction":
            return signal * x - noise * output
        return output

    def consistency(self, x: Tensor, x0: Tensor, step: int | slice) -> Tensor:
        """x0 = c_out x0 + c_skip x."""
        return self.out[step] * x0 + self.skip[step] * x


def lcm_timesteps(config: NoiseScheduleConfig, inference_steps: int) -> Tensor:
    """The whole LCM schedule, (inference_steps,) int64, descending."""
    scheduler = _scheduler(config)
    origin = max(LCM_ORIGIN, inference_steps)
    scheduler.set_timesteps(inference_steps, original_inference_steps=origin)
    return scheduler.timesteps


def alphas_cumprod(config: NoiseScheduleConfig) -> Tensor:
    """alpha_bar of every training timestep, (train_timesteps,) float32."""
    return _scheduler(config).alphas_cumprod


def make_schedule(
    config: NoiseScheduleConfig, selection: StepSelection, device: torch.device
) -> Schedule:
    """Coefficients in float32 for the selected timesteps."""
    timesteps = lcm_timesteps(config, selection.inference_steps)[list(selection.indices)]
    alpha_bar = alphas_cumprod(config).double()[timesteps]
    scaled = timesteps.double() * 10  # LCM's timestep_scaling; sigma_data = 0.5
    skip = 0.25 / (scaled**2 + 0.25)
    out = scaled / (scaled**2 + 0.25).sqrt()

    def rows(values: Tensor) -> Tensor:  # (N,) -> (N, 1, 1, 1)
        return values.float().view(-1, 1, 1, 1).to(device)

    return Schedule(
        timesteps=timesteps.to(device),
        signal=rows(alpha_bar.sqrt()),
        noise=rows((1 - alpha_bar).sqrt()),
        skip=rows(skip),
        out=rows(out),
        prediction=config.prediction,
    )


def _scheduler(config: NoiseScheduleConfig) -> LCMScheduler:
    return LCMScheduler(
        num_train_timesteps=config.train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule="linear",
        steps_offset=1,
        clip_sample=False,
    )
