"""`create_app`: stepflow's HTTP API as an ASGI application of its own, for flows that run outside of a project.

A project's server has the same routes and checks requests itself. Here the same three things are looked at before a
route is: the *host* must be this machine or an allowed name, or a page of a rebound name could talk to us from a
browser; the *origin*, where a browser names one, must be our own or an allowed one; the *token*, where there is one,
must be brought.
"""

from __future__ import annotations

import functools
import hmac
import ipaddress
import re
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .backend import Backend
from .http import api_routes, no_such_path
from .openapi import PREFIX

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")


def create_app(
    backend: Backend,
    *,
    allowed_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    token: str | None = None,
) -> Starlette:
    """An ASGI application with the routes under `/api/v1`.

    Pages of `allowed_origins` may call from a browser. Requests by other names than `localhost` and addresses need
    `allowed_hosts`. With a `token`, every request but `/api/v1/health` has to bring it (`Authorization: Bearer …`).
    """
    middleware: list[Middleware] = []
    if allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(allowed_origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["authorization", "content-type", "idempotency-key"],
            )
        )
    # Inside of the other, which answers what browsers ask beforehand.
    middleware.append(Middleware(_Gate, origins=allowed_origins, hosts=allowed_hosts, token=token))
    return Starlette(routes=api_routes(backend), middleware=middleware, exception_handlers={404: _nowhere})


class _Gate:
    """Lets requests through, or says why not."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], hosts: Sequence[str], token: str | None) -> None:
        self._app = app
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        match = _HOST.fullmatch(host)
        if match is None or not self._is_ours(match["name"]):
            return _error(421, "This server does not answer to that host name: see `allowed_hosts`.")
        origin = headers.get("origin")
        if origin is not None:
            origin = origin.lower()
            _, separator, authority = origin.partition("://")
            if origin not in self._origins and not (separator and authority == host):
                return _error(403, "Pages of that origin may not call this server: see `allowed_origins`.")
        elif headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
            return _error(403, "Pages of other sites may not call this server: see `allowed_origins`.")
        if self._token is not None and scope["path"] != f"{PREFIX}/health":
            kind, _, presented = headers.get("authorization", "").partition(" ")
            given = presented.strip().encode() if kind.lower() == "bearer" else b""
            if not hmac.compare_digest(self._token, given):
                refused = _error(401, "This server needs a token: `Authorization: Bearer …`.")
                refused.headers["www-authenticate"] = "Bearer"
                return refused
        return None

    def _is_ours(self, name: str) -> bool:
        name = name.removesuffix(".")
        return name == "localhost" or name.endswith(".localhost") or name in self._hosts or _is_address(name)


@functools.lru_cache(maxsize=256)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _nowhere(request: Request, error: Exception) -> Response:
    """What is not below the prefix, in the form of this API, too."""
    return no_such_path(request.url.path)


def _error(status: int, message: str) -> Response:
    return JSONResponse({"code": status, "message": message}, status)
