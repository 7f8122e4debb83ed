"""The bundled model: building it from its configuration, reading and writing its files."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from ...config import NoiseScheduleConfig, StepSelection, TemporalConfig
from ...errors import WeightsFormatError
from ...models.autoencoder import BlockCosineAutoencoder
from ...models.depth import StructureMap
from ...models.text import StyleTextEncoder, text_transformer
from ...models.translator import ModelDefaults, TranslationModel
from ...models.unet import MotionConfig, StreamingUNet
from ..files import read_safetensors
from ..load import load_strict

DIRECTORY = Path(__file__).parent
WEIGHTS, CONFIG, TOKENIZER = "bundled.safetensors", "config.json", "tokenizer.json"
START, END, PAD, UNKNOWN = "<start>", "<end>", "<pad>", "<unknown>"


@dataclass(frozen=True, slots=True)
class Parts:
    """The modules of a bundled model, each under its key prefix in the file."""

    unet: StreamingUNet
    text: StyleTextEncoder
    autoencoder: BlockCosineAutoencoder

    def modules(self) -> nn.ModuleDict:
        """The parts that hold weights, by prefix."""
        text = text_transformer(self.text.model)
        return nn.ModuleDict({"unet": self.unet, "text": text, "autoencoder": self.autoencoder})


def word_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    """A tokenizer of lower-case words; other characters separate them. Holds the special tokens."""
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^a-z<>]+"), behavior="removed")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])],
    )
    return tokenizer


def build(config: dict[str, Any], tokenizer: Tokenizer) -> Parts:
    """Fresh modules for a configuration as in config.json."""
    motion = MotionConfig(
        TemporalConfig(**config["temporal"]), tuple(config["depth_mapping"]["widths"])
    )
    unet = StreamingUNet(UNet2DConditionModel(**config["unet"]), motion)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
    )
    text_config = CLIPTextConfig(
        vocab_size=tokenizer.get_vocab_size(),
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        **config["text"],
    )
    text = StyleTextEncoder(fast, CLIPTextModel(text_config), config["styles"])
    return Parts(unet, text, BlockCosineAutoencoder(**config["autoencoder"]))


def assemble(parts: Parts, config: dict[str, Any]) -> TranslationModel:
    """The parts as a translation model."""
    defaults = config["defaults"]
    return TranslationModel(
        name=config["name"],
        unet=parts.unet,
        autoencoder=parts.autoencoder,
        depth=StructureMap(**config["structure"]),
        text_encoder=parts.text,
        schedule=NoiseScheduleConfig(**config["schedule"]),
        defaults=ModelDefaults(
            defaults["width"],
            defaults["height"],
            StepSelection(strength=defaults["strength"], steps=defaults["steps"]),
            defaults["noise"],
        ),
    )


def bundled_vocabulary(directory: Path) -> dict[str, int]:
    """The words that a bundled model knows, and the row of each in its table."""
    text = (directory / TOKENIZER).read_text(encoding="utf-8")
    words: dict[str, int] = json.loads(text)["model"]["vocab"]
    return words


def load_bundled(
    directory: Path = DIRECTORY,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TranslationModel:
    """The bundled model, ready to run. Raises WeightsError for files that do not fit."""
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        parts = build(config, word_tokenizer(bundled_vocabulary(directory)))
        model = assemble(parts, config)
    except OSError as error:
        raise WeightsFormatError(f"{directory} holds no bundled model: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsFormatError(
            f"{directory}: {CONFIG} or {TOKENIZER} is not a bundled model's: {error!r}"
        ) from error
    modules = parts.modules()
    weights = directory / WEIGHTS
    load_strict(modules, read_safetensors(weights), str(weights))
    modules.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return replace(model, is_fixed=True)


def save_bundled(directory: Path, parts: Parts, config: dict[str, Any]) -> None:
    """Write a bundled model in float16, as `load_bundled` reads it."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {
        key: tensor.detach().half().contiguous()
        for key, tensor in parts.modules().state_dict().items()
    }
    save_file(state, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer = parts.text.tokenizer.backend_tokenizer.to_str(pretty=True)
    (directory / TOKENIZER).write_text(tokenizer + "\n", encoding="utf-8")
