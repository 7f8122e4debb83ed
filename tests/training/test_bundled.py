"""Training: both stages run, each changes its own weights, and stopping changes nothing."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from live2diff_core.cache import WholeClip
from live2diff_core.config import AttentionWindow, StepSelection, StreamConfig
from live2diff_core.errors import ConfigError
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.training import bundled
from live2diff_core.training.batches import Batch, BatchSampler
from live2diff_core.training.bundled import (
    STAGES,
    TOKEN_TABLE,
    Recipe,
    Stage,
    StageRecipe,
    Trainer,
    bundled_config,
    latent_scale,
    picture_loss,
)
from live2diff_core.training.prompts import make_tokenizer
from live2diff_core.weights.bundled import build, load_bundled
from tests.tiny import make_frames

FRAMES = 10
CPU = torch.device("cpu")
RECIPE = Recipe(
    seed=3,
    pictures=StageRecipe(2, 1, 2, ((32, 32),), learning_rate=1e-3),
    clips=StageRecipe(3, 1, FRAMES, ((32, 32),), learning_rate=1e-3, change_weight=2.0),
    together=StageRecipe(3, 1, FRAMES, ((32, 32),), learning_rate=1e-3, change_weight=0.3),
    refine=StageRecipe(2, 1, FRAMES, ((32, 32),), learning_rate=1e-3, change_weight=0.3),
    warmup_steps=2,
    checkpoint_every=1,
)
Weights = dict[str, Tensor]


@pytest.fixture(scope="module", autouse=True)
def _small(narrow) -> Iterator[None]:
    """Narrow networks, and a scale that no sample has to be drawn for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundled, "bundled_config", lambda: narrow)
        patch.setattr(
            bundled,
            "latent_scale",
            lambda parts, seed: torch.linspace(1, 0.1, parts.autoencoder.channels),
        )
        yield


def trainer_in(directory: Path, recipe: Recipe = RECIPE) -> Trainer:
    return Trainer(directory, recipe, CPU)


def weights(trainer: Trainer) -> Weights:
    """A copy of every weight."""
    return {key: value.clone() for key, value in trainer.modules.state_dict().items()}


def changed(before: Weights, after: Weights) -> set[str]:
    assert before.keys() == after.keys()
    return {key for key in before if not torch.equal(before[key], after[key])}


def is_temporal(key: str) -> bool:
    return key.startswith("unet.temporal_")


def network_outputs(trainer: Trainer) -> tuple[Tensor, Tensor]:
    """The same input with the temporal layers and without them."""
    unet, generator = trainer.parts.unet, torch.Generator().manual_seed(0)
    channels, first = trainer.parts.autoencoder.channels, unet.spatial.conv_in.out_channels
    x = torch.randn(FRAMES, channels, 4, 4, generator=generator)
    depth = torch.randn(FRAMES, first, 4, 4, generator=generator)
    timestep = torch.full((FRAMES,), 400)
    state = WholeClip(FRAMES, 1, AttentionWindow(), CPU)
    with torch.no_grad():
        text = trainer.parts.text.encode("ink").expand(FRAMES, -1, -1)
        return unet(x, timestep, text, depth, state), unet(x, timestep, text, depth, None)


