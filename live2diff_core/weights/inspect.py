"""What a weights file or folder is, and what it is good for here; tensors are not read."""

from collections.abc import Iterable
from pathlib import Path

from ..errors import WeightsFormatError, WeightsKindError
from .files import TensorFile, open_tensors
from .folders import inspect_folder
from .identity import Identity, identify
from .kinds import ABOUT, Kind

__all__ = ["Identity", "Kind", "identify", "inspect", "require"]


def inspect(path: Path) -> Identity:
    """What a file or a folder is. Raises WeightsError for what cannot be read."""
    try:
        return inspect_folder(path) if path.is_dir() else identify(open_tensors(path))
    except OSError as error:
        raise WeightsFormatError(f"{path} cannot be read: {error}") from error


def require(found: TensorFile | Identity, wanted: Kind | Iterable[Kind], purpose: str) -> Identity:
    """The identity of a file of a wanted kind; purpose as in "the base".

    Raises WeightsKindError for other kinds, with what the file is and what it is good for.
    """
    identity = identify(found) if isinstance(found, TensorFile) else found
    kinds = (wanted,) if isinstance(wanted, Kind) else tuple(wanted)
    if identity.kind in kinds:
        return identity
    names = " or ".join(_with_article(ABOUT[kind].name) for kind in kinds)
    raise WeightsKindError(
        f"{identity.path} is {_with_article(identity.title)}; expected {names} as {purpose}. "
        f"Its use: {identity.use}"
    )


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
