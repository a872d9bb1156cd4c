"""`create_app`: FlowGram's HTTP API for graphs that run in this process, to be mounted into any ASGI application.

    your_app.mount("/_flowgram", fg.create_app())

Nothing is kept on disk. A project's server has the same routes on its journal. Served on its own it answers to this
machine only, unless whoever serves it decides otherwise; pages of other origins are answered if they are named.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount

from .. import __version__
from ..errors import PyFlueError, TooLarge, UnsupportedMediaType
from .backends import LibraryBackend
from .http import ServerInfo, task_routes
from .library import WorkflowApplication

_STATUS = {UnsupportedMediaType: 415, TooLarge: 413}
_LIMIT_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What `/info` says and where the routes are. `host` and `port` are for whoever serves the application."""

    name: str = "pyflue-flowgram"
    title: str = "FlowGram graphs on PyFlue"
    description: str = "Runs graphs drawn in the FlowGram editor."
    runtime: str = "python"
    version: str = __version__
    port: int = 4000
    host: str = "127.0.0.1"
    base_path: str = ""
    #: Origins of pages, such as `http://localhost:3000`, that may call from a browser.
    allowed_origins: tuple[str, ...] = ()
    limit_bytes: int = _LIMIT_BYTES


def create_app(config: ServerConfig | None = None) -> Starlette:
    """An ASGI application with the routes."""
    chosen = config or ServerConfig()
    info = ServerInfo(
        name=chosen.name,
        title=chosen.title,
        description=chosen.description,
        runtime=chosen.runtime,
        version=chosen.version,
    )
    made: list[BaseRoute] = task_routes(LibraryBackend(WorkflowApplication.instance(), chosen.limit_bytes), info)
    base_path = chosen.base_path.rstrip("/")
    if base_path:
        made = [Mount(base_path, routes=made)]
    middleware: list[Middleware] = []
    if chosen.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(chosen.allowed_origins),
                allow_methods=["GET", "POST", "PUT"],
                allow_headers=["authorization", "content-type", "idempotency-key"],
            )
        )
    handlers = {PyFlueError: _told, HTTPException: _not_there}
    return Starlette(routes=made, middleware=middleware, exception_handlers=handlers)


async def _not_there(request: Request, error: Exception) -> JSONResponse:
    """Paths and methods that there are not, as the original answers them."""
    assert isinstance(error, HTTPException)  # noqa: S101  (it is registered for them)
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


async def _told(request: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    return JSONResponse({"detail": str(error)}, status)
