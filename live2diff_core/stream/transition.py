"""What an update changes, and the way from one plan to the next while frames go on."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from ..config import Guidance, StepSelection
from ..errors import ConfigError
from ..models.translator import TranslationModel
from .denoise import Prefilling
from .pipeline import NetworkInput, Pipeline
from .plan import Plan, make_plan, prepare, read_condition
from .spec import Effect

PARAMETERS: dict[str, Effect] = {
    "prompt": "re-prime",
    "strength": "re-prime",
    "steps": "re-prime",
    "seed": "re-prime",
    "guidance": "re-prime",
    "model": "re-prime",
    "noise": "reopen",
    "size": "reopen",
    "window": "reopen",
}


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What an update asks for; None leaves as it is. strength keeps the number of steps."""

    prompt: str | Tensor | None = None
    strength: float | None = None
    steps: StepSelection | None = None
    seed: int | None = None
    guidance: Guidance | None = None
    model: TranslationModel | None = None

    def applied_to(self, plan: Plan) -> Plan:
        """The plan after the change. Raises ConfigError or PromptError."""
        config = replace(
            plan.config,
            steps=self._steps(plan),
            seed=plan.config.seed if self.seed is None else self.seed,
            guidance=self.guidance or plan.config.guidance,
        )
        model = self.model or plan.model
        if not model.is_variant_of(plan.model):
            raise ConfigError(
                f"a running session changes to variants of its own model ({plan.model.name}, "
                f"with_adapters); open a new one for {model.name}"
            )
        return make_plan(model, config, plan.prompt if self.prompt is None else self.prompt)

    def _steps(self, plan: Plan) -> StepSelection:
        if self.strength is None:
            return self.steps or plan.config.steps
        if self.steps is not None:
            raise ConfigError("give strength or steps, not both")
        return StepSelection(
            strength=self.strength,
            steps=plan.schedule.steps,
            inference_steps=plan.config.steps.inference_steps,
        )


def steered(plan: Plan, prompt: str | Tensor) -> Plan:
    """The plan with another prompt and all else as it is. Raises PromptError or ConfigError."""
    known = plan.condition.negative
    condition = read_condition(plan.model, plan.config.guidance, prompt, known)
    condition = prepare(condition, plan.model, plan.schedule)
    return replace(plan, condition=condition, prompt=prompt)


@dataclass(slots=True, eq=False)
class Transition:
    """A pipeline on its way to take over; the one before gets every frame until it does.

    First each frame brings one call of the prefill; after the last one, each frame goes into both
    pipelines, until all that the former still owes has come out. Giving up at any time loses
    nothing. waiting: pictures (3, h, w) of a shorter pipeline that may not overtake the former's.
    """

    pipeline: Pipeline
    prefilling: Prefilling
    waiting: list[Tensor] = field(default_factory=list)

    def advance(self, entry: NetworkInput) -> Tensor | None:
        """One network call with a frame that the former pipeline has had; x0 of a frame that is
        finished.
        """
        if self.primed:
            return self.pipeline.step(entry)
        plan = self.pipeline.plan
        self.prefilling.advance(plan.model.unet, plan.condition)
        return None

    @property
    def begun(self) -> bool:
        """Whether there is work that would be done again."""
        return len(self.prefilling.trail) > 1

    def frames_left(self, in_flight: int, most: int) -> int:
        """Frames that it still takes, where so many are in flight in the former pipeline now, and
        at most `most` after any frame.
        """
        calls = self.pipeline.calls
        steps = self.pipeline.plan.schedule.steps
        prefill = steps + 1 - len(self.prefilling.trail)
        has_all = in_flight <= calls - prefill  # and will have all that follow
        return max(1, prefill, 0 if has_all else most - calls + prefill)

    @property
    def primed(self) -> bool:
        """Whether frames go into both pipelines."""
        return self.prefilling.done

    def holds_all(self, in_flight: int) -> bool:
        """Whether the latest `in_flight` frames are all in the new pipeline."""
        return self.primed and in_flight <= self.pipeline.calls
