"""Peak memory and time of loading Stable Diffusion 1.5 with Live2Diff's motion weights, full size.

Writes files of random values in each container that people have, loads each in a process of its
own and compares the peak of its resident memory with the bytes of the weights.

    python benchmarks/load_memory.py [--folder FOLDER] [--dtype float16]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from live2diff_core import ModelSpec, load_model
from live2diff_core.models.unet import MotionConfig, StreamingUNet
from tests import sd15

LIMIT = 1.3
CONTAINERS = ("safetensors", "ckpt", "folder")


def main() -> int:
    """Write, load and print; 1 if a peak is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load is not None:
        print(json.dumps(load(options.load, getattr(torch, options.dtype))))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        results = [measure(Path(name), container, options.dtype) for container in CONTAINERS]
    worst = max(result["ratio"] for result in results)
    print(f"highest peak: {worst:.2f} x the weights, limit {LIMIT}")
    return int(worst > LIMIT)


def measure(folder: Path, container: str, dtype: str) -> dict[str, Any]:
    """Write one container and load it in a process of its own."""
    models = folder / container
    command = [sys.executable, __file__, "--dtype", dtype, "--load", str(models)]
    write(models, container)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(models)
    result: dict[str, Any] = json.loads(done.stdout)
    result["ratio"] = result["peak"] / result["weights"]
    print(
        f"{container:12} weights {result['weights'] / 1e9:.2f} GB, peak {result['peak'] / 1e9:.2f} "
        f"GB ({result['ratio']:.2f} x; {result['before'] / 1e9:.2f} GB before), "
        f"{result['seconds']:.1f} s",
        flush=True,
    )
    return result


def load(models: Path, dtype: torch.dtype) -> dict[str, float]:
    """Load what lies in a models folder; bytes and seconds."""
    before, start = peak(), time.perf_counter()
    base = next((models / "checkpoints").iterdir())
    spec = ModelSpec(base=base.name, depth="structure", models=models)
    model = load_model(spec, "cpu", dtype)
    parts = (model.unet, model.text, model.autoencoder)
    modules = [part for part in parts if isinstance(part, nn.Module)]
    return {
        "weights": sum(p.nbytes for module in modules for p in module.parameters()),
        "before": before,
        "peak": peak(),
        "seconds": time.perf_counter() - start,
    }


def peak() -> int:
    """Highest resident memory of this process so far, bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def write(models: Path, container: str) -> None:
    """The files of one container, float16."""
    suffix = "safetensors" if container == "safetensors" else "ckpt"
    unet, text = networks()
    if container == "folder":
        write_folder(models / "checkpoints" / "sd15", unet.spatial, text)
    else:
        state = sd15.original_unet(unet.spatial)
        state |= {sd15.CLIP_PREFIX + key: tensor for key, tensor in clip_names(text).items()}
        sd15.save(filled(state), models / "checkpoints" / f"sd15.{suffix}")
    motion = sd15.reference_motion(unet)
    motion = filled({k: t for k, t in motion.items() if not k.endswith(".pe")}) | {
        k: t for k, t in motion.items() if k.endswith(".pe")
    }
    if suffix == "ckpt":
        motion = {f"module.{key}": tensor for key, tensor in motion.items()}
    sd15.save(motion, models / "live2diff" / f"live2diff.{suffix}")
    write_taesd(models / "vae_approx" / "taesd")


def networks() -> tuple[StreamingUNet, CLIPTextModel]:
    """Full-size networks without memory."""
    with init_empty_weights():
        spatial = UNet2DConditionModel(cross_attention_dim=768)
        config = CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
        )
        return StreamingUNet(spatial, MotionConfig()), CLIPTextModel(config)


def clip_names(text: CLIPTextModel) -> dict[str, Tensor]:
    """The text model's keys as files have them."""
    return {f"text_model.{k.removeprefix('text_model.')}": t for k, t in text.state_dict().items()}


def write_folder(folder: Path, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
    """A diffusers folder."""
    config = {key: value for key, value in unet.config.items() if not key.startswith("_")}
    names: list[tuple[str, str, Callable[[], dict[str, Tensor]]]] = [
        ("unet", "diffusion_pytorch_model", unet.state_dict),
        ("text_encoder", "model", lambda: clip_names(text)),
    ]
    for part, name, state in names:
        sd15.save(filled(state()), folder / part / f"{name}.safetensors")
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    (folder / "text_encoder" / "config.json").write_text(
        json.dumps({"architectures": ["CLIPTextModel"], "hidden_size": 768})
    )


def write_taesd(folder: Path) -> None:
    """TAESD as a diffusers folder."""
    AutoencoderTiny().half().save_pretrained(folder)


def filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Small random values of the same shapes."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: (torch.rand(tensor.shape, generator=generator) * 0.02 - 0.01).half()
        for key, tensor in state.items()
    }


if __name__ == "__main__":
    sys.exit(main())
