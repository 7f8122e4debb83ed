"""CLIP figures with a tiny CLIP of random weights."""

import json

import pytest
import torch
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from live2diff_core.errors import WeightsFormatError, WeightsKeyError, WeightsKindError
from live2diff_core.metrics.clip import ClipMeter, load_clip_model
from live2diff_core.metrics.figures import LeftOut
from live2diff_core.metrics.meter import Meter, MeterConfig, measure
from tests.metrics.scenes import still

CPU = torch.device("cpu")
SIDE, DIM = 32, 16
WORDS = ["<|startoftext|>", "<|endoftext|>", "i", "n", "k</w>", "in", "ink</w>", "neon</w>"]


def config():
    small = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "hidden_act": "quick_gelu",
    }
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return CLIPConfig(
        text_config={**small, **ends, "vocab_size": len(WORDS)},
        vision_config={**small, "image_size": SIDE, "patch_size": 16},
        projection_dim=DIM,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A transformers folder of a CLIPModel with its vocabulary."""
    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    model = CLIPModel(config())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(WORDS)}))
    (path / "merges.txt").write_text("#version: 0.2\ni n\nin k</w>\n")
    return path


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip_model(folder, CPU)


def test_vectors_are_those_of_the_model(clip, folder):
    """Of a square picture at CLIP's own size nothing is scaled or cut."""
    own = CLIPModel.from_pretrained(folder)
    rgb = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        output = own(
            pixel_values=(rgb - mean) / deviation,
            input_ids=torch.tensor([[0, WORDS.index("ink</w>"), 1]]),
        )
    assert torch.allclose(clip.picture(rgb), output.image_embeds[0], atol=1e-5)
    assert torch.allclose(clip.text("ink"), output.text_embeds[0], atol=1e-5)


def test_a_picture_is_scaled_by_its_shorter_side_and_the_middle_is_taken(clip):
    inner = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    inner = functional.interpolate(inner, scale_factor=2)
    padded = functional.pad(inner, (SIDE, SIDE, 0, 0), mode="replicate")
    own, middle = clip.picture(inner), clip.picture(padded)
    aside = clip.picture(padded.roll(SIDE, 3))
    assert (middle - own).norm() < 0.1 * (aside - own).norm()


def test_score_and_consistency_are_cosines(clip):
    pictures = [still(k)[None] for k in range(3)]
    text, vectors = clip.text("ink"), [clip.picture(rgb) for rgb in pictures]
    meter = ClipMeter(clip, text)
    for rgb in pictures:
        meter.update(rgb)
    scores = [max(100 * float(functional.cosine_similarity(text, v, 0)), 0) for v in vectors]
    neighbours = [float(functional.cosine_similarity(*vectors[k : k + 2], 0)) for k in (0, 1)]
    found = meter.figures()
    assert found["clip_score"] == pytest.approx(sum(scores) / 3, abs=1e-4)
    assert found["clip_consistency"] == pytest.approx(sum(neighbours) / 2, rel=1e-5)


def test_what_does_not_change_is_consistent(clip):
    report = measure([still(0)] * 3, [still(1)] * 3, Meter(clip=clip))
    assert report["clip_consistency"] == pytest.approx(1)
    assert report.left_out["clip_score"] == "no prompt was given (--prompt)"


def test_a_meter_scores_its_prompt(clip):
    meter = Meter(MeterConfig(prompt="neon"), clip=clip)
    score = measure([still(0)], [still(1)], meter)["clip_score"]
    assert score == pytest.approx(
        max(100 * float(clip.text("neon") @ clip.picture(still(1)[None])), 0), abs=1e-4
    )


def test_one_frame_has_no_neighbour(clip):
    meter = ClipMeter(clip, None)
    meter.update(still(0)[None])
    assert meter.figures()["clip_consistency"] == LeftOut("fewer than two frames")


def test_a_long_prompt_is_cut_as_clip_reads_it(clip):
    assert torch.equal(clip.text("ink " * 80), clip.text("ink " * 200))
    assert not torch.equal(clip.text("ink"), clip.text("neon"))


def copy(folder, target, **changes):
    from safetensors.torch import load_file, save_file

    target.mkdir()
    settings = json.loads((folder / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(settings))
    for name in ("vocab.json", "merges.txt"):
        (target / name).write_bytes((folder / name).read_bytes())
    state = load_file(folder / "model.safetensors")
    return state, lambda: save_file(state, target / "model.safetensors")


def test_constants_of_older_files_are_passed_over(folder, tmp_path, clip):
    state, save = copy(folder, tmp_path / "old")
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save()
    old = load_clip_model(tmp_path / "old", CPU)
    assert torch.equal(old.text("ink"), clip.text("ink"))


def test_a_folder_that_lacks_tensors_or_is_something_else_is_refused(folder, tmp_path):
    state, save = copy(folder, tmp_path / "poor")
    del state["visual_projection.weight"]
    save()
    with pytest.raises(WeightsKeyError, match="visual_projection"):
        load_clip_model(tmp_path / "poor", CPU)
    _, save = copy(folder, tmp_path / "text", model_type="clip_text_model")
    save()
    with pytest.raises(WeightsKindError, match="expected clip"):
        load_clip_model(tmp_path / "text", CPU)
    _, save = copy(folder, tmp_path / "odd", vision_config={"hidden_size": "big"})
    save()
    with pytest.raises(WeightsFormatError, match="describes no CLIP"):
        load_clip_model(tmp_path / "odd", CPU)
