"""Server-sent events: a run's events as an HTTP answer that goes on until the run ends.

A frame is `id: <index>`, `event: <type>`, `data: <the event as one line of JSON>` and a blank line. While the run is
quiet a comment is sent every `heartbeat_s`. The stream ends with the run, when the reader leaves or has not read for
`send_timeout_s`, and when the server stops; the run does not notice.
"""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope, Send

from .. import codec, ids
from ..engine.live import TextDelta
from ..errors import InvalidQuery, PyFlueError
from ..journal import Event
from .answers import SECURITY_HEADERS, Headers, dispatch_id_header, run_id_header
from .errors import envelope, error_of_run
from .reader import EventReader, find_run, first_of, for_caller
from .services import Services

_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
    *SECURITY_HEADERS,
]
_HEARTBEAT = b": heartbeat\n\n"
#: Before an error that the same request would meet again: browsers wait this long (a day) before they repeat it.
_NOT_AGAIN = b"retry: 86400000\n"


class EventStream:
    """The events of one run, or of an agent's instance or interaction, above an index, as an answer.

    With `for_caller` it is the answer to whoever started the run: a run that did not complete adds a frame
    `event: error` without id, after its last event, with the envelope that a waiting caller would have been answered.
    """

    __slots__ = ("_after", "_for_caller", "_run_id", "_services")

    def __init__(self, services: Services, run_id: str, *, after: int = 0, for_caller: bool = False) -> None:
        self._services = services
        self._run_id = run_id
        self._after = after
        self._for_caller = for_caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *_about(self._run_id)]})
        if scope["method"] != "HEAD":
            try:
                await first_of(self._push(send), _left(receive), self._services.stopping.wait())
            except _NotReading:
                return  # an unfinished answer makes the server drop the connection
        await send({"type": "http.response.body", "body": b""})

    async def _push(self, send: Send) -> None:
        settings = self._services.settings.server
        try:
            with EventReader(
                self._services.journal,
                self._run_id,
                after=self._after,
                quiet_s=settings.heartbeat_s,
                live=self._services.engine.live,
            ) as reader:
                while (events := await reader.read()) is not None:
                    frames = b"".join(map(self._frame, events)) or _HEARTBEAT
                    del events  # a reader that does not read holds its page once, not twice
                    await self._send(send, frames)
            if self._for_caller:
                run = await find_run(self._services.journal, self._run_id)
                error = error_of_run(run.run_id, run.status, run.error, dev=self._services.dev)
                if error is not None:
                    raise error
        except PyFlueError as error:
            retry = _NOT_AGAIN if isinstance(error, InvalidQuery) else b""
            await self._send(send, b"%bevent: error\ndata: %b\n\n" % (retry, codec.encode(envelope(error))))

    def _frame(self, event: Event | TextDelta) -> bytes:
        if isinstance(event, TextDelta):
            return b"event: text_delta\ndata: %b\n\n" % event.to_json()
        if self._for_caller:
            event = for_caller(event, dev=self._services.dev)
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.index, event.type.encode(), event.to_json())

    async def _send(self, send: Send, body: bytes) -> None:
        message: Message = {"type": "http.response.body", "body": body, "more_body": True}
        try:
            async with asyncio.timeout(self._services.settings.server.send_timeout_s):
                await send(message)
        except TimeoutError:
            raise _NotReading from None


def _about(run_id: str) -> Headers:
    interaction = ids.split_interaction_id(run_id)
    if interaction is not None:
        return [dispatch_id_header(interaction[1])]
    return [] if ids.parse_agent_stream(run_id) is not None else [run_id_header(run_id)]


class _NotReading(Exception):
    """The reader has left the stream unread for too long."""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
