"""The sessions that are open between two runs of a graph, and when they end.

A session ends when the prompts that its client has queued name its node no more. It does not
outlive its warm-up's output either, which ComfyUI may drop while the graph still has it.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..live2diff_core.stream.registry import SessionRegistry
from . import host

if TYPE_CHECKING:
    from ..live2diff_core.stream.registry import OpenSession
    from .sessions import DirectedSession, Key, Origin, Stream

logger = logging.getLogger(__name__)

SESSION_LIMIT = 4  # unless the setting says otherwise
KEEPERS = ("Live2DiffWarmup", "Live2DiffSampler")  # the classes whose nodes have sessions
DROPPED_LIMIT = 64


def session_limit() -> int:
    """Sessions that may be open at once."""
    return int(host.setting("Live2Diff.SessionLimit", SESSION_LIMIT))


def end_unnamed(client: str | None, new: host.Prompt | None = None) -> None:
    """End a client's sessions that no prompt names which it has queued; none without a prompt.

    new: a prompt that is about to be queued. What runs now keeps a session until it has used it.
    """
    queue = host.queue_of(client)
    coming = [*queue.waiting, *([] if new is None else [new])]
    if not coming:
        return
    for opened in SESSIONS.snapshot():
        owner, node = opened.key
        is_named = any(_names(prompt, node) for prompt in coming)
        if owner == client and not is_named and not _is_awaited(opened, queue):
            SESSIONS.close(opened.key)


def _is_awaited(opened: "OpenSession[DirectedSession]", queue: host.Queue) -> bool:
    """Whether the prompt that runs has yet to use a session."""
    if opened.busy or queue.running is None or not _names(queue.running, opened.key[1]):
        return False
    return opened.session.used_by != queue.running_id


def _names(prompt: host.Prompt, node: str) -> bool:
    """Whether a prompt has a node, or the node that it was expanded from while it ran."""
    named = prompt.get(node)
    if isinstance(named, Mapping):
        return named.get("class_type") in KEEPERS
    return node.partition(".")[0] in prompt


# ---- warm-ups that ComfyUI dropped

_dropped: "dict[Key, Origin]" = {}


def _remember(_: object, session: "DirectedSession") -> None:
    """Keep what a session began with whose warm-up is gone: any thread may call, even one that
    collects garbage.
    """
    if session.origin is not None and session.has_begun:
        _dropped[session.origin.key] = session.origin
        while len(_dropped) > DROPPED_LIMIT:
            _dropped.pop(next(iter(_dropped)))


def tell_if_dropped(stream: "Stream") -> None:
    """Say that a stream begins anew where its own last warm-up, with the same inputs, is gone."""
    if _dropped.pop(stream.key, None) != stream.origin:
        return
    client, node = stream.key
    logger.warning(
        "the stream of node %s begins anew at its warm-up: ComfyUI dropped its output, as it does "
        "when memory is scarce or another client runs a graph. --cache-classic or a larger "
        "--cache-ram keeps it",
        node,
    )
    host.tell(client, host.NOTICE, {"node": node, "notice": "begunAnew"})


# By who runs the graph, and the node.
SESSIONS: "SessionRegistry[DirectedSession]" = SessionRegistry(session_limit, _remember)
