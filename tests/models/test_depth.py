"""Depth as a network estimates it and a stream normalises it; structure in place of depth."""

import av
import pytest
import torch
from skimage import data
from torch import Tensor
from torch.nn import functional

from live2diff_core.models.depth import (
    DepthNetwork,
    DepthRange,
    StructureMap,
    blur,
    depth_latent,
)
from tests.clips import BUNNY
from tests.networks import DEPTH_SIDE, pictures, tiny_depth
from tests.tiny import tiny_model


def photo(side: int = 128) -> Tensor:
    """The middle of a photo with strong contrast, (1, 3, side, side) in [0, 1]."""
    rgb = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255
    return torch.nn.functional.interpolate(rgb, (side, side), mode="area")


@pytest.mark.parametrize(
    ("gain", "offset"), [(0.5, 0.0), (0.5, 0.4), (1.0, 0.0), (0.7, 0.1), (0.3, 0.7)]
)
def test_brightness_and_contrast_hardly_matter(gain, offset):
    structure = StructureMap(floor=0.003)
    gap = (structure(gain * photo() + offset) - structure(photo())).abs()
    assert gap.mean() < 0.01
    assert gap.quantile(0.99) < 0.1


def test_an_inverted_picture_has_the_inverted_map():
    structure = StructureMap()
    torch.testing.assert_close(structure(1 - photo()), -structure(photo()), rtol=0, atol=1e-3)


def test_colour_alone_shows_nothing():
    rgb = torch.full((1, 3, 32, 32), 0.5)
    rgb[:, 0, :, 16:] += 0.299  # as much red as green makes up for in luminance
    rgb[:, 1, :, 16:] -= 0.299 * 0.299 / 0.587
    assert StructureMap()(rgb).abs().max() < 1e-3


@pytest.mark.parametrize("side", [8, 16, 96])
def test_the_range_is_minus_one_to_one_and_both_signs_are_used(side):
    noise = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    got = StructureMap()(noise)
    assert got.shape == (2, 1, side, side)
    assert got.abs().max() < 1
    assert got.max() > 0.1
    assert got.min() < -0.1


@pytest.mark.parametrize("value", [0.0, 0.37, 1.0])
def test_a_constant_picture_has_no_structure(value):
    assert StructureMap()(torch.full((1, 3, 40, 24), value)).abs().max() < 1e-3


def test_faint_noise_stays_faint():
    noise = 0.5 + 0.002 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert StructureMap()(noise).abs().max() < 0.1


def test_the_map_moves_with_the_picture():
    picture, structure = photo(), StructureMap()
    moved = structure(picture.roll(8, -1))[..., 40:-40]
    torch.testing.assert_close(moved, structure(picture).roll(8, -1)[..., 40:-40])


def test_pictures_of_a_batch_do_not_meet():
    pair = torch.cat([photo(), photo().flip(-1)])
    torch.testing.assert_close(StructureMap()(pair)[1:], StructureMap()(photo().flip(-1)))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_blurring_a_point_gives_a_gaussian_of_its_width(sigma):
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = blur(point, sigma)[0, 0]
    offset = torch.arange(41.0) - 20
    variance = (spread.sum(0) * offset**2).sum()
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    assert variance.sqrt().item() == pytest.approx(sigma, rel=0.1)
    torch.testing.assert_close(spread, spread.T)


def test_blur_keeps_edges_of_the_picture_as_bright_as_they_are():
    torch.testing.assert_close(blur(torch.ones(1, 1, 5, 9), 3.0), torch.ones(1, 1, 5, 9))


def test_a_map_is_encoded_as_the_grey_picture_it_is():
    autoencoder = tiny_model().autoencoder
    depth = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    latent = depth_latent(autoencoder, depth)
    assert latent.shape == (1, autoencoder.channels, 2, 2)
    grey = torch.cat([depth / 2 + 0.5] * 3, 1)
    assert torch.equal(latent, autoencoder.encode(grey))


# ---- depth networks


@pytest.fixture(params=["dpt", "depth_anything"])
def network(request) -> DepthNetwork:
    return DepthNetwork(tiny_depth(request.param))


