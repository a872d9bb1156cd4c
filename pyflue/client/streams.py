"""Events over HTTP: each index exactly once and in order, however often the connection breaks.

Of a run, or of an agent's instance. The index of the last event is all that has to be remembered; a new connection goes
on from there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from ..errors import PyFlueError, Unreachable
from .answers import error_from, read_json
from .connection import Connection, Frames, is_nobody_there

#: Answers of a server that is starting or stopping, or of the proxy before it.
_TRY_AGAIN = frozenset({502, 503, 504})
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


class Cursor:
    """Where a reader is in a run."""

    def __init__(self, after: int = 0) -> None:
        #: The last index that was read.
        self.index = after
        #: Whether the run's last event was read.
        self.is_at_end = False


async def read(
    frames: Frames, cursor: Cursor, *, live: bool = False, last: str | None = "run_end", is_dense: bool = True
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events of one connection that come next after the cursor, and move it.

    Ends with the event of type `last`, with the connection, or when an index is missing that should be there
    (`is_dense`): then the rest has to be asked for again. With `live`, text of models is yielded, too: it has no index.
    """
    async with aclosing(aiter(frames)) as arriving:
        async for frame in arriving:
            if frame.id is None:
                if frame.event == "error":
                    body = read_json(frame.data.encode(), "An error in an event stream")
                    raise error_from(None, body.get("error", body))
                if live and frame.event == "text_delta":  # no part of the record
                    yield read_json(frame.data.encode(), "A text delta")
                continue
            event: dict[str, Any] = read_json(frame.data.encode(), "An event")
            index = int(event["index"])
            if index <= cursor.index:
                continue
            if is_dense and index > cursor.index + 1:
                return
            cursor.index = index
            cursor.is_at_end = event["type"] == last
            yield event
            if cursor.is_at_end:
                return


async def follow(
    connection: Connection,
    run_id: str,
    cursor: Cursor,
    *,
    is_first: bool = False,
    on_broken: Callable[[PyFlueError], None] | None = None,
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield a run's events after the cursor through `run_end`, over as many connections as it takes.

    With `is_first` the server has not answered this caller yet: if nobody is there, it is no use to be patient.
    `on_broken` is called once each time the server is lost.

    Raises:
        Unreachable: the server could not be reached for `reconnect_s`.
        PyFlueError: the server refused (`RunNotFound`, `Unauthorized`, …).
    """

    async def is_over(index: int) -> bool:
        return await _is_over(connection, run_id, index)

    patience = Patience(connection.reconnect_s, is_first=is_first, on_broken=on_broken)
    async with aclosing(follow_path(connection, run_path(run_id), cursor, patience, is_over=is_over)) as events:
        async for event in events:
            yield event


async def follow_path(
    connection: Connection,
    path: str,
    cursor: Cursor,
    patience: Patience,
    *,
    is_over: Callable[[int], Awaitable[bool]] | None = None,
    live: bool = False,
    last: str | None = "run_end",
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events of what is at a path, as `follow`; `last` is the type of its last event, None if it has none.

    `is_over` is asked when a connection has brought nothing: whether there will be no event after an index.
    """
    while not cursor.is_at_end:
        start = cursor.index
        try:
            async with connection.stream("GET", path + "/stream", query={"after": start}) as frames:
                patience.answered()
                async with aclosing(read(frames, cursor, live=live, last=last)) as events:
                    async for event in events:
                        patience.progressed()
                        yield event
        except PyFlueError as error:
            patience.lost(error)
        else:
            if cursor.index == start and is_over is not None and await is_over(start):
                return
        if not cursor.is_at_end:
            await patience.pause()


async def fetch(connection: Connection, path: str, *, query: dict[str, Any] | None = None, waits: bool = False) -> Any:
    """What is at a path, from a server that may be restarting.

    Raises:
        As `follow`.
    """
    patience = Patience(connection.reconnect_s)
    while True:
        try:
            return (await connection.request("GET", path, query=query, waits=waits)).body
        except PyFlueError as error:
            patience.lost(error)
        await patience.pause()


async def fetch_run(connection: Connection, run_id: str) -> dict[str, Any]:
    """A run's record, as `fetch`."""
    return await fetch(connection, run_path(run_id))


async def _is_over(connection: Connection, run_id: str, index: int) -> bool:
    """Whether a run has no events above an index and will have none: a reader may ask for what comes after the end."""
    run = await fetch_run(connection, run_id)
    return run["finished_at"] is not None and run["last_index"] <= index


def run_path(run_id: str) -> str:
    """The path of a run's routes."""
    return f"/runs/{quote(run_id, safe='')}"


class Patience:
    """When to try again, and when to give up."""

    def __init__(
        self, limit_s: float, *, is_first: bool = False, on_broken: Callable[[PyFlueError], None] | None = None
    ) -> None:
        self._limit_s = limit_s
        self._is_first = is_first
        self._on_broken = on_broken
        self._silent_since: float | None = None
        self._pause_s = 0.0

    def answered(self) -> None:
        self._is_first = False
        self._silent_since = None

    def progressed(self) -> None:
        # What worked a moment ago is tried again at once.
        self._pause_s = 0.0

    def lost(self, error: PyFlueError) -> None:
        """Raises `error` if it will not pass by itself, or the server has not answered for too long."""
        if not isinstance(error, Unreachable) and error.status not in _TRY_AGAIN:
            raise error
        if self._is_first and is_nobody_there(error):
            raise error
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
            if self._on_broken is not None:
                self._on_broken(error)
        if now - self._silent_since >= self._limit_s:
            raise error

    async def pause(self) -> None:
        # Many readers lose a restarting server at the same moment; they should not come back at the same moment.
        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)
        self._pause_s = min(max(self._pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
