"""The live streams of ComfyUI's server: what they are called, who may come in, what answers."""

import atexit
import base64
import hashlib
import hmac
import logging
import os
import secrets
import tempfile
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

from . import host

if TYPE_CHECKING:
    from ..live2diff_core.live.access import Policy
    from ..live2diff_core.live.server import Server
    from ..live2diff_core.live.streams import Streams

logger = logging.getLogger(__name__)

TOKEN, ORIGINS, LIMITS = "LIVE2DIFF_TOKEN", "LIVE2DIFF_ORIGINS", "LIVE2DIFF_LIMITS"
SECRET_FILE, SECRET_BYTES, NAME_BYTES = "live2diff.secret", 32, 24

T = TypeVar("T")
_making = RLock()


def once(make: Callable[[], T]) -> Callable[[], T]:
    """Make a thing when it is first asked for, once for all threads."""
    cached = cache(make)

    @wraps(make)
    def get() -> T:
        with _making:
            return cached()

    return get


@once
def streams() -> "Streams":
    """The hub; what runs when ComfyUI ends is closed, so that recordings are whole.

    Raises ConfigError for limits that cannot be.
    """
    from ..live2diff_core.live.streams import Limits, Streams

    hub = Streams(Limits.read(os.environ.get(LIMITS, "")))
    atexit.register(hub.close)
    return hub


@once
def server() -> "Server":
    """What answers the routes. Raises ConfigError for a token, origin or limit that cannot be."""
    from ..live2diff_core.live.server import Server

    return Server(streams(), policy())


def is_local() -> bool:
    """Whether ComfyUI's server can be reached from this computer alone."""
    return not _beyond()


def _beyond() -> list[str]:
    """Addresses that other computers may reach."""
    from ..live2diff_core.live.access import is_loopback

    return [address for address in host.listens_on() if not is_loopback(address)]


@once
def policy() -> "Policy":
    """Who may come in: this computer alone, unless ComfyUI listens to others, too.

    Raises ConfigError.
    """
    from ..live2diff_core.live.access import Policy

    beyond = _beyond()
    token = os.environ.get(TOKEN) or (derived("token") if beyond else None)
    origins = frozenset(os.environ.get(ORIGINS, "").split())
    if beyond and not os.environ.get(TOKEN):
        logger.warning(
            "Live2Diff: ComfyUI listens on %s, so live streams need a token. Open "
            "http://<this server>/live2diff/?token=%s once in each browser that may use them; %s "
            "in the environment sets another one",
            ", ".join(beyond),
            token,
            TOKEN,
        )
    return Policy((beyond or host.listens_on())[0], token, origins)


def stream_id(client: str | None, node: str | None, view: str) -> str:
    """What a stream is called by those who see it: the same in every run of a client's node.

    view: the user's own name for it, which gives the same to every client and after every start.
    """
    return derived("view", view) if view else derived("stream", client or "", node or "")


def stream_key(client: str | None, node: str | None) -> str:
    """What those need who feed and steer the stream of a client's node."""
    return derived("key", client or "", node or "")


def derived(*words: str) -> str:
    """Letters that nobody can guess who does not know this server's secret."""
    message = "\0".join(words).encode(errors="surrogatepass")
    digest = hmac.digest(_secret(), message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:NAME_BYTES]).decode()


@once
def _secret() -> bytes:
    """Random bytes that stay from start to start, where they can be kept."""
    folder = host.user_folder()
    if folder is None:
        return secrets.token_bytes(SECRET_BYTES)
    try:
        return _kept(folder / SECRET_FILE)
    except OSError as error:
        logger.warning("addresses of live streams change with the next start: %s", error)
        return secrets.token_bytes(SECRET_BYTES)


def _kept(path: Path) -> bytes:
    """What a file holds, which is made where there is none, or none that is whole."""
    kept = path.read_bytes() if path.exists() else b""
    if len(kept) == SECRET_BYTES:
        return kept
    new = secrets.token_bytes(SECRET_BYTES)
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # readable by its owner alone
    with os.fdopen(descriptor, "wb") as file:
        file.write(new)
    Path(name).replace(path)
    return new
