"""Who may ask: the checks that every HTTP request and every WebSocket passes before a route sees it.

`Gate.admit` looks at three things. The *host* must be a name of ours, or a page of a rebound name could talk to us
from a browser. The *origin*, where a browser names one, must be our own or an allowed one. The *token*, where the
server has tokens, must be one of them and have the scope of what is asked. Forwarding headers of proxies are never
believed. Called by `app.py` once per request; knows nothing of routes except which scope each needs.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from starlette.types import Scope

from ..errors import Forbidden, HostRefused, OriginRefused, Unauthorized
from ..settings import SCOPES, ServerSettings
from .answers import Headers, NoContent
from .body import RequestHeaders

HEALTH_PATH = "/health"

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
#: What sends a signal; the path is as the route table matches it.
_SIGNAL_PATH = re.compile(r"/runs/[^/]+/signals/[^/]+")
#: Below these no dialect says what is needed.
_OURS = ("/workflows", "/runs", "/agents", "/approvals")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: How many `Host` values found good are remembered, so that they are not parsed again.
_REMEMBERED_HOSTS = 256


#: Who a request comes from that brings the token `server.token`, which has no name of its own.
UNNAMED = "server.token"


class _Token(NamedTuple):
    value: bytes
    name: str
    scopes: frozenset[str]


#: Where a request's scope holds the name of the token that it came with.
TOKEN_NAME = "pyflue.token_name"  # noqa: S105  (the key of a name, not a secret)


class Gate:
    """The checks, prepared from the settings."""

    def __init__(self, settings: ServerSettings, scopes_of: Sequence[Callable[[str, str], str | None]] = ()) -> None:
        """`scopes_of` are asked by method and path for the scopes that dialects' routes need."""
        self._scopes_of = scopes_of
        self._allowed_hosts = frozenset(name.lower().rstrip(".") for name in settings.allowed_hosts)
        self._allowed_origins = frozenset(origin.lower().rstrip("/").encode() for origin in settings.allowed_origins)
        self._tokens = [_Token(token.value.encode(), token.name, token.scopes) for token in settings.tokens]
        if settings.token:
            self._tokens.append(_Token(settings.token.encode(), UNNAMED, frozenset(SCOPES)))
        self._good_hosts: set[bytes] = set()

    def admit(self, scope: Scope, headers: RequestHeaders, path: str) -> None:
        """Let a request pass, or say why not.

        Raises:
            HostRefused, OriginRefused, Unauthorized, Forbidden.
        """
        host = headers.get(b"host", b"")
        if host not in self._good_hosts:
            self._check_host(host)
        if b"origin" in headers or b"sec-fetch-site" in headers:
            self._check_origin(scope, headers, host)
        if self._tokens and path != HEALTH_PATH and not self.is_preflight(scope, headers):
            # Kept for those who freeze the request: the token itself is not to be seen by anybody after this.
            scope[TOKEN_NAME] = self._check_token(headers.get(b"authorization", b""), self._scope_needed(scope, path))

    def _scope_needed(self, scope: Scope, path: str) -> str:
        if scope["type"] == "http" and not _is_our_path(path):
            for scope_of in self._scopes_of:
                if (needed := scope_of(scope["method"], path)) is not None:
                    return needed
        return scope_needed(scope, path)

    def caller(self, headers: RequestHeaders) -> str | None:
        """The name of the token that a request came with; None if this server has no tokens.

        Raises:
            Unauthorized
        """
        return self._find_token(headers.get(b"authorization", b"")).name if self._tokens else None

    def is_preflight(self, scope: Scope, headers: RequestHeaders) -> bool:
        """Whether a browser asks if a page of another origin may make a request; it sends no token with that."""
        return (
            scope["type"] == "http"
            and scope["method"] == "OPTIONS"
            and b"access-control-request-method" in headers
            and headers.get(b"origin", b"").lower() in self._allowed_origins
        )

    def preflight_answer(self) -> NoContent:
        """What an allowed origin may send. The origin itself is named by `cors_headers`."""
        return NoContent(
            [
                (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
                (
                    b"access-control-allow-headers",
                    b"authorization, content-type, idempotency-key, last-event-id, signal-id",
                ),
                (b"access-control-max-age", b"600"),
            ]
        )

    def cors_headers(self, headers: RequestHeaders) -> Headers:
        """The headers that let a page of an allowed origin read an answer; none for everybody else."""
        origin = headers.get(b"origin")
        if origin is None or origin.lower() not in self._allowed_origins:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"X-Flue-Run-Id, X-Flue-Dispatch-Id, Retry-After, Allow"),
            (b"vary", b"Origin"),
        ]

    def _check_host(self, host: bytes) -> None:
        text = host.decode("latin-1")
        match = _HOST.fullmatch(text.lower())
        if match is None or not self._is_ours(match["name"]):
            raise HostRefused(text)
        if len(self._good_hosts) < _REMEMBERED_HOSTS:
            self._good_hosts.add(host)

    def _is_ours(self, name: str) -> bool:
        if name.startswith("["):
            return _is_address(name[1:-1])
        name = name.removesuffix(".")
        return name == "localhost" or name.endswith(".localhost") or name in self._allowed_hosts or _is_address(name)

    def _check_origin(self, scope: Scope, headers: RequestHeaders, host: bytes) -> None:
        origin = headers.get(b"origin")
        if origin is None:
            if headers[b"sec-fetch-site"] in {b"same-origin", b"none"}:
                return
            # Following a link is a person's doing and changes nothing; everything else is a foreign page's.
            if _is_safe(scope) and headers.get(b"sec-fetch-mode") == b"navigate":
                return
            raise OriginRefused("another site")
        origin = origin.lower()
        # A proxy in front of us may end TLS, so the schemes may differ; the authority may not.
        _, separator, authority = origin.partition(b"://")
        if origin not in self._allowed_origins and not (separator and authority == host.lower()):
            raise OriginRefused(origin.decode("latin-1"))

    def _check_token(self, authorization: bytes, needed: str) -> str:
        token = self._find_token(authorization)
        if needed not in token.scopes and "admin" not in token.scopes:
            raise Forbidden(needed)
        return token.name

    def _find_token(self, authorization: bytes) -> _Token:
        kind, _, presented = authorization.partition(b" ")
        presented = presented.strip() if kind.lower() == b"bearer" else b""
        found: _Token | None = None
        for token in self._tokens:  # all of them, always: how long it takes must not depend on which one fits
            if hmac.compare_digest(token.value, presented):
                found = token
        if found is None:
            raise Unauthorized
        return found


def scope_needed(scope: Scope, path: str) -> str:
    """The scope a token needs: `run` to start workflows, send signals and talk to agents, `read` to look, `admin` else.

    So whoever may only start runs cannot approve what they ask for.
    """
    if _is_safe(scope):
        return "read"
    if scope["type"] == "http" and scope["method"] == "DELETE":
        return "admin"
    return "run" if path.startswith(("/workflows/", "/agents/")) or _SIGNAL_PATH.fullmatch(path) else "admin"


def _is_our_path(path: str) -> bool:
    """Whether no dialect has a say in a path."""
    return path.startswith(_OURS)


def _is_safe(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] in _SAFE_METHODS


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
