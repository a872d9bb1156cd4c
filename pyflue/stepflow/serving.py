"""Serves the HTTP API of a backend on a port of this machine, for as long as a block lasts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator

from .backend import Backend

_STOP_S = 2


@contextlib.asynccontextmanager
async def listening(backend: Backend, port: int, *, host: str = "127.0.0.1") -> AsyncGenerator[int]:
    """The port that it listens on; 0 lets the system choose.

    Raises:
        OSError: the port is taken.
    """
    import uvicorn

    from .app import create_app

    sock = socket.create_server((host, port), backlog=128)
    # Accepted sockets inherit it; without it small answers wait for the other side's acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        create_app(backend),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_S,
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(sockets=[sock]))
        try:
            yield sock.getsockname()[1]
        finally:
            server.should_exit = True
            await serving
            sock.close()
