"""A file on a web server, over connections to addresses that were checked and to no others.

FFmpeg's own client looks a name up again, follows redirects anywhere and accepts any certificate.
"""

import base64
import io
import socket
import ssl
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urljoin

from ..errors import SourceError
from .addresses import AddressRule, Endpoint, resolve

MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
SCHEMES = frozenset({"http", "https"})


class HttpFile:
    """What FFmpeg reads as it comes, from another place where the server can give parts.

    length: bytes, None for a stream without an announced end. content_type: lower case, without
    parameters. timeout: seconds that a connection and each read may take. Raises OSError.
    """

    def __init__(self, endpoint: Endpoint, response: HTTPResponse, timeout: float) -> None:
        self.name = endpoint.shown
        self.length = response.length
        self.content_type = response.headers.get_content_type()
        self._ranges = response.headers.get("Accept-Ranges") == "bytes"
        self._endpoint, self.timeout = endpoint, timeout
        self._response: HTTPResponse | None = response
        self._position = 0

    def read(self, size: int) -> bytes:
        """Give what is there, at most `size` bytes; nothing at the end."""
        if self._position == self.length:
            return b""
        try:
            if self._response is None:
                self._response = self._part()
            data = self._response.read1(size)
        except HTTPException as error:
            raise OSError(f"the connection broke ({error!r})") from error
        if not data and self.length is not None:
            raise OSError(f"the connection ended after {self._position} of {self.length} bytes")
        self._position += len(data)
        return data

    def seekable(self) -> bool:
        """Whether the server gives parts."""
        return self._ranges and self.length is not None

    def tell(self) -> int:
        """Where the next byte is from."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on from another place, with a connection of its own when it is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.length or 0}[whence]
        if base + offset != self._position:
            self.close()
            self._position = base + offset
        return self._position

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _part(self) -> HTTPResponse:
        response = _get(self._endpoint, self.timeout, self._position)
        begins = f"bytes {self._position}-"
        if response.status != 206 or not response.headers["Content-Range"].startswith(begins):
            response.close()
            raise OSError(f"the server gave status {response.status} for a part of the file")
        return response


def open_http(endpoint: Endpoint, rule: AddressRule, timeout: float) -> HttpFile:
    """Ask for a file and follow redirects, each checked. Raises SourceError."""
    for _ in range(MOST_REDIRECTS + 1):
        response = _answer(endpoint, timeout)
        if response.status == 200:
            return HttpFile(endpoint, response, timeout)
        response.close()
        location = response.headers.get("Location")
        if response.status not in REDIRECTS or location is None:
            raise SourceError(
                f"{endpoint.shown}: expected a video, the server answered {response.status} "
                f"{response.reason}. Check the URL, user and password."
            )
        endpoint = resolve(urljoin(endpoint.url, location), rule)
        if endpoint.scheme not in SCHEMES:
            raise SourceError(
                f"{endpoint.shown}: expected a redirect to http or https; open this URL itself."
            )
    raise SourceError(f"{endpoint.shown}: more than {MOST_REDIRECTS} redirects; check the URL.")


def _answer(endpoint: Endpoint, timeout: float) -> HTTPResponse:
    try:
        return _get(endpoint, timeout)
    except (OSError, HTTPException) as error:
        raise SourceError(
            f"{endpoint.shown}: expected an answer within {timeout:g} s, got none ({error}). Check "
            "the URL, and that the server runs."
        ) from error


def _get(endpoint: Endpoint, timeout: float, first_byte: int | None = None) -> HTTPResponse:
    """Ask for a file or what follows a byte. Raises OSError or HTTPException."""
    headers = {"Host": endpoint.authority, "Connection": "close"}
    if endpoint.credentials is not None:
        pair = ":".join(endpoint.credentials).encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    if first_byte is not None:
        headers["Range"] = f"bytes={first_byte}-"
    connection = HTTPConnection(endpoint.host, endpoint.port)
    connection.sock = _connect(endpoint, timeout)  # so that it does not look the name up again
    try:
        connection.request("GET", endpoint.target, headers=headers)
        return connection.getresponse()
    except (OSError, HTTPException):
        connection.close()
        raise


def _connect(endpoint: Endpoint, timeout: float) -> socket.socket:
    """Connect to the first address that answers."""
    *others, last = endpoint.addresses
    for address in others:
        try:
            return _secured(socket.create_connection((address, endpoint.port), timeout), endpoint)
        except ConnectionError:
            continue
    return _secured(socket.create_connection((last, endpoint.port), timeout), endpoint)


def _secured(plain: socket.socket, endpoint: Endpoint) -> socket.socket:
    if endpoint.scheme == "http":
        return plain
    context = ssl.create_default_context()
    try:
        return context.wrap_socket(plain, server_hostname=endpoint.host)
    except OSError:
        plain.close()
        raise
