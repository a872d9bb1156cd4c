"""Listening: the socket, uvicorn around the application, and the order in which all of it stops.

`pyflue dev` and `pyflue serve` call `bind`, then `listen` (which blocks) or `serve` (in a loop of their own). At
SIGINT or SIGTERM the application stops first, while its connections stay open: waiting callers are answered, streams
end, new requests get 503, runs are handed back. Then the connections are closed, and `serve` returns. A second SIGINT
ends the process at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..engine import loops
from ..errors import PyFlueError, SettingsInvalid
from ..settings import ServerSettings, Settings
from .guard import Guard, GuardedConfig, GuardedProtocol

_SWEEP_TICKS = 5  # of uvicorn's main loop, 0.1 s each
#: A request is late a little before its time is up, because the looks are half a second apart.
_PUNCTUALITY = 0.95
_CLOSING_S = 1
#: Connections that may wait to be accepted.
_BACKLOG = 2048
#: Within this time a second SIGINT is the same key press: some launchers pass on what the terminal sent, too.
_ONE_PRESS_S = 0.3
_INTERRUPTED = 130
#: What the kernel takes from us before it has sent it on.
_UNSENT_BYTES = 64 * 1024


def bind(settings: ServerSettings) -> socket.socket:
    """The socket to listen on.

    Raises:
        SettingsInvalid: the address is not to be had, or is open to others although there is no token.
    """
    addresses = _resolve(settings)
    is_private = all(ipaddress.ip_address(address[4][0]).is_loopback for address in addresses)
    if not is_private and not settings.token and not settings.tokens:
        raise SettingsInvalid(
            "server.host",
            "the settings or the command line",
            f"{settings.host!r} can be reached from other machines, so a token is needed: set PYFLUE_TOKEN.",
        )
    family, _, _, _, address = addresses[0]
    # With the protocol named, accepted connections get TCP_NODELAY; without, every answer waits for an ACK.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # The kernel would take megabytes for a reader that does not read, and the server would fetch them.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        sock.setblocking(False)
        sock.bind(address)
        # Two sockets can be bound to one port; which of them has it is known only now.
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{settings.host}:{settings.port}"
        problem = f"cannot listen on {where}: {error.strerror}. Choose another one with --port, or 0 for a free one."
        raise SettingsInvalid("server.port", "the settings or the command line", problem) from error
    return sock


def listen(app: ASGIApp, sock: socket.socket, settings: Settings, *, on_ready: Callable[[str], None]) -> None:
    """As `serve`, in an event loop made for it; returns after SIGINT or SIGTERM."""
    config = _config(app, settings)
    loops.run(serve(app, sock, settings, on_ready=on_ready), loop_factory=config.get_loop_factory())


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    settings: Settings,
    *,
    on_ready: Callable[[str], None],
    until: asyncio.Event | None = None,
) -> None:
    """Serve an application until SIGINT, SIGTERM or `until`. `on_ready` is called with the URL once it answers.

    Raises:
        PyFlueError: the application could not start.
    """
    life = _Life(app)
    server = _Server(_config(life, settings), settings, lambda: on_ready(_url(sock, settings)), until)
    try:
        await server.serve([sock])
    except SystemExit:
        raise life.failure() from None
    finally:
        sock.close()


class _Server(uvicorn.Server):
    """uvicorn's server with our order of stopping, and a look at every connection twice a second."""

    def __init__(
        self,
        config: GuardedConfig,
        settings: Settings,
        on_ready: Callable[[], None],
        until: asyncio.Event | None,
    ) -> None:
        super().__init__(config)
        self._send_timeout_s = settings.server.send_timeout_s
        self._on_ready = on_ready
        self._until = until
        self._told_to_stop_at: float | None = None
        #: Connections with unsent data: how much, and since when it is that much.
        self._unsent: dict[Any, tuple[int, float]] = {}

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._told_to_stop_at is None:
            self._told_to_stop_at = now
        elif sig == signal.SIGINT and now - self._told_to_stop_at > _ONE_PRESS_S:
            os._exit(_INTERRUPTED)  # whoever asks twice does not want to wait; the runs are taken up at the next start
        self.should_exit = True  # uvicorn's own would raise the signal again at the end, and spoil the exit code

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP_TICKS == 0:
            self._look_at_connections(asyncio.get_running_loop().time())
        return await super().on_tick(counter) or (self._until is not None and self._until.is_set())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.shutdown()
        await super().shutdown(sockets)

    def _look_at_connections(self, now: float) -> None:
        unsent: dict[Any, tuple[int, float]] = {}
        for connection in list(self.server_state.connections):
            if isinstance(connection, GuardedProtocol):
                connection.check_time(now)
            size = connection.transport.get_write_buffer_size()
            if size == 0:
                continue
            before = self._unsent.get(connection)
            if before is None or before[0] != size:
                unsent[connection] = (size, now)
            elif now - before[1] > self._send_timeout_s:
                _drop(connection.transport)
            else:
                unsent[connection] = before
        self._unsent = unsent


def _drop(transport: asyncio.Transport) -> None:
    """Cut a connection off. To close it would wait for its reader for ever, here or in the kernel."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _Life:
    """Passes everything to the application and remembers why it could not start."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._problem: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def listening_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                self._problem = PyFlueError(message.get("message", ""), type="start_failed")
            await send(message)

        try:
            await self._app(scope, receive, listening_send)
        except BaseException as error:
            self._problem = error
            raise

    def failure(self) -> BaseException:
        """What the application raised, or an error with what it said."""
        return self._problem or PyFlueError("The application could not start.", type="start_failed")


def _config(app: ASGIApp, settings: Settings) -> GuardedConfig:
    server, limits = settings.server, settings.limits
    return GuardedConfig(
        app,
        Guard(
            header_bytes=limits.header_bytes,
            connections=limits.connections,
            request_s=server.header_timeout_s * _PUNCTUALITY,
            connection_age_s=server.connection_age_s,
        ),
        interface="asgi3",
        lifespan="on",
        ws="websockets-sansio",
        ws_max_size=limits.websocket_bytes,
        ws_per_message_deflate=False,
        log_config=None,
        log_level="critical",  # the application answers for its errors itself, and logs them
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=max(1, int(server.header_timeout_s)),
        timeout_graceful_shutdown=_CLOSING_S,
    )


def _resolve(settings: ServerSettings) -> list[Any]:
    try:
        found = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise SettingsInvalid(
            "server.host", "the settings", f"{settings.host!r} is no address here: {error.strerror}."
        ) from error
    return sorted(found, key=lambda address: address[0] != socket.AF_INET)


def _url(sock: socket.socket, settings: Settings) -> str:
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    return f"http://{host or '0.0.0.0'}:{sock.getsockname()[1]}"  # noqa: S104  (shown, not bound)
