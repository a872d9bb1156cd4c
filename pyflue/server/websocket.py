"""The WebSocket of a workflow: it carries one run.

The client's first message is the payload. The server sends each event of the run, then exactly one
`{"type": "result", "run_id", "result"}` or `{"type": "error", "error": {…}, "run_id"?}`, and closes with 1000. A
client that breaks the rules is told by the close code: 1003 for a binary message, 1007 for text that is not JSON
(after an `error` message), 1008 for silence instead of a payload, for a message after it and for not reading, 1009
for a message above the limit. 1012 says that the server stops. The run never notices who leaves.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from .. import codec
from ..codec import NULL
from ..engine import Submission
from ..errors import InvalidJson, PyFlueError
from ..journal import Event
from .body import RequestHeaders
from .errors import envelope, error_of_run
from .query import Query
from .reader import EventReader, find_run, first_of, for_caller
from .services import Services
from .starting import LONGEST_DEADLINE_S, WorkflowFinder, freeze_request, parse_payload

_PARAMETERS = frozenset({"tags", "deadline_s"})


class CloseCode(IntEnum):
    """Why a WebSocket was closed, in the words of RFC 6455."""

    NORMAL = 1000
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    RESTART = 1012


class Closing(Exception):
    """The conversation is over: close with this code."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        self.code = code
        self.reason = reason


class Left(Exception):
    """The client has closed the socket, or it broke."""


class WorkflowSocket:
    """One conversation."""

    def __init__(
        self,
        services: Services,
        finder: WorkflowFinder,
        scope: Scope,
        headers: RequestHeaders,
        receive: Receive,
        send: Send,
    ) -> None:
        self._services = services
        self._finder = finder
        self._scope = scope
        self._headers = headers
        self._receive = receive
        self._send_message = send

    async def converse(self, name: str) -> None:
        """Accept the socket, carry one run of the workflow `name`, close the socket."""
        if (await self._receive())["type"] != "websocket.connect":
            return
        await self._send_message({"type": "websocket.accept"})
        try:
            await first_of(self._carry(name), self._until_stop())
        except Closing as closing:
            await self._send({"type": "websocket.close", "code": int(closing.code), "reason": closing.reason})
        except (Left, OSError):
            pass  # an OSError is how a server says that the client has gone

    async def _carry(self, name: str) -> None:
        settings = self._services.settings
        run_id: str | None = None
        code = CloseCode.NORMAL
        try:
            query = Query(self._scope["query_string"], _PARAMETERS)
            tags = query.items("tags")
            deadline_s = query.seconds("deadline_s", most=LONGEST_DEADLINE_S)
            workflow = await self._finder.find(name)
            payload, parsed = parse_payload(workflow, await self._first_message(), settings.limits.json_depth)
            handle = await self._services.engine.submit(
                Submission(
                    workflow=workflow,
                    payload=payload,
                    parsed=parsed,
                    tags=tags,
                    deadline_s=deadline_s,
                    request=freeze_request(self._scope, self._headers),
                )
            )
            run_id = handle.run_id
            await first_of(self._tell(run_id), self._expect_silence())
        except InvalidJson as error:
            code = CloseCode.INVALID_DATA
            await self._send_json({"type": "error", **envelope(error)})
        except PyFlueError as error:
            error.run_id = error.run_id or run_id
            told = envelope(error)
            await self._send_json({"type": "error", **told, **({} if run_id is None else {"run_id": run_id})})
        raise Closing(code, "")

    async def _first_message(self) -> bytes:
        settings = self._services.settings
        try:
            async with asyncio.timeout(settings.server.socket_idle_s):
                message = await self._receive()
        except TimeoutError:
            raise Closing(CloseCode.POLICY, f"no payload within {settings.server.socket_idle_s:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise Left
        text = message.get("text")
        if text is None:
            raise Closing(CloseCode.UNSUPPORTED_DATA, "the payload is text")
        body = text.encode(errors="surrogatepass")
        if len(body) > settings.limits.websocket_bytes:
            raise Closing(CloseCode.TOO_BIG, "the payload is too large")
        return body

    async def _tell(self, run_id: str) -> None:
        """Send the run's events and how it ended."""
        services = self._services
        journal = services.journal
        with EventReader(
            journal, run_id, quiet_s=services.settings.server.heartbeat_s, live=services.engine.live
        ) as reader:
            while (events := await reader.read()) is not None:
                for event in events:
                    if isinstance(event, Event):
                        event = for_caller(event, dev=services.dev)
                    await self._send_text(event.to_json())
        run = await find_run(journal, run_id)
        error = error_of_run(run_id, run.status, run.error, dev=self._services.dev)
        if error is not None:
            raise error
        await self._send_json(
            {"type": "result", "run_id": run_id, "result": NULL if run.result is None else run.result}
        )

    async def _expect_silence(self) -> None:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise Left
        raise Closing(CloseCode.POLICY, "one message starts the run; nothing may follow it")

    async def _until_stop(self) -> None:
        await self._services.stopping.wait()
        raise Closing(CloseCode.RESTART, "the server is stopping; the run goes on")

    async def _send_json(self, value: Any) -> None:
        await self._send_text(codec.encode(value))

    async def _send_text(self, text: bytes) -> None:
        await self._send({"type": "websocket.send", "text": text.decode()})

    async def _send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._services.settings.server.send_timeout_s):
                await self._send_message(message)
        except TimeoutError:
            raise Closing(CloseCode.POLICY, "the client does not read") from None
