"""live2diff serve: a page and a socket that translate what a camera or a program sends."""

import argparse
import itertools
import os

from aiohttp import web

from ..errors import ConfigError
from ..live.access import Policy
from ..live.paths import PREFIX
from ..live.served import ServedStream, Setup
from ..live.server import add_routes
from ..live.settings import LiveConfig
from ..live.streams import Limits, Settings, Streams
from ..live.teams import release_team
from ..models.translator import TranslationModel
from ..stream.session import Session
from ..weights.styles import find_style
from .options import (
    Commands,
    add_model_options,
    add_stream_options,
    check_memory,
    load_model,
    parse_size,
    stream_config,
)

PORT = 8190
TOKEN_VARIABLE = "LIVE2DIFF_TOKEN"
SHUTDOWN_SECONDS = 5.0


def add_command(commands: Commands) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "serve",
        help="translate a camera in the browser, and frames over a socket",
        description="Serve a page and a socket for live translation; see docs/protocol.md.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: this computer only)")
    parser.add_argument("--port", type=int, default=PORT, help=f"port (default: {PORT})")
    parser.add_argument(
        "--token",
        default=os.environ.get(TOKEN_VARIABLE),
        help=f"what clients must know; needed beyond this computer (default: {TOKEN_VARIABLE})",
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        help="a site whose pages may use this server, such as https://example.org; repeatable",
    )
    parser.add_argument(
        "--limits",
        default="",
        metavar="NAME=N,...",
        help="what the server takes, such as streams=2,clients=16; names in docs/protocol.md",
    )
    parser.add_argument("--prompt", help="what to see until a client says otherwise")
    parser.add_argument("--size", type=parse_size, help="WxH of the output (default: the model's)")
    parser.add_argument(
        "--on-failure",
        choices=("hold", "passthrough", "card"),
        default="hold",
        help="what is shown while something fails (default: the last picture)",
    )
    add_model_options(parser)
    add_stream_options(parser)
    parser.set_defaults(run=run, overlap=False)  # a live picture is waited for


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted. Raises ConfigError where the address cannot be used."""
    policy = Policy(options.host, options.token, frozenset(options.origin))
    application = make_application(options, policy, load_model(options))
    try:
        web.run_app(
            application,
            host=options.host,
            port=options.port,
            print=lambda *_: print(f"{_address(options)} (end with Ctrl-C)", flush=True),
            access_log=None,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
    except (OSError, OverflowError) as error:
        raise ConfigError(f"{options.host}:{options.port} cannot be served: {error}") from error
    return 0


def make_application(
    options: argparse.Namespace, policy: Policy, model: TranslationModel
) -> web.Application:
    """All routes, with streams on one model. Raises ConfigError, PromptError, MemoryBudgetError."""
    setup, names = _setup(options, model), itertools.count(1)
    setup.open_session().close()  # what cannot be is said before anybody comes
    release_team()

    def open_stream(stream_id: str, settings: Settings) -> ServedStream:
        return ServedStream(hub, stream_id, f"stream {next(names)}", setup, settings)

    hub = Streams(Limits.read(options.limits), open_stream)
    application = web.Application()
    add_routes(application, hub, policy)
    application.router.add_get("/", _to_page)
    return application


def _setup(options: argparse.Namespace, model: TranslationModel) -> Setup:
    if options.prompt is None and options.style is None:
        raise ConfigError("say what to see until a client does: --prompt, or a --style")
    template = str if options.style is None else find_style(options.style).prompt
    size = options.size or (model.defaults.width, model.defaults.height)
    config = stream_config(options, model, size)

    def open_session() -> Session:
        check_memory(model, config, caches=2)  # a live stream is anchored, and steered
        return Session(model, config, template(options.prompt or ""))

    return Setup(
        open_session,
        size,
        LiveConfig(on_failure=options.on_failure),
        template=template,
        variant=model.with_strength if model.adapters else None,
    )


async def _to_page(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(f"{PREFIX}/")


def _address(options: argparse.Namespace) -> str:
    """Where the page is."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{host}:{options.port}{PREFIX}/{'?token=...' if options.token else ''}"
