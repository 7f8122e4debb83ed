"""What is no weights file, is damaged or would run code: refused by what it is, nothing run."""

import codecs
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from live2diff_core.errors import WeightsCodeError, WeightsFormatError, WeightsMissingError
from live2diff_core.weights import files
from live2diff_core.weights.files import open_tensors


def write(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


# ---- files of something else


def text(path: Path) -> None:
    path.write_text("Please log in to download this file.\n", encoding="utf-8")


def page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html>\n<html><body>Accept the licence</body></html>")


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265380512\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def gguf(path: Path) -> None:
    path.write_bytes(b"GGUF\x03\0\0\0" + bytes(100))


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


REFUSED = [
    (text, r"x\.safetensors is a text file, not weights"),
    (page, r"x\.safetensors is a web page, not weights"),
    (pointer, r"x\.safetensors is a Git LFS pointer.*git lfs pull"),
    (empty, r"x\.safetensors is empty"),
    (gguf, r"x\.safetensors is a GGUF file"),
    (folder, r"x\.safetensors is a folder, expected a file"),
    (pipe, r"x\.safetensors is no regular file"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_what_is_no_tensor_file_is_told_by_what_it_is(tmp_path, make, reason):
    make(tmp_path / "x.safetensors")
    with pytest.raises(WeightsFormatError, match=reason):
        open_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("make", [text, page, pointer, empty, folder])
def test_under_the_name_of_a_pickle_it_is_refused_as_well(tmp_path, make):
    make(tmp_path / "x.ckpt")
    with pytest.raises(WeightsFormatError, match=r"x\.ckpt"):
        open_tensors(tmp_path / "x.ckpt")


@pytest.mark.parametrize("name", ["nowhere.ckpt", "no/where.safetensors"])
def test_a_file_that_is_not_there_is_missing(tmp_path, name):
    with pytest.raises(WeightsMissingError, match=rf"there is no file .*{name}"):
        open_tensors(tmp_path / name)


def test_a_name_that_no_file_can_have_is_one_of_our_errors(tmp_path):
    with pytest.raises(WeightsFormatError, match="File name too long"):
        open_tensors(tmp_path / ("x" * 300))


# ---- pickles with code in them: nothing of them is run


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def as_legacy(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_bare(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save_as", [write, as_legacy, as_bare])
@pytest.mark.parametrize("key", ["state_dict", "callbacks"])
def test_code_in_a_pickle_is_refused_by_name_and_not_run(tmp_path, save_as, key):
    target = tmp_path / "made"
    content = {"w": torch.ones(1)} if save_as is not as_bare else {}
    save_as(tmp_path / "x.ckpt", content | {key: Payload(target)})
    with pytest.raises(WeightsCodeError, match=r"x\.ckpt is a pickle that needs posix\.mkdir"):
        open_tensors(tmp_path / "x.ckpt")
    assert not target.exists()


def test_pickles_that_torch_did_not_write_are_refused_and_not_run(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps({"w": Payload(tmp_path / "made")}))
    with pytest.raises(WeightsFormatError, match="of which nothing was run"):
        open_tensors(tmp_path / "x.ckpt")
    assert not (tmp_path / "made").exists()


def test_the_payload_of_these_tests_does_run_where_it_is_let(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "made")))
    assert (tmp_path / "made").exists()


class Made:
    """Unpickled by calling a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def explode(*_: object) -> None:
    raise AssertionError("it was called")


def test_functions_of_ignored_names_are_not_called(tmp_path, monkeypatch):
    path = write(tmp_path / "x.ckpt", {"w": torch.ones(1), "x": Made(explode, "any", "thing")})
    with pytest.raises(WeightsCodeError, match="explode"):
        open_tensors(path)
    monkeypatch.setattr(files, "IGNORED", (f"{explode.__module__}.explode",))
    assert set(open_tensors(path).infos) == {"w"}


def test_numbers_of_numpy_beside_the_tensors_are_passed_over(tmp_path):
    content = {"state_dict": {"w": torch.ones(1)}, "loss": np.float64(0.5), "step": np.int64(3)}
    assert set(open_tensors(write(tmp_path / "x.ckpt", content)).infos) == {"w"}


def test_what_torch_calls_itself_may_fail(tmp_path):
    path = write(tmp_path / "x.ckpt", {"x": Made(codecs.encode, "text", "no such encoding")})
    with pytest.raises(WeightsFormatError, match=r"torch file \(LookupError\)"):
        open_tensors(path)


# ---- pickles that are not what they seem


def cyclic() -> object:
    content: dict[str, object] = {"w": torch.ones(1)}
    content["self"] = content
    return content


def shared() -> object:
    inner: dict[str, object] = {"w": torch.ones(1)}
    for _ in range(40):
        inner = {"a": inner, "b": inner}
    return inner


def deep() -> object:
    content: dict[str, object] = {"w": torch.ones(1)}
    for _ in range(60):
        content = {"a" * 20: content}
    return content


STRANGE = {
    "the same dictionary inside itself": (cyclic, "in two places"),
    "a dictionary that is in it 2^40 times": (shared, "in two places"),
    "nesting without end": (deep, "keys that are no names"),
    "a key that is no name": (lambda: {(1, 2): torch.ones(1)}, "keys that are no names"),
    "a key twice": (lambda: {"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, "key a.b twice"),
    "a number and its text": (lambda: {1: torch.ones(1), "1": torch.ones(1)}, "key 1 twice"),
    "a sparse tensor": (lambda: {"w": torch.eye(3).to_sparse()}, "holds w as a sparse"),
    "a tensor without numbers": (
        lambda: {"w": torch.empty(3, device="meta")},
        "holds w as a sparse, quantized or empty",
    ),
    "a list": (lambda: [torch.ones(1)], "holds list, expected named tensors"),
    "a tensor": (lambda: torch.ones(1), "holds Tensor, expected named tensors"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_pickles_are_refused(tmp_path, name):
    make, reason = STRANGE[name]
    path = write(tmp_path / "x.ckpt", make())
    with pytest.raises(WeightsFormatError, match=reason):
        open_tensors(path)


def test_the_tar_files_of_the_oldest_torch_are_refused(tmp_path):
    with tarfile.open(tmp_path / "x.pt", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(WeightsFormatError, match="cannot be read as a torch file"):
        open_tensors(tmp_path / "x.pt")


# ---- safetensors headers that are not what they seem


def header(path: Path, entries: object, data: int = 16) -> Path:
    content = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + bytes(data))
    return path


def tensor(**changes: object) -> dict[str, object]:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    return {"w": entry | changes}


FALSE = {
    "an unknown precision": tensor(dtype="F99"),
    "a precision that is not supported": tensor(dtype="F4", shape=[32]),
    "no precision": tensor(dtype=None),
    "a negative size": tensor(shape=[-2, -2]),
    "a huge size": tensor(shape=[2**62, 2**62]),
    "a size beyond 64 bits": tensor(shape=[2**70]),
    "sizes that are no numbers": tensor(shape=["2", 2]),
    "sizes of another tensor": tensor(shape=[3, 2]),
    "offsets beyond the file": tensor(data_offsets=[0, 160], shape=[40]),
    "offsets that go back": tensor(data_offsets=[16, 0]),
    "overlapping offsets": {
        "a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
    },
    "a gap between tensors": {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]},
    },
    "no offsets": {"w": {"dtype": "F32", "shape": [2, 2]}},
    "metadata that are no text": tensor() | {"__metadata__": {"a": 1}},
    "metadata that are no object": tensor() | {"__metadata__": ["a"]},
    "an array": [tensor()],
    "deep nesting": b'{"w":' + b"[" * 100_000,
    "bytes that are no text": b'{"\xff\xfe": {}}',
    "half a surrogate": b'{"\\ud800": {"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    "nothing": b"",
}


@pytest.mark.parametrize("name", FALSE)
def test_false_headers_are_refused(tmp_path, name):
    path = header(tmp_path / "x.safetensors", FALSE[name])
    with pytest.raises(WeightsFormatError, match=r"x\.safetensors"):
        open_tensors(path)


@pytest.mark.parametrize("length", [0, 7, 2**20, 2**31, 2**62, 2**63, 2**64 - 1])
def test_false_header_lengths_are_refused(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + save({"w": torch.ones(2, 2)})[8:])
    with pytest.raises(WeightsFormatError, match="cannot be read as safetensors"):
        open_tensors(path)


def test_sizes_of_tensors_without_values_do_not_overflow(tmp_path):
    entry = {"dtype": "F32", "shape": [0, 2**63, 3], "data_offsets": [0, 0]}
    file = open_tensors(header(tmp_path / "x.safetensors", {"w": entry}, data=0))
    assert (file.infos["w"].shape, file.parameters) == ((0, 2**63, 3), 0)
