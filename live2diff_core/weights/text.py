"""The text encoder of Stable Diffusion 1.5 (CLIP ViT-L/14), its tokenizer, and concepts for it."""

import gzip
import importlib.util
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from ..errors import WeightsFormatError, WeightsKeyError, WeightsKindError, WeightsMissingError
from ..models.text import text_transformer
from .files import TensorFile, open_tensors, some
from .load import check_finite, load_strict

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
MERGE_COUNT = 49152 - 256 - 2  # CLIP reads no more of the list, which is longer in packages
PACKAGES, PACKAGED = ("clip", "open_clip"), "bpe_simple_vocab_16e6.txt.gz"
WORDS = (
    rf"{START}|{END}".replace("|>", r"\|>").replace("<|", r"<\|")
    + r"|'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
)

HEAD = 64  # channels of an attention head in every CLIP
OTHER_WIDTHS = {1024: "Stable Diffusion 2's OpenCLIP ViT-H", 1280: "SDXL's OpenCLIP ViT-bigG"}
# Beside the text model in some files: a constant, and CLIP's way to compare text with pictures.
UNUSED = ("embeddings.position_ids", "text_projection.weight", "logit_scale")

# What readers of JSON, text and gzip raise on files that are not what they should be.
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zlib.error)

Vocabulary = tuple[dict[str, int], list[tuple[str, str]]]


# ---- the model


def empty_clip() -> CLIPTextModel:
    """The text model of Stable Diffusion 1.5 without weights, on the meta device."""
    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    with torch.device("meta"):
        return CLIPTextModel(config)


def load_clip(
    tensors: Mapping[str, Tensor], what: str, device: torch.device, dtype: torch.dtype
) -> CLIPTextModel:
    """CLIP's text model from tensors in transformers' names, with or without `text_model.` before.

    Its sizes are read from the tensors. what: the file, for messages. Raises WeightsKindError for
    another text encoder, WeightsKeyError for keys that are missing or unexpected.
    """
    state = {key.removeprefix("text_model."): tensor for key, tensor in tensors.items()}
    state = {key: tensor for key, tensor in state.items() if key not in UNUSED}
    config = _clip_config(state, what)
    with init_empty_weights(include_buffers=False):
        model: Any = CLIPTextModel(config)
    model.to(dtype)
    load_strict(text_transformer(model), state, what, device)
    return model.to(device).eval().requires_grad_(False)


def _clip_config(state: Mapping[str, Tensor], what: str) -> CLIPTextConfig:
    if any("resblocks." in key for key in state):
        raise WeightsKindError(
            f"{what} holds an OpenCLIP text encoder (of Stable Diffusion 2 or SDXL), expected the "
            "CLIP ViT-L/14 of Stable Diffusion 1.5"
        )
    tokens, positions, inner = (
        _matrix(state, key, what)
        for key in (
            "embeddings.token_embedding.weight",
            "embeddings.position_embedding.weight",
            "encoder.layers.0.mlp.fc1.weight",
        )
    )
    words, width = tokens
    if width in OTHER_WIDTHS or width % HEAD:
        raise WeightsKindError(
            f"{what} holds a text encoder {width} wide ({OTHER_WIDTHS.get(width, 'unknown')}), "
            "expected the CLIP ViT-L/14 of Stable Diffusion 1.5, 768 wide"
        )
    layers = {key.split(".")[2] for key in state if key.startswith("encoder.layers.")}
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=inner[0],
        num_hidden_layers=len(layers),
        num_attention_heads=width // HEAD,
        max_position_embeddings=positions[0],
        hidden_act="quick_gelu",
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )


def _matrix(state: Mapping[str, Tensor], key: str, what: str) -> tuple[int, int]:
    """Rows and columns of a weight."""
    if key not in state or state[key].ndim != 2:
        raise WeightsKeyError(
            f"{what} holds no CLIP text model: {key} is missing or no matrix; found "
            f"{some(state) or 'nothing'}"
        )
    rows, columns = state[key].shape
    return rows, columns


# ---- its tokenizer


def find_tokenizer(folders: Sequence[Path]) -> PreTrainedTokenizerFast:
    """CLIP's tokenizer, from the first folder with vocab.json and merges.txt, or tokenizer.json.

    If none has them, the vocabulary comes with an installed package, which is not imported.
    Padding is by end tokens. Raises WeightsMissingError, WeightsFormatError for a damaged file,
    WeightsKindError for another text encoder's.
    """
    for folder in folders:
        vocabulary, whole = folder / VOCABULARY, folder / "tokenizer.json"
        if vocabulary.is_file() and (folder / MERGES).is_file():
            return _read(vocabulary, _vocabulary_json)
        if whole.is_file():
            return _read(whole, _tokenizer_json)
    packaged = _find_packaged()
    if packaged is None:
        raise WeightsMissingError(
            "CLIP's vocabulary is missing: put vocab.json and merges.txt (or tokenizer.json) into "
            f"{' or '.join(map(str, folders)) or 'a folder'}, or run "
            "`pip install --no-deps clip-anytorch`"
        )
    return _read(packaged, _packaged_vocabulary)


