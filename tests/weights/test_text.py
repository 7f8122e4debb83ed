"""CLIP, its tokenizer and its concepts from the files that people have."""

import gzip
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from live2diff_core.errors import (
    WeightsError,
    WeightsFormatError,
    WeightsKeyError,
    WeightsKindError,
    WeightsMissingError,
    WeightsValueError,
)
from live2diff_core.models.text import TextEncoder, text_transformer
from live2diff_core.weights import text as module
from live2diff_core.weights.text import END, START, find_tokenizer, load_clip, load_concept

CPU = torch.device("cpu")


def clip_tensors(width: int = 128, layers: int = 2, words: int = 60) -> dict[str, Tensor]:
    """A text model in the key names of an SD 1.5 checkpoint, random."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.token_embedding.weight": (words, width),
        "embeddings.position_embedding.weight": (77, width),
    }
    for i in range(layers):
        linear = {f"self_attn.{n}_proj": (width, width) for n in ("q", "k", "v", "out")}
        linear |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, (rows, columns) in linear.items():
            shapes[f"encoder.layers.{i}.{name}.weight"] = (rows, columns)
            shapes[f"encoder.layers.{i}.{name}.bias"] = (rows,)
    norms = [f"encoder.layers.{i}.layer_norm{n}" for i in range(layers) for n in (1, 2)]
    for name in [*norms, "final_layer_norm"]:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return {
        f"text_model.{key}": 0.1 * torch.randn(shape, generator=generator)
        for key, shape in shapes.items()
    }


def load(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> CLIPTextModel:
    return load_clip(tensors, "my file", CPU, dtype)


@cache
def packaged() -> PreTrainedTokenizerFast:
    """The tokenizer from the vocabulary that an installed package carries."""
    return find_tokenizer([])


@cache
def full_width() -> TextEncoder:
    """SD 1.5's widths and vocabulary, fewer layers."""
    return TextEncoder(packaged(), load(clip_tensors(768, 2, 49408)))


# ---- the model


def test_a_model_computes_as_transformers_does_with_the_same_weights():
    tensors = clip_tensors()
    config = CLIPTextConfig(
        vocab_size=60,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act="quick_gelu",
        bos_token_id=58,
        eos_token_id=59,
    )
    theirs = CLIPTextModel(config).eval()
    state = {key.removeprefix("text_model."): tensor for key, tensor in tensors.items()}
    text_transformer(theirs).load_state_dict(state)
    ids = torch.tensor([[58, 3, 1, 4, 1, 5, 59, 59]])
    with torch.no_grad():
        assert torch.equal(load(tensors)(ids).last_hidden_state, theirs(ids).last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_arrive_in_the_dtype_that_was_asked_for(dtype):
    tensors = clip_tensors()
    model = load(tensors, dtype)
    own = text_transformer(model).state_dict()
    assert own.keys() == {key.removeprefix("text_model.") for key in tensors}
    assert all(
        torch.equal(own[k.removeprefix("text_model.")], tensors[k].to(dtype)) for k in tensors
    )
    assert {tensor.device for tensor in (*model.parameters(), *model.buffers())} == {CPU}


def test_a_model_is_ready_to_run_and_not_to_train():
    model = load(clip_tensors())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_names_may_have_a_prefix_and_what_is_not_used_may_be_there(prefix):
    tensors = clip_tensors()
    expected = text_transformer(load(tensors)).state_dict()
    named = {prefix + key.removeprefix("text_model."): tensor for key, tensor in tensors.items()}
    named[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    named["text_projection.weight"] = torch.zeros(128, 128)
    named["logit_scale"] = torch.tensor(4.6)
    got = text_transformer(load(named)).state_dict()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_the_settings_are_those_of_sd15():
    config = full_width().model.config
    assert (config.num_attention_heads, config.hidden_act) == (12, "quick_gelu")
    assert (config.bos_token_id, config.eos_token_id) == (49406, 49407)
    assert config.max_position_embeddings == 77


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("text_model.final_layer_norm.bias", r"my file does not fit .* 1 missing"),
        ("text_model.encoder.layers.1.mlp.fc2.bias", r"1 missing \(encoder.layers.1.mlp.fc2.bias"),
        ("text_model.embeddings.token_embedding.weight", r"my file holds no CLIP text model"),
    ],
)
def test_a_missing_key_is_refused(gone, reason):
    tensors = clip_tensors()
    del tensors[gone]
    with pytest.raises(WeightsKeyError, match=reason):
        load(tensors)


def test_an_unexpected_key_is_refused():
    with pytest.raises(WeightsKeyError, match=r"1 unexpected \(extra"):
        load(clip_tensors() | {"text_model.extra": torch.zeros(1)})


def test_nothing_is_no_text_model():
    with pytest.raises(WeightsKeyError, match="found nothing"):
        load({})


