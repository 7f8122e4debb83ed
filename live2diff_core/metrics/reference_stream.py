"""The reference's stream on our weights: its networks, its loop, without its files and pixels."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

import torch
from accelerate import init_empty_weights
from diffusers import DDIMScheduler
from torch import Tensor, nn

from ..config import AttentionWindow
from ..errors import ConfigError
from ..models.depth_mapping import LIVE2DIFF_WIDTHS
from ..models.translator import TranslationModel
from ..models.unet import StreamingUNet
from ..schedule import LCM_ORIGIN
from ..stream.denoise import NewFrame, WarmupFrames
from ..stream.plan import Plan
from ..weights import tables
from ..weights.files import some
from ..weights.load import rename
from .reference_code import Bridge, ReferenceCode, quiet

CHANNELS = 4  # written into its buffers
GROUPS = 32  # of its temporal layers
MAX_BLOCKS = 4  # its temporal layers stand at these resolutions
POSITIONS = 24
BLOCKS = {
    "CrossAttnDownBlock2D": "CrossAttnDownBlock3D",
    "DownBlock2D": "DownBlock3D",
    "UpBlock2D": "UpBlock3D",
    "CrossAttnUpBlock2D": "CrossAttnUpBlock3D",
    "UNetMidBlock2DCrossAttn": "UNetMidBlock3DCrossAttn",
}


def to_live2diff(unet: StreamingUNet) -> dict[str, Tensor]:
    """A network's weights under the reference's key names, the inverse of `from_live2diff`.

    The tensors are the network's own. Position tables are left out: it computes them, as we do.
    """
    prefixes = [(ours, theirs) for theirs, ours in tables.LIVE2DIFF_PREFIXES]
    inner = [(ours, theirs) for theirs, ours in tables.LIVE2DIFF_TRANSFORMER]
    renamed = {}
    for key, tensor in unet.state_dict().items():
        if key.startswith("temporal_"):
            head, index, layer, rest = key.split(".", 3)
            key = ".".join([head, index, layer, rename(rest, inner)])
        renamed[rename(key, prefixes).removeprefix("spatial.")] = tensor
    return renamed


def check_stream(plan: Plan) -> None:
    """Raise ConfigError for settings that the reference cannot run, with what it can."""
    config, schedule = plan.config, plan.schedule
    limits = [
        (schedule.steps >= 2, f"2 denoising steps or more (one crashes), not {schedule.steps}"),
        (
            config.steps.inference_steps <= LCM_ORIGIN,
            f"at most {LCM_ORIGIN} inference steps, not {config.steps.inference_steps}",
        ),
        (config.window == AttentionWindow(), f"8 sinks and a ring of 8, not {config.window}"),
        (config.guidance.mode == "none", f"no guidance, not {config.guidance.mode!r}"),
        (
            schedule.prediction == "epsilon",
            f"networks that predict noise, not {schedule.prediction}",
        ),
    ]
    _require(limits)


def check_network(unet: StreamingUNet) -> None:
    """Raise ConfigError for a network whose form the reference does not have."""
    motion, spatial = unet.motion, unet.spatial.config
    types = {*spatial.down_block_types, *spatial.up_block_types, spatial.mid_block_type}
    odd = sorted(str(name) for name in types - BLOCKS.keys())
    groups, channels = motion.temporal.norm_groups, spatial.in_channels
    limits = [
        (channels == CHANNELS, f"latents of {CHANNELS} channels, not {channels}"),
        (groups == GROUPS, f"{GROUPS} groups in the norm of temporal layers, not {groups}"),
        (
            motion.depth_widths == LIVE2DIFF_WIDTHS,
            f"a depth mapping of widths {LIVE2DIFF_WIDTHS}, not {motion.depth_widths}",
        ),
        (not odd, f"the blocks of Stable Diffusion 1.5, not {', '.join(odd)}"),
        (
            len(spatial.block_out_channels) <= MAX_BLOCKS,
            f"up to {MAX_BLOCKS} blocks, not {len(spatial.block_out_channels)}",
        ),
    ]
    _require(limits)


def _require(limits: Iterable[tuple[bool, str]]) -> None:
    for holds, expected in limits:
        if not holds:
            raise ConfigError(f"the reference takes {expected}")


def build(
    network: Callable[..., Any], model: TranslationModel, streaming: bool
) -> "ReferenceNetwork":
    """One of its networks, sharing the weights of our model; moving it leaves ours where it is.

    Raises ConfigError where its parts are not those of our network.
    """
    settings = _settings(model.unet, streaming)
    known = inspect.signature(network).parameters
    with init_empty_weights():
        unet = network(**{key: value for key, value in settings.items() if key in known})
    own = {key: tensor.shape for key, tensor in unet.state_dict().items()}
    weights = to_live2diff(model.unet)
    given = {key: tensor.shape for key, tensor in weights.items()}
    derived = {key for key in own if key.endswith(tables.LIVE2DIFF_DERIVED)}
    odd = {key for key, _ in own.items() ^ given.items()} - derived
    if odd:
        raise ConfigError(
            f"the reference cannot run {model.name}: {len(odd)} weights are missing there or have "
            f"another shape ({some(odd)}); it takes networks of Stable Diffusion 1.5's form"
        )
    unet.load_state_dict(weights, strict=False, assign=True)
    nn.Module.to(unet, model.device, model.dtype)  # its tables; the weights are there already
    return cast(ReferenceNetwork, unet.eval())


def _settings(unet: StreamingUNet, streaming: bool) -> dict[str, Any]:
    """What it is built with: the spatial network's settings, and those of its own configuration."""
    spatial, temporal = dict(unet.spatial.config), unet.motion.temporal
    window = AttentionWindow()
    ring = {"window_size": window.slots, "sink_size": window.sinks}
    return spatial | {
        "down_block_types": [BLOCKS[name] for name in spatial["down_block_types"]],
        "up_block_types": [BLOCKS[name] for name in spatial["up_block_types"]],
        "mid_block_type": BLOCKS[spatial["mid_block_type"]],
        "attention_head_dim": spatial["num_attention_heads"] or spatial["attention_head_dim"],
        "cond_mapping": True,
        "use_inflated_groupnorm": True,
        "use_motion_module": True,
        "motion_module_resolutions": [2**i for i in range(MAX_BLOCKS)],
        "motion_module_type": "Streaming" if streaming else "Vanilla",
        "motion_module_kwargs": {
            "num_attention_heads": temporal.heads,
            "num_transformer_block": 1,
            "attention_block_types": ["Temporal_Self"] * temporal.attentions,
            "temporal_position_encoding": True,
            "temporal_position_encoding_max_len": POSITIONS,
            "attention_class_name": "stream" if streaming else "versatile",
            "attention_kwargs": ring if streaming else {},
        },
    }


