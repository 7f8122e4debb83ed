"""The prompt that ComfyUI is running."""

from collections.abc import Mapping
from typing import Any

from ...live2diff_core.errors import ConfigError
from .modules import inside, prompt_server


def client_id() -> str | None:
    """Who sent the prompt that is running."""
    return getattr(prompt_server(), "client_id", None)


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
