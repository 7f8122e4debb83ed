"""Which addresses of the network may be connected to, and what a URL stands for."""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ..errors import SourceError

PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}
# This computer, and networks that the internet does not reach (RFC 1918, 4193, 6598).
_PRIVATE = tuple(
    ip_network(block)
    for block in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "::1/128",
        "fc00::/7",
    )
)
# IPv6 addresses that end in an IPv4 address, which is where packets go (RFC 6052).
_TRANSLATED = ip_network("64:ff9b::/96")
_URL_SAFE = "%/:=&?~+!$,;'@()*[]"

Address = IPv4Address | IPv6Address
Place = Literal["remote", "private", "refused"]


@dataclass(frozen=True, slots=True)
class AddressRule:
    """What may be connected to; by default nothing.

    allow_remote: addresses of the internet. allow_private: this computer and private networks.
    Link-local, multicast and reserved addresses never: a cloud keeps a machine's secrets there.
    """

    allow_remote: bool = False
    allow_private: bool = False

    def allows(self, address: str) -> bool:
        """Whether an address, as numbers, may be connected to."""
        place = _place(ip_address(address))
        return {"remote": self.allow_remote, "private": self.allow_private, "refused": False}[place]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a URL stands for: the host's addresses, all of them allowed, and what to ask it.

    target: path and query. credentials: user and password, None without. shown: the URL without
    what may be secret, for messages.
    """

    url: str
    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]
    target: str
    credentials: tuple[str, str] | None
    shown: str

    @property
    def authority(self) -> str:
        """Host and port as the URL had them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def resolve(url: str, rule: AddressRule) -> Endpoint:
    """Look up a URL once and check every address of its host. Raises SourceError."""
    if not (rule.allow_remote or rule.allow_private):
        raise SourceError(
            "video from the network is switched off: allow remote or private addresses first."
        )
    parts, port = _split(url)
    host = parts.hostname or ""
    shown = f"{parts.scheme}://{host}{parts.path}"
    return Endpoint(
        url=url,
        scheme=parts.scheme,
        host=host,
        port=port,
        addresses=_addresses(host, port, rule, shown),
        target=_target(parts),
        credentials=_credentials(parts),
        shown=shown,
    )


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise SourceError(f"expected a URL, got one that has no meaning ({error}).") from error
    if parts.scheme not in PORTS or not parts.hostname:
        raise SourceError(
            f"expected a URL that begins with {', '.join(f'{name}://' for name in PORTS)} and "
            f"names a host, got one of the kind {parts.scheme or 'no scheme'!r}."
        )
    return parts, port


def _addresses(host: str, port: int, rule: AddressRule, shown: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SourceError(
            f"{shown}: expected a host with an address, {host!r} has none ({error}). Check the URL."
        ) from error
    # Cameras and servers on this computer are on IPv4 more often.
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in ordered))
    for address in addresses:
        if not rule.allows(address):
            raise SourceError(_refusal(address, shown))
    return addresses


def _refusal(address: str, shown: str) -> str:
    place = _place(ip_address(address))
    if place == "refused":
        return f"{shown}: {address} is link-local, multicast or reserved, and never connected to."
    return (
        f"{shown}: expected an address that is allowed, got {address}, a {place} one; allow "
        f"{place} addresses, or use another URL."
    )


def _place(address: Address) -> Place:
    """Where packets to an address go."""
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return _place(inner)
    if any(address in network for network in _PRIVATE):
        return "private"
    return "remote" if address.is_global and not address.is_multicast else "refused"


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address is another form of."""
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _target(parts: SplitResult) -> str:
    path = quote(parts.path or "/", safe=_URL_SAFE)
    return f"{path}?{quote(parts.query, safe=_URL_SAFE)}" if parts.query else path


def _credentials(parts: SplitResult) -> tuple[str, str] | None:
    if parts.username is None:
        return None
    return unquote(parts.username), unquote(parts.password or "")
