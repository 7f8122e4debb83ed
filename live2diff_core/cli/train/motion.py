"""Training of temporal layers and depth mapping by a file of settings."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

from ...training.config import PROCEDURAL, TrainConfig, read_config
from ...training.footage import Clips, FolderClips, ProceduralClips
from ...training.motion import CHECKPOINTS, MOTION, MotionTrainer, Progress, make_accelerator
from ..progress import progress_bar
from ..report import make_folder
from .reader import FileReader
from .record import Record, draw
from .validation import Validation


def train_motion(settings: Path, directory: Path | None, cpu: bool) -> int:
    """Train as the settings say, going on from the directory's last checkpoint if there is one.

    directory: in place of the settings' own. cpu: whatever else is there.
    """
    config = read_config(settings)
    config = config if directory is None else replace(config, directory=directory)
    make_folder(config.directory)
    accelerator = make_accelerator(config, cpu)
    trainer = MotionTrainer(config, make_clips(config), accelerator)
    run = Run(config, trainer) if accelerator.is_main_process else None
    done = trainer.first
    try:
        if run is not None and trainer.first == 0:
            run.look(0)
        accelerator.wait_for_everyone()
        with progress_bar("train", config.optimisation.steps, enabled=run is not None) as advance:
            advance(done, "")
            for progress in trainer.run():
                done = progress.step + 1
                if run is not None:
                    run.note(progress)
                accelerator.wait_for_everyone()
                advance(done, f"loss {progress.loss:.4f}")
    except KeyboardInterrupt:
        print(
            f"stopped after {done} steps; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        raise
    if run is not None:
        last = config.directory / CHECKPOINTS / f"step-{config.optimisation.steps:07d}" / MOTION
        print(f"{last}: motion weights after {config.optimisation.steps} steps")
    accelerator.end_training()
    return 0


def make_clips(config: TrainConfig) -> Clips:
    """What the settings name as data. Raises ConfigError, SourceError."""
    if config.data.source == PROCEDURAL:
        return ProceduralClips(config.data)
    return FolderClips(config.data, FileReader())


class Run:
    """What the main process writes of a run, checkpoints apart."""

    def __init__(self, config: TrainConfig, trainer: MotionTrainer) -> None:
        self._config, self._trainer, first = config, trainer, trainer.first
        self._log = Record(config.directory / "log.jsonl", first)
        self._fixed = Record(config.directory / "fixed.jsonl", first + 1)
        self._checks = Record(config.directory / "validation.jsonl", first + 1)
        part = config.validation
        self._validation = Validation(config, part, trainer.model) if part else None

    def note(self, progress: Progress) -> None:
        """A step that was made."""
        self._log.add(**asdict(progress))
        self.look(progress.step + 1)

    def look(self, step: int) -> None:
        """Whatever is due after so many steps; 0 is the start."""
        config, last = self._config, step == self._config.optimisation.steps
        if last or step % config.checkpoint_every == 0:
            self._fixed.add(step=step, loss=self._trainer.fixed_loss())
        if self._validation is not None and (last or step % self._validation.every == 0):
            for check in self._validation.run(self._trainer.translator(), step):
                self._checks.add(step=step, **asdict(check))
        if last or step % config.checkpoint_every == 0:
            self.draw()

    def draw(self) -> None:
        """Draw the figures so far."""
        checks = [line for line in self._checks.lines if line["flicker"] is not None]
        draw(self._config.directory / "loss.png", self._log.lines, self._fixed.lines, checks)
