"""`pyflue flow serve`: stepflow's HTTP API on a port of this machine.

In a project that is the project's server, on another port and perhaps with another config. Elsewhere it is the API
alone, on what the config says about state.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import USAGE, Problem
from .documents import config_for
from .opening import root_of
from .options import FILE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from ...engine import EmbeddedEngine
    from ...settings import ServerSettings
    from ...stepflow.config import StepflowConfig

_PORT = 7837


@click.command("serve")
@click.option(
    "--config",
    type=FILE,
    envvar="STEPFLOW_CONFIG",
    metavar="FILE",
    help="The config: plugins and routes to components. [STEPFLOW_CONFIG]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    envvar="STEPFLOW_PORT",
    help=f"Port to listen on; 0 takes a free one. [STEPFLOW_PORT, {_PORT}]",
)
@click.option("--host", help="Address to listen on; another than loopback needs a token. [127.0.0.1]")
@click.option(
    "--allowed-origin",
    "allowed_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Web pages of this origin may call from browsers; can be repeated.",
)
@click.pass_context
def serve_flows(
    ctx: click.Context, config: Path | None, port: int, host: str | None, allowed_origins: tuple[str, ...]
) -> None:
    """Serve flows over HTTP, for `flow submit` and other clients.

    The API is under /api/v1. In a project runs are kept in its journal, and the rest of its server is there, too;
    elsewhere they are kept where the config's stateStore says, in memory by default. The token is PYFLUE_TOKEN, or
    server.token of the project. SIGINT and SIGTERM stop it in good order; plugins end with it.
    """
    options = {"server.host": host, "server.port": port, "server.allowed_origins": list(allowed_origins) or None}
    root = root_of(ctx)
    if root is None:
        _serve_alone(config_for(config), options)
        return
    from ...main import run_server

    run_server(root, options, prepare=_fixing(config_for(config, root=root), root, given=config is not None))


def _fixing(config: StepflowConfig, root: Path, *, given: bool) -> Callable[[EmbeddedEngine], None] | None:
    """What makes all flows of an engine run with a config; None if the project finds it by itself."""
    if not given and (config.path is None or config.path.parent == root):
        return None

    def fix(engine: EmbeddedEngine) -> None:
        from ...stepflow.environments import environments_of

        environments_of(engine.resources, config)

    return fix


def _serve_alone(config: StepflowConfig, options: dict[str, Any]) -> None:
    import sys

    from ...logs import configure, logger
    from ...server import bind, listen
    from ...settings import load_settings
    from ...stepflow.stored import journal_url

    settings = load_settings(Path.cwd(), options=options)
    if settings.server.tokens and not settings.server.token:
        raise Problem("Without a project there is one token only: set PYFLUE_TOKEN.", exit_code=USAGE)
    journal_url(config)  # a store that there is not is told before anything is started
    configure(pretty=sys.stderr.isatty())
    log = logger("pyflue.stepflow")
    for warning in config.warnings:
        log.warning("config", file=str(config.path), problem=warning)
    sock = bind(settings.server)
    listen(_App(config, settings.server), sock, settings, on_ready=lambda url: log.info("listening", url=url))


class _App:
    """The API as an ASGI application that opens what runs flows when it starts, and closes it when it stops."""

    def __init__(self, config: StepflowConfig, settings: ServerSettings) -> None:
        self._config = config
        self._settings = settings
        self._app: Any = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        from ...stepflow.app import create_app
        from ...stepflow.runtime import open_backend

        await receive()
        async with open_backend(self._config, {}, os.environ) as backend:
            self._app = create_app(
                backend,
                allowed_origins=self._settings.allowed_origins,
                allowed_hosts=self._settings.allowed_hosts,
                token=self._settings.token or None,
            )
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
