"""Changes to a running stream: what is made, what is refused, what is answered."""

import json

import pytest
import torch

from live2diff_core.config import Guidance, StepSelection
from live2diff_core.live.controls import READERS, Answer, Controls
from live2diff_core.live.settings import Live
from live2diff_core.models.adapters import Adapter, AdapterUse
from live2diff_core.models.text import blend
from live2diff_core.stream.session import Session
from tests.live.fakes import FakeSession
from tests.tiny import make_frames, open_session, stream_config, tiny_model

NEXT = 40


def asked(changes, session=None, controls=None) -> tuple[Answer, FakeSession, Controls]:
    session = session or Listening()
    controls = controls or Controls(Live())
    return controls.apply(changes, session, NEXT), session, controls


class Listening(FakeSession):
    """Only listens to what it is asked for."""

    model = tiny_model()


def test_settings_of_the_stream_take_effect_now():
    changes = {"rate": 15, "similarity": 0.9, "pause": True, "freeze": True, "passthrough": True}
    answer, session, controls = asked(changes | {"panic": True, "reset": True})
    assert answer == Answer(NEXT, dict.fromkeys([*changes, "panic", "reset"], "now"), {})
    assert controls.live == Live(15, 0.9, True, True, True, True)
    assert session.calls == []


def test_no_rate_is_as_fast_as_it_goes():
    answer, _, controls = asked({"rate": None}, controls=Controls(Live(rate=5)))
    assert answer.effects == {"rate": "now"}
    assert controls.live.rate is None


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({"prompt": "neon"}, {"prompt": "neon"}),
        ({"seed": 7}, {"seed": 7}),
        ({"strength": 0.5}, {"steps": StepSelection(strength=0.5, steps=2)}),
        ({"steps": 3}, {"steps": StepSelection(strength=0.8, steps=3)}),
        ({"strength": 0.4, "steps": 1}, {"steps": StepSelection(strength=0.4, steps=1)}),
        ({"model": tiny_model()}, {"model": tiny_model()}),
    ],
)
def test_settings_of_the_session_are_asked_of_it(changes, parameters):
    answer, session, _ = asked(changes)
    assert answer == Answer(NEXT + 2, dict.fromkeys(changes, "re-prime"), {})
    assert session.of("begin_update") == [parameters]


def test_a_blend_is_the_embedding_between():
    answer, session, _ = asked({"prompt": "ink", "blend": "neon", "blend_weight": 0.25})
    (parameters,) = session.of("begin_update")
    text = tiny_model().text
    expected = blend(text.encode("ink"), text.encode("neon"), 0.25)
    assert torch.equal(parameters["prompt"], expected)
    assert set(answer.effects) == {"prompt", "blend", "blend_weight"}


def test_a_blend_goes_on_from_what_was_asked_before():
    _, session, controls = asked({"prompt": "ink", "blend": "neon", "blend_weight": 0.0})
    asked({"blend_weight": 1.0}, session, controls)
    asked({"blend": ""}, session, controls)
    weighted, plain = session.of("begin_update")[1:]
    torch.testing.assert_close(weighted["prompt"], tiny_model().text.encode("neon"))
    assert plain == {"prompt": "ink"}


def test_strength_and_steps_go_on_from_what_was_asked_before():
    _, session, controls = asked({"strength": 0.5})
    asked({"steps": 4}, session, controls)
    assert session.of("begin_update")[1] == {"steps": StepSelection(strength=0.5, steps=4)}


def test_a_negative_prompt_keeps_the_rest_of_the_guidance():
    session = Listening()
    session.config = stream_config(guidance=Guidance("full", 3.0, "ink"))
    asked({"negative": "neon"}, session)
    assert session.of("begin_update") == [{"guidance": Guidance("full", 3.0, "neon")}]


REFUSED = {
    "unknown": ({"prompts": "ink"}, "prompt, blend"),
    "no text": ({"prompt": 3}, "text"),
    "no style": ({"prompt": "oil painting"}, "names no style"),
    "no second style": ({"prompt": "ink", "blend": "oil"}, "names no style"),
    "weight": ({"prompt": "ink", "blend": "neon", "blend_weight": 2.0}, "blend_weight"),
    "blend of nothing": ({"blend": "neon"}, "send prompt"),
    "strength": ({"strength": 1.5}, "strength"),
    "too little strength": ({"strength": 0.02}, "timesteps"),
    "infinite": ({"strength": float("inf")}, "number"),
    "steps": ({"steps": 9}, "1 to 8"),
    "half a step": ({"steps": 1.5}, "whole"),
    "seed": ({"seed": "x"}, "whole"),
    "negative seed": ({"seed": -1}, "seed"),
    "negative": ({"negative": "ink"}, "full"),
    "no model": ({"model": "sd15"}, "variant"),
    "rate": ({"rate": 0}, "rate"),
    "similarity": ({"similarity": 7}, "similarity"),
    "true is no number": ({"rate": True}, "number"),
    "one is not true": ({"pause": 1}, "true or false"),
    "reset": ({"reset": "yes"}, "true or false"),
}


