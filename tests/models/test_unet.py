"""The streaming UNet: the diffusers UNet plus time and depth, cached or in one pass."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from live2diff_core.cache import LayerShape, Prefill, RingStep, WholeClip, allocate
from live2diff_core.config import AttentionWindow
from live2diff_core.models.unet import StreamingUNet
from tests.tiny import CONFIG, make_parts, tiny_config, tiny_model

CPU = torch.device("cpu")
LATENT = CONFIG["unet"]["in_channels"]
WINDOWS = [AttentionWindow(*w) for w in ((8, 8), (4, 6), (1, 1), (3, 9))]


def deep_unet() -> StreamingUNet:
    """Three levels and two layers a block."""
    config = tiny_config()
    config["unet"] |= {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [32, 32, 64],
        "layers_per_block": 2,
    }
    return make_parts(config).unet


@dataclass
class Inputs:
    """Random frames of a clip for a UNet: x (f, c, h, w), text, depth features."""

    frames: int
    height: int = 4
    width: int = 4
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(5))

    def __post_init__(self) -> None:
        self.x = self.draw(self.frames, LATENT, self.height, self.width)
        self.depth = self.draw(self.frames, 32, self.height, self.width)
        self.text = self.draw(1, 8, 16)

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    @torch.inference_mode()
    def run(self, unet: StreamingUNet, state, frames: slice = slice(None)) -> Tensor:
        x, depth = self.x[frames], self.depth[frames]
        timestep = torch.full((len(x),), 399)
        return unet(x, timestep, self.text.expand(len(x), -1, -1), depth, state)


def streamed(unet: StreamingUNet, inputs: Inputs, window: AttentionWindow) -> Tensor:
    layers = allocate(unet.cache_shapes(inputs.height, inputs.width), 1, window, inputs.x)
    sinks = window.sinks
    out = [inputs.run(unet, Prefill(layers, slice(0, 1), sinks, 1), slice(sinks))]
    for age in range(inputs.frames - sinks):
        step = RingStep(layers, torch.tensor([age]), window)
        out.append(inputs.run(unet, step, slice(sinks + age, sinks + age + 1)))
    return torch.cat(out)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_cached_stream_equals_the_whole_clip(window):
    unet = tiny_model().unet
    inputs = Inputs(window.sinks + 2 * window.ring + 3)
    expected = inputs.run(unet, WholeClip(inputs.frames, 1, window, CPU))
    torch.testing.assert_close(streamed(unet, inputs, window), expected, rtol=0, atol=1e-5)


def test_a_deeper_network_streams_as_well():
    unet, window = deep_unet(), AttentionWindow(2, 3)
    inputs = Inputs(10, height=4, width=8)
    expected = inputs.run(unet, WholeClip(10, 1, window, CPU))
    torch.testing.assert_close(streamed(unet, inputs, window), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: tiny_model().unet, deep_unet])
@torch.inference_mode()
def test_without_time_and_depth_it_is_the_diffusers_unet(make):
    unet, inputs = make(), Inputs(2, height=8, width=4)
    timestep, text = torch.tensor([399, 39]), inputs.text.expand(2, -1, -1)
    ours = unet(inputs.x, timestep, text, torch.zeros_like(inputs.depth), None)
    theirs = unet.spatial(inputs.x, timestep, text).sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_every_input_matters():
    unet, window = tiny_model().unet, AttentionWindow(2, 3)
    inputs = Inputs(4)
    clip = WholeClip(4, 1, window, CPU)
    base = inputs.run(unet, clip)
    text = inputs.text.expand(4, -1, -1)
    others = {
        "time": inputs.run(unet, None),
        "depth": unet(inputs.x, torch.full((4,), 399), text, inputs.depth + 0.5, clip),
        "text": unet(inputs.x, torch.full((4,), 399), text + 1.0, inputs.depth, clip),
        "timestep": unet(inputs.x, torch.full((4,), 99), text, inputs.depth, clip),
        "x": unet(inputs.x + 0.5, torch.full((4,), 399), text, inputs.depth, clip),
    }
    for name, other in others.items():
        assert (other - base).abs().max() > 0.01, name


class Watch:
    """Notes the size of every temporal attention's keys."""

    def __init__(self, frames: int) -> None:
        self.clip = WholeClip(frames, 1, AttentionWindow(2, 2), CPU)
        self.frames, self.visibility = frames, self.clip.visibility
        self.seen: list[tuple[int, LayerShape]] = []

    def exchange(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        pixels, heads, _, channels = key.shape[1:]
        self.seen.append((layer, LayerShape(pixels, heads, channels)))
        return self.clip.exchange(layer, key, value)

    def positions(self, layer: int) -> None:
        return self.clip.positions(layer)


@pytest.mark.parametrize("make", [lambda: tiny_model().unet, deep_unet])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12)])
def test_cache_shapes_are_those_of_a_forward_pass(make, height, width):
    unet, watch = make(), Watch(2)
    Inputs(2, height, width).run(unet, watch)
    layers, shapes = zip(*watch.seen, strict=True)
    assert layers == tuple(range(len(layers)))
    assert list(shapes) == unet.cache_shapes(height, width)


def test_sizes_must_divide_by_what_the_levels_halve():
    assert tiny_model().unet.size_multiple == 2
    assert deep_unet().size_multiple == 4


def test_every_resnet_outside_the_middle_has_its_transformer():
    unet = deep_unet()
    assert [len(block) for block in unet.temporal_down] == [2, 2, 2]
    assert [len(block) for block in unet.temporal_up] == [3, 3, 3]
