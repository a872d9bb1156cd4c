"""A workflow's WebSocket: one payload out, the run's messages back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from .. import codec
from ..codec import EMPTY_OBJECT
from ..errors import InvalidJson, PyFlueError, ServerAnswered, SocketMisused, Unreachable
from .answers import error_from, error_of_run, read_json, stranger
from .connection import Connection
from .streams import Cursor, fetch_run, follow

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed, InvalidStatus

#: Close codes with which a server says that it will not take what was sent.
_REFUSED = frozenset({1003, 1007, 1008, 1009})


class WorkflowSocket:
    """An open WebSocket. It carries one run."""

    def __init__(self, connection: Connection, socket: ClientConnection) -> None:
        self._connection = connection
        self._socket = socket
        self._is_used = False

    async def run(self, payload: Any = EMPTY_OBJECT) -> list[dict[str, Any]]:
        """Send the payload and return every message: the run's events, then one of type `result` or `error`.

        If the socket breaks in the middle of the run, the rest is read over HTTP.

        Raises:
            SocketMisused: this socket has carried its run already.
            ServerAnswered: the server closed the socket because of what was sent (too large, say).
            Unreachable: the socket broke before the run was known, or the server could not be reached again.
        """
        from websockets.exceptions import ConnectionClosed

        if self._is_used:
            raise SocketMisused("A workflow's WebSocket carries one run.", hint="Connect again for the next one.")
        self._is_used = True
        messages: list[dict[str, Any]] = []
        try:
            await self._socket.send(bytes(codec.encode_value(payload, "The payload")), text=True)
            while True:
                message = read_json(await self._socket.recv(decode=False), "A message of the server")
                messages.append(message)
                if "index" not in message and message["type"] in {"result", "error"}:
                    return messages
        except ConnectionClosed as error:
            run_id = _run_of(messages)
            if run_id is None:
                raise error_of_close(
                    self._connection, error, "the WebSocket broke before the run's first event"
                ) from error
            return messages + await self._rest(run_id, after=messages[-1]["index"])

    async def _rest(self, run_id: str, *, after: int) -> list[dict[str, Any]]:
        """The messages that the socket did not bring."""
        async with aclosing(follow(self._connection, run_id, Cursor(after))) as events:
            rest = [event async for event in events]
        record = await fetch_run(self._connection, run_id)
        if record["status"] == "completed":
            return [*rest, {"type": "result", "run_id": run_id, "result": record["result"]}]
        error = {**error_of_run(record).to_dict(), "run_id": run_id}
        return [*rest, {"type": "error", "run_id": run_id, "error": error}]


@asynccontextmanager
async def connect(connection: Connection, path: str) -> AsyncGenerator[WorkflowSocket, None]:
    """Open a workflow's WebSocket for the length of the block."""
    async with open_socket(connection, path) as socket:
        yield WorkflowSocket(connection, socket)


@asynccontextmanager
async def open_socket(connection: Connection, path: str) -> AsyncGenerator[ClientConnection, None]:
    """Open a WebSocket for the length of the block.

    Raises:
        Unreachable, and what the server's refusal stands for.
    """
    from websockets.asyncio.client import connect as opening_of
    from websockets.exceptions import InvalidStatus, WebSocketException

    opening = opening_of(
        "ws" + connection.url.removeprefix("http") + path,
        additional_headers=connection.headers,
        open_timeout=connection.connect_timeout_s,
        max_size=None,  # a result may be as large as the server lets it be
    )
    try:
        socket = await opening
    except InvalidStatus as error:
        raise _refused(error) from error
    except (WebSocketException, OSError) as error:  # TimeoutError is an OSError
        raise Unreachable(connection.url, f"{type(error).__name__}: {error}") from error
    async with socket:
        yield socket


def error_of_close(connection: Connection, error: ConnectionClosed, what: str) -> PyFlueError:
    """Why a WebSocket is closed: the server refused what was sent, or it broke."""
    said = error.rcvd
    if said is not None and said.code in _REFUSED:
        return ServerAnswered(f"The server closed the WebSocket ({said.code}): {said.reason or 'no reason given'}.")
    return Unreachable(connection.url, what)


def _run_of(messages: list[dict[str, Any]]) -> str | None:
    return messages[-1].get("stream_id") if messages else None


def _refused(error: InvalidStatus) -> PyFlueError:
    status = error.response.status_code
    try:
        return error_from(status, read_json(bytes(error.response.body), "The answer")["error"])
    except (InvalidJson, KeyError, TypeError):
        return stranger(f"The request for a WebSocket was answered {status}", status)
