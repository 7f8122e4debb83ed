"""live2diff inspect: what it prints for files, folders and what cannot be read."""

import json
from pathlib import Path

import pytest
import torch

from live2diff_core.cli import main
from tests import checkpoints as files
from tests.checkpoints import SD15, TABLES, kohya

FIELDS = [
    "path",
    "kind",
    "title",
    "use",
    "container",
    "bytes",
    "parameters",
    "dtypes",
    "details",
]


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    shapes = kohya(SD15)
    dtypes = {k: torch.float32 if k.endswith("alpha") else torch.float16 for k in shapes}
    metadata = {"ss_base_model_version": "sd_v1"}
    return files.write_safetensors(tmp_path / "lora.safetensors", shapes, dtypes, metadata)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line is broken."""
    monkeypatch.setenv("COLUMNS", "300")


def rows(output: str) -> list[list[str]]:
    """Cells of all lines of a table that have two."""
    lines = [line for line in output.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


@pytest.mark.usefixtures("wide")
def test_the_table_tells_what_a_file_is_and_what_it_is_good_for(lora, capsys):
    assert main(["inspect", str(lora)]) == 0
    out = capsys.readouterr().out
    assert str(lora) in out
    assert rows(out) == [
        ["what", "LoRA for Stable Diffusion 1.5 (lora_sd15)"],
        ["use", "LoRA"],
        ["parameters", "6,914"],
        ["precision", "float16 100 %, float32 0.0289 %"],
        ["size", f"{lora.stat().st_size / 1e6:.1f} MB, safetensors"],
        ["", "kohya's names"],
        ["", "rank 4"],
        ["", "layers: 2"],
        ["", "ss_base_model_version: sd_v1"],
    ]


def test_the_json_has_exactly_its_fields(lora, capsys):
    assert main(["inspect", "--json", str(lora)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["files"]
    assert list(found) == FIELDS
    assert found["path"] == str(lora)
    assert found["kind"] == "lora_sd15"
    assert found["bytes"] == lora.stat().st_size
    assert found["parameters"] == 6914
    assert found["dtypes"] == {"float16": 6912, "float32": 2}
    assert found["details"][-1] == "ss_base_model_version: sd_v1"


def test_a_folder_is_as_big_as_its_files(tmp_path, capsys):
    for name in ("taesd_encoder", "taesd_decoder"):
        shapes = getattr(files, name)()
        files.write_safetensors(tmp_path / f"{name}.safetensors", shapes)
    (tmp_path / "README").write_bytes(bytes(1000))
    assert main(["inspect", "--json", str(tmp_path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["files"]
    assert found["kind"] == "taesd"
    assert found["bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir())


@pytest.mark.usefixtures("wide")
def test_files_that_cannot_be_read_do_not_hide_the_others(tmp_path, lora, capsys):
    text = tmp_path / "page.safetensors"
    text.write_text("Not found", encoding="utf-8")
    missing = tmp_path / "missing.ckpt"
    assert main(["inspect", str(text), str(lora), str(missing)]) == 1
    out = capsys.readouterr().out
    told = rows(out)
    assert told[0][0] == "WeightsFormatError"
    assert "is a text file" in told[0][1]
    assert ["what", "LoRA for Stable Diffusion 1.5 (lora_sd15)"] in told
    assert told[-1] == ["WeightsMissingError", f"there is no file {missing}"]


def test_errors_are_in_the_json_with_their_class(tmp_path, lora, capsys):
    missing = tmp_path / "missing.ckpt"
    assert main(["inspect", "--json", str(missing), str(lora)]) == 1
    refused, found = json.loads(capsys.readouterr().out)["files"]
    message = f"there is no file {missing}"
    assert refused == {"path": str(missing), "error": "WeightsMissingError", "message": message}
    assert list(found) == FIELDS


def test_a_file_of_another_base_or_an_unknown_kind_is_no_error(tmp_path, capsys):
    sdxl = files.write_pickle(tmp_path / "xl.ckpt", TABLES["sdxl"])
    other = files.write_safetensors(tmp_path / "other.safetensors", {"w": (2, 2)})
    assert main(["inspect", "--json", str(sdxl), str(other)]) == 0
    kinds = [found["kind"] for found in json.loads(capsys.readouterr().out)["files"]]
    assert kinds == ["sdxl", "unknown"]


@pytest.mark.usefixtures("wide")
def test_names_and_metadata_are_printed_as_they_are(tmp_path, capsys):
    path = tmp_path / "[red]x[red] \x1b[31m.safetensors"
    metadata = {"modelspec.title": "[bold]my[/bold] LoRA"}
    files.write_safetensors(path, kohya(SD15), metadata=metadata)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "[red]x[red] ?[31m.safetensors" in out
    assert ["", "modelspec.title: [bold]my[/bold] LoRA"] in rows(out)


def test_a_name_that_no_terminal_can_print_is_told_nevertheless(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "\udcff.ckpt")]) == 1
    assert "?.ckpt" in capsys.readouterr().out


def test_a_file_is_demanded(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["inspect"])
    assert exit_.value.code == 2
    assert "FILE" in capsys.readouterr().err
