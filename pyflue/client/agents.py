"""`client.agents` and `client.agent(name, id)`: a server's continuing agents, and one instance of one of them."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload
from urllib.parse import quote

from .. import codec
from ..codec import Raw
from ..errors import PyFlueError, ResultUnavailable, ServerAnswered, Unreachable
from .answers import error_from, error_of_dispatch, read_json
from .connection import Connection
from .parts import key_header
from .sockets import error_of_close, open_socket
from .streams import Cursor, Patience, fetch, follow_path, read

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

T = TypeVar("T")

#: An image or a document: `{"mime_type", "data"}` with bytes or base64, `{"url"}`, or the path of a file.
Attachment = Mapping[str, Any] | str | Path

_MIME_TYPES = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".webp": "image/webp",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReply(Generic[T]):
    """What an agent has answered."""

    text: str
    #: The value of `result=`; None without it.
    data: T
    #: Tokens and cost.
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    model: str = ""
    #: How many times a model was asked.
    turns: int = 0
    operation_id: str = ""
    session: str = "default"
    #: The id of this prompt: what `Agent.dispatch_status` shows it by.
    dispatch_id: str = ""


class Agents:
    """Find agents and their instances."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(self) -> list[dict[str, Any]]:
        """Every agent of the server, broken ones included (those have an `error`)."""
        return (await self._connection.request("GET", "/agents")).body["agents"]

    async def get(self, name: str) -> dict[str, Any]:
        """One agent.

        Raises:
            AgentNotFound, AgentInvalid.
        """
        return (await self._connection.request("GET", _path(name))).body

    async def instances(self, name: str, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """A page of an agent's instances, newest first: `{"instances": [...], "next": cursor or None}`.

        Raises:
            AgentNotFound, AgentInvalid.
        """
        query = {"limit": limit, "before": cursor}
        return (await self._connection.request("GET", f"{_path(name)}/instances", query=query)).body


class Agent:
    """One instance of an agent."""

    def __init__(self, connection: Connection, name: str, instance_id: str) -> None:
        self._connection = connection
        self.name = name
        self.instance_id = instance_id
        self._path = f"{_path(name)}/{quote(instance_id, safe='')}"

    @overload
    async def prompt(
        self,
        message: str,
        *,
        session: str = "default",
        result: type[T],
        images: Sequence[Attachment] = (),
        idempotency_key: str | None = None,
    ) -> AgentReply[T]: ...
    @overload
    async def prompt(
        self,
        message: str,
        *,
        session: str = "default",
        result: Any = None,
        images: Sequence[Attachment] = (),
        idempotency_key: str | None = None,
    ) -> AgentReply[Any]: ...
    async def prompt(
        self,
        message: str,
        *,
        session: str = "default",
        result: Any = None,
        images: Sequence[Attachment] = (),
        idempotency_key: str | None = None,
    ) -> AgentReply[Any]:
        """Say something to the agent and return its answer. It has no limit of time.

        `result` is the type of `AgentReply.data` (a pydantic model, a dataclass, `list[str]`, …) or a JSON Schema.

        Raises:
            AgentNotFound, AgentInvalid, AccessRefused, PayloadInvalid: nothing was said.
            SessionBusy: the session has another prompt under way.
            ModelFailed, DispatchFailed, DispatchCancelled, …: how the prompt `dispatch_id` ended.
            ResultUnavailable: the agent's data does not fit `result`.
            Unreachable: no answer; it may have been said.
        """
        wanted = _Wanted(result)
        answer = await self._connection.request(
            "POST",
            self._path,
            body=_body(message, session=session, images=images, wanted=wanted),
            headers=key_header(idempotency_key),
            waits=True,
        )
        dispatch_id = str(answer.body["dispatch_id"])
        if answer.status == 202:
            record = await self.dispatch_status(dispatch_id, wait=True)
            if record["status"] != "completed":
                raise error_of_dispatch(record)
            return wanted.reply(dispatch_id, record["result"])
        return wanted.reply(dispatch_id, answer.body["result"])

    async def stream(
        self,
        message: str,
        *,
        session: str = "default",
        result: Any = None,
        images: Sequence[Attachment] = (),
        idempotency_key: str | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Say something to the agent and yield the events of that through `interaction_end`, which holds how it ended.

        Text comes as it is written, in events `text_delta` without index: `data` has `turn_id`, `attempt`, `offset` and
        `text`; text of an earlier attempt, or from an offset that was there before, is void. Once the first answer is
        here, a broken connection is taken up again. Leaving the loop early does not end the prompt.

        Raises:
            As `prompt` before anything was said; `Unreachable` also if the server could not be reached again in time.
        """
        wanted = _Wanted(result)
        cursor = Cursor()
        async with self._connection.stream(
            "POST",
            self._path,
            body=_body(message, session=session, images=images, wanted=wanted),
            headers=key_header(idempotency_key),
        ) as frames:
            dispatch_id = frames.dispatch_id
            if dispatch_id is None:
                raise ServerAnswered("The answer does not name its prompt (X-Flue-Dispatch-Id); is a proxy in between?")
            try:
                reading = read(frames, cursor, live=True, last="interaction_end", is_dense=False)
                async with aclosing(reading) as events:
                    async for event in events:
                        yield event
            except Unreachable:
                pass  # the agent goes on, and so do we, below
        if not cursor.is_at_end:
            async with aclosing(self._follow(cursor.index, Patience(self._connection.reconnect_s))) as events:
                async for event in events:
                    if _is_of(event, dispatch_id):
                        yield event
                        if event["type"] == "interaction_end":
                            return

    async def dispatch(
        self,
        input: Any,  # noqa: A002  (the field's name)
        *,
        session: str = "default",
        result: Any = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Hand the agent some work: `{"status": "accepted", "dispatch_id", "stream_id", "accepted_at"}`.

        Text is said to the agent as it is, any other JSON value as JSON. It waits for its turn in the session. A call
        that may have been lost can be repeated with the same `idempotency_key`.

        Raises:
            AgentNotFound, AgentInvalid, AccessRefused, PayloadInvalid, IdempotencyConflict: nothing was recorded.
        """
        fields = {"input": input, "session": session, **_Wanted(result).fields}
        answer = await self._connection.request(
            "POST",
            f"{self._path}/dispatch",
            body=codec.encode_value(fields, "The input"),
            headers=key_header(idempotency_key),
        )
        return answer.body

    async def dispatches(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """A page of what was asked of the instance, newest first: `{"dispatches": [...], "next": cursor or None}`."""
        query = {"limit": limit, "before": cursor}
        return (await self._connection.request("GET", f"{self._path}/dispatches", query=query)).body

    async def dispatch_status(self, dispatch_id: str, *, wait: bool = False) -> dict[str, Any]:
        """A prompt or dispatch: its `status`, and its `result` or `error`; with `wait` once it has ended.

        Raises:
            DispatchNotFound
        """
        path = self._dispatch_path(dispatch_id)
        if not wait:
            return (await self._connection.request("GET", path)).body
        while True:
            record = await fetch(self._connection, path, query={"wait": "result"}, waits=True)
            if record["finished_at"] is not None:
                return record

    async def cancel(self, dispatch_id: str) -> dict[str, Any]:
        """End a prompt or dispatch; returns its record.

        Raises:
            DispatchNotFound, DispatchFinished.
        """
        return (await self._connection.request("POST", self._dispatch_path(dispatch_id) + "/cancel")).body

    def connect(self) -> AbstractAsyncContextManager[AgentSocket]:
        """A WebSocket for several prompts: `async with agent.connect() as talk: await talk.prompt("…")`.

        Raises (on entering):
            Unauthorized, Unreachable.
        """
        return _connect(self._connection, self._path)

    async def get(self) -> dict[str, Any]:
        """The instance: its `stream_id`, `last_index`, times and `sessions`.

        Raises:
            InstanceNotFound: nobody has talked to it.
        """
        return (await self._connection.request("GET", self._path)).body

    async def events(self, *, after: int = 0, limit: int | None = None, types: Sequence[str] = ()) -> dict[str, Any]:
        """The instance's events above an index, as far as there are any: `{"events": [...], "next_after": index}`.

        Raises:
            InstanceNotFound
        """
        query = {"after": after, "limit": limit, "types": ",".join(types) or None}
        return (await self._connection.request("GET", f"{self._path}/events", query=query)).body

    async def follow(
        self, after: int = 0, *, on_broken: Callable[[PyFlueError], None] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the instance's events above an index, then new ones as they happen, without end.

        Among them, text as it is written, as in `stream`. A broken connection is taken up again from the last index;
        no event is repeated or left out. Leave the loop to end it (under `contextlib.aclosing` at once).

        Raises:
            InstanceNotFound; Unreachable: nobody is there, or the server could not be reached again in time.
        """
        patience = Patience(self._connection.reconnect_s, is_first=True, on_broken=on_broken)
        async with aclosing(self._follow(after, patience)) as events:
            async for event in events:
                yield event

    async def sessions(self) -> list[dict[str, Any]]:
        """The instance's sessions, those of its tasks included (`task_of`)."""
        return (await self._connection.request("GET", f"{self._path}/sessions")).body["sessions"]

    async def history(self, session: str = "default", *, after: int = 0, limit: int | None = None) -> dict[str, Any]:
        """A session's conversation above a position: `{"entries": [...], "next_after": position}`.

        Raises:
            InstanceNotFound, SessionNotFound.
        """
        query = {"after": after, "limit": limit}
        return (await self._connection.request("GET", self._session_path(session) + "/history", query=query)).body

    async def delete_session(self, session: str = "default") -> None:
        """Forget a session's conversation.

        Raises:
            InstanceNotFound, SessionNotFound; InstanceBusy: it is at work.
        """
        await self._connection.request("DELETE", self._session_path(session))

    async def abort(self, session: str = "default") -> dict[str, Any]:
        """End what is under way in a session: `{"aborted": whether there was something, "dispatch_id"}`."""
        return (await self._connection.request("POST", self._session_path(session) + "/abort")).body

    async def delete(self) -> None:
        """Delete the instance with its conversations, files, events and dispatches.

        Raises:
            InstanceNotFound; InstanceBusy: it has unfinished work.
        """
        await self._connection.request("DELETE", self._path)

    def _follow(self, after: int, patience: Patience) -> AsyncGenerator[dict[str, Any], None]:
        return follow_path(self._connection, self._path, Cursor(after), patience, live=True, last=None)

    def _dispatch_path(self, dispatch_id: str) -> str:
        return f"{self._path}/dispatches/{quote(dispatch_id, safe='')}"

    def _session_path(self, session: str) -> str:
        return f"{self._path}/sessions/{quote(session, safe='')}"


class AgentSocket:
    """An open WebSocket: prompts, one after the other."""

    def __init__(self, connection: Connection, socket: ClientConnection) -> None:
        self._connection = connection
        self._socket = socket

    async def prompt(
        self,
        message: str,
        *,
        session: str = "default",
        result: Any = None,
        images: Sequence[Attachment] = (),
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> AgentReply[Any]:
        """Say something to the agent and return its answer; `on_event` is called with each event, text included.

        Raises:
            As `Agent.prompt`; the socket can be used again, unless it is Unreachable or ServerAnswered.
        """
        from websockets.exceptions import ConnectionClosed

        wanted = _Wanted(result)
        try:
            await self._send({"type": "prompt", **_fields(message, session=session, images=images, wanted=wanted)})
            while True:
                told = read_json(await self._socket.recv(decode=False), "A message of the server")
                if "stream_id" in told:
                    if on_event is not None:
                        on_event(told)
                elif told["type"] == "error":
                    raise error_from(None, told["error"])
                else:
                    return wanted.reply(str(told["dispatch_id"]), told["result"])
        except ConnectionClosed as error:
            raise error_of_close(self._connection, error, "the WebSocket broke before the answer") from error

    async def abort(self) -> None:
        """End the prompt under way, which another task waits for; it raises DispatchCancelled there."""
        from websockets.exceptions import ConnectionClosed

        try:
            await self._send({"type": "abort"})
        except ConnectionClosed as error:
            raise error_of_close(self._connection, error, "the WebSocket broke") from error

    async def _send(self, fields: Mapping[str, Any]) -> None:
        await self._socket.send(bytes(codec.encode_value(fields, "The message")), text=True)


class _Wanted:
    """The type of `result=`, as the server is told and as its data is read."""

    def __init__(self, result: Any) -> None:
        self.fields: dict[str, Any] = {}
        self._shape: Any = None
        if isinstance(result, Mapping):
            self.fields["schema"] = result
        elif result is not None:
            from ..typed import shape_of

            self._shape = shape_of(result, "payload")
            self.fields["schema"] = self._shape.schema

    def reply(self, dispatch_id: str, told: Mapping[str, Any]) -> AgentReply[Any]:
        from ..typed import Misfit

        data = told["data"]
        if self._shape is not None:
            try:
                data = self._shape.load(data)
            except Misfit as misfit:
                # The server has checked it against the schema, which says less than the type may ask for.
                error = ResultUnavailable(1, misfit.problems, str(told["text"]))
                error.dispatch_id = dispatch_id
                raise error from misfit
        return AgentReply(
            text=told["text"],
            data=data,
            usage=told["usage"],
            model=told["model"],
            turns=told["turns"],
            operation_id=told["operation_id"],
            session=told["session"],
            dispatch_id=dispatch_id,
        )


@asynccontextmanager
async def _connect(connection: Connection, path: str) -> AsyncGenerator[AgentSocket, None]:
    async with open_socket(connection, path) as socket:
        yield AgentSocket(connection, socket)


def _fields(message: str, *, session: str, images: Sequence[Attachment], wanted: _Wanted) -> dict[str, Any]:
    fields: dict[str, Any] = {"message": message, "session": session, **wanted.fields}
    if images:
        fields["images"] = [_attachment(image) for image in images]
    return fields


def _body(message: str, *, session: str, images: Sequence[Attachment], wanted: _Wanted) -> Raw:
    return codec.encode_value(_fields(message, session=session, images=images, wanted=wanted), "The message")


def _attachment(image: Attachment) -> dict[str, Any]:
    if isinstance(image, Mapping):
        data = image.get("data")
        return {**image, "data": base64.b64encode(data).decode()} if isinstance(data, bytes) else dict(image)
    path = Path(image)
    mime_type = _MIME_TYPES.get(path.suffix.lower(), "application/octet-stream")
    data = base64.b64encode(path.read_bytes()).decode()
    return {"mime_type": mime_type, "data": data} | ({} if mime_type.startswith("image/") else {"name": path.name})


def _is_of(event: Mapping[str, Any], dispatch_id: str) -> bool:
    if "index" in event:
        return event.get("interaction_id") == dispatch_id
    return str(event["data"].get("operation_id", "")).startswith(f"{dispatch_id}/")


def _path(name: str) -> str:
    return f"/agents/{quote(name, safe='')}"