def test_spoiled_weights_are_refused():
    tensors = clip_tensors()
    tensors["text_model.final_layer_norm.bias"][3] = float("nan")
    with pytest.raises(WeightsValueError, match="my file"):
        load(tensors)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"model.transformer.resblocks.0.ln_1.bias": torch.zeros(1024)}, "OpenCLIP"),
        (clip_tensors(1024, 1), "1024 wide .*Stable Diffusion 2"),
        (clip_tensors(1280, 1), "1280 wide .*SDXL"),
        (clip_tensors(100, 1), "100 wide"),
    ],
    ids=["original names", "SD 2", "SDXL", "other"],
)
def test_other_text_encoders_are_refused(tensors, reason):
    with pytest.raises(WeightsKindError, match=f"my file .*{reason}.*1.5"):
        load(tensors)


# ---- at full width


@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [("", 1), ("a cat", 1), ("cat " * 75, 1), ("cat " * 76, 2), ("(a cat:1.2) " * 120, 4)],
)
def test_prompts_are_read_in_chunks_of_77(prompt, chunks):
    assert full_width().encode(prompt).shape == (1, 77 * chunks, 768)


def test_weights_follow_the_formula():
    encoder = full_width()
    got, plain, empty = map(encoder.encode, ("a (cat:1.3) here", "a cat here", ""))
    expected = plain.clone()
    expected[0, 2] = (plain[0, 2] - empty[0, 2]) * 1.3 + empty[0, 2]
    torch.testing.assert_close(got, expected)


# ---- the tokenizer


@pytest.mark.parametrize(  # recorded from transformers' CLIPTokenizer and OpenAI's vocabulary files
    ("text", "ids"),
    [
        ("", []),
        ("a cat", [320, 2368]),
        ("A Photo of a CAT, 4k!", [320, 1125, 539, 320, 2368, 267, 275, 330, 256]),
        ("it's  raining", [585, 568, 13964]),
        ("naïve café", [1097, 35689, 563, 15304]),
        ("猫 🎨", [163, 234, 360, 13461]),
        ("supercalifragilistic", [1642, 2857, 13093, 2076, 1561]),
        ("12345", [272, 273, 274, 275, 276]),
        ("<|endoftext|>x", [49407, 343]),
        ("\u00a0e\u0301", [4166]),
    ],
)
def test_text_is_read_as_clip_reads_it(text, ids):
    assert packaged()(text).input_ids == [49406, *ids, 49407]


def test_padding_is_by_end_tokens():
    tokenizer = packaged()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (49406, 49407)
    assert tokenizer("a cat", padding="max_length", max_length=6).input_ids[-3:] == [49407] * 3
    assert len(tokenizer) == 49408


MERGES = [("c", "a"), ("ca", "t</w>")]


def vocabulary() -> dict[str, int]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    merged = ["".join(pair) for pair in MERGES]
    words = [*letters, *(letter + "</w>" for letter in letters), *merged, START, END]
    return {word: i for i, word in enumerate(words)}


def write_pair(folder: Path, words: dict[str, int], merges=tuple(MERGES)) -> Path:
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(words))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    return folder


def write_whole(folder: Path, words: dict[str, int], merges) -> Path:
    folder.mkdir()
    content = {"model": {"type": "BPE", "vocab": words, "merges": merges}}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("form", ["pair", "whole", "whole with lists"])
def test_a_folder_of_any_form_is_read(tmp_path, form):
    words = vocabulary()
    if form == "pair":
        folder = write_pair(tmp_path / "f", words)
    else:
        merges = [list(p) if form == "whole with lists" else " ".join(p) for p in MERGES]
        folder = write_whole(tmp_path / "f", words, merges)
    expected = [words[START], words["ca"], words["b</w>"], words["cat</w>"], words[END]]
    assert find_tokenizer([folder])("CAB cat").input_ids == expected


def test_the_first_folder_that_has_one_counts(tmp_path):
    other = {word: i + 7 for word, i in vocabulary().items()} | {str(i): i for i in range(7)}
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "vocab.json").write_text("{}")
    second, third = write_pair(tmp_path / "b", other), write_pair(tmp_path / "c", vocabulary())
    places = [tmp_path / "nowhere", tmp_path / "empty", tmp_path / "half", second, third]
    assert find_tokenizer(places).bos_token_id == other[START]


