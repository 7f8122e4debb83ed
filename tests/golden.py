"""Where the recorded streams of the reference lie; README.md there describes them."""

from pathlib import Path

GOLDEN = Path(__file__).parent / "data" / "golden"
CASES = ("n2_16x16", "n4_16x16")
