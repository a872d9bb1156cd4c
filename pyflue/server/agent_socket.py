"""The WebSocket of an agent's instance: several prompts, one after the other, until the client leaves.

The client sends `{"type": "prompt", "message", "session"?, "images"?, "schema"?}`. The server sends the events of that
prompt, text as it is written among them (`text_delta`), then exactly one `{"type": "result", "dispatch_id", "result"}`
or `{"type": "error", "error": {…}, "dispatch_id"?}`. `{"type": "abort"}` ends the prompt under way. A message that is
none of these, and a prompt while another one is under way, is answered with an error at once.

A prompt that fails leaves the socket open. It is closed with 1003 for a binary message, 1009 for one above the limit,
1008 for silence instead of a first message, for a flood of messages that cannot be taken, and for not reading. 1012
says that the server stops. The agent never notices who leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, cast

from starlette.types import Message, Receive, Scope, Send

from .. import codec, ids
from ..codec import NULL
from ..errors import InvalidJson, PyFlueError, RunFinished, SessionBusy, SocketMisused
from ..journal import Event
from .asking import Asked, Asking
from .body import RequestHeaders
from .errors import envelope, error_of_run
from .query import Query
from .reader import EventReader, find_run, first_of, for_caller
from .services import Services
from .starting import freeze_request
from .websocket import CloseCode, Closing, Left

#: So many messages in a row that could not be taken are a flood.
_MOST_REFUSED = 64


class AgentSocket:
    """One conversation."""

    def __init__(
        self,
        services: Services,
        asking: Asking,
        scope: Scope,
        headers: RequestHeaders,
        receive: Receive,
        send: Send,
    ) -> None:
        self._services = services
        self._asking = asking
        self._scope = scope
        self._request = freeze_request(scope, headers)
        self._receive = receive
        self._send_message = send
        self._sending = asyncio.Lock()
        self._prompts: asyncio.Queue[Asked] = asyncio.Queue()
        #: The session whose prompt is under way, and the run that this is to the engine, once that is known.
        self._busy: str | None = None
        self._run_id: str | None = None
        self._is_aborted = False
        self._refused = 0

    async def converse(self, name: str, instance_id: str) -> None:
        """Accept the socket, carry prompts to the instance until somebody closes it."""
        if (await self._receive())["type"] != "websocket.connect":
            return
        await self._send_message({"type": "websocket.accept"})
        try:
            await first_of(self._hear(), self._answer_all(name, instance_id), self._until_stop())
        except Closing as closing:
            await self._send({"type": "websocket.close", "code": int(closing.code), "reason": closing.reason})
        except (Left, OSError):
            pass  # an OSError is how a server says that the client has gone

    # What comes

    async def _hear(self) -> None:
        idle_s = self._services.settings.server.socket_idle_s
        try:
            async with asyncio.timeout(idle_s):
                message = await self._receive()
        except TimeoutError:
            raise Closing(CloseCode.POLICY, f"no message within {idle_s:g} s") from None
        while True:
            await self._take(message)
            message = await self._receive()

    async def _take(self, message: Message) -> None:
        if message["type"] == "websocket.disconnect":
            raise Left
        text = message.get("text")
        if text is None:
            raise Closing(CloseCode.UNSUPPORTED_DATA, "messages are text")
        body = text.encode(errors="surrogatepass")
        limits = self._services.settings.limits
        if len(body) > limits.websocket_bytes:
            raise Closing(CloseCode.TOO_BIG, "the message is too large")
        try:
            value = codec.decode(body, "The message", max_depth=limits.json_depth)
            await self._heed(value)
        except (InvalidJson, SocketMisused, SessionBusy) as error:
            self._refused += 1
            if self._refused > _MOST_REFUSED:
                raise Closing(CloseCode.POLICY, "too many messages that could not be taken") from None
            await self._send_json({"type": "error", **envelope(error)})

    async def _heed(self, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise SocketMisused("A message is an object with a `type`: `prompt` or `abort`.")
        fields = dict(cast("Mapping[str, Any]", value))
        match fields.pop("type", None):
            case "abort":
                self._refused += 1  # of no consequence, unless there are many of them
                if self._refused > _MOST_REFUSED:
                    raise Closing(CloseCode.POLICY, "too many messages that could not be taken")
                await self._abort()
            case "prompt":
                if self._busy is not None:
                    raise SessionBusy(self._busy)
                asked = Asked(action="prompt", value=fields)
                self._busy, self._refused = asked.session, 0
                self._prompts.put_nowait(asked)
            case other:
                raise SocketMisused(f"A message is of type `prompt` or `abort`, not {str(other)[:100]!r}.")

    async def _abort(self) -> None:
        if self._busy is None:
            return
        self._is_aborted = True
        if self._run_id is not None:
            with contextlib.suppress(RunFinished):
                await self._services.engine.cancel(self._run_id)

    # What is answered

    async def _answer_all(self, name: str, instance_id: str) -> None:
        while True:
            asked = await self._prompts.get()
            told = await self._answer(name, instance_id, asked)
            # Before the client knows that it may send the next one.
            self._busy, self._run_id, self._is_aborted = None, None, False
            await self._send_json(told)

    async def _answer(self, name: str, instance_id: str, asked: Asked) -> Mapping[str, Any]:
        dispatch_id: str | None = None
        try:
            Query(self._scope["query_string"], frozenset())
            handle = await self._asking.submit(name, instance_id, asked, request=self._request)
            run_id = self._run_id = handle.run_id
            _, dispatch_id = ids.split_interaction_id(run_id) or ("", run_id)
            if self._is_aborted:
                await self._abort()
            result = await self._tell(run_id)
        except (Closing, Left, OSError):
            raise
        except Exception as error:  # noqa: BLE001  (the agent file's hook runs here: it fails a prompt, not the socket)
            if isinstance(error, PyFlueError):
                error.dispatch_id = error.dispatch_id or dispatch_id
            told = envelope(error)
            return {"type": "error", **told, **({} if dispatch_id is None else {"dispatch_id": dispatch_id})}
        return {"type": "result", "dispatch_id": dispatch_id, "result": result}

    async def _tell(self, run_id: str) -> codec.Raw:
        """Send the prompt's events; returns its result."""
        services = self._services
        quiet_s = services.settings.server.heartbeat_s
        with EventReader(services.journal, run_id, quiet_s=quiet_s, live=services.engine.live) as reader:
            while (events := await reader.read()) is not None:
                for event in events:
                    if isinstance(event, Event):
                        event = for_caller(event, dev=services.dev)
                    await self._send_text(event.to_json())
        run = await find_run(services.journal, run_id)
        error = error_of_run(run_id, run.status, run.error, dev=services.dev)
        if error is not None:
            raise error
        return NULL if run.result is None else run.result

    async def _until_stop(self) -> None:
        await self._services.stopping.wait()
        raise Closing(CloseCode.RESTART, "the server is stopping; the agent goes on")

    async def _send_json(self, value: Any) -> None:
        await self._send_text(codec.encode(value))

    async def _send_text(self, text: bytes) -> None:
        await self._send({"type": "websocket.send", "text": text.decode()})

    async def _send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._services.settings.server.send_timeout_s), self._sending:
                await self._send_message(message)
        except TimeoutError:
            raise Closing(CloseCode.POLICY, "the client does not read") from None