def test_a_vocabulary_that_is_nowhere_is_asked_for_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("no_such_package", "json"))
    with pytest.raises(WeightsMissingError, match=r"pip install --no-deps clip-anytorch") as error:
        find_tokenizer([tmp_path / "tokenizer"])
    assert str(tmp_path / "tokenizer") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / "vocab.json").write_text("not json"),
        lambda f: (f / "vocab.json").write_text("[]"),
        lambda f: (f / "vocab.json").write_bytes(b"\xff\xfe"),
        lambda f: (f / "vocab.json").write_text(json.dumps(vocabulary() | {"a": "1"})),
        lambda f: (f / "vocab.json").write_text(json.dumps(vocabulary() | {"a": 70000})),
        lambda f: (f / "merges.txt").write_text("version\na b c\n"),
        lambda f: (f / "merges.txt").write_text("version\nx y\n"),
    ],
    ids=[
        "no json",
        "a list",
        "no text",
        "no number",
        "a gap",
        "triples",
        "another vocabulary's merges",
    ],
)
def test_damaged_files_are_refused(tmp_path, spoil):
    folder = write_pair(tmp_path / "f", vocabulary())
    spoil(folder)
    with pytest.raises(WeightsFormatError, match=r"vocab\.json"):
        find_tokenizer([folder])


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": {"vocab": {}, "merges": [1]}}])
def test_a_damaged_tokenizer_json_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(WeightsFormatError, match=r"tokenizer\.json"):
        find_tokenizer([tmp_path])


def test_another_text_encoders_vocabulary_is_refused(tmp_path):
    words = vocabulary()
    words["<s>"] = words.pop(START)
    with pytest.raises(WeightsKindError, match="it lacks <"):
        find_tokenizer([write_pair(tmp_path / "f", words)])


def test_a_tokenizer_of_another_sort_is_refused(tmp_path):
    content = {"model": {"type": "Unigram", "vocab": [["<pad>", 0.0]]}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(WeightsKindError, match=r"tokenizer\.json is a Unigram tokenizer"):
        find_tokenizer([tmp_path])


def test_a_damaged_package_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "vocabulary.gz"
    path.write_bytes(gzip.compress(b"version\nc a\n" * 100)[:-20])
    monkeypatch.setattr(module, "_find_packaged", lambda: path)
    with pytest.raises(WeightsFormatError, match=r"vocabulary\.gz"):
        find_tokenizer([])


# ---- concepts

VECTORS = torch.randn(3, 768, generator=torch.Generator().manual_seed(1))


def a1111(path: Path) -> None:
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.nn.Parameter(VECTORS)},
        "name": "trained as",
        "step": 100,
        "sd_checkpoint": None,
    }
    torch.save(content, path)


FORMS = {
    "easy.pt": a1111,
    "easy.bin": lambda path: torch.save({"<easy>": VECTORS.half()}, path),
    "easy.safetensors": lambda path: save_file({"emb_params": VECTORS}, path),
    "learned_embeds.safetensors": lambda path: save_file({"<easy>": VECTORS}, path),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_concept_is_read(tmp_path, name):
    FORMS[name](tmp_path / name)
    got, vectors = load_concept(tmp_path / name)
    assert got == Path(name).stem
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    torch.testing.assert_close(vectors, VECTORS, atol=2e-3, rtol=0)


def test_a_single_vector_is_a_row(tmp_path):
    save_file({"<easy>": VECTORS[0]}, tmp_path / "easy.safetensors")
    assert torch.equal(load_concept(tmp_path / "easy.safetensors")[1], VECTORS[:1])


def test_a_concept_is_read_in_a_prompt(tmp_path):
    save_file({"emb_params": VECTORS}, tmp_path / "easy.safetensors")
    name, vectors = load_concept(tmp_path / "easy.safetensors")
    encoder = TextEncoder(packaged(), full_width().model, concepts={name: vectors})
    assert encoder.encode("a cat, embedding:easy").shape == (1, 77, 768)
    assert encoder.encode("easy " * 26).shape == (1, 154, 768)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"clip_l": VECTORS, "clip_g": torch.zeros(3, 1280)}, "SDXL"),
        ({"clip_g": torch.zeros(3, 1280)}, "SDXL"),
        ({"a": VECTORS, "b": VECTORS + 1}, r"got 2 tensors \(a, b\)"),
        ({"emb_params": torch.zeros(2, 3, 4)}, "no textual inversion"),
        ({"ids": torch.arange(3)}, "no textual inversion"),
    ],
    ids=["SDXL", "half of SDXL", "two tensors", "three dimensions", "integers"],
)
def test_what_is_no_concept_for_sd15_is_refused(tmp_path, tensors, reason):
    save_file(tensors, tmp_path / "easy.safetensors")
    with pytest.raises(WeightsKindError, match=f"easy.safetensors .*{reason}"):
        load_concept(tmp_path / "easy.safetensors")


def test_a_spoiled_concept_is_refused(tmp_path):
    save_file({"emb_params": VECTORS * float("inf")}, tmp_path / "easy.safetensors")
    with pytest.raises(WeightsValueError, match="easy"):
        load_concept(tmp_path / "easy.safetensors")


def test_a_missing_concept_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"nothing\.pt"):
        load_concept(tmp_path / "nothing.pt")
