"""The commands run in this process, on a tiny model."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from live2diff_core.models.translator import TranslationModel
from live2diff_core.weights import model
from live2diff_core.weights.bundled import load_bundled, save_bundled
from tests.tiny import make_parts, tiny_config


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny bundled model."""
    folder: Path = tmp_path_factory.mktemp("bundled") / "tiny"
    config = tiny_config()
    save_bundled(folder, make_parts(config), config)
    return folder


@pytest.fixture(scope="module")
def tiny(saved_model: Path) -> Iterator[TranslationModel]:
    """Make the commands load a tiny model for the bundled one; gives that model."""
    load = partial(load_bundled, saved_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "load_bundled", load)
        yield load()
