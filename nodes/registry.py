"""The sessions that are open between two runs of a graph."""

from typing import TYPE_CHECKING

from ..live2diff_core.stream.registry import SessionRegistry
from . import host

if TYPE_CHECKING:
    from .sessions import DirectedSession

SESSION_LIMIT = 4  # unless the setting says otherwise


def session_limit() -> int:
    """Sessions that may be open at once."""
    return int(host.setting("Live2Diff.SessionLimit", SESSION_LIMIT))


# By who runs the graph, and the node.
SESSIONS: "SessionRegistry[DirectedSession]" = SessionRegistry(session_limit)
