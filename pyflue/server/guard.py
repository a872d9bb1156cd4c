"""The HTTP protocol with limits: how large a head, how slow a request, how many and how old connections may be.

A layer over uvicorn's httptools protocol, which has none of them. `listening.py` serves with it and calls `check_time`
twice a second; nothing else here runs on a timer, and a request that arrives in one piece costs two comparisons.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ..errors import HeadersTooLarge, InvalidRequest, PyFlueError, RequestTooSlow, TooManyConnections
from .errors import error_answer
from .security import HEALTH_PATH

_MOST_HEADERS = 128
#: A refused client may finish what it is sending for this long, so that it reads the refusal and not a reset.
_LINGER_S = 2.0
#: What a connection may hold unsent before its writer has to wait.
_WRITE_BUFFER_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The limits."""

    header_bytes: int
    connections: int
    request_s: float
    connection_age_s: float


class GuardedConfig(uvicorn.Config):
    """uvicorn's configuration, with the limits for its connections."""

    def __init__(self, app: Any, guard: Guard, **options: Any) -> None:
        super().__init__(app, http=GuardedProtocol, **options)
        self.guard = guard


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: GuardedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._guard = config.guard
        self._made_at = 0.0
        #: Since when the client owes the rest of a request (or the first one); None while it owes nothing.
        self._owing_since: float | None = None
        self._is_in_head = False
        #: Bytes received since the read in which the head began.
        self._fed_bytes = 0
        self._is_surplus = False
        self._refusal: PyFlueError | None = None
        self._linger_until: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._made_at = self._owing_since = self.loop.time()
        if len(self.connections) > self._guard.connections:
            self._is_surplus = True
            self.app = self._surplus_app

    def data_received(self, data: bytes) -> None:
        if self._linger_until is not None:
            return
        self._fed_bytes = self._fed_bytes + len(data) if self._is_in_head else len(data)
        super().data_received(data)
        if self._is_in_head and self._fed_bytes > self._guard.header_bytes:
            self._refuse(HeadersTooLarge(self._guard.header_bytes))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._owing_since = self.loop.time()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if len(self.headers) > _MOST_HEADERS or (
            self._fed_bytes > self._guard.header_bytes and self._head_bytes() > self._guard.header_bytes
        ):
            self._refusal = HeadersTooLarge(self._guard.header_bytes)
            raise self._refusal  # the parser stops and calls `send_400_response`
        super().on_headers_complete()
        cycle = self._current()
        if cycle is not None and self.loop.time() - self._made_at > self._guard.connection_age_s:
            cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._owing_since = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or InvalidRequest("This is not a valid HTTP request."))

    def check_time(self, now: float) -> None:
        """Close the connection if it has been waiting for its client for too long."""
        if self._linger_until is not None:
            if now > self._linger_until:
                self.transport.close()
            return
        if self._owing_since is None or now - self._owing_since <= self._guard.request_s:
            return
        cycle = self._current()
        if cycle is not None and cycle.response_complete:
            cycle = None
        if cycle is not None and not cycle.more_body:
            return  # what is late is a request behind the one that is being answered
        if self._is_in_head or (cycle is not None and not cycle.response_started):
            self._refuse(RequestTooSlow(self._guard.request_s))
        else:
            self.transport.close()

    def _current(self) -> RequestResponseCycle | None:
        return self.cycle  # uvicorn declares it as always there; before the first request it is None

    def _should_upgrade(self) -> bool:
        return not self._is_surplus and super()._should_upgrade()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, error: PyFlueError) -> None:
        """Answer without asking the application, and take nothing more from this client."""
        answer = error_answer(error)
        lines = [STATUS_LINE[answer.status]]
        for name, value in (*self.server_state.default_headers, *answer.headers, (b"connection", b"close")):
            lines += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join((*lines, b"\r\n", answer.body)))
        self._linger_until = self.loop.time() + _LINGER_S
        if (cycle := self._current()) is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    async def _surplus_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == HEALTH_PATH:
            app: ASGIApp = cast("Any", self.config).loaded_app
            await app(scope, receive, send)
            return
        answer = error_answer(TooManyConnections(self._guard.connections))
        answer.headers.append((b"connection", b"close"))
        await answer(scope, receive, send)
