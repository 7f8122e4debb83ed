"""Variants: merged as the formula says, next to an origin that stays as it is."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from live2diff_core.errors import ConfigError, WeightsKeyError
from live2diff_core.models.adapters import Adapter, AdapterUse, LowRank, variant, with_child
from tests import loras

SEED = 0
Changes = dict[str, LowRank]


def random(*shape: int, seed: int = SEED) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def changes_of(module: nn.Module, ending: str = "", seed: int = SEED, rank: int = 2) -> Changes:
    """Random changes of all layers of a network whose names end so."""
    return {
        f"{name}.weight": LowRank(
            random(shape[0], rank, *[1] * (len(shape) - 2), seed=seed),
            random(rank, *shape[1:], seed=seed + 1),
            0.5,
        )
        for name, shape in loras.layer_shapes(module).items()
        if name.endswith(ending)
    }


def exact(module: nn.Module, *changes: tuple[Changes, float]) -> dict[str, Tensor]:
    """base + sum of strength x scale x up x down, in double precision."""
    state = {key: tensor.double() for key, tensor in module.state_dict().items()}
    for weights, strength in changes:
        for key, change in weights.items():
            up, down = change.up.double().flatten(1), change.down.double().flatten(1)
            product = torch.einsum("or,ri->oi", up, down).view_as(state[key])
            state[key] = state[key] + strength * change.scale * product
    return state


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def check_close(module: nn.Module, expected: dict[str, Tensor]) -> None:
    for key, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[key].double(), rtol=2e-6, atol=2e-6)


@pytest.fixture(params=["unet", "text"])
def origin(request) -> nn.Module:
    return loras.make_unet() if request.param == "unet" else loras.make_text()


def run(module: nn.Module) -> Tensor:
    if "conv_in.weight" in module.state_dict():
        return module(random(1, 4, 8, 8), torch.tensor([3]), random(1, 5, 12)).sample
    return module(torch.tensor([[1, 4, 5, 2]]), output_hidden_states=True).hidden_states[-2]


# ---- the sum


def test_merged_weights_are_the_sum_of_base_and_changes(origin):
    first, second = changes_of(origin), changes_of(origin, "to_q", seed=5, rank=3)
    made = variant(origin, [(first, 0.7), (second, -1.5)])
    check_close(made, exact(origin, (first, 0.7), (second, -1.5)))


def test_two_changes_commute_to_the_bit(origin):
    """Floating-point sums of two do; of three, they agree to float32 precision."""
    changes = [(changes_of(origin, seed=seed), 0.3 * (seed + 1)) for seed in range(3)]
    a, b = variant(origin, changes[:2]), variant(origin, changes[1::-1])
    assert same(a.state_dict(), b.state_dict())
    check_close(variant(origin, changes), snapshot(variant(origin, changes[::-1])))


def test_removing_one_change_leaves_the_other(origin):
    first, second = changes_of(origin), changes_of(origin, seed=5)
    both = variant(origin, [(first, 0.7), (second, 0.4)])
    left = variant(origin, [(first, 0.0), (second, 0.4)])
    assert same(left.state_dict(), variant(origin, [(second, 0.4)]).state_dict())
    assert not same(left.state_dict(), both.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    layer = nn.Linear(8, 8).to(dtype).requires_grad_(False)
    changes = [
        ({"weight": LowRank(random(8, 1), random(1, 8, seed=s), 1.0)}, 0.1) for s in range(9)
    ]
    made = variant(layer, changes)
    assert made.weight.dtype == dtype
    assert torch.equal(made.weight, exact(layer, *changes)["weight"].to(dtype))


@given(
    kernel=st.sampled_from([(), (1, 1), (3, 3), (1, 3)]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12)),
    strength=st.floats(-5, 5),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
@settings(max_examples=60)
def test_any_layer_at_any_strength(kernel, sizes, strength, dtype):
    rows, columns, rank = sizes
    layer = nn.Conv2d(columns, rows, kernel) if kernel else nn.Linear(columns, rows)
    up, down = random(rows, rank, *[1] * len(kernel)), random(rank, columns, *kernel)
    change = {"weight": LowRank(up.to(dtype), down.to(dtype), 0.5)}
    made = variant(layer, [(change, strength)])
    torch.testing.assert_close(
        made.weight.double(), exact(layer, (change, strength))["weight"], rtol=1e-5, atol=1e-5
    )


def test_a_change_of_a_tied_weight_shows_wherever_it_is_used():
    layer = nn.Linear(4, 4)
    net = nn.ModuleDict({"a": layer, "b": nn.Linear(4, 4)})
    net["b"].weight = layer.weight
    made = variant(net, [({"b.weight": LowRank(torch.ones(4, 1), torch.ones(1, 4), 1.0)}, 1.0)])
    assert made["a"].weight is made["b"].weight
    assert torch.equal(made["a"].weight, layer.weight + 1)


# ---- the origin and its variant


def test_strength_zero_is_the_origin_itself(origin):
    assert variant(origin, [(changes_of(origin), 0.0)]) is origin
    assert variant(origin, [({}, 1.0)]) is origin
    assert variant(origin, []) is origin


def test_the_origin_stays_as_it_is_and_the_variant_runs_beside_it(origin):
    with torch.no_grad():
        before, weights = run(origin), snapshot(origin)
        made = variant(origin, [(changes_of(origin), 0.2)])
        changed = run(made)
        assert same(snapshot(origin), weights)
        assert torch.equal(run(origin), before)
    assert not torch.allclose(changed, before)
    loaded = loras.make_text() if hasattr(origin, "encoder") else loras.make_unet()
    loaded.load_state_dict(made.state_dict())
    with torch.no_grad():
        assert torch.equal(run(loaded), changed)


def test_only_what_changes_is_owned(origin):
    made = variant(origin, [(changes_of(origin, "to_q") | changes_of(origin, "q_proj"), 1.0)])
    own, theirs = dict(origin.named_parameters()), dict(made.named_parameters())
    assert own.keys() == theirs.keys()
    owned = {key for key in own if own[key] is not theirs[key]}
    assert owned == {key for key in own if key.endswith(("to_q.weight", "q_proj.weight"))}
    assert all(own[k].data_ptr() != theirs[k].data_ptr() for k in owned)
    buffers = dict(made.named_buffers())
    assert all(tensor is buffers[key] for key, tensor in origin.named_buffers())
    assert not any(parameter.requires_grad for parameter in made.parameters())
    modules = set(map(id, origin.modules()))
    assert not modules & set(map(id, made.modules()))


def test_a_variant_keeps_the_layout_of_a_weight():
    layer = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    made = variant(layer, [({"weight": LowRank(random(4, 1), random(1, 36), 1.0)}, 1.0)])
    assert made.weight.stride() == layer.weight.stride()
    assert made.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_variant_is_made_while_the_origin_runs():
    origin = loras.make_unet()
    changes = [(changes_of(origin), 0.5)]
    with torch.no_grad():
        expected, merged = run(origin), variant(origin, changes).state_dict()
    made: list[dict[str, Tensor]] = []
    worker = threading.Thread(
        target=lambda: made.extend(variant(origin, changes).state_dict() for _ in range(5))
    )
    worker.start()
    with torch.no_grad():
        while worker.is_alive():
            assert torch.equal(run(origin), expected)
    worker.join()
    assert len(made) == 5
    assert all(same(state, merged) for state in made)


@pytest.mark.parametrize(
    "changes",
    [
        {"2.weight": LowRank(torch.ones(4, 1), torch.ones(1, 4), 1.0)},
        {"0.weight": LowRank(torch.ones(5, 1), torch.ones(1, 4), 1.0)},
        {"0.weight": LowRank(torch.ones(4, 1), torch.ones(1, 5), 1.0)},
        {"0.weight": LowRank(torch.ones(2, 1), torch.ones(1, 8), 1.0)},
    ],
    ids=["missing", "rows", "columns", "as many values"],
)
def test_a_change_for_another_network_is_refused(changes):
    net = nn.Sequential(nn.Linear(4, 4))
    before = snapshot(net)
    with pytest.raises(WeightsKeyError, match="1 weights that the LoRAs change are missing here"):
        variant(net, [(changes, 1.0)])
    assert same(before, net.state_dict())


# ---- another child


def test_with_child_changes_one_child_of_a_copy():
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    net.register_buffer("table", torch.ones(2))
    net.register_parameter("gain", nn.Parameter(torch.ones(1)))
    child, old = nn.Linear(2, 2), net["a"]
    twin = with_child(net, "a", child)
    assert (twin["a"], net["a"]) == (child, old)
    assert twin["b"] is net["b"]
    assert (twin.table is net.table, twin.gain is net.gain) == (True, True)
    assert list(twin.state_dict()) == list(net.state_dict())
    twin.register_forward_hook(lambda *_: None)
    assert not net._forward_hooks


# ---- strengths


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 5.01, -6.0])
@pytest.mark.parametrize("part", ["unet", "text"])
def test_strengths_that_no_lora_has_are_refused(part, strength):
    with pytest.raises(ConfigError, match=f"{part} strength of LoRA ink is .*expected -5 to 5"):
        AdapterUse(Adapter("ink", {}, {}), **{part: strength})


def test_uses_of_one_lora_at_equal_strengths_are_equal():
    ink = Adapter("ink", {}, {})
    assert AdapterUse(ink, 0.5) == AdapterUse(ink, 0.5, 1.0)
    assert AdapterUse(ink, 0.5) != AdapterUse(ink, 0.6)
    assert AdapterUse(ink, 0.5) != AdapterUse(Adapter("ink", {}, {}), 0.5)
