"""Optical flow by RAFT, of the optional package torchvision."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError, WeightsMissingError
from ..weights.files import open_tensors
from ..weights.load import load_strict
from .picture import Image, Pixels

FILE = "raft_large_C_T_SKHT_V2-ff5fadd5.pth"  # torchvision's, its default for raft_large
URL = f"https://download.pytorch.org/models/{FILE}"
FOLDER = "flow"  # below the models folder
MULTIPLE, LEAST = 8, 128  # pixels; sides that RAFT takes


class RaftFlow:
    """RAFT (Teed and Deng, 2020) with torchvision's weights; the flow of its last refinement."""

    name = "raft"

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device

    @torch.inference_mode()
    def __call__(self, first: Pixels, second: Pixels) -> Image:
        """Flow from the first picture to the second one, (h, w, 2)."""
        height, width = first.shape[:2]
        a, b = (self._prepared(pixels) for pixels in (first, second))
        flow = self._network(a, b)[-1][0, :, :height, :width]
        return np.ascontiguousarray(flow.float().cpu().permute(1, 2, 0).numpy())

    def _prepared(self, pixels: Pixels) -> Tensor:
        """(1, 3, h, w) in [-1, 1], edges repeated to sides that RAFT takes."""
        rgb = torch.from_numpy(pixels).to(self._device).permute(2, 0, 1)[None].float()
        height, width = (max(LEAST, -(-side // MULTIPLE) * MULTIPLE) for side in pixels.shape[:2])
        beyond = (0, width - rgb.shape[3], 0, height - rgb.shape[2])
        return functional.pad(rgb / 127.5 - 1, beyond, mode="replicate")


def load_raft(models: Path, device: torch.device, download: bool = False) -> RaftFlow:
    """Load RAFT large. models: the models folder, where its file is looked for in `flow`.

    torch.hub's folder, where torchvision keeps it, is looked into, too. Fetched only with
    download. Raises ConfigError without torchvision, WeightsError.
    """
    library = _torchvision()
    path = find_raft(models, download)
    network: Any = library.raft_large(weights=None)
    load_strict(network, open_tensors(path).read(), str(path))
    return RaftFlow(network.to(device).eval().requires_grad_(False), device)


def find_raft(models: Path, download: bool) -> Path:
    """The file of weights. Raises WeightsMissingError."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    own = models / FOLDER / FILE
    for path in (own, cached):
        if path.is_file():
            return path
    if not download:
        raise WeightsMissingError(
            f"RAFT's weights {FILE} are not here: put them into {own.parent}, or let --download "
            f"fetch them from {URL}"
        )
    cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(URL, str(cached), hash_prefix=FILE[-12:-4])
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsMissingError(
            f"{URL} could not be fetched: {error}; or put it into {own.parent}"
        ) from error
    return cached


def _torchvision() -> ModuleType:
    try:
        return importlib.import_module("torchvision.models.optical_flow")
    except (ImportError, RuntimeError) as error:  # one that was built for another torch
        raise ConfigError(
            f"flow by RAFT needs torchvision ({error}): install the release that belongs to torch "
            f"{torch.__version__}, or take the flow dis"
        ) from error
