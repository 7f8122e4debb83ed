"""A real ComfyUI as a server: all that it writes goes to a folder of the test run."""

import json
import os
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.comfy.install import ROOT, Environment, comfyui_folder, python_of

PACK = "live2diff-comfyui"  # a dashed folder name, as a clone of the repository has
START_LIMIT = 600.0  # seconds, for a computer with much else to do; most wait for ten
STOP_LIMIT = 60.0
# More of ComfyUI's flags, such as `--cache-ram 1 1` or `--front-end-root FOLDER`, and which of its
# page's renderers draws the nodes; `make hosts` runs the tests with several.
FLAGS = shlex.split(os.environ.get("COMFYUI_FLAGS", ""))
NODES_2 = os.environ.get("COMFYUI_RENDERER", "litegraph") == "nodes2"
# A first start opens the template browser over the graph; the other two would cover it in pictures.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.VueNodes.Enabled": NODES_2,
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@dataclass
class ComfyServer:
    """A running ComfyUI with the pack linked in."""

    base: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def log(self) -> str:
        return (self.base / "comfyui.log").read_text(encoding="utf-8", errors="replace")

    @property
    def temp_files(self) -> set[str]:
        return {path.name for path in (self.base / "temp").glob("*")}

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def get_json(self, path: str):
        return json.loads(self.get(path))

    def resident_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def threads(self) -> int:
        return psutil.Process(self.process.pid).num_threads()

    def descriptors(self) -> int:
        return psutil.Process(self.process.pid).num_fds()

    def wait_until_up(self) -> None:
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit and self.process.poll() is None:
            try:
                self.get("/queue")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise RuntimeError(f"ComfyUI did not start within {START_LIMIT:.0f} s:\n{self.log}")

    def wait_until_idle(self) -> None:
        limit = time.monotonic() + STOP_LIMIT
        while self.get_json("/queue") != {"queue_running": [], "queue_pending": []}:
            assert time.monotonic() < limit, "a prompt goes on and on"
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def prepare(base: Path, pack: Path) -> None:
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes" / PACK).symlink_to(pack, target_is_directory=True)
    user = base / "user" / "default"
    user.mkdir(parents=True)
    (user / "comfy.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")


def require_dependencies(environment: Environment) -> None:
    """Raises RuntimeError with the command that installs what is missing."""
    missing = environment.missing()
    if missing:
        command = shlex.join(environment.install_command(missing))
        names = ", ".join(map(str, missing))
        raise RuntimeError(f"ComfyUI's Python lacks {names}: run `make test`, or `{command}`")


def start_server(
    base: Path, listen: str = "127.0.0.1", pack: Path = ROOT, **variables: str
) -> ComfyServer:
    """Start the ComfyUI that was found, with these environment variables, and wait until it answers
    on this computer. pack: the folder that it loads as the pack.
    """
    folder = comfyui_folder()
    assert folder is not None
    python = python_of(folder)
    require_dependencies(Environment.of(python))
    prepare(base, pack)
    port = free_port()
    options = {
        "--base-directory": base,
        "--database-url": f"sqlite:///{base / 'comfyui.db'}",
        "--listen": listen,
        "--port": port,
    }
    words = [str(word) for option in options.items() for word in option]
    flags = ["--cpu", "--disable-auto-launch", "--disable-api-nodes", *FLAGS]
    # An editable install of this repository would hide what the pack lacks by itself.
    environment = {**os.environ, **variables, "PYTHONPATH": "", "PYTHONUNBUFFERED": "1"}
    with (base / "comfyui.log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "main.py", *words, *flags],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = ComfyServer(base, port, process)
    with ExitStack() as undo:
        undo.callback(server.stop)
        server.wait_until_up()
        undo.pop_all()
    return server