def seen_by(network: DepthNetwork, rgb: Tensor) -> Tensor:
    """What the network itself is given for a frame."""
    given = []
    hook = network.model.register_forward_pre_hook(
        lambda _, __, named: given.append(named["pixel_values"]), with_kwargs=True
    )
    network(rgb)
    hook.remove()
    return given[0]


@pytest.mark.parametrize("size", [(64, 64), (40, 72), (98, 50)])
def test_depth_has_the_size_of_the_frame_and_is_not_negative(network, size):
    depth = network(pictures(2, *size))
    assert depth.shape == (2, 1, *size)
    assert depth.dtype == torch.float32
    assert depth.min() >= 0
    assert depth.std() > 0


def test_dpt_sees_what_the_reference_shows_it():
    rgb = pictures(1, 50, 90)
    square = (DEPTH_SIDE, DEPTH_SIDE)
    expected = functional.interpolate(rgb * 2 - 1, square, mode="bilinear", align_corners=False)
    seen = seen_by(DepthNetwork(tiny_depth("dpt")), rgb)
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("frame", "seen"),
    [((512, 512), (56, 56)), ((480, 640), (56, 70)), ((1280, 720), (98, 56)), ((20, 20), (56, 56))],
)
def test_depth_anything_sees_whole_patches_and_the_size_it_was_trained_on(frame, seen):
    assert DepthNetwork(tiny_depth("depth_anything")).input_size(*frame) == seen


def test_depth_anything_sees_the_normalisation_it_was_trained_on():
    grey = torch.full((1, 3, 70, 56), 0.5)
    seen = seen_by(DepthNetwork(tiny_depth("depth_anything")), grey)
    assert seen.shape == (1, 3, 70, 56)
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    torch.testing.assert_close(seen[0, :, 20, 20], torch.tensor(expected))


def test_the_network_computes_in_its_own_dtype(network):
    rgb = pictures(1, 64, 64)
    depth = network(rgb)
    network.model.bfloat16()
    assert seen_by(network, rgb).dtype == torch.bfloat16
    low = network(rgb)
    assert low.dtype == torch.float32
    assert 0 < (low - depth).abs().max() < 0.1 * depth.max()


def test_frames_of_a_batch_do_not_meet(network):
    rgb = pictures(2, 64, 64)
    torch.testing.assert_close(network(rgb)[1:], network(rgb[1:]), rtol=1e-4, atol=1e-5)


def test_nothing_waits_for_the_device(network):
    depth = network.to("meta")(pictures(1, 64, 64).to("meta"))  # has no values to wait for
    assert DepthRange(device="meta").normalise(depth).shape == (1, 1, 64, 64)


def test_only_a_network_has_a_range_of_its_own(network):
    assert network.relative
    assert not StructureMap().relative


# ---- the range of a stream


def maps(*extremes: tuple[float, float]) -> Tensor:
    """Ramps between extremes, (n, 1, 4, 8)."""
    return torch.stack([torch.linspace(*pair, 32).view(1, 4, 8) for pair in extremes])


def last_bounds(*extremes: tuple[float, float], half_life: float = 8) -> list[float]:
    depth_range = DepthRange(half_life=half_life)
    depth_range.normalise(maps(*extremes))
    return depth_range.bounds.tolist()


@pytest.mark.parametrize("rule", ["running", "frame"])
def test_the_first_frame_fills_the_range(rule):
    depth = 100 * pictures(1, 6, 5)[:, :1]
    got = DepthRange(rule).normalise(depth)
    expected = (depth - depth.min()) / (depth.max() - depth.min()) * 2 - 1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_the_rule_of_the_reference_takes_each_frame_alone():
    depth_range = DepthRange("frame")
    for depth in maps((0, 1), (50, 3000), (-4, -2)).split(1):
        got = depth_range.normalise(depth)
        assert got.min() == -1
        assert got.max() == 1


