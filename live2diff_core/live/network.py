"""Video from the network: cameras by RTSP, files and streams by HTTP."""

import time
from contextlib import ExitStack
from urllib.parse import quote

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame

from ..errors import SourceError
from ..stream.spec import Clock
from .addresses import AddressRule, Endpoint, resolve
from .http_file import SCHEMES, HttpFile, open_http
from .source import DecodedVideo

MAX_PIXELS = 64_000_000
# Formats that hold all they need: no playlists, which name other addresses.
FORMATS = "mov,matroska,mpegts,mpjpeg,mjpeg,flv,avi,ogg,mpeg,h264,hevc,gif,nut,ivf"
CAMERA_PAGE = "multipart/x-mixed-replace"  # JPEG after JPEG, as cameras of the network give them


class NetworkVideo(DecodedVideo):
    """A video or live stream behind an rtsp, rtsps, http or https URL.

    rule: which addresses may be connected to; every address of every hop is checked, and by HTTP
    nothing else is connected to. A server of RTSP can send FFmpeg on to any address, so RTSP needs
    `allow_private`; it goes over TCP. timeout: seconds that opening and each read may take.
    Pictures of a camera's page (MJPEG) are timed by the clock. A stream without an announced end
    raises SourceError when it stops, a whole file just ends. Playlists (HLS, DASH) are refused.
    Raises SourceError.
    """

    def __init__(
        self,
        url: str,
        rule: AddressRule,
        timeout: float = 10.0,
        clock: Clock = time.monotonic,
    ) -> None:
        endpoint = resolve(url, rule)
        self._clock = clock
        self._file: HttpFile | None = None
        with ExitStack() as undo:
            if endpoint.scheme in SCHEMES:
                self._file = open_http(endpoint, rule, timeout)
                undo.callback(self._file.close)
                container = _open_http_file(self._file)
            else:
                container = _open_rtsp(endpoint, rule, timeout)
            undo.callback(container.close)
            _check_size(container, endpoint.shown)
            self._has_end = bool(container.duration or (self._file and self._file.length))
            super().__init__(container, endpoint.shown)
            undo.pop_all()
        self._opened = clock()

    def close(self) -> None:
        """Free the decoder and close the connection."""
        super().close()
        if self._file is not None:
            self._file.close()

    def _shown_at(self, picture: VideoFrame) -> float | None:
        if self._container.format.name == "mpjpeg":  # tells no time: FFmpeg makes up 25 a second
            return self._clock() - self._opened
        return super()._shown_at(picture)

    def _end_too_early(self, end: float) -> str | None:
        return super()._end_too_early(end) if self._has_end else "the stream stopped"

    def _what_to_do(self, count: int) -> str:
        return "Open it again; check the network if that happens often."


def _open_http_file(file: HttpFile) -> InputContainer:
    try:
        return av.open(
            file,
            mode="r",
            format="mpjpeg" if file.content_type == CAMERA_PAGE else None,
            metadata_errors="replace",
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
        )
    except (FFmpegError, OSError) as error:
        raise _no_video(file.name, file.timeout, error) from error


def _open_rtsp(endpoint: Endpoint, rule: AddressRule, timeout: float) -> InputContainer:
    if not rule.allow_private:
        raise SourceError(
            f"{endpoint.shown}: an RTSP server can send FFmpeg on to any address; allow private "
            "addresses, too, or use HTTP."
        )
    transport = "tcp" if endpoint.scheme == "rtsp" else "tcp,tls"
    try:
        return av.open(
            _numeric_url(endpoint),
            mode="r",
            metadata_errors="replace",
            timeout=timeout,
            container_options={
                "rtsp_transport": "tcp",
                "format_whitelist": "rtsp",
                "protocol_whitelist": transport,
            },
        )
    except (FFmpegError, OSError) as error:
        raise _no_video(endpoint.shown, timeout, error) from error


def _numeric_url(endpoint: Endpoint) -> str:
    """The URL with the address that was checked, so that the name is not looked up again."""
    address = endpoint.addresses[0]
    host = f"[{address}]" if ":" in address else address
    user = ":".join(quote(part, safe="") for part in endpoint.credentials or ())
    return f"{endpoint.scheme}://{user and user + '@'}{host}:{endpoint.port}{endpoint.target}"


def _check_size(container: InputContainer, shown: str) -> None:
    for stream in container.streams.video:
        if stream.width * stream.height > MAX_PIXELS:
            raise SourceError(
                f"{shown}: expected pictures of at most {MAX_PIXELS} pixels, got "
                f"{stream.width}x{stream.height}. Choose a smaller stream."
            )


def _no_video(shown: str, timeout: float, error: FFmpegError | OSError) -> SourceError:
    return SourceError(
        f"{shown}: expected a video that FFmpeg reads within {timeout:g} s, got none "
        f"({error.strerror or error}). Check the URL; playlists are not followed."
    )
