"""Hub ids: the real client against a hub of a few files on this computer, in a process of its own.

A process of its own, because the client reads its environment when it is imported.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"a": 1}',
    "unet/model.safetensors": bytes(range(256)) * 20,
    "README.md": b"nobody asked for this",
}
PATTERNS = ("config.json", "unet/*")
BIG = "unet/model.safetensors"
PIECE = 10 * 2**20  # what the client writes at a time

WORKER = """
import json, logging, sys
from pathlib import Path
from live2diff_core.errors import WeightsMissingError
from live2diff_core.weights.hub import fetch
lines = []
logger = logging.getLogger("live2diff_core")
logger.setLevel(logging.INFO)
logger.addHandler(logging.Handler())
logger.handlers[0].emit = lambda record: lines.append(record.getMessage())
for line in sys.stdin:
    name, patterns, download = json.loads(line)
    try:
        path = fetch(name, patterns, download=download, folder=Path("models/base"))
        answer = {"path": str(path)}
    except WeightsMissingError as error:
        answer = {"refusal": str(error)}
    print(json.dumps(answer | {"log": lines}), flush=True)
    lines.clear()
"""


@dataclass
class Answer:
    """What a fetch came to."""

    log: list[str]
    path: str = ""
    refusal: str = ""

    @property
    def hashes(self) -> set[str]:
        return {line.rsplit(" SHA-256 ", 1)[1] for line in self.log}


@dataclass
class Hub:
    """What the server serves and was asked for. cut: bytes after which it hangs up, once."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    refusal: tuple[int, str] | None = None
    cut: int | None = None
    requests: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        span = request.headers.get("Range", "")
        self.requests.append(f"{request.command} {path} {span}".strip())
        if self.refusal is not None:
            send(request, self.refusal[0], b"", {"X-Error-Code": self.refusal[1]})
        elif "/tree/" in path:
            send_json(request, [self.entry(name) for name in self.files])
        elif path.startswith("/api/models/"):
            send_json(request, {"id": "/".join(path.split("/")[3:5]), "sha": COMMIT})
        else:
            self.serve(request, path.split("/", 5)[5], span)

    def entry(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": etag(content)}

    def serve(self, request: BaseHTTPRequestHandler, name: str, span: str) -> None:
        if name not in self.files:
            send(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content = self.files[name]
        headers = {"ETag": f'"{etag(content)}"', "X-Repo-Commit": COMMIT}
        start = int(re.findall(r"\d+", span)[0]) if span else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        length = len(content) - start
        if self.cut is not None and request.command == "GET":
            content, self.cut = content[: self.cut], None
        send(request, 206 if start else 200, content[start:], headers, length)


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def send_json(request: BaseHTTPRequestHandler, content: object) -> None:
    send(request, 200, json.dumps(content).encode(), {"Content-Type": "application/json"})


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str],
    length: int | None = None,
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def hub(server) -> Hub:
    """The server as it is at first."""
    server.files, server.refusal, server.cut = dict(FILES), None, None
    server.requests.clear()
    return server


class Client:
    """A process that fetches what it is told to, with a cache of its own."""

    def __init__(self, home: Path, address: str, **settings: str) -> None:
        environment = {
            "HF_HOME": str(home),
            "HF_ENDPOINT": address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=os.environ | environment | settings,
            cwd=Path(__file__).parent.parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, name: str, patterns: Sequence[str] = PATTERNS, download: bool = True) -> Answer:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([name, patterns, download]) + "\n")
        self.process.stdin.flush()
        return Answer(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def make_client(server, tmp_path_factory) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(address: str = server.address, **settings: str) -> Client:
        clients.append(Client(tmp_path_factory.mktemp("hf"), address, **settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def client(make_client) -> Client:
    return make_client()


@pytest.fixture(scope="module")
def offline(make_client) -> Client:
    return make_client(HF_HUB_OFFLINE="1")


@pytest.fixture
def name(request) -> str:
    """A repository that no other test has asked for."""
    return "owner/" + hashlib.sha1(request.node.name.encode()).hexdigest()[:12]


def sha256(name: str) -> str:
    return hashlib.sha256(FILES[name]).hexdigest()


def refusal(printed: str) -> str:
    """The one line of an error."""
    (line,) = printed.splitlines()
    assert line.startswith("refused: ")
    return line


def content(folder: str) -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_file_is_fetched_once_and_its_hash_told(hub, client, name):
    first = client.ask(f"{name}/{BIG}")
    assert Path(first.path).read_bytes() == FILES[BIG]
    assert first.hashes == {sha256(BIG)}
    hub.requests.clear()
    for download in (True, False):
        assert client.ask(f"{name}/{BIG}", download=download) == Answer([], first.path)
    assert not hub.requests


def test_of_a_repository_comes_what_the_patterns_name(hub, client, name):
    first = client.ask(name)
    assert content(first.path) == {key: FILES[key] for key in ("config.json", BIG)}
    assert first.hashes == {sha256("config.json"), sha256(BIG)}
    hub.requests.clear()
    assert client.ask(name, download=False) == Answer([], first.path)
    assert not hub.requests


@pytest.mark.parametrize(
    ("file", "files"),
    [(f"/{BIG}", "model.safetensors"), ("", "a folder with config.json, unet/*")],
)
def test_nothing_is_requested_unasked(hub, client, name, file, files):
    refusal = client.ask(name + file, download=False).refusal
    assert f"{name}{file} is not on this computer: put {files} into models/base, or let" in refusal
    assert "--download" in refusal
    assert not hub.requests


def test_a_part_of_a_repository_is_not_taken_for_all_of_it(hub, client, name):
    client.ask(f"{name}/config.json")
    hub.requests.clear()
    wanted = ["config.json", BIG]
    assert "is not on this computer" in client.ask(name, wanted, download=False).refusal
    assert not hub.requests
    assert client.ask(name, wanted).hashes == {sha256("config.json"), sha256(BIG)}


def test_a_broken_transfer_goes_on_where_it_broke(hub, client, name):
    whole = hub.files[BIG] = bytes(PIECE) + FILES[BIG]
    hub.cut = PIECE + 1000
    got = client.ask(f"{name}/{BIG}")
    assert Path(got.path).read_bytes() == whole
    assert got.hashes == {hashlib.sha256(whole).hexdigest()}
    transfers = [r.split(" ", 2)[2:] for r in hub.requests if r.startswith("GET")]
    assert transfers == [[], [f"bytes={PIECE}-"]]


@pytest.mark.parametrize("file", [f"/{BIG}", ""])
def test_offline_is_said_in_one_line(hub, offline, name, file):
    refusal = offline.ask(name + file).refusal
    assert "could not be fetched: the hub is switched off here (HF_HUB_OFFLINE)" in refusal
    assert "into models/base" in refusal
    assert "\n" not in refusal
    assert not hub.requests


def test_a_hub_that_is_not_there_is_said_in_one_line(make_client, name):
    refusal = make_client("http://127.0.0.1:9").ask(name).refusal
    assert f"{name} could not be fetched: " in refusal
    assert "refused" in refusal
    assert "\n" not in refusal


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, "RepoNotFound", "no such repository, or it is private"),
        (404, "RepoNotFound", "no such repository, or it is private"),
        (403, "GatedRepo", "its owner must grant access"),
        (403, "", "403"),
    ],
)
@pytest.mark.parametrize("file", [f"/{BIG}", ""])
def test_what_the_hub_refuses_is_said_in_one_line(hub, client, name, file, status, code, reason):
    hub.refusal = status, code
    refusal = client.ask(name + file).refusal
    assert f"{name}{file} could not be fetched: " in refusal
    assert reason in refusal
    assert "\n" not in refusal


@pytest.mark.parametrize(
    ("file", "patterns", "reason"),
    [
        ("/vae.safetensors", [], "the hub's repository has no such file"),
        ("", ["config.json", "vae/model.safetensors"], "it lacks vae/model.safetensors"),
        ("", ["*.onnx"], "it lacks *.onnx"),
    ],
)
def test_what_the_repository_lacks_is_named(hub, client, name, file, patterns, reason):
    refusal = client.ask(name + file, patterns).refusal
    assert f"{name}{file} could not be fetched: {reason}; or put" in refusal


def test_a_name_that_can_be_no_id_is_refused(hub, client):
    assert "owner/na--me is no id of the hub: " in client.ask("owner/na--me").refusal
    assert not hub.requests