def test_maps_together_are_maps_one_after_the_other():
    depth = maps((0, 1), (0, 3), (-1, 2), (0.5, 0.7))
    together, alone = DepthRange(), DepthRange()
    singles = torch.cat([alone.normalise(one) for one in depth.split(1)])
    assert torch.equal(together.normalise(depth), singles)


@pytest.mark.parametrize("rule", ["running", "frame"])
@pytest.mark.parametrize("value", [0.0, 0.3, 4e3])
def test_a_map_without_a_range_is_the_middle(rule, value):
    got = DepthRange(rule).normalise(torch.full((3, 1, 4, 4), value))
    assert torch.equal(got, torch.zeros(3, 1, 4, 4))


def test_what_lies_outside_is_clamped():
    depth_range = DepthRange()
    depth_range.normalise(maps(*[(0, 1)] * 20))
    got = depth_range.normalise(maps((-5, 6)))
    assert got.min() == -1
    assert got.max() == 1


def test_half_of_a_lasting_change_is_followed_in_a_half_life():
    low, high = last_bounds(*[(0, 1)] * 40, *[(-2, 5)] * 8)
    assert (low, high) == pytest.approx((-1, 3), abs=1e-4)


def test_the_first_frames_weigh_alike():
    assert last_bounds((0, 1), (0, 3), (0, 8)) == pytest.approx([0, 4], abs=1e-5)


def test_one_outlier_is_forgotten():
    calm = last_bounds(*[(0, 1)] * 150)
    shaken = last_bounds(*[(0, 1)] * 30, (0, 1000), *[(0, 1)] * 119)
    assert shaken == pytest.approx(calm, abs=0.01)


def test_a_black_start_is_forgotten():
    assert last_bounds((0, 0), *[(0, 1)] * 60)[1] > 0.99


def test_streams_do_not_share_a_range():
    first, second = DepthRange(), DepthRange()
    first.normalise(maps((0, 1000)))
    assert second.normalise(maps((0, 1))).max() == 1


def test_the_range_is_kept_in_float32_and_maps_keep_their_dtype():
    depth_range = DepthRange()
    assert depth_range.normalise(maps((0, 2000)).half()).dtype == torch.float16
    assert depth_range.bounds.dtype == torch.float32


def jumping_clip(count: int = 80) -> Tensor:
    """Depth-like maps of a scene that stands still but for a near thing that comes and goes.

    The scene is a frame of a real clip. In every third map or so its upper left corner lies up to
    three times as near as anything else; (count, 1, 90, 160).
    """
    with av.open(str(BUNNY)) as file:
        frame = next(file.decode(video=0)).reformat(width=160, height=90, format="gray")
    scene = blur(torch.from_numpy(frame.to_ndarray())[None, None].float(), 2.0)
    clip, generator = scene.repeat(count, 1, 1, 1), torch.Generator().manual_seed(0)
    chance, nearness = torch.rand(2, count, generator=generator)
    for one in torch.nonzero(chance < 0.3).flatten():
        clip[one, :, :15, :15] = scene.max() * (1 + 2 * nearness[one])
    return clip


def test_a_still_scene_is_steady_when_its_extremes_jump():
    clip, changes = jumping_clip(), {}
    for rule in ("running", "frame"):
        still = DepthRange(rule).normalise(clip)[16:, :, 15:, 15:]
        changes[rule] = (still[1:] - still[:-1]).abs().mean().item()
    assert changes["frame"] > 0.15  # of the 2 from -1 to 1, at every frame
    assert changes["running"] < 0.02


@pytest.mark.parametrize("first", [True, False])
def test_a_map_that_overflowed_does_not_spoil_those_after_it(first):
    depth_range, good = DepthRange(), torch.rand(1, 1, 8, 8)
    spoiled = good.clone()
    spoiled[0, 0, 2, 3] = torch.inf
    spoiled[0, 0, 4, 4] = torch.nan
    for depth in (spoiled, good) if first else (good, spoiled):
        assert depth_range.normalise(depth).isfinite().all()
    for _ in range(60):
        last = depth_range.normalise(good)
    assert (last.min(), last.max()) == (pytest.approx(-1, abs=0.05), pytest.approx(1, abs=0.05))