@pytest.fixture
def running() -> Session:
    session = open_session()
    session.warmup(make_frames(8))
    return session


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_be_is_refused_by_name_and_changes_nothing(running, case):
    changes, reason = REFUSED[case]
    controls = Controls(Live())
    bad = list(changes)[-1]
    before, prompt = running.config, {"prompt", "blend", "blend_weight"}
    answer = controls.apply(changes, running, NEXT)
    assert reason in answer.refused[bad]
    assert set(answer.refused) | set(answer.effects) == set(changes)
    assert set(answer.effects) <= prompt
    assert running.config == before
    assert controls.live == Live()


def test_good_changes_are_made_beside_bad_ones(running):
    changes = {"prompt": "oil painting", "seed": 3, "pause": True, "rate": "fast"}
    answer = Controls(Live()).apply(changes, running, NEXT)
    assert answer.effects == {"seed": "re-prime", "pause": "now"}
    assert set(answer.refused) == {"prompt", "rate"}
    assert answer.frame == NEXT + running.spec.latency_frames + 1
    assert running.config.seed == 3


def test_with_nothing_changed_there_is_no_frame(running):
    assert Controls(Live()).apply({"prompt": 3}, running, NEXT).frame is None
    assert Controls(Live()).apply({}, running, NEXT) == Answer(None, {}, {})
    assert Controls(Live()).apply({"reset": False}, running, NEXT) == Answer(None, {}, {})


def test_a_model_of_another_kind_is_refused(running):
    other = open_session().model
    stranger = type(other)(**{name: getattr(other, name) for name in other.__slots__})
    answer = Controls(Live()).apply({"model": stranger, "seed": 3}, running, NEXT)
    assert "variants of its own model" in answer.refused["model"]
    assert running.config.seed == 0


def test_a_variant_of_the_model_is_taken(running):
    variant = tiny_model().with_adapters([AdapterUse(Adapter("none", {}, {}), 0.5, 0.5)])
    answer = Controls(Live()).apply({"model": variant}, running, NEXT)
    assert answer.effects == {"model": "re-prime"}
    assert running.model is variant


def test_without_a_session_the_stream_itself_can_be_steered():
    controls = Controls(Live())
    answer = controls.apply({"panic": True, "prompt": "ink", "reset": True}, None, NEXT)
    assert answer.effects == {"panic": "now"}
    assert set(answer.refused) == {"prompt", "reset"}
    assert answer.frame == NEXT
    assert controls.live.panic


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError("full")])
def test_a_change_that_there_is_no_room_for_is_refused(error):
    session = Listening()
    session.breaks.append(error)
    answer, _, controls = asked({"prompt": "ink"}, session)
    assert answer.refused == {"prompt": f"{type(error).__name__}: full"}
    assert asked({"seed": 3}, session, controls)[0].refused == {}


def test_a_session_that_fails_is_heard():
    session = Listening()
    session.breaks.append(RuntimeError("the device is gone"))
    with pytest.raises(RuntimeError, match="the device is gone"):
        asked({"seed": 3}, session)


def test_a_new_session_gets_all_that_was_asked_for():
    _, _, controls = asked({"prompt": "neon", "strength": 0.5})
    asked({"seed": 5, "steps": 3}, controls=controls)
    asked({"prompt": "oil painting"}, controls=controls)
    session = Listening()
    controls.bring(session)
    steps = StepSelection(strength=0.5, steps=3)
    assert session.calls == [("update", {"prompt": "neon", "steps": steps, "seed": 5})]


def test_a_new_session_is_left_alone_where_nothing_was_asked_for():
    session = Listening()
    Controls(Live()).bring(session)
    assert session.calls == []


def test_what_came_to_nothing_is_not_asked_again():
    _, _, controls = asked({"seed": 5})
    controls.settle()
    asked({"seed": 6, "prompt": "ink"}, controls=controls)
    controls.revert()
    session = Listening()
    controls.bring(session)
    assert session.of("update") == [{"seed": 5}]


def test_an_answer_is_json():
    answer = Answer(4, {"seed": "re-prime"}, {"rate": "expected a number"})
    assert json.loads(json.dumps(answer.as_dict())) == {
        "frame": 4,
        "effects": {"seed": "re-prime"},
        "refused": {"rate": "expected a number"},
    }


def test_every_name_is_listed_where_one_is_unknown():
    answer, _, _ = asked({"colour": 3})
    names = READERS.keys() - {"model"} | {"lora_strength"}  # which clients say instead
    assert all(name in answer.refused["colour"] for name in names)
    assert "model" not in answer.refused["colour"]
