"""live2diff doctor: what is installed, what is missing, and whether the bundled model runs."""

import argparse
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import chain, groupby
from pathlib import Path
from typing import Literal

import av
import cv2
import torch
from av.codec import Codec

from .. import __version__
from ..config import StreamConfig
from ..errors import Live2DiffError, WeightsError
from ..frames import Frame
from ..stream.session import Session
from ..stream.translate import translate
from ..weights import model as weights
from ..weights.budget import free_memory, in_gb
from ..weights.spec import ModelSpec, models_folder
from ..weights.styles import load_styles, missing
from ..weights.text import find_tokenizer
from .options import Commands, parse_device, parse_dtype

BROKEN = 1
State = Literal["ok", "missing", "failed"]
PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
    "av",
)
ENCODERS = {
    "H.264": "libx264",
    "H.265": "libx265",
    "VP9": "libvpx-vp9",
    "AAC": "aac",
    "Opus": "libopus",
}
COMPILERS = ("c++", "g++", "clang++", "cl")
FRAMES = 12  # pushed through the bundled model


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ok, missing (optional, or needed by some models alone) or failed."""

    group: str
    part: str
    state: State
    text: str
    advice: str = ""


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="look over the installation",
        description="Look over the installation; the exit status is 0 if the bundled model runs.",
    )
    parser.add_argument("--models", type=Path, help="models folder (default: models)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 if the bundled model does not run."""
    models = options.models or models_folder()
    bundled = check_bundled()
    findings = [*versions(), *devices(), *extras(), *files(models), bundled]
    works = bundled.state == "ok"
    if options.json:
        print(json.dumps({"ok": works, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        _print(findings)
        print("the bundled model runs" if works else "the bundled model does not run")
    return 0 if works else BROKEN


def _print(findings: Sequence[Finding]) -> None:
    for group, found in groupby(findings, lambda finding: finding.group):
        print(group)
        for one in found:
            advice = f": {one.advice}" if one.advice else ""
            print(f"  {one.state:8} {one.part} {one.text}{advice}")


# ---- programs and devices


def versions() -> Iterator[Finding]:
    """Versions of what the engine stands on."""
    yield Finding("versions", "live2diff", "ok", __version__)
    yield Finding("versions", "python", "ok", platform.python_version())
    for package in PACKAGES:
        try:
            yield Finding("versions", package, "ok", version(package))
        except PackageNotFoundError:
            advice = f"pip install {package}"
            yield Finding("versions", package, "missing", "is not installed", advice)
    yield Finding("versions", "FFmpeg", "ok", f"{av.ffmpeg_version_info}, inside av")
    yield Finding("versions", "opencv", "ok", cv2.__version__)


def devices() -> Iterator[Finding]:
    """Every device that torch can use, with its free memory."""
    names = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        names += [f"{kind}:{index}" for index in range(torch.accelerator.device_count())]
    for name in names:
        yield Finding("devices", name, "ok", f"{in_gb(free_memory(torch.device(name)))} free")


# ---- optional parts


def extras() -> Iterator[Finding]:
    """Parts that the engine does without."""
    yield _compiler()
    triton = find_spec("triton") is not None
    yield _optional("Triton", "is there" if triton else "", "pip install triton (for GPUs)")
    yield _optional("camera", ", ".join(_cameras()), "connect a camera")
    for name, encoder in ENCODERS.items():
        found = encoder if _can_encode(encoder) else ""
        yield _optional(f"{name} encoder", found, f"install a build of av that has {encoder}")


def _optional(part: str, found: str, advice: str) -> Finding:
    if found:
        return Finding("optional", part, "ok", found)
    return Finding("optional", part, "missing", "none found", advice)


def _compiler() -> Finding:
    """What torch.compile and the temporal attention of CPUs need."""
    named = [name for name in (os.environ.get("CXX"),) if name]
    paths = (shutil.which(name) for name in (*named, *COMPILERS))
    found = next((path for path in paths if path), "")
    return _optional("C++ compiler", found, "install a C++ compiler, such as g++, or set CXX")


def _cameras() -> list[str]:
    """Cameras as the system lists them; none is opened."""
    listed = sorted(map(str, Path("/dev").glob("video*")))
    if listed or platform.system() == "Linux":
        return listed
    registry = cv2.videoio_registry
    return [registry.getBackendName(number) for number in registry.getCameraBackends()]


def _can_encode(encoder: str) -> bool:
    try:
        Codec(encoder, "w")
    except ValueError:  # of which PyAV's UnknownCodecError is one
        return False
    return True


# ---- files


def files(models: Path) -> Iterator[Finding]:
    """CLIP's vocabulary, the models folder, and what it lacks for each style."""
    spec = ModelSpec(models=models)
    try:
        find_tokenizer(spec.tokenizers())
        yield Finding("files", "CLIP vocabulary", "ok", "is there")
    except WeightsError as error:
        yield Finding("files", "CLIP vocabulary", "missing", "none that works", str(error))
    if models.is_dir():
        yield Finding("files", f"models folder {models}", "ok", "is there")
    else:
        advice = "make it, or name another with --models or LIVE2DIFF_MODELS"
        yield Finding("files", f"models folder {models}", "missing", "is not there", advice)
    lacking = {name: missing(style, style.spec(spec)) for name, style in load_styles().items()}
    for one in dict.fromkeys(chain(*lacking.values())):
        advice = f"put it into {one.folder}" + (f", from {one.source}" if one.source else "")
        yield Finding("files", f"{one.part} {one.name}", "missing", "is not here", advice)
    for style, absent in lacking.items():
        names = ", ".join(f"{one.part} {one.name}" for one in absent)
        if absent:
            yield Finding("styles", style, "missing", f"lacks {names}", "see files")
        else:
            yield Finding("styles", style, "ok", "complete")


# ---- the bundled model


def check_bundled() -> Finding:
    """Load the bundled model and push frames through a session."""
    group, part = "bundled model", "stream"
    try:
        device = parse_device(None)
        text = _stream(device)
    except (Live2DiffError, RuntimeError) as error:
        advice = "reinstall live2diff, and torch if it says nothing of files"
        return Finding(group, part, "failed", f"{type(error).__name__}: {error}", advice)
    if text is None:
        advice = f"update torch and the driver of {device}"
        return Finding(group, part, "failed", f"pictures on {device} are not finite", advice)
    return Finding(group, part, "ok", text)


def _stream(device: torch.device) -> str | None:
    """What ran; None if a picture is not finite."""
    model = weights.load_model(ModelSpec(), device, parse_dtype(None, device))
    prompt = next(iter(model.text.styles), "")
    default = model.defaults
    config = StreamConfig(default.width, default.height, default.steps, default.noise)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(FRAMES, 3, config.height, config.width, generator=generator)
    frames = [Frame(rgb, index, index / 25) for index, rgb in enumerate(pictures)]
    with Session(model, config, prompt) as session:
        translated = list(translate(session, frames))
    if not all(bool(frame.rgb.isfinite().all()) for frame in translated):
        return None
    return f"{model.name} translated {len(translated)} frames on {device}"
