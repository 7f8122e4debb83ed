"""Training of motion weights: what changes and what does not, stopping and going on, files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from live2diff_core.config import NoiseScheduleConfig
from live2diff_core.errors import ConfigError
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.training import motion
from live2diff_core.training.config import NoisePart, TrainConfig
from live2diff_core.training.motion import MOTION, RUN, Noising
from live2diff_core.training.motion_file import beside
from live2diff_core.training.start import model_spec
from live2diff_core.weights.model import load_model
from tests.tiny import distance, make_frames, stream_config
from tests.training.runs import (
    HEIGHT,
    PROMPTS,
    WIDTH,
    Noise,
    copies,
    longer,
    make_trainer,
    settings,
    train,
    write_models,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def config(models, tmp_path) -> TrainConfig:
    return settings(models, tmp_path / "run")


def checkpoint(config: TrainConfig, step: int) -> Path:
    return config.directory / "checkpoints" / f"step-{step:07d}"


def streamed(model) -> list:
    stream = replace(stream_config(2, seed=1), width=WIDTH, height=HEIGHT)
    with Session(model, stream, PROMPTS[0]) as session:
        return list(translate(session, make_frames(19, WIDTH, HEIGHT)))


# ---- what is trained


def test_every_temporal_and_depth_tensor_changes_and_nothing_else_to_the_bit(config):
    trainer = make_trainer(config)
    model = trainer.model
    frozen = (model.unet.spatial, model.text.model, model.autoencoder)
    before, trained = [copies(part) for part in frozen], copies(beside(model.unet))
    assert len(list(trainer.run())) == 4
    for part, old in zip(frozen, before, strict=True):
        new = part.state_dict()
        assert all(torch.equal(new[key], tensor) for key, tensor in old.items())
    new = beside(model.unet).state_dict()
    assert {key for key, old in trained.items() if torch.equal(new[key], old)} == set()


def test_a_silent_start_changes_nothing_of_the_base(config):
    trainer = make_trainer(config)
    inputs = trainer.inputs(motion.Batch.of([(Noise().draw(1), 2), (Noise().draw(2), 5)]))
    # In float64: groups of the small network's norms have four numbers, which blow up rounding.
    unet, rows = trainer.model.unet.double(), len(inputs.x)
    x, text, depth = (part.double() for part in (inputs.x, inputs.text, inputs.depth))
    with torch.no_grad():
        clip = motion.WholeClipPass(unet, motion.AttentionWindow())
        ours = clip(x, inputs.timestep, text, depth)
        timestep = inputs.timestep.repeat_interleave(rows // 2)
        theirs = unet(x, timestep, text.repeat_interleave(rows // 2, 0), torch.zeros(()), None)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_the_loss_falls_from_silent_layers(config):
    trainer = make_trainer(
        replace(longer(config, 30), checkpoint_every=100, noise=NoisePart(0.0, (200, 900)))
    )
    silent = trainer.fixed_loss()
    assert trainer.fixed_loss() == silent  # it always asks the same
    list(trainer.run())
    assert trainer.fixed_loss() < 0.95 * silent


def test_recomputed_activations_give_the_same_run(config, tmp_path):
    plain = train(config)
    again = replace(
        config,
        directory=tmp_path / "again",
        optimisation=replace(config.optimisation, recompute=True),
    )
    assert train(again) == plain


def test_two_passes_of_one_clip_are_one_pass_of_two(config, tmp_path):
    both = train(replace(config, optimisation=replace(config.optimisation, batch=2)))
    split = replace(config.optimisation, accumulation=2)
    turns = train(replace(config, directory=tmp_path / "turns", optimisation=split))
    for one, other in zip(both, turns, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert one.norm == pytest.approx(other.norm, rel=1e-2)


def test_the_learning_rate_rises_over_the_warmup(config):
    rates = [progress.rate for progress in train(config)]
    assert rates == pytest.approx([0.5e-3, 1e-3, 1e-3, 1e-3])


def test_sixteen_bits_train_float32_weights_beside_a_network_in_bfloat16(config):
    part = replace(config.optimisation, precision="bf16")
    trainer = make_trainer(replace(config, optimisation=part))
    unet = trainer.model.unet
    losses = [progress.loss for progress in trainer.run()]
    assert all(0 < loss < 10 for loss in losses)
    assert unet.spatial.dtype == torch.bfloat16
    assert {p.dtype for p in beside(unet).parameters()} == {torch.float32}
    translator = trainer.translator()
    assert {p.dtype for p in translator.unet.parameters()} == {torch.bfloat16}
    assert len(streamed(translator)) == 19
    assert {p.dtype for p in beside(unet).parameters()} == {torch.float32}


def test_a_precision_that_the_device_lacks_is_refused(config):
    part = replace(config.optimisation, precision="fp16")
    with pytest.raises(ConfigError, match=r"optimisation\.precision fp16"):
        make_trainer(replace(config, optimisation=part))


# ---- timesteps, noise, targets


def noising(prediction: str = "epsilon", **noise) -> Noising:
    return Noising(NoiseScheduleConfig(prediction=prediction), NoisePart(**noise), CPU)


LATENT = torch.randn(5, 4, 2, 3, generator=torch.Generator().manual_seed(7))


def test_noise_is_fresh_for_every_frame_or_one_field_for_the_clip():
    x, fresh, timestep = noising(fixed_share=0.0).draw(1, LATENT)
    assert len({float(frame.sum()) for frame in fresh}) == len(LATENT)
    assert timestep.shape == (1,)
    _, fixed, _ = noising(fixed_share=1.0).draw(1, LATENT)
    assert all(torch.equal(frame, fixed[0]) for frame in fixed)
    assert not torch.equal(x, LATENT)


def test_about_the_asked_share_of_clips_has_fixed_noise():
    draws = [noising(fixed_share=0.3).draw(seed, LATENT)[1] for seed in range(300)]
    share = sum(torch.equal(noise[0], noise[1]) for noise in draws) / len(draws)
    assert 0.2 < share < 0.4


def test_timesteps_fill_their_range_and_nothing_beyond():
    drawn = {int(noising(timesteps=(3, 6)).draw(s, LATENT)[2]) for s in range(60)}
    assert drawn == {3, 4, 5}


@pytest.mark.parametrize("timestep", [20, 999])
def test_x_and_the_targets_are_those_of_the_definition(timestep):
    """alpha_bar from its definition: betas that rise evenly, products of 1 - beta."""
    betas = [0.00085 + (0.012 - 0.00085) * i / 999 for i in range(timestep + 1)]
    alpha_bar = 1.0
    for beta in betas:
        alpha_bar *= 1 - beta
    a, b = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    given = {"timesteps": (timestep, timestep + 1)}
    x, noise, _ = noising("epsilon", **given).draw(4, LATENT)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(x, a * LATENT + b * noise, **close)
    x_v, v, _ = noising("v_prediction", **given).draw(4, LATENT)
    torch.testing.assert_close(v, a * noise - b * LATENT, **close)
    x_s, x0, _ = noising("sample", **given).draw(4, LATENT)
    assert torch.equal(x0, LATENT) and torch.equal(x, x_v) and torch.equal(x, x_s)


# ---- stopping and going on


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


def test_a_stopped_run_goes_on_to_the_bit(config, tmp_path):
    whole = make_trainer(config)
    losses = list(whole.run())
    halves = replace(config, directory=tmp_path / "halves")
    first = make_trainer(halves).run()
    begun = [next(first) for _ in range(3)]  # a checkpoint after 2, then stopped after 3
    first.close()
    clips = Noise()
    second = make_trainer(halves, clips)
    assert second.first == 2
    rest = list(second.run())
    assert len(clips.drawn) == 2  # none is drawn that was trained on
    assert begun[:2] + rest == losses
    assert begun[2] == losses[2]
    assert same(copies(beside(second.model.unet)), copies(beside(whole.model.unet)))


def test_a_finished_run_has_nothing_left_to_do_and_can_be_made_longer(config, tmp_path):
    train(config)
    assert train(config) == []
    longest = replace(longer(config, 6), directory=tmp_path / "whole")
    assert train(longer(config, 6)) == train(longest)[4:]


def test_a_checkpoint_that_is_interrupted_leaves_the_one_before(config, monkeypatch):
    trainer, save = make_trainer(config), Accelerator.save_state
    steps = trainer.run()
    next(steps), next(steps)

    def interrupted(accelerator: Accelerator, folder: str) -> None:
        save(accelerator, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(Accelerator, "save_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(steps)
    monkeypatch.undo()
    assert not checkpoint(config, 4).exists()
    again = make_trainer(config)
    assert again.first == 2
    assert [progress.step for progress in again.run()] == [2, 3]
    assert sorted(f.name for f in checkpoint(config, 4).parent.iterdir()) == [
        "step-0000002",
        "step-0000004",
    ]


def test_older_checkpoints_keep_their_motion_weights_alone(config):
    train(config)
    assert [file.name for file in checkpoint(config, 2).iterdir()] == [MOTION]
    newest = {file.name for file in checkpoint(config, 4).iterdir()}
    assert {MOTION, RUN, "optimizer.bin"} <= newest
    assert json.loads((checkpoint(config, 4) / RUN).read_text())["step"] == 4


def test_other_settings_do_not_go_on_from_a_run(config):
    train(config)
    with pytest.raises(ConfigError, match=r"other settings: seed 3 \(now 4\)"):
        make_trainer(replace(config, seed=4))


def test_a_loss_that_is_no_number_stops_the_run(config, monkeypatch):
    trainer = make_trainer(config)
    monkeypatch.setattr(motion, "_error", lambda network, inputs: _nan(network, inputs))
    with pytest.raises(ConfigError, match="step 0: the loss is no number"):
        list(trainer.run())
    assert not checkpoint(config, 2).exists()


def _nan(network, inputs) -> Tensor:
    return network(inputs.x, inputs.timestep, inputs.text, inputs.depth).sum() * float("nan")


# ---- what comes of it


def test_a_checkpoint_loads_as_live2diffs_motion_weights_and_streams_as_the_trainer_does(config):
    trainer = make_trainer(config)
    list(trainer.run())
    spec = replace(model_spec(config), motion=str(checkpoint(config, 4) / MOTION))
    loaded = load_model(spec)
    ours, theirs = streamed(trainer.translator()), streamed(loaded)
    assert distance(ours, theirs) < 1e-5
    earlier = load_model(replace(spec, motion=str(checkpoint(config, 2) / MOTION)))
    assert distance(streamed(earlier), theirs) > 1e-4


def test_a_run_can_start_from_the_motion_weights_of_another(config, tmp_path):
    finished = make_trainer(config)
    list(finished.run())
    part = replace(config.model, motion=str(checkpoint(config, 4) / MOTION))
    started = make_trainer(replace(config, model=part, directory=tmp_path / "next"))
    assert started.first == 0
    assert same(copies(beside(started.model.unet)), copies(beside(finished.model.unet)))


def test_captions_of_other_lengths_go_together(config, tmp_path):
    trainer = make_trainer(config)
    long = " ".join(["a very long street"] * 30)  # of two chunks
    footage = [(replace(Noise().draw(1), prompt=prompt), 0) for prompt in ("a cat", long)]
    text = trainer.inputs(motion.Batch.of(footage)).text
    assert text.shape[:2] == (2, 154)
    assert torch.equal(text[0, :77], trainer.model.text.encode("a cat")[0])
