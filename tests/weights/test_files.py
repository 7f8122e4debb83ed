"""Tensor files: what is in them, in every container, and their tensors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from live2diff_core.errors import (
    WeightsFormatError,
)
from live2diff_core.weights import files
from live2diff_core.weights.files import TensorInfo, open_tensors, sha256, some

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float16).view(2, 3),
    "b": torch.tensor(2.5),
    "c": torch.tensor([1, 2], dtype=torch.int64),
    "d": torch.tensor([1.5], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
}


def write(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


def zipped(path: Path) -> Path:
    return write(path / "x.ckpt", TENSORS)


def trained(path: Path) -> Path:
    return write(
        path / "x.ckpt", {"epoch": 2, "state_dict": TENSORS, "callbacks": {"x": [1, None]}}
    )


def legacy(path: Path) -> Path:
    return write(path / "x.pt", TENSORS, _use_new_zipfile_serialization=False)


def other_protocol(path: Path) -> Path:
    return write(path / "x.pth", TENSORS, pickle_protocol=3)


def zip_named_otherwise(path: Path) -> Path:
    return zipped(path).rename(path / "x.model")


def plain(path: Path) -> Path:
    save_file(TENSORS, path / "x.safetensors", {"format": "pt", "k": "v"})
    return path / "x.safetensors"


def safetensors_named_ckpt(path: Path) -> Path:
    return plain(path).rename(path / "x.ckpt")


PICKLED = [zipped, trained, legacy, other_protocol, zip_named_otherwise]
SOUND = [plain, safetensors_named_ckpt, *PICKLED]


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours
    )


# ---- sound files


@pytest.mark.parametrize("make", SOUND)
def test_a_file_is_opened_by_what_it_contains(tmp_path, make):
    file = open_tensors(make(tmp_path))
    assert file.infos == {k: TensorInfo(tuple(t.shape), t.dtype) for k, t in TENSORS.items()}
    assert file.parameters == 10
    assert file.container == ("pickle" if make in PICKLED else "safetensors")
    assert file.metadata == ({} if make in PICKLED else {"format": "pt", "k": "v"})
    assert same(file.read(), TENSORS)


def test_a_torch_file_under_the_name_of_safetensors_is_to_be_renamed(tmp_path):
    path = zipped(tmp_path).rename(tmp_path / "x.safetensors")
    with pytest.raises(WeightsFormatError, match=r"is a torch pickle by content: rename it to"):
        open_tensors(path)


@pytest.mark.parametrize("make", SOUND)
def test_some_tensors_are_read_by_name(tmp_path, make):
    file = open_tensors(make(tmp_path))
    assert same(file.read(["c", "b"]), {"c": TENSORS["c"], "b": TENSORS["b"]})


def test_nested_dictionaries_become_dotted_keys(tmp_path):
    content = {"string_to_param": {"*": torch.ones(1, 4)}, "step": 3, 7: {"x": torch.zeros(2)}}
    file = open_tensors(write(tmp_path / "x.pt", content))
    assert set(file.infos) == {"string_to_param.*", "7.x"}


def test_parameters_are_plain_tensors(tmp_path):
    content = {"w": nn.Parameter(torch.ones(2))}
    (tensor,) = open_tensors(write(tmp_path / "x.pt", content)).read().values()
    assert type(tensor) is Tensor
    assert not tensor.requires_grad


def test_the_parameter_dictionaries_of_early_textual_inversions_are_read(tmp_path):
    held = nn.ParameterDict({"*": nn.Parameter(torch.ones(2, 4))})
    content = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": held}
    file = open_tensors(write(tmp_path / "x.pt", content))
    assert torch.equal(file.read()["string_to_param.*"], torch.ones(2, 4))


class Callback:
    """Stands for a trainer's class that torch does not know."""


def test_what_trainers_leave_beside_the_tensors_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "IGNORED", (f"{Callback.__module__}.Callback",))
    content = {"state_dict": TENSORS, "callbacks": {Callback: {"best": Callback()}}}
    assert same(open_tensors(write(tmp_path / "x.ckpt", content)).read(), TENSORS)


def test_a_file_that_changes_while_it_is_open_is_refused(tmp_path):
    file = open_tensors(plain(tmp_path))
    file.path.write_bytes(b"something else")
    with pytest.raises(WeightsFormatError, match="changed while it was read"):
        file.read()


def test_a_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x").startswith("ba7816bf8f01cfea")
    with pytest.raises(WeightsFormatError, match="cannot be read"):
        sha256(tmp_path / "y")


def test_long_lists_are_cut():
    assert some("abc") == "a, b, c"
    assert some("abcdefg", 2) == "a, b and 5 more"


@pytest.mark.parametrize("make", SOUND)
def test_a_truncated_file_is_refused(tmp_path, make):
    path = make(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsFormatError, match="cut off, damaged or something else"):
        open_tensors(path)
