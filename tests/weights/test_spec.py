"""Names to files: paths, the models folder in both layouts, hub ids."""

import re
from pathlib import Path

import pytest

from live2diff_core.errors import ConfigError, WeightsMissingError
from live2diff_core.weights import hub
from live2diff_core.weights.spec import LoraSpec, ModelSpec, is_hub_id, models_folder


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return ModelSpec(models=tmp_path / "models")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, bool]]:
    """Hub ids that were asked for, and whether a download was allowed."""
    calls: list[tuple[str, bool]] = []

    def fetch(hub_id: str, *_: object, download: bool, **__: object) -> Path:
        calls.append((hub_id, download))
        return tmp_path

    monkeypatch.setattr(hub, "fetch", fetch)
    return calls


# ---- LoRA strengths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("felt", LoraSpec("felt", 1.0, 1.0)),
        ("felt.safetensors:0.7", LoraSpec("felt.safetensors", 0.7, 0.7)),
        ("a/b.safetensors:0.7:0", LoraSpec("a/b.safetensors", 0.7, 0.0)),
        ("felt:-1", LoraSpec("felt", -1.0, -1.0)),
        ("felt:+1:1e-3", LoraSpec("felt", 1.0, 0.001)),
        (r"C:\loras\felt.safetensors:0.5", LoraSpec(r"C:\loras\felt.safetensors", 0.5, 0.5)),
        (r"C:\loras\felt.safetensors", LoraSpec(r"C:\loras\felt.safetensors")),
    ],
)
def test_a_lora_is_a_name_with_its_strengths(text, expected):
    assert LoraSpec.parse(text) == expected


@pytest.mark.parametrize("text", ["felt:0.7.1", "felt:-.", ""])
def test_what_is_no_strength_is_refused(text):
    with pytest.raises(ConfigError, match=r"NAME\[:UNET\[:TEXT\]\]"):
        LoraSpec.parse(text)


# ---- where files are


def test_a_path_is_taken_as_it_is(spec, tmp_path):
    path = touch(tmp_path / "elsewhere" / "a.safetensors")
    assert spec.find(str(path), "base") == path


@pytest.mark.parametrize(
    ("file", "name", "part"),
    [
        ("checkpoints/a.safetensors", "a.safetensors", "base"),
        ("checkpoints/a.safetensors", "a", "base"),
        ("checkpoints/sub/a.ckpt", "sub/a", "base"),
        ("Model/a.ckpt", "a", "base"),
        ("loras/felt.safetensors", "felt", "lora"),
        ("LoRA/felt.safetensors", "felt.safetensors", "lora"),
        ("live2diff/live2diff.safetensors", "live2diff", "motion"),
        ("live2diff.ckpt", "live2diff", "motion"),
        ("vae_approx/taesd_encoder.pth", "taesd", "autoencoder"),
        ("vae/kl-f8.safetensors", "kl-f8", "autoencoder"),
        ("dpt_hybrid_384.pt", "dpt_hybrid_384", "depth"),
        ("depth/dpt_hybrid_384.pt", "dpt_hybrid_384", "depth"),
        ("embeddings/easynegative.pt", "easynegative", "embedding"),
    ],
)
def test_a_name_is_found_in_the_folders_of_its_part(spec, file, name, part):
    path = touch(spec.models / file)
    assert spec.find(name, part) == path


def test_a_folder_of_that_name_is_no_motion_file(spec, monkeypatch, tmp_path):
    (spec.models / "live2diff").mkdir(parents=True)
    (tmp_path / "live2diff").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsMissingError, match="not on this computer"):
        spec.find("live2diff", "motion")


def test_a_name_is_that_of_a_model_before_it_is_a_folder_nearby(spec, monkeypatch, tmp_path):
    path = touch(spec.models / "checkpoints" / "mine.safetensors")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert spec.find("mine", "base") == path


@pytest.mark.parametrize("name", ["", "~nosuchuser/x.ckpt", "x" * 300])
def test_a_name_that_no_file_can_have_is_not_here(spec, name):
    with pytest.raises(WeightsMissingError):
        spec.find(name, "base")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("owner/name", "base"),
        ("owner/name/sub/file.safetensors", "lora"),
        ("taesd", "autoencoder"),
        ("live2diff", "motion"),
        ("lcm-lora-sdv1-5", "lora"),
    ],
)
def test_a_file_that_is_put_where_the_message_says_is_found(spec, name, part):
    with pytest.raises(WeightsMissingError) as caught:
        spec.find(name, part)
    what, folder = re.search(r"put (.*?) into (.*?), or", str(caught.value)).groups()
    file = "config.json" if what.startswith("a folder") else what
    path = touch(Path(folder) / file)
    assert spec.find(name, part) in (path, path.parent)


def test_a_safetensors_file_is_preferred(spec):
    for suffix in (".ckpt", ".safetensors"):
        touch(spec.models / "live2diff" / f"live2diff{suffix}")
    assert spec.find("live2diff", "motion").suffix == ".safetensors"


def test_a_name_of_another_part_is_not_found(spec):
    touch(spec.models / "loras" / "a.safetensors")
    with pytest.raises(WeightsMissingError, match=r"the base a .*put it into .*checkpoints"):
        spec.find("a", "base")


def test_the_models_folder_is_the_variables_or_the_one_here(monkeypatch):
    monkeypatch.delenv("LIVE2DIFF_MODELS", raising=False)
    assert models_folder() == Path("models")
    monkeypatch.setenv("LIVE2DIFF_MODELS", "/somewhere")
    assert ModelSpec().models == Path("/somewhere")


# ---- the hub


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", True),
        ("owner/na.me-2/sub/file.safetensors", True),
        ("owner/name.safetensors", False),
        ("name", False),
        ("./owner/name", False),
        ("/owner/name", False),
        ("~/owner/name", False),
        ("owner//name", False),
        ("", False),
        (r"owner\name", False),
        ("../owner/name", False),
    ],
)
def test_a_hub_id_has_an_owner_a_name_and_perhaps_a_file(name, expected):
    assert is_hub_id(name) is expected


@pytest.mark.parametrize("download", [False, True])
def test_a_hub_id_goes_to_the_hub_and_says_whether_it_may_load(tmp_path, asked, download):
    spec = ModelSpec(models=tmp_path / "models", download=download)
    assert spec.find("owner/name", "base") == tmp_path
    assert asked == [("owner/name", download)]


def test_well_known_names_have_a_place_on_the_hub(spec, asked):
    spec.find("live2diff", "motion")
    assert asked == [("Leoxing/Live2Diff/live2diff.ckpt", False)]


def test_a_file_in_the_models_folder_comes_before_the_hub(spec, asked):
    path = touch(spec.models / "live2diff.ckpt")
    assert spec.find("live2diff", "motion") == path
    assert asked == []
