"""The model that comes with the package: small, complete, and it says which styles it knows."""

import pytest

from live2diff_core.config import StreamConfig
from live2diff_core.errors import PromptError
from live2diff_core.stream.session import Session
from live2diff_core.stream.translate import translate
from live2diff_core.weights.bundled import CONFIG, DIRECTORY, TOKENIZER, WEIGHTS, load_bundled
from tests.tiny import make_frames

MOST_BYTES = 20 * 2**20


@pytest.fixture(scope="module")
def model():
    return load_bundled()


def test_the_files_are_there_and_small():
    sizes = {name: (DIRECTORY / name).stat().st_size for name in (WEIGHTS, CONFIG, TOKENIZER)}
    assert sum(sizes.values()) <= MOST_BYTES


def test_at_least_five_styles_are_known_by_name(model):
    assert len(model.text.styles) >= 5
    assert all(phrases for phrases in model.text.styles.values())


def test_every_phrase_of_a_style_names_that_style_and_no_other(model):
    for name, phrases in model.text.styles.items():
        for phrase in phrases:
            assert model.text.named_styles(f"a picture in {phrase} style") == [name]


def test_an_unknown_style_is_refused_with_all_that_are_known(model):
    with pytest.raises(PromptError) as error:
        model.text.encode("qwertz")
    assert all(name in str(error.value) for name in model.text.styles)


def test_all_weights_are_finite(model):
    for module in (model.unet, model.text.model, model.autoencoder):
        assert all(tensor.isfinite().all() for tensor in module.state_dict().values())


def test_its_own_defaults_translate(model):
    defaults = model.defaults
    size = model.size_multiple * 2
    settings = StreamConfig(size, size, defaults.steps, defaults.noise)
    model.check_size(defaults.width, defaults.height)
    frames = make_frames(9, size, size)
    pictures = {}
    for name in list(model.text.styles)[:2]:
        session = Session(model, settings, model.text.styles[name][0])
        pictures[name] = [frame.rgb for frame in translate(session, frames)]
        assert len(pictures[name]) == 9
        assert all(rgb.isfinite().all() for rgb in pictures[name])
    first, second = pictures.values()
    assert (first[-1] - second[-1]).abs().mean() > 0.01
