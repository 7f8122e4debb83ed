"""Which addresses may be connected to, in all the forms that they are written in."""

import socket
from typing import Any

import pytest

from live2diff_core.errors import SourceError
from live2diff_core.live.addresses import AddressRule, resolve

REMOTE = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"]
PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.20",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "::ffff:127.0.0.1",
    "::ffff:192.168.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
]
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "239.255.255.250",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "2001:db8::1",
]
RULES = [AddressRule(remote, private) for remote in (False, True) for private in (False, True)]
BOTH = AddressRule(allow_remote=True, allow_private=True)


def entry(address: str) -> tuple[Any, ...]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, 6, "", (address, 80))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Hosts and their addresses, in place of the resolver's."""
    table: dict[str, list[str]] = {}

    def look_up(host: str, *_: object, **__: object) -> list[tuple[Any, ...]]:
        if host not in table:
            raise socket.gaierror("Name or service not known")
        return [entry(address) for address in table[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return table


@pytest.mark.parametrize("rule", RULES)
def test_every_address_has_its_place(rule: AddressRule) -> None:
    assert {rule.allows(address) for address in REMOTE} == {rule.allow_remote}
    assert {rule.allows(address) for address in PRIVATE} == {rule.allow_private}
    assert not any(rule.allows(address) for address in NEVER)


def test_the_network_is_off_until_it_is_allowed(names: dict[str, list[str]]) -> None:
    names["camera"] = ["93.184.215.14"]
    with pytest.raises(SourceError, match="switched off"):
        resolve("http://camera/", AddressRule())


def test_one_address_that_is_not_allowed_refuses_the_host(names: dict[str, list[str]]) -> None:
    names["mixed"] = ["93.184.215.14", "10.0.0.1"]
    with pytest.raises(SourceError, match=r"http://mixed/a: .* 10\.0\.0\.1, a private one"):
        resolve("http://mixed/a", AddressRule(allow_remote=True))
    with pytest.raises(SourceError, match=r"93\.184\.215\.14, a remote one"):
        resolve("http://mixed/a", AddressRule(allow_private=True))
    assert resolve("http://mixed/a", BOTH).addresses == ("93.184.215.14", "10.0.0.1")


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"])
def test_link_local_is_refused_whatever_is_allowed(
    names: dict[str, list[str]], address: str
) -> None:
    names["sly.example"] = ["93.184.215.14", address]
    with pytest.raises(SourceError, match="never connected to"):
        resolve("http://sly.example/latest/meta-data", BOTH)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "[::1]", "localhost"])
def test_other_spellings_of_this_computer_are_seen(host: str) -> None:
    with pytest.raises(SourceError, match=r"has none|a private one"):
        resolve(f"http://{host}/", AddressRule(allow_remote=True))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "concat:a|b",
        "ftp://host/a",
        "rtp://host:5000",
        "udp://@:1234",
        "http:///path",
        "http://",
        "",
        "http://host:99999/",
        "http://[::1/",
    ],
)
def test_only_four_schemes_with_a_host_are_urls(url: str) -> None:
    with pytest.raises(SourceError, match="expected a URL"):
        resolve(url, BOTH)


def test_a_url_is_taken_apart(names: dict[str, list[str]]) -> None:
    names["cam.local"] = ["fd00::1", "10.0.0.1"]
    endpoint = resolve("HTTP://user:p%40ss@Cam.local:8080/live café?key=a b&x=1#part", BOTH)
    assert (endpoint.scheme, endpoint.host, endpoint.port) == ("http", "cam.local", 8080)
    assert endpoint.addresses == ("10.0.0.1", "fd00::1")
    assert endpoint.target == "/live%20caf%C3%A9?key=a%20b&x=1"
    assert endpoint.credentials == ("user", "p@ss")
    assert endpoint.authority == "cam.local:8080"


@pytest.mark.parametrize(
    ("scheme", "port"), [("http", 80), ("https", 443), ("rtsp", 554), ("rtsps", 322)]
)
def test_ports_that_are_not_named_are_the_usual_ones(
    names: dict[str, list[str]], scheme: str, port: int
) -> None:
    names["cam"] = ["10.0.0.1"]
    endpoint = resolve(f"{scheme}://cam", BOTH)
    assert (endpoint.port, endpoint.target, endpoint.authority) == (port, "/", "cam")
    assert endpoint.credentials is None


def test_messages_tell_no_secret(names: dict[str, list[str]]) -> None:
    url = "rtsp://admin:hunter2@cam/stream?token=abc123"
    for addresses in ([], ["169.254.1.1"], ["10.0.0.1"]):
        if addresses:
            names["cam"] = addresses
        with pytest.raises(SourceError) as caught:
            resolve(url, AddressRule(allow_remote=True))
        assert "rtsp://cam/stream" in str(caught.value)
        assert not any(secret in str(caught.value) for secret in ("admin", "hunter2", "abc123"))
