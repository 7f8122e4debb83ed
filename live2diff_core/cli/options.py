"""Options that several commands share, and what they mean."""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch

from ..config import (
    ATTENTIONS,
    RUNTIMES,
    Guidance,
    RuntimeConfig,
    StepSelection,
    StreamConfig,
    parse_t_index,
)
from ..errors import ConfigError, WeightsMissingError
from ..models.translator import TranslationModel
from ..weights import model as weights
from ..weights.budget import check, model_footprint, stream_size
from ..weights.spec import LoraSpec, ModelSpec
from ..weights.styles import find_style, missing

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_size(text: str) -> tuple[int, int]:
    """WxH in pixels."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"a size is WIDTHxHEIGHT, such as 192x160, not {text!r}")
    return int(width), int(height)


def parse_indices(text: str) -> tuple[int, ...]:
    """Comma-separated numbers."""
    try:
        return parse_t_index(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_lora(text: str) -> LoraSpec:
    """A LoRA and its strengths."""
    try:
        return LoraSpec.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, of which parts, where, and in which precision."""
    parser.add_argument(
        "--model",
        metavar="BASE",
        help="bundled (the default), or Stable Diffusion 1.5 or a finetune: file, folder, hub id",
    )
    parser.add_argument("--style", metavar="NAME", help="a published style, or a .toml file")
    parts = parser.add_argument_group(
        "parts of a model", "paths, names in the models folder or hub ids; see README"
    )
    parts.add_argument("--motion", help="motion weights (default: live2diff)")
    parts.add_argument("--vae", help="autoencoder (default: taesd; base: the base's own)")
    parts.add_argument("--depth", help="depth model (default: dpt_hybrid_384; or: structure)")
    parts.add_argument("--text-encoder", help="CLIP ViT-L (default: the base's own)")
    parts.add_argument(
        "--lora",
        type=parse_lora,
        action="append",
        default=[],
        metavar="FILE[:UNET[:TEXT]]",
        help="a LoRA and its strengths; repeatable",
    )
    parts.add_argument(
        "--embedding", action="append", default=[], help="textual inversion file; repeatable"
    )
    parts.add_argument("--clip-skip", type=int, help="1: last layer, 2: the one before it, ...")
    parts.add_argument("--models", type=Path, help="models folder (default: models)")
    parts.add_argument("--download", action="store_true", help="fetch from the hub what is missing")
    parser.add_argument("--device", help="torch device (default: an accelerator, else the CPU)")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="precision (default: float32 on a CPU, else float16)"
    )


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """Steps, noise and guidance of a stream."""
    parser.add_argument("--steps", type=int, help="denoising steps in flight, 1 to 8")
    parser.add_argument("--strength", type=float, help="how far from the input, above 0 to 1")
    parser.add_argument(
        "--t-index", type=parse_indices, help="indices into the 50-step schedule, such as 20,35"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all noise (default: 0)")
    parser.add_argument(
        "--noise", choices=("fresh", "fixed"), help="new noise for every frame, or one field"
    )
    parser.add_argument(
        "--guidance", choices=("none", "self", "full"), default="none", help="kind of guidance"
    )
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="1 is no guidance")
    parser.add_argument("--negative", default="", help="negative prompt of full guidance")
    parser.add_argument(
        "--fit",
        choices=("crop", "stretch", "refuse"),
        default="crop",
        help="what happens to frames of another shape (default: crop)",
    )
    parser.add_argument(
        "--depth-range",
        choices=("running", "frame"),
        default="running",
        help="depth is normalised over the stream (default), or for each frame alone (flickers)",
    )
    parser.add_argument(
        "--depth-every", type=int, default=1, metavar="K", help="depth of every k-th frame alone"
    )
    add_speed_options(parser)


def add_speed_options(parser: argparse.ArgumentParser) -> None:
    """How a stream is computed; see docs/performance.md."""
    speed = parser.add_argument_group("speed", "what each gives and costs: docs/performance.md")
    speed.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="eager",
        help="run the networks as they are (default), as CUDA graphs, compiled, or both",
    )
    speed.add_argument(
        "--attention",
        choices=ATTENTIONS,
        default="auto",
        help="temporal attention in PyTorch, as a Triton kernel (GPUs) or in C++ (CPUs, float32); "
        "default: auto, by device",
    )
    speed.add_argument(
        "--cache",
        choices=("network", "float8"),
        default="network",
        help="keys and values in the network's precision (default), or in 8 bits",
    )


def add_overlap_option(parser: argparse.ArgumentParser) -> None:
    """For those who need not have each picture before the next frame goes in."""
    parser.add_argument(
        "--overlap",
        action="store_true",
        help="a GPU encodes each frame while the network denoises the one before",
    )


