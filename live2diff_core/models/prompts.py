"""The syntax of prompts: weights in parentheses, concepts called by name, chunks of tokens.

Read as ComfyUI reads it, so that prompts written for it keep their meaning.
"""

import math
import re
from collections.abc import Iterable, Iterator

from ..errors import PromptError

EMPHASIS = 1.1  # of a pair of parentheses that names no weight
LONG_GROUP = 8  # tokens from which on a group may be cut between two chunks

# Stand for escaped parentheses while the others are looked for; Unicode keeps them for such use.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"

Token = tuple[int, float]


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    r"""Split a prompt into parts of one weight each, (text, weight), in its order.

    `(words)` weighs 1.1 times what is around it, `(words:1.3)` exactly 1.3 wherever it stands; `\(`
    and `\)` are plain parentheses. So are those without a partner; what follows the last colon and
    is no finite number belongs to the words.
    """
    text = prompt.replace(r"\)", _CLOSE).replace(r"\(", _OPEN)
    parts = []
    pending = [(piece, 1.0) for piece in reversed(_pieces(text))]
    while pending:
        piece, weight = pending.pop()
        if len(piece) > 1 and piece[0] == "(" and piece[-1] == ")":
            inner, weight = _weigh(piece[1:-1], weight)
            pending += [(piece, weight) for piece in reversed(_pieces(inner))]
        else:
            parts.append((piece.replace(_OPEN, "(").replace(_CLOSE, ")"), weight))
    return parts


def _pieces(text: str) -> list[str]:
    """Outermost pairs of parentheses and what lies between them."""
    pieces, depth, start = [], 0, 0
    for i, char in enumerate(text):
        if char == "(":
            if depth == 0:
                pieces.append(text[start:i])
                start = i
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                pieces.append(text[start : i + 1])
                start = i + 1
    return [piece for piece in (*pieces, text[start:]) if piece]


def _weigh(text: str, around: float) -> tuple[str, float]:
    """Words between parentheses without the weight that they name, and the weight they get."""
    words, _, number = text.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    return (words, weight) if words and math.isfinite(weight) else (text, around * EMPHASIS)


def split_concepts(text: str, names: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Pieces of a text in its order, and whether each is a concept's name, in lower case.

    A concept is called by `embedding:name` or by its name as a whole word, in any case. names:
    those known, in lower case. Raises PromptError for `embedding:` with another name.
    """
    longest_first = sorted(names, key=len, reverse=True)
    known = "|".join(map(re.escape, longest_first)) or "(?!)"
    call = rf"(?<![\w-])(?:embedding:)?({known})(?![\w-]|\.\w)"
    for i, piece in enumerate(re.split(call, text, flags=re.IGNORECASE)):
        unknown = None if i % 2 else re.search(r"(?<!\w)embedding:([^\s,]+)", piece, re.IGNORECASE)
        if unknown:
            raise PromptError(
                f"the prompt asks for {unknown[0]}, which is not loaded; known: "
                f"{', '.join(sorted(longest_first)) or 'none'}"
            )
        if piece:
            yield (piece.lower(), True) if i % 2 else (piece, False)


def pack(groups: Iterable[list[Token]], room: int) -> list[list[Token]]:
    """Fill chunks of at most `room` tokens with groups of them, at least one chunk.

    A group that is short, and fits into a chunk at all, is not cut: it begins the next chunk
    instead.
    """
    chunks: list[list[Token]] = [[]]
    for group in groups:
        whole = len(group) < LONG_GROUP and len(group) <= room
        while len(group) > (free := room - len(chunks[-1])):
            if not whole:
                chunks[-1] += group[:free]
                group = group[free:]
            chunks.append([])
        chunks[-1] += group
    return chunks
