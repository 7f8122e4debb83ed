"""Damaged weights files: whatever their bytes, they are read or refused by one of our errors."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from live2diff_core.errors import Live2DiffError
from live2diff_core.weights.files import open_tensors
from live2diff_core.weights.identity import identify
from live2diff_core.weights.inspect import inspect

STATE = {
    "lora_unet_down_blocks_0_attn2_to_k.lora_down.weight": torch.ones(4, 3),
    "lora_unet_down_blocks_0_attn2_to_k.alpha": torch.tensor(4.0),
    "emb_params": torch.zeros(2, 3, dtype=torch.float16),
    "steps": torch.arange(3),
}


def torch_file(**options: bool) -> bytes:
    with io.BytesIO() as buffer:
        torch.save(
            {"epoch": 3, "state_dict": STATE, "rest": [1.5, None, {"a": "b"}]}, buffer, **options
        )
        return buffer.getvalue()


SAFETENSORS = save(STATE, {"format": "pt", "ss_base_model_version": "sd_v1"})
HEADER = 8 + int.from_bytes(SAFETENSORS[:8], "little")
ZIP = torch_file()
LEGACY = torch_file(_use_new_zipfile_serialization=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def answer(path: Path, content: bytes) -> bool:
    """Whether a file is read, tensors and all; any error that is not ours fails the test."""
    path.write_bytes(content)
    try:
        file = open_tensors(path)
        assert set(file.read()) == set(file.infos)
        assert identify(file) == inspect(path)
    except Live2DiffError as error:
        assert str(path) in str(error)
        return False
    return True


@st.composite
def damaged(draw: st.DrawFn, content: bytes, most: int) -> bytes:
    """Cut off, bits flipped, bytes replaced, taken out or put in; all within the first `most`."""
    result = bytearray(content)
    places = st.integers(0, most - 1)
    match draw(st.sampled_from(["cut", "flip", "flip", "flip", "replace", "remove", "insert"])):
        case "cut":
            del result[draw(st.integers(0, len(content) - 1)) :]
        case "flip":
            for place in draw(st.lists(places, min_size=1, max_size=6)):
                result[place] ^= 1 << draw(st.integers(0, 7))
        case "replace":
            start = draw(places)
            new = draw(st.binary(min_size=1, max_size=9))
            result[start : start + len(new)] = new
        case "remove":
            start = draw(places)
            del result[start : start + draw(st.integers(1, 40))]
        case "insert":
            start = draw(places)
            result[start:start] = draw(st.binary(min_size=1, max_size=9))
    return bytes(result)


def test_the_files_are_sound_before_they_are_damaged(folder):
    assert answer(folder / "x.safetensors", SAFETENSORS)
    assert answer(folder / "x.ckpt", ZIP)
    assert answer(folder / "x.ckpt", LEGACY)


@settings(max_examples=700)
@given(content=damaged(SAFETENSORS, HEADER))
def test_damaged_safetensors(folder, content):
    answer(folder / "x.safetensors", content)


@settings(max_examples=700)
@given(content=damaged(ZIP, len(ZIP)))
def test_damaged_torch_files(folder, content):
    answer(folder / "x.ckpt", content)


@settings(max_examples=700)
@given(content=damaged(LEGACY, len(LEGACY)))
def test_damaged_legacy_torch_files(folder, content):
    answer(folder / "x.pt", content)


SIZES = st.one_of(st.integers(0, 4), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3))
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["F16", "F32", "U8", "BOOL", "C64", "F4"]), st.text()),
        "shape": st.lists(SIZES, max_size=4),
        "data_offsets": st.lists(SIZES, max_size=3),
        "more": st.none(),
    },
)
HEADERS = st.dictionaries(
    st.one_of(st.text(max_size=8), st.just("__metadata__")),
    st.one_of(ENTRIES, st.dictionaries(st.text(max_size=4), st.text(max_size=4)), SIZES),
    max_size=3,
)


@settings(max_examples=500)
@given(header=HEADERS, data=st.binary(max_size=32), lie=st.integers(-3, 3))
def test_invented_headers(folder, header, data, lie):
    content = json.dumps(header).encode("utf-8", "surrogatepass")
    length = max(0, len(content) + lie).to_bytes(8, "little")
    answer(folder / "x.safetensors", length + content + data)


@settings(max_examples=300)
@given(content=st.binary(max_size=200), name=st.sampled_from(["x.safetensors", "x.ckpt", "x"]))
@example(content=b"PK\x03\x04" + bytes(60), name="x")
@example(content=b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01u.", name="x.ckpt")
def test_anything_at_all(folder, content, name):
    answer(folder / name, content)


KEYS = st.one_of(st.text(max_size=6), st.integers(), st.none(), st.tuples(st.integers()))
TENSORS = st.sampled_from(
    [
        torch.ones(2),
        torch.zeros(()),
        torch.zeros(0, 2**40),
        torch.ones(2, 2).T,
        torch.ones(1).expand(2**20, 2**20),
        torch.eye(2).to_sparse(),
        torch.empty(2, device="meta"),
        torch.ones(1, dtype=torch.complex64),
        torch.nn.Parameter(torch.ones(2)),
    ]
)
PLAIN = st.one_of(st.integers(), st.floats(), st.text(max_size=4), st.none(), st.booleans())
CONTENTS = st.recursive(
    st.one_of(TENSORS, PLAIN),
    lambda inner: st.one_of(
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(st.just("state_dict"), inner),
        st.lists(inner, max_size=2),
    ),
    max_leaves=8,
)


@settings(max_examples=500)
@given(content=CONTENTS, zipped=st.booleans())
def test_invented_contents(folder, content: Any, zipped: bool):
    with io.BytesIO() as buffer:
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        answer(folder / "x.ckpt", buffer.getvalue())