def model_spec(options: argparse.Namespace) -> ModelSpec:
    """The parts that the options name; a style gives what they leave open. Raises ConfigError."""
    given = {
        "base": options.model,
        "motion": options.motion,
        "autoencoder": options.vae,
        "depth": options.depth,
        "text_encoder": options.text_encoder,
        "clip_skip": options.clip_skip,
        "models": options.models,
    }
    if options.size is not None:
        sizes = [options.size] if isinstance(options.size, tuple) else options.size
        width, height = max(sizes, key=math.prod)
        given |= {"width": width, "height": height}
    named = {name: value for name, value in given.items() if value is not None}
    spec = ModelSpec(
        loras=tuple(options.lora), embeddings=tuple(options.embedding), download=options.download
    )
    if options.style is not None:
        spec = find_style(options.style).spec(spec)
    return replace(spec, **named)


def load_model(options: argparse.Namespace) -> TranslationModel:
    """The model that the options name. Raises ConfigError, WeightsError or MemoryBudgetError."""
    device, spec = parse_device(options.device), model_spec(options)
    if options.style is not None and not spec.download:
        absent = missing(find_style(options.style), spec)
        if absent:
            lacking = "; ".join(map(str, absent))
            raise WeightsMissingError(f"style {options.style} lacks {len(absent)} files: {lacking}")
    return weights.load_model(spec, device, parse_dtype(options.dtype, device))


def check_memory(model: TranslationModel, config: StreamConfig, caches: int = 1) -> None:
    """Raise MemoryBudgetError where a loaded model's device has no room for such a stream.

    caches: 2 where the stream is changed while it runs. Raises FrameSizeError for a size that the
    model cannot take.
    """
    model.check_size(config.width, config.height)
    loaded = replace(model_footprint(model), weights=0, adapters=0)
    check(loaded, replace(stream_size(config), caches=caches), model.device)


def stream_config(
    options: argparse.Namespace, model: TranslationModel, size: tuple[int, int]
) -> StreamConfig:
    """Settings of a session; what is not given is the model's default. Raises ConfigError."""
    _check_guidance(options)
    return StreamConfig(
        width=size[0],
        height=size[1],
        steps=select_steps(options, model.defaults.steps),
        noise=options.noise or model.defaults.noise,
        seed=options.seed,
        guidance=Guidance(options.guidance, options.guidance_scale, options.negative),
        fit=options.fit,
        depth_range=options.depth_range,
        depth_every=options.depth_every,
        cache=options.cache,
        runtime=RuntimeConfig(options.runtime, options.attention, options.overlap),
    )


def _check_guidance(options: argparse.Namespace) -> None:
    """Raise ConfigError for what would have no effect."""
    if options.negative and options.guidance != "full":
        raise ConfigError("--negative is heard with --guidance full alone")
    if options.guidance == "none" and options.guidance_scale != 1:
        raise ConfigError("--guidance-scale needs --guidance self or full")
    if options.guidance != "none" and options.guidance_scale == 1:
        raise ConfigError(
            f"--guidance {options.guidance} with a scale of 1 is no guidance: give another "
            "--guidance-scale, such as 1.5"
        )


def select_steps(options: argparse.Namespace, default: StepSelection) -> StepSelection:
    """--t-index alone, or --strength and --steps."""
    if options.t_index is not None:
        return StepSelection(options.t_index, options.strength, options.steps)
    if options.strength is None and options.steps is None:
        return default
    if default.strength is None and options.strength is None:
        raise ConfigError(
            f"this model names its timesteps ({', '.join(map(str, default.indices))} of "
            f"{default.inference_steps}): give --strength with --steps, or --t-index"
        )
    return StepSelection(
        strength=default.strength if options.strength is None else options.strength,
        steps=default.steps if options.steps is None else options.steps,
        inference_steps=default.inference_steps,
    )


def size_for(width: int, height: int, model: TranslationModel) -> tuple[int, int]:
    """About as many pixels as the model's default size, in the shape of a picture."""
    step, area = model.size_multiple, model.defaults.width * model.defaults.height
    ideal = (area * width / height) ** 0.5, (area * height / width) ** 0.5
    sides = [max(step, round(side / step) * step) for side in ideal]
    return sides[0], sides[1]


def parse_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """A precision by name, or the one that suits a device."""
    return DTYPES[name or ("float32" if device.type == "cpu" else "float16")]


def parse_device(name: str | None) -> torch.device:
    """A device by name, or the accelerator if there is one. Raises ConfigError."""
    if name is None:
        available = torch.accelerator.is_available()
        found = torch.accelerator.current_accelerator() if available else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: {error}") from error
    return device
