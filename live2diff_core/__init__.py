"""Live2Diff: streaming video translation with uni-directional temporal attention (arXiv
2407.08701).
"""

__version__ = "0.1.0"
