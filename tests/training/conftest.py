"""The bundled model with narrow networks, for tests of its training."""

from typing import Any

import pytest

from live2diff_core.models.text import StyleTextEncoder
from live2diff_core.training.bundled import bundled_config
from live2diff_core.training.prompts import make_tokenizer
from live2diff_core.weights.bundled import build


@pytest.fixture(scope="session")
def narrow() -> dict[str, Any]:
    """The bundled configuration with fewer channels everywhere."""
    config = bundled_config()
    config["unet"] |= {"block_out_channels": [32, 32, 32], "cross_attention_dim": 16}
    config["temporal"]["heads"] = 4
    config["depth_mapping"] = {"widths": [8, 8]}
    config["text"] |= {"hidden_size": 16, "intermediate_size": 32}
    return config


@pytest.fixture(scope="session")
def text(narrow) -> StyleTextEncoder:
    """Reads prompts as the bundled model does; its weights are random."""
    encoder = build(narrow, make_tokenizer()).text
    encoder.eval().requires_grad_(False)
    return encoder
