"""live2diff convert: motion weights as safetensors, and nothing lost."""

import pytest

from live2diff_core.cli import main
from live2diff_core.weights.files import open_tensors
from tests import sd15


@pytest.fixture
def source(tmp_path):
    return sd15.save(sd15.reference_motion(sd15.tiny_unet()), tmp_path / "live2diff.ckpt")


def test_a_file_is_converted_and_named(tmp_path, source, capsys):
    target = tmp_path / "out.safetensors"
    assert main(["convert", str(source), str(target)]) == 0
    keys = open_tensors(target).infos.keys()
    assert keys == open_tensors(source).infos.keys()
    assert f"{target}: {len(keys)} keys" in capsys.readouterr().out


def test_an_existing_file_is_kept_unless_asked(tmp_path, source, capsys):
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"old")
    assert main(["convert", str(source), str(target)]) == 1
    assert "add --overwrite" in capsys.readouterr().err
    assert target.read_bytes() == b"old"
    assert main(["convert", str(source), str(target), "--overwrite"]) == 0
    assert open_tensors(target).infos


def test_another_file_is_refused_with_what_it_is(tmp_path, capsys):
    wrong = sd15.save(sd15.checkpoint(), tmp_path / "sd15.ckpt")
    assert main(["convert", str(wrong), str(tmp_path / "out.safetensors")]) == 1
    assert "is a Stable Diffusion 1.5 checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
