"""What `dev` and `serve` share: the address, and handing over to `pyflue.main`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def address_options(function: F) -> F:
    """Adds `--host` and `--port`."""
    function = click.option(
        "--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one. [2024]"
    )(function)
    return click.option("--host", help="Address to listen on; another than loopback needs a token. [127.0.0.1]")(
        function
    )


def serve_project(root: Path, *, host: str | None, port: int | None, dev: bool) -> None:
    """Serve a project until the process is told to stop."""
    from ..main import run_server

    run_server(root, {"server.host": host, "server.port": port}, dev=dev)
