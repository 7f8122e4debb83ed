"""ComfyUI's server: its settings, addresses and routes."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import user_folder
from .modules import inside, prompt_server

logger = logging.getLogger(__name__)


def setting(name: str, default: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """A setting of ComfyUI's default user, as the settings page stores it."""
    folder = user_folder()
    if folder is None:
        return default
    path = folder / "default" / "comfy.settings.json"
    value = _settings(path).get(name)
    return default if value is None else value


def _settings(path: Path) -> dict[str, Any]:
    """What a file of settings holds; what it held before while it is being written."""
    try:
        _known_settings[path] = dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        _known_settings.pop(path, None)
    except (OSError, ValueError, TypeError) as error:
        logger.warning("%s cannot be read (%s): its last settings stay", path, error)
    return _known_settings.get(path, {})


_known_settings: dict[Path, dict[str, Any]] = {}


def listens_on() -> list[str]:
    """Addresses that ComfyUI's server listens on."""
    if not inside():
        return ["127.0.0.1"]
    from comfy.cli_args import args

    return [address.strip() for address in args.listen.split(",")]


def add_routes(add: Callable[[Any], None]) -> None:
    """Let a function add routes to ComfyUI's server, if there is one."""
    if server := prompt_server():
        add(server.routes)
