"""The reference's code beside ours: what is imported, renamed, bridged, and put back again.

The last test runs the real one, where LIVE2DIFF_REFERENCE names a checkout of open-mmlab/Live2Diff.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from live2diff_core.config import (
    AttentionWindow,
    Guidance,
    NoiseScheduleConfig,
    StepSelection,
    StreamConfig,
)
from live2diff_core.errors import ConfigError, FrameSizeError
from live2diff_core.metrics.parity import Recording
from live2diff_core.metrics.reference import (
    UNTIMED,
    Feed,
    alternate,
    beside,
    growth,
    largest_difference,
    start,
)
from live2diff_core.metrics.reference_code import LOADERS, PARTS, Bridge, import_reference, quiet
from live2diff_core.metrics.reference_stream import build, to_live2diff
from live2diff_core.models.depth import StructureMap
from live2diff_core.models.translator import ModelDefaults, TranslationModel
from live2diff_core.models.unet import MotionConfig, StreamingUNet
from live2diff_core.stream.denoise import NewFrame, WarmupFrames
from live2diff_core.weights.load import from_live2diff
from tests.golden import GOLDEN
from tests.tiny import tiny_model

SHAPES = Path(__file__).parent.parent / "data" / "reference_shapes.json"
CHECKOUT = os.environ.get("LIVE2DIFF_REFERENCE")
NO_CHECKOUT = "LIVE2DIFF_REFERENCE names no checkout of open-mmlab/Live2Diff"
CPU = torch.device("cpu")
STEPS = StepSelection(t_index=(20, 35))
CONFIG = StreamConfig(128, 128, STEPS)


class NoAutoencoder:
    """Latents are given; nothing is encoded."""

    factor, channels, alive = 8, 4, 1


@pytest.fixture(scope="module")
def model() -> TranslationModel:
    """The recorded network, which has the form of Stable Diffusion 1.5."""
    unet = Recording(GOLDEN).network()
    defaults, schedule = ModelDefaults(128, 128, STEPS), NoiseScheduleConfig()
    return TranslationModel(
        "recorded", unet, NoAutoencoder(), StructureMap(), None, schedule, defaults
    )


# ---- names


def test_the_full_size_network_is_renamed_to_exactly_the_references_keys():
    stored = json.loads(SHAPES.read_text(encoding="utf-8"))
    expected = {
        key: tuple(shape)
        for key, shape in (stored["sd15"] | stored["live2diff"]).items()
        if not key.endswith(".pos_encoder.pe")
    }
    with torch.device("meta"):
        unet = StreamingUNet(UNet2DConditionModel(cross_attention_dim=768), MotionConfig())
    assert {key: tuple(t.shape) for key, t in to_live2diff(unet).items()} == expected


def test_renaming_back_and_forth_is_the_network_itself(model):
    own = model.unet.state_dict()
    again = from_live2diff(to_live2diff(model.unet))
    assert again.keys() == own.keys()
    assert all(again[key].data_ptr() == own[key].data_ptr() for key in own)


# ---- its networks


def tree(weights: Mapping[str, Tensor]) -> nn.Module:
    """A module with parameters of these names and shapes."""
    root = nn.Module()
    for key, tensor in weights.items():
        *path, name = key.split(".")
        place = root
        for part in path:
            if part not in dict(place.named_children()):
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.register_parameter(name, nn.Parameter(torch.empty(tensor.shape)))
    return root


def test_its_network_shares_the_weights_and_leaves_ours_where_they_are(model):
    given = {}

    def network(block_out_channels: object, mid_block_type: str, cond_mapping: bool) -> nn.Module:
        given.update(blocks=block_out_channels, mid=mid_block_type, depth=cond_mapping)
        return tree(to_live2diff(model.unet))

    theirs = build(network, model, streaming=True)
    assert given == {
        "blocks": model.unet.spatial.config.block_out_channels,
        "mid": "UNetMidBlock3DCrossAttn",
        "depth": True,
    }
    ours = model.unet.spatial.conv_in.weight
    assert theirs.conv_in.weight.data_ptr() == ours.data_ptr()
    theirs.to("meta")
    assert theirs.conv_in.weight.is_meta
    assert not ours.is_meta


@pytest.mark.parametrize("without", [True, False])
def test_a_network_of_another_form_is_refused(model, without):
    weights = to_live2diff(model.unet)
    if without:
        del weights["conv_in.bias"]
    else:
        weights["conv_in.bias"] = torch.empty(7)
    with pytest.raises(ConfigError, match=r"cannot run recorded: 1 weights .*conv_in\.bias"):
        build(lambda sample_size: tree(weights), model, streaming=False)


# ---- what it cannot take


def changed_motion(model: TranslationModel, **values: object) -> TranslationModel:
    unet = Recording(GOLDEN).network()
    unet.motion = replace(unet.motion, **values)
    return replace(model, unet=unet)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": StepSelection(t_index=(20,))}, "2 denoising steps or more"),
        ({"steps": StepSelection(t_index=(20, 35), inference_steps=60)}, "at most 50 inference"),
        ({"window": AttentionWindow(8, 4)}, "8 sinks and a ring of 8"),
        ({"guidance": Guidance("self", 1.5)}, "no guidance, not 'self'"),
    ],
)
def test_settings_that_it_cannot_run_are_refused(model, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        beside(model, tmp_path, replace(CONFIG, **settings), 4)


def test_models_that_it_cannot_run_are_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="latents of 4 channels, not 12"):
        beside(tiny_model(), tmp_path, StreamConfig(24, 16, STEPS), 4)
    groups = replace(model.unet.motion.temporal, norm_groups=16)
    with pytest.raises(ConfigError, match=r"32 groups .*, not 16"):
        beside(changed_motion(model, temporal=groups), tmp_path, CONFIG, 4)
    with pytest.raises(ConfigError, match=r"depth mapping of widths .*, not \(8, 16\)"):
        beside(changed_motion(model, depth_widths=(8, 16)), tmp_path, CONFIG, 4)
    other = replace(model, schedule=NoiseScheduleConfig(prediction="sample"))
    with pytest.raises(ConfigError, match="predict noise, not sample"):
        beside(other, tmp_path, CONFIG, 4)


def test_a_size_that_its_network_cannot_halve_is_refused(model, tmp_path):
    with pytest.raises(FrameSizeError, match="multiples of 64 pixels, got 128x72"):
        beside(model, tmp_path, StreamConfig(128, 72, STEPS), 4)


def test_fewer_frames_than_steps_are_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="2 measured frames or more, got 1"):
        beside(model, tmp_path, CONFIG, 1)


# ---- the checkout


def write_checkout(folder: Path, changes: Mapping[str, str] | None = None) -> Path:
    """Modules with the classes and methods that are looked for, and loaders that must not run."""
    for name, (module, kind, methods) in PARTS.items():
        body = "".join(f"    def {method}(self): pass\n" for method in methods)
        text = f"print('hello')\nclass {kind}:\n{body}"
        if name == "stream":
            text = f"from .animatediff.pipeline import AnimationDepthPipeline\n{text}"
        file = folder.joinpath(*module.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((changes or {}).get(name, text))
    loaders = folder.joinpath(*LOADERS.split("."))
    loaders.mkdir()
    (loaders / "__init__.py").write_text("raise RuntimeError('the loaders ran')\n")
    return folder


@dataclass
class Surroundings:
    """What an import must leave as it was."""

    path: list[str] = field(default_factory=lambda: list(sys.path))
    bytecode: bool = field(default_factory=lambda: sys.dont_write_bytecode)
    theirs: dict[str, ModuleType] = field(
        default_factory=lambda: {
            name: module
            for name, module in sys.modules.items()
            if name.partition(".")[0] == "live2diff"
        }
    )


def test_its_classes_are_found_without_its_loaders_and_nothing_stays_behind(tmp_path, capsys):
    checkout, before = write_checkout(tmp_path), Surroundings()
    code = import_reference(checkout)
    assert code.stream.__name__ == "StreamAnimateDiffusionDepth"
    assert code.streaming.__name__ == "UNet3DConditionStreamingModel"
    assert code.warmup.__name__ == "UNet3DConditionWarmupModel"
    assert Surroundings() == before
    assert not list(checkout.rglob("__pycache__"))
    assert capsys.readouterr() == ("", "")


def test_a_module_of_the_same_name_is_kept(tmp_path, monkeypatch):
    own = ModuleType("live2diff")
    monkeypatch.setitem(sys.modules, "live2diff", own)
    import_reference(write_checkout(tmp_path))
    assert sys.modules["live2diff"] is own


def test_a_folder_that_is_no_checkout_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match=r"no checkout .* no live2diff/pipeline_stream\w*\.py"):
        beside(model, tmp_path, CONFIG, 4)
    with pytest.raises(ConfigError, match="no checkout"):
        import_reference(tmp_path / "not there")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_library\n", "cannot be imported here: No module named 'no_such_library'"),
        ("import torch\ntorch.no_such_name\n", "cannot be imported here: .*no_such_name"),
        ("class UNet3DConditionWarmupModel:\n    pass\n", r"lacks \w+Model\.set_info_for_attn"),
        ("", "lacks UNet3DConditionWarmupModel$"),
    ],
)
def test_another_version_is_refused_and_nothing_stays_behind(tmp_path, text, message):
    checkout, before = write_checkout(tmp_path, {"warmup": text}), Surroundings()
    with pytest.raises(ConfigError, match=message):
        import_reference(checkout)
    assert Surroundings() == before


# ---- the bridge


def test_within_the_bridge_its_device_is_ours_and_its_chance_is_given():
    wanted, like = torch.arange(4.0), torch.zeros(1, 2, 2)
    layer = nn.Linear(2, 2)
    with Bridge(CPU, [wanted]):
        assert torch.arange(3).cuda().device == CPU
        assert layer.to(device="cuda", dtype=torch.float64).weight.device == CPU
        assert torch.equal(torch.randn_like(like), wanted.view(1, 2, 2))
    assert layer.weight.dtype == torch.float64
    assert not torch.equal(torch.randn_like(like), wanted.view(1, 2, 2))


def test_what_it_says_is_kept_out_and_then_heard_again(capsys, caplog):
    with quiet():
        sys.stdout.write("unheard\n")
        logging.getLogger("diffusers.x").warning("unheard")
    sys.stdout.write("heard\n")
    logging.getLogger("other").warning("heard")
    assert capsys.readouterr().out == "heard\n"
    assert caplog.messages == ["heard"]


# ---- the comparison


class Counter:
    """Gives a result for the number of its calls; keeps an account of whose turn it is."""

    def __init__(self, name: str, turns: list[str], result: Callable[[int], float]) -> None:
        self.name, self.turns, self.result, self.calls = name, turns, result, 0

    def warm_up(self, frames: WarmupFrames) -> None:
        self.turns.append(f"{self.name} warms up")

    def step(self, frame: NewFrame) -> Tensor:
        self.turns.append(self.name)
        self.calls += 1
        return torch.tensor([self.result(self.calls - 1)])


def compared(
    model: TranslationModel, theirs: Callable[[int], float], ours: Callable[[int], float]
) -> tuple[dict[str, object], list[str], list[int]]:
    feed, turns, told = Feed(model, CONFIG), [], []
    warmup, first = feed.warmup(), [feed.frame() for _ in range(UNTIMED)]
    started = [
        start(lambda n=n, r=r: Counter(n, turns, r), warmup, first, CPU)
        for n, r in (("theirs", theirs), ("ours", ours))
    ]
    figures = alternate(*started, (feed.frame() for _ in range(3)), 2, told.append)
    return figures, turns, told


def test_frames_are_pushed_in_turn_and_compared_from_the_first_whole_one(model):
    differs = {0: 100.0, 1: 0.25, 3: 0.5}  # frame 0 leaves before the first is whole
    figures, turns, told = compared(model, lambda i: i + differs.get(i, 0.0), float)
    assert turns == [
        *("theirs warms up", *["theirs"] * UNTIMED),
        *("ours warms up", *["ours"] * UNTIMED),
        *["theirs", "ours"] * 3,
    ]
    assert told == [1, 2, 3]
    assert figures["largest_difference"] == 0.5
    assert figures["ratio"] == figures["reference"]["p50_ms"] / figures["ours"]["p50_ms"]
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.parametrize("spoiled", [float("nan"), float("inf")])
def test_a_difference_that_is_not_finite_is_told_as_none(model, spoiled):
    figures, _, _ = compared(model, float, lambda i: spoiled if i == 2 else float(i))
    assert figures["largest_difference"] is None


def test_frames_that_one_side_did_not_give_are_left_out():
    one, two = torch.ones(1), torch.full((1,), 3.0)
    assert largest_difference([(one, None), (one, two)]) == 2


def test_a_result_that_is_written_over_later_is_kept(model):
    feed, place = Feed(model, CONFIG), torch.zeros(1)

    class InPlace:
        def warm_up(self, frames: WarmupFrames) -> None: ...
        def step(self, frame: NewFrame) -> Tensor:
            return place.add_(1)

    started = start(InPlace, feed.warmup(), [feed.frame(), feed.frame()], CPU)
    assert [output.item() for output in started.outputs] == [1, 2]


def test_memory_that_a_block_takes_is_told():
    with growth(CPU) as grown:
        held = torch.ones(2**24)  # 64 MiB
    assert grown() > 0.9 * held.nbytes
    del held


def test_both_are_fed_the_same_noise(model):
    feed = Feed(model, CONFIG)
    warmup, frame, again = feed.warmup(), feed.frame(), feed.noise()
    assert all(
        torch.equal(a, b)
        for a, b in zip((warmup.noise, warmup.renoise), again.warmup(8), strict=True)
    )
    assert all(
        torch.equal(a, b) for a, b in zip((frame.noise, frame.renoise), again.frame(), strict=True)
    )


# ---- the real one


@pytest.mark.skipif(not CHECKOUT, reason=NO_CHECKOUT)
def test_the_real_reference_agrees_until_the_ring_has_turned(model):
    before, told = Surroundings(), []
    random_state = torch.get_rng_state()
    figures = beside(model, Path(CHECKOUT), CONFIG, 10, told.append)
    assert figures["largest_difference"] < 1e-4
    assert told == list(range(1, 11))
    assert figures["frames"] == 10
    assert figures["note"] is None
    for side in ("reference", "ours"):
        assert 0 < figures[side]["p50_ms"] <= figures[side]["p95_ms"]
        assert figures[side]["peak_bytes"] > 0
    assert json.loads(json.dumps(figures)) == figures
    assert Surroundings() == before
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.skipif(not CHECKOUT, reason=NO_CHECKOUT)
def test_the_start_of_the_real_one_with_more_steps_is_said_to_differ(model):
    steps = StepSelection(t_index=(10, 25, 40))
    figures = beside(model, Path(CHECKOUT), replace(CONFIG, steps=steps), 3)
    assert "its start differs" in figures["note"]
    assert figures["largest_difference"] > 1e-3