def _read(path: Path, read: Callable[[Path], Vocabulary]) -> PreTrainedTokenizerFast:
    try:
        vocabulary, merges = read(path)
        other = not {START, END} <= vocabulary.keys()
        damage = _damage(vocabulary, merges)
    except DAMAGED as error:
        raise WeightsFormatError(
            f"{path} or what lies beside it is no vocabulary ({error!r}): download it again"
        ) from error
    if other:
        raise WeightsKindError(
            f"{path} is the vocabulary of another text encoder, it lacks {START} or {END}: "
            "expected that of CLIP"
        )
    if damage:
        raise WeightsFormatError(f"{path} {damage}: download it again, with what lies beside it")
    return _clip_tokenizer(vocabulary, merges)


def _damage(vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]]) -> str:
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        return "does not number its words from 0 on without a gap"
    lost = [pair for pair in merges if not {*pair, "".join(pair)} <= vocabulary.keys()]
    return f"lacks words that the merges make ({some(map(' '.join, lost))})" if lost else ""


def _vocabulary_json(path: Path) -> Vocabulary:
    words = json.loads(path.read_text(encoding="utf-8"))
    return words, _merge_lines(path.with_name(MERGES).read_text(encoding="utf-8").split("\n"))


def _tokenizer_json(path: Path) -> Vocabulary:
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    if model.get("type", "BPE") != "BPE":
        raise WeightsKindError(
            f"{path} is a {model['type']} tokenizer, of another text encoder: expected that of CLIP"
        )
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return model["vocab"], [(first, second) for first, second in pairs]


def _merge_lines(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of what is merged, after a first line that tells the version."""
    pairs = (line.split() for line in islice(lines, 1, 1 + MERGE_COUNT) if line.strip())
    return [(first, second) for first, second in pairs]


def _find_packaged() -> Path | None:
    specs = (importlib.util.find_spec(name) for name in PACKAGES)
    places = (place for spec in specs if spec for place in spec.submodule_search_locations or ())
    return next((path for place in places if (path := Path(place) / PACKAGED).is_file()), None)


def _packaged_vocabulary(path: Path) -> Vocabulary:
    """From merges alone: words are bytes, bytes at a word's end, what is merged, special tokens."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        merges = _merge_lines(file)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [letter + WORD_END for letter in letters]
    words = [*letters, *ends, *map("".join, merges), START, END]
    return {word: number for number, word in enumerate(words)}, merges


def _clip_tokenizer(
    vocabulary: dict[str, int], merges: list[tuple[str, str]]
) -> PreTrainedTokenizerFast:
    """Byte-pair encoding of lower-case words. Radford et al. 2021 (CLIP), sec. 2.4."""
    tokenizer = Tokenizer(
        BPE(vocabulary, merges, end_of_word_suffix=WORD_END, unk_token=END, fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])],
    )
    start, end = (AddedToken(word, special=True, normalized=True) for word in (START, END))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, unk_token=end, pad_token=end
    )


# ---- concepts


def load_concept(path: Path) -> tuple[str, Tensor]:
    """A textual inversion: its name, which is the file's, and its vectors, (n, dim) float32.

    Reads A1111's .pt, diffusers' learned_embeds and safetensors with emb_params. Raises
    WeightsError, for SDXL's WeightsKindError.
    """
    file = open_tensors(path)
    key = _concept_key(file)
    vectors = file.read([key], torch.float32)[key]
    check_finite({key: vectors}, str(path))
    return path.stem, vectors.reshape(-1, vectors.shape[-1])


def _concept_key(file: TensorFile) -> str:
    if file.infos.keys() & {"clip_l", "clip_g"}:
        raise WeightsKindError(
            f"{file.path} is a textual inversion for SDXL, expected one for Stable Diffusion 1.5"
        )
    named = [k for k in file.infos if k == "emb_params" or k.startswith("string_to_param.")]
    keys = named or list(file.infos)
    if len(keys) == 1:
        info = file.infos[keys[0]]
        if info.dtype.is_floating_point and len(info.shape) in (1, 2) and 0 not in info.shape:
            return keys[0]
    raise WeightsKindError(
        f"{file.path} is no textual inversion: expected the vectors of one token, got "
        f"{len(keys)} tensors ({some(keys)})"
    )
