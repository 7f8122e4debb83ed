"""CLIP figures: how a frame fits the prompt, and neighbouring frames each other."""

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from ..errors import WeightsFormatError, WeightsKindError
from ..weights.component import BAD_SETTINGS, CONFIG, component, network_name, read_config
from ..weights.load import load_strict
from ..weights.text import find_tokenizer
from .figures import Figures, LeftOut, Mean

# Radford et al. (2021): the pictures that CLIP was trained on.
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONSTANTS = ("embeddings.position_ids",)  # written into older files
NO_CLIP = "no CLIP was given (--clip)"
NO_PROMPT = "no prompt was given (--prompt)"


class Clip:
    """CLIP with its tokenizer: pictures and texts as vectors of length 1."""

    def __init__(self, model: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model, self.tokenizer = model, tokenizer
        config: Any = model.config
        self._tokens: int = config.text_config.max_position_embeddings
        self._side: int = config.vision_config.image_size

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    @torch.inference_mode()
    def text(self, prompt: str) -> Tensor:
        """The vector of a text, (d,); CLIP reads no more than its 77 tokens."""
        most = self._tokens
        tokens = self.tokenizer(prompt, truncation=True, max_length=most, return_tensors="pt")
        pooled = self.model.text_model(input_ids=tokens["input_ids"].to(self.device)).pooler_output
        return functional.normalize(self.model.text_projection(pooled)[0], dim=0)

    @torch.inference_mode()
    def picture(self, rgb: Tensor) -> Tensor:
        """The vector of a picture (1, 3, h, w) in [0, 1], (d,).

        As CLIP was trained: the shorter side scaled bicubically, the middle cut out.
        """
        pixels = (_square(rgb, self._side) - _channels(MEAN)) / _channels(DEVIATION)
        pooled = self.model.vision_model(pixel_values=pixels.to(self.device)).pooler_output
        return functional.normalize(self.model.visual_projection(pooled)[0], dim=0)


def load_clip_model(folder: Path, device: torch.device) -> Clip:
    """Load a transformers folder of a CLIPModel, in float32. Raises WeightsError."""
    settings = read_config(folder)
    if network_name(settings) != "clip":
        raise WeightsKindError(
            f"{folder} holds {network_name(settings)}, expected clip (a CLIPModel: text and "
            "pictures), such as openai/clip-vit-large-patch14"
        )
    file = component(folder)
    try:
        config = CLIPConfig.from_dict(settings)
        with init_empty_weights(include_buffers=False):
            model: Any = CLIPModel(config)
    except BAD_SETTINGS as error:
        raise WeightsFormatError(f"{folder / CONFIG} describes no CLIP: {error}") from error
    tensors = file.read(dtype=torch.float32)
    state = {key: tensor for key, tensor in tensors.items() if not key.endswith(CONSTANTS)}
    load_strict(model, state, str(file.path), device)
    return Clip(model.to(device).eval().requires_grad_(False), find_tokenizer([folder]))


class ClipMeter:
    """CLIP score and consistency of one video.

    clip_score: mean over frames of max(100 cos(prompt, frame), 0); Hessel et al. (2021), scaled
    as torchmetrics does. clip_consistency: mean over neighbouring frames of the cosine between
    them, -1 to 1; Esser et al. (2023).
    """

    def __init__(self, clip: Clip, prompt: Tensor | None) -> None:
        """prompt: its vector, `clip.text` of it; None leaves the score out."""
        self._clip, self._prompt = clip, prompt
        self._before: Tensor | None = None
        self._score, self._consistency = Mean(), Mean()

    def update(self, rgb: Tensor) -> None:
        """Add the next frame, (1, 3, h, w) in [0, 1]."""
        now = self._clip.picture(rgb)
        if self._prompt is not None:
            self._score.add(max(100 * float(self._prompt @ now), 0.0))
        if self._before is not None:
            self._consistency.add(float(self._before @ now))
        self._before = now

    def figures(self) -> Figures:
        """Both means so far."""
        return {
            "clip_score": self._score.value(NO_PROMPT),
            "clip_consistency": self._consistency.value("fewer than two frames"),
        }


def without_clip() -> Figures:
    """What is said where there is no CLIP."""
    return {"clip_score": LeftOut(NO_CLIP), "clip_consistency": LeftOut(NO_CLIP)}


def _square(rgb: Tensor, side: int) -> Tensor:
    height, width = rgb.shape[-2:]
    scale = side / min(height, width)
    size = [max(side, round(length * scale)) for length in (height, width)]
    scaled = functional.interpolate(
        rgb, size, mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return scaled[..., top : top + side, left : left + side]


def _channels(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)
