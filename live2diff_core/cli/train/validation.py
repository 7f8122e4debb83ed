"""Clips that are translated while training goes on: videos, a sheet of pictures, and flicker."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ...config import StreamConfig
from ...frames import Frame, to_unit_range
from ...live.sink import VideoFileSink
from ...live.source import VideoFile
from ...metrics.flicker import FlickerMeter
from ...models.translator import TranslationModel
from ...stream.fit import fit_frame
from ...stream.session import Session
from ...stream.translate import translate
from ...training.config import TrainConfig, ValidationPart
from ...training.start import model_spec
from ...weights.model import load_adapter
from ...weights.random import random_text
from ..pictures import save_png, sheet
from ..report import make_folder

CPU = torch.device("cpu")
SHOWN = (0.0, 0.35, 0.7, 1.0)  # where in a clip the frames of the sheet are


@dataclass(frozen=True, slots=True)
class Check:
    """Flicker of a translated clip and of the clip itself; None where it cannot be told."""

    clip: str
    flicker: float | None
    input_flicker: float | None


class Validation:
    """Translates the clips of a run's settings through an ordinary session."""

    def __init__(self, config: TrainConfig, part: ValidationPart, model: TranslationModel) -> None:
        self._part, self._folder = part, config.directory / "validation"
        self.every = part.every
        self._stream = StreamConfig(
            config.data.width, config.data.height, part.selection, seed=config.seed, fit="crop"
        )
        spec = model_spec(config)
        self._adapters = [load_adapter(spec, lora, model) for lora in part.adapters]

    def run(self, model: TranslationModel, step: int) -> Iterator[Check]:
        """Translate and measure every clip with the model of so many steps; writes files."""
        folder = self._folder / f"step-{step:07d}"
        make_folder(folder)
        if self._adapters:
            model = model.with_adapters(self._adapters)
        for clip in self._part.clips:
            yield self._check(model, clip, folder)

    def _check(self, model: TranslationModel, clip: Path, folder: Path) -> Check:
        prompt = random_text(model) if model.text_encoder is None else self._part.prompt
        if isinstance(prompt, torch.Tensor):
            prompt = prompt.to(model.device, model.dtype)
        with VideoFile(clip, self._part.frames) as source:
            info, inputs = source.info, [self._fitted(frame) for frame in source]
        with Session(model, self._stream, prompt) as session:
            outputs = list(translate(session, inputs))
        size = self._stream.width, self._stream.height
        with VideoFileSink(folder / f"{clip.stem}.mp4", size, info.rate) as sink:
            for frame in outputs:
                sink.write(frame)
        places = [round(share * (len(inputs) - 1)) for share in SHOWN]
        rows = {"input": inputs, "translated": outputs}
        shown = {name: [frames[i].rgb.cpu() for i in places] for name, frames in rows.items()}
        save_png(folder / f"{clip.stem}.png", sheet(shown))
        return _measured(clip.stem, inputs, outputs)

    def _fitted(self, frame: Frame) -> Frame:
        rgb = to_unit_range(frame.rgb, CPU, torch.float32)
        rgb = fit_frame(rgb, self._stream.width, self._stream.height, "crop")
        return Frame(rgb, frame.index, frame.timestamp)


def _measured(clip: str, inputs: list[Frame], outputs: list[Frame]) -> Check:
    meter = FlickerMeter()
    for before, after in zip(inputs, outputs, strict=True):
        meter.update(before.rgb, after.rgb)
    found = meter.report()
    return Check(
        clip, _number(found.outputs[0] if found.outputs else math.nan), _number(found.source)
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