class Trained:
    """One training run from beginning to end, with the weights between its stages."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.trainer = trainer_in(directory)
        self.weights = [weights(self.trainer)]
        self.outputs = [network_outputs(self.trainer)]
        self.losses: dict[Stage, list[tuple[int, float]]] = {}
        for stage in STAGES:
            self.losses[stage] = list(self.trainer.run(stage))
            self.weights.append(weights(self.trainer))
            self.outputs.append(network_outputs(self.trainer))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory.mktemp("runs") / "whole")


# ---- the stages


def test_all_stages_run_with_a_finite_loss(trained):
    assert [step for step, _ in trained.losses["pictures"]] == [0, 1]
    assert [step for step, _ in trained.losses["clips"]] == [0, 1, 2]
    assert [step for step, _ in trained.losses["together"]] == [0, 1, 2]
    assert [step for step, _ in trained.losses["refine"]] == [0, 1]
    losses = [loss for stage in STAGES for _, loss in trained.losses[stage]]
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)


def test_pictures_change_everything_but_the_temporal_layers(trained):
    moved = changed(trained.weights[0], trained.weights[1])
    assert not any(is_temporal(key) for key in moved)
    for prefix in ("unet.spatial.", "unet.depth_mapping.", "text."):
        assert any(key.startswith(prefix) for key in moved)


def test_clips_change_nothing_but_the_temporal_layers(trained):
    moved = changed(trained.weights[1], trained.weights[2])
    assert moved
    assert all(is_temporal(key) for key in moved)
    temporal = {key for key in trained.weights[1] if is_temporal(key)}
    assert {key for key in temporal if key.endswith("proj_out.weight")} <= moved
    assert {key for key in temporal if key.endswith("to_q.weight")} <= moved


def test_together_changes_every_part(trained):
    moved = changed(trained.weights[2], trained.weights[3])
    for prefix in ("unet.spatial.", "unet.depth_mapping.", "unet.temporal_up.", "text."):
        assert any(key.startswith(prefix) for key in moved)


def test_frame_by_frame_the_last_stage_leaves_the_temporal_layers(trained, tmp_path):
    trained.trainer.export(tmp_path / "model")
    alone = trainer_in(tmp_path / "alone", replace(RECIPE, frame_by_frame=True))
    alone.start_from(tmp_path / "model")
    before = weights(alone)
    assert len(list(alone.run("refine"))) == 2
    moved = changed(before, weights(alone))
    assert any(key.startswith("unet.spatial.") for key in moved)
    assert not any(is_temporal(key) for key in moved)


def test_a_finished_model_is_a_start_whose_words_keep_their_meaning(trained, tmp_path):
    trained.trainer.export(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    words["zebra"] = words.pop("neon")  # a model that knows another word in its place
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    fresh = trainer_in(tmp_path / "run")
    first = weights(fresh)
    fresh.start_from(tmp_path)
    now, finished = weights(fresh), trained.weights[-1]
    rows = fresh.parts.text.tokenizer.get_vocab()
    for key in now.keys() - {TOKEN_TABLE}:
        assert torch.equal(now[key], finished[key].half().float()), key
    assert torch.equal(now[TOKEN_TABLE][rows["neon"]], first[TOKEN_TABLE][rows["neon"]])
    ink = finished[TOKEN_TABLE][rows["ink"]].half().float()
    assert torch.equal(now[TOKEN_TABLE][rows["ink"]], ink)


def test_temporal_layers_are_silent_until_clips_are_trained(trained):
    for with_state, without in trained.outputs[:2]:
        assert torch.equal(with_state, without)
    assert not torch.equal(*trained.outputs[2])


def test_what_is_exported_is_loaded_again_and_translates(trained, tmp_path):
    trained.trainer.export(tmp_path / "model")
    model = load_bundled(tmp_path / "model")
    loaded = {f"unet.{key}": value for key, value in model.unet.state_dict().items()}
    for key, value in loaded.items():
        assert torch.equal(value, trained.weights[-1][key].half().float()), key
    assert torch.equal(model.autoencoder.scale, trained.weights[-1]["autoencoder.scale"].half())
    config = StreamConfig(32, 32, StepSelection(strength=0.6, steps=2))
    frames = list(translate(Session(model, config, "a neon sign"), make_frames(9, 32, 32)))
    assert len(frames) == 9
    assert all(frame.rgb.isfinite().all() for frame in frames)


def test_the_bundled_networks_train_too(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "bundled_config", bundled_config)
    recipe = replace(
        RECIPE, **{stage: replace(getattr(RECIPE, stage), steps=1) for stage in STAGES}
    )
    trainer = trainer_in(tmp_path, recipe)
    for stage in STAGES:
        ((step, loss),) = trainer.run(stage)
        assert step == 0
        assert math.isfinite(loss)


# ---- stopping and going on


@pytest.mark.parametrize(
    ("stage", "step"),
    [("pictures", 0), ("pictures", 1), ("clips", 1), ("together", 1), ("refine", 0)],
)
def test_stopped_and_resumed_equals_run_through_to_the_bit(trained, tmp_path, stage, step):
    stopped = trainer_in(tmp_path)
    for name in STAGES[: STAGES.index(stage) + 1]:
        for done, _ in stopped.run(name):
            if (name, done) == (stage, step):
                break
    resumed = trainer_in(tmp_path)
    losses = {name: list(resumed.run(name)) for name in STAGES}
    assert losses[stage] == trained.losses[stage][step:]
    assert losses["refine"] == trained.losses["refine"][-len(losses["refine"]) :]
    assert not changed(trained.weights[-1], weights(resumed))


def test_a_run_that_is_done_stays_as_it_is(trained):
    again = trainer_in(trained.directory)
    assert [list(again.run(stage)) for stage in STAGES] == [[]] * len(STAGES)
    assert not changed(trained.weights[-1], weights(again))


def test_another_seed_gives_another_model(trained, tmp_path):
    other = trainer_in(tmp_path, replace(RECIPE, seed=4))
    assert list(other.run("pictures")) != trained.losses["pictures"]


def test_a_checkpoint_of_another_recipe_is_refused(trained):
    other = trainer_in(trained.directory, replace(RECIPE, warmup_steps=9))
    with pytest.raises(ConfigError, match=r"checkpoint\.pt was made with another recipe"):
        next(other.run("pictures"))


def test_a_checkpoint_of_other_layers_is_refused(trained, tmp_path):
    state = torch.load(trained.directory / "checkpoint.pt", weights_only=True)
    state["ema"]["shadow_params"].pop()
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="layers had other parameters"):
        next(trainer_in(tmp_path).run(state["stage"]))


# ---- the loss


def clip(seed: int) -> Tensor:
    return torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("change_weight", [0.0, 2.0])
def test_the_loss_of_the_target_itself_is_zero(change_weight):
    assert picture_loss(clip(0), clip(0), change_weight) == 0


@pytest.mark.parametrize("change_weight", [0.0, 2.0, 10.0])
def test_an_even_error_costs_its_size_whatever_change_weighs(change_weight):
    loss = picture_loss(clip(0) + 0.1, clip(0), change_weight)
    assert loss.item() == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(("change_weight", "expected"), [(0.0, 0.1), (1.0, 0.4), (2.0, 0.7)])
def test_an_error_that_comes_and_goes_costs_more_as_change_weighs_more(change_weight, expected):
    flickering = clip(0)
    flickering[:, 1] += 0.3  # one frame of three; both changes about it are wrong by 0.3
    loss = picture_loss(flickering, clip(0), change_weight)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_wrong_edge_costs_more_than_an_even_error(axis):
    target, edged = torch.zeros(1, 1, 3, 8, 8), torch.zeros(1, 1, 3, 8, 8)
    edged.narrow(axis, 0, 4).fill_(0.2)  # half the picture, one edge in seven
    assert picture_loss(edged, target, 0).item() == pytest.approx(0.1 + 0.2 / 7, abs=1e-6)


def test_the_latent_scale_makes_every_channel_vary_by_one(narrow, monkeypatch):
    sample, seen = BatchSampler.sample, []

    def smaller(sampler: BatchSampler, *_: int) -> Batch:
        seen.append(sample(sampler, 4, 2, 32, 32))
        return seen[-1]

    monkeypatch.setattr(BatchSampler, "sample", smaller)
    parts = build(narrow, make_tokenizer())
    parts.autoencoder.scale.copy_(latent_scale(parts, 1))
    pictures = torch.cat([seen[0].source, seen[0].painted]).flatten(0, 1)
    spread = parts.autoencoder.encode(pictures).std((0, 2, 3))
    torch.testing.assert_close(spread, torch.ones_like(spread))