class ReferenceNetwork(Protocol):
    """What a stream asks of its networks before it runs them."""

    def set_info_for_attn(self, height: int, width: int) -> None:
        """Tell all attentions their size from that of a latent."""

    def prepare_cache(self, denoising_steps_num: int) -> list[Tensor]:
        """Empty keys and values; the streaming network alone has them."""


class Networks:
    """Stands where the stream expects its pipeline: networks, schedule and text are all it uses."""

    vae = text_encoder = depth_model = None

    def __init__(self, code: ReferenceCode, plan: Plan) -> None:
        model = plan.model
        self.device, self.vae_scale_factor = model.device, model.autoencoder.factor
        self.unet = build(code.streaming, model, streaming=True)
        self.unet_warmup = build(code.warmup, model, streaming=False)
        self._text = plan.condition.text
        self.scheduler = DDIMScheduler(
            num_train_timesteps=model.schedule.train_timesteps,
            beta_start=model.schedule.beta_start,
            beta_end=model.schedule.beta_end,
            beta_schedule="linear",
            steps_offset=1,
            clip_sample=False,
        )

    def prepare_cache(self, height: int, width: int, denoising_steps_num: int) -> list[Tensor]:
        """Empty caches for pixels of this size."""
        self.prepare_warmup_unet(height, width, self.unet)
        return self.unet.prepare_cache(denoising_steps_num)

    def prepare_warmup_unet(self, height: int, width: int, unet: ReferenceNetwork) -> None:
        """Tell a network's attentions their size."""
        unet.set_info_for_attn(height // self.vae_scale_factor, width // self.vae_scale_factor)

    def _encode_prompt(self, **_: object) -> Tensor:
        return self._text


class Latents:
    """Stands where the stream expects what prepares pictures: latents are passed through."""

    @staticmethod
    def preprocess(latent: Tensor, *_: int) -> Tensor:
        """A batch of one."""
        return latent[None]


class ReferenceStream:
    """One stream of the reference, fed with latents and noise in place of pictures and chance."""

    def __init__(self, code: ReferenceCode, plan: Plan) -> None:
        config, networks = plan.config, Networks(code, plan)
        with quiet():
            stream = code.stream(
                networks,
                num_inference_steps=config.steps.inference_steps,
                t_index_list=list(config.steps.indices),
                torch_dtype=plan.model.dtype,
                width=config.width,
                height=config.height,
                do_add_noise=False,  # between the rows: `step` adds the noise that ours gets
            )
        stream.unet_warmup = networks.unet_warmup
        stream.image_processor = Latents
        stream.decode_image = _as_it_is
        stream.prepare_cache(config.height, config.width, stream.denoising_steps_num)
        self._stream, self._timesteps = stream, plan.schedule.timesteps

    @torch.no_grad()
    def warm_up(self, frames: WarmupFrames) -> Tensor:
        """Take the warm-up frames through; depth: latents. Returns x0, (f, c, h, w)."""
        stream = self._stream
        stream.encode_image = lambda latents: stream.add_noise(latents, frames.noise.to(latents), 0)
        stream.encode_depth = lambda latents: frames.depth.to(latents)
        fields = frames.renoise.transpose(1, 2)  # (n, f, c, h, w) -> (n, c, f, h, w)
        with torch.random.fork_rng(devices=[]), Bridge(stream.device, list(fields)), quiet():
            x0: Tensor = stream.prepare(frames.latents, prompt="")
        if not torch.equal(stream.sub_timesteps_tensor, self._timesteps):
            raise ConfigError(
                f"the reference denoises at the timesteps {stream.sub_timesteps_tensor.tolist()}, "
                f"ours are {self._timesteps.tolist()}: it needs another version of diffusers"
            )
        return x0

    @torch.no_grad()
    def step(self, frame: NewFrame) -> Tensor:
        """One network call, as its pipeline makes it; depth: latent. Returns x0 (c, h, w)."""
        stream = self._stream
        latent, depth, noise, renoise = (
            tensor[:, :, None].to(stream.dtype)  # (n, c, h, w) -> (n, c, 1, h, w)
            for tensor in (frame.latent[None], frame.depth[None], frame.noise[None], frame.renoise)
        )
        x0 = stream.predict_x0_batch(stream.add_noise(latent, noise, 0), depth)
        stream.x_t_latent_buffer += stream.beta_prod_t_sqrt[1:] * renoise
        result: Tensor = x0[0, :, 0]
        return result


def _as_it_is(latents: Tensor) -> Tensor:
    return latents
