"""Who may come in: hosts, origins, the server's token, and how often."""

import hmac
import ipaddress
import re
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from ..errors import ConfigError
from ..stream.spec import Clock

COOKIE = "live2diff_token"
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,256}")
ORIGIN = re.compile(r"https?://[^/\s]+")
REMEMBERED_ADDRESSES = 1024


@dataclass(frozen=True, slots=True)
class Policy:
    """What the server asks of a request.

    host: the address that the server is bound to. token: of those who may feed and steer; needed
    beyond loopback, 16 to 256 letters, digits, - and _. origins: pages of other addresses, such as
    https://example.org, that may use the server, too. Raises ConfigError.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    origins: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.token is None and not self.is_local:
            raise ConfigError(
                f"a server on {self.host or 'every address'} can be reached from other computers: "
                "give it a token, or bind it to 127.0.0.1"
            )
        if self.token is not None and not TOKEN.fullmatch(self.token):
            raise ConfigError("a token is 16 to 256 letters, digits, hyphens and underscores")
        for origin in self.origins:
            if not ORIGIN.fullmatch(origin):
                raise ConfigError(f"an origin is such as https://example.org, not {origin!r}")

    @property
    def is_local(self) -> bool:
        """Whether the server can be reached from this computer alone."""
        return is_loopback(self.host)

    def check_host(self, request: web.Request) -> None:
        """Raise HTTPForbidden where a name that others own was made to lead to this computer."""
        known = {urlsplit(origin).netloc for origin in self.origins}
        if self.is_local and not is_loopback(_name(request.host)) and request.host not in known:
            raise web.HTTPForbidden(text=f"this server is not {request.host}")

    def check_origin(self, request: web.Request) -> None:
        """Raise HTTPForbidden for the request of another site's page; programs send no origin."""
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "none")
        if origin is None and site in ("none", "same-origin"):
            return
        own = {f"{scheme}://{request.host.lower()}" for scheme in ("http", "https")}
        if (origin or "").lower() not in own and origin not in self.origins:
            raise web.HTTPForbidden(text=f"pages of {origin or 'another site'} may not do this")

    def knows(self, request: web.Request) -> bool:
        """Whether the request brings the token, where one is needed."""
        if self.token is None:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.cookies.get(COOKIE, "")
        return self.is_token(given)

    def is_token(self, given: str) -> bool:
        """Compare in a time that tells nothing."""
        return self.token is not None and same_secret(given, self.token)


class RateLimit:
    """So many a second for each key, and twice as many at once; the latest keys are remembered."""

    def __init__(self, per_second: float, clock: Clock) -> None:
        self._rate, self._clock = per_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key: left, when

    def take(self, key: str = "") -> bool:
        """Whether there is one left for this key; it is taken."""
        now = self._clock()
        left, then = self._left.pop(key, (2 * self._rate, now))
        left = min(2 * self._rate, left + (now - then) * self._rate)
        self._left[key] = max(left - 1, 0) if left >= 1 else left, now
        if len(self._left) > REMEMBERED_ADDRESSES:
            self._left.popitem(last=False)
        return left >= 1


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, means this computer."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name(host: str) -> str:
    """A Host header without its port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def same_secret(given: str, kept: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), kept.encode())
