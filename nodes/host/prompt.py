"""The prompt that ComfyUI is running."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...live2diff_core.errors import ConfigError
from .modules import inside, prompt_server

NOTICE = "live2diff.notice"  # an event: what the page shows of a node beside its results

Prompt = Mapping[str, Any]  # node id -> its class and inputs


@dataclass(frozen=True)
class Queue:
    """A client's prompts: the one that runs with its id, and those that wait."""

    running_id: str | None = None
    running: Prompt | None = None
    waiting: tuple[Prompt, ...] = ()


def client_id() -> str | None:
    """Who sent the prompt that is running."""
    return getattr(prompt_server(), "client_id", None)


def queue_of(client: str | None) -> Queue:
    """A client's prompts; none outside ComfyUI."""
    server = prompt_server()
    if server is None:
        return Queue()
    running, waiting = (
        [(prompt_id, prompt) for _, prompt_id, prompt, extra, *_ in items if _is_of(client, extra)]
        for items in server.prompt_queue.get_current_queue_volatile()
    )
    running_id, current = running[0] if running else (None, None)
    return Queue(running_id, current, tuple(prompt for _, prompt in waiting))


def _is_of(client: str | None, extra: Mapping[str, Any]) -> bool:
    return extra.get("client_id") == client


def on_prompt(listen: Callable[[str | None, Prompt], None]) -> None:
    """Call a function with the client and the graph of every prompt that is about to be queued."""
    server = prompt_server()
    if server is None:
        return

    def handle(sent: dict[str, Any]) -> dict[str, Any]:
        prompt = sent.get("prompt")
        if isinstance(prompt, dict):
            listen(sent.get("client_id"), prompt)
        return sent

    server.add_on_prompt_handler(handle)


def tell(client: str | None, event: str, data: Mapping[str, Any]) -> None:
    """Send an event to the page or program of one client, and to nobody without one."""
    server = prompt_server()
    if server is not None and client is not None:
        server.send_sync(event, data, client)


def check_caching() -> None:
    """Raise ConfigError where ComfyUI was started so that no stream can go on from run to run."""
    if not inside():
        return
    from comfy.cli_args import args

    if getattr(args, "cache_none", False):
        raise ConfigError(
            "ComfyUI was started with --cache-none: the warm-up begins anew in every run, so no "
            "stream goes on. Start it without, or turn flush on and give the whole clip at once"
        )


def nothing_yet() -> Any:  # noqa: ANN401 - ComfyUI's marker
    """An output that keeps what hangs on it from running; None outside ComfyUI."""
    if not inside():
        return None
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)
