"""docs/metrics.md defines every figure, with its unit and which way is better."""

import re
from pathlib import Path

from live2diff_core.metrics.figures import QUANTITIES

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_every_figure_is_defined():
    found = {}
    for keys, unit, better in re.findall(r"^\| (`.+?) \| (.+?) \| (\w*) ?\|", PAGE, re.MULTILINE):
        for key in re.findall(r"`(\w+)`", keys):
            found[key] = (unit, better)
    assert list(found) == list(QUANTITIES)
    assert {key: better for key, (_, better) in found.items()} == {
        key: quantity.better for key, quantity in QUANTITIES.items()
    }
