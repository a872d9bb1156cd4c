"""JSON-RPC 2.0 between equals, one message on each line: both sides ask, answer and tell, all at the same time.

Used by `plugins/stdio.py` and `plugins/mcp.py`; `plugins/http.py` uses the messages. Knows no transport: bytes come in
through `Peer.feed`, and go out through a `Writer`. What comes in is hostile: its size, its depth, the number of open
requests and the number of lines that are no messages are limited, and what breaks the protocol ends the conversation
with a text that says how.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import Context
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, TypeAlias, cast

from .. import codec
from ..errors import InvalidJson, TooDeep

RequestId: TypeAlias = str | int
#: What answers a request: the method and its params in, the result out. Raises `RpcError` to answer with an error.
Handler: TypeAlias = Callable[[str, Any], Awaitable[Any]]


class RpcCode(IntEnum):
    """The codes of JSON-RPC, and those that the component protocol adds."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    CRASHED = -32603  #: the other side ended, or stopped making sense, while it was asked
    INTERNAL = -32000
    NOT_FOUND = -32011
    INVALID_VALUE = -32012


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcLimits:
    """What one conversation may take up."""

    #: The longest message, in both directions.
    message_bytes: int = 16 * 1024 * 1024
    #: How deep the values of a message may be nested.
    depth: int = codec.DEFAULT_DEPTH
    #: Requests of ours that wait for their answers.
    pending: int = 10_000
    #: Requests of the other side that are being answered.
    serving: int = 1000
    #: Lines in a row that are no messages.
    stray_lines: int = 10_000
    stray_bytes: int = 16 * 1024 * 1024


class RpcError(Exception):
    """An answer that is an error: theirs to a request of ours, or ours to theirs."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": int(self.code), "message": self.message}
        return error if self.data is None else {**error, "data": self.data}


class PeerEnded(Exception):
    """The other side is not there any more; a request may or may not have been worked on."""

    def __init__(self, story: str) -> None:
        super().__init__(story)
        self.story = story


class Misbehaved(Exception):
    """What came breaks the protocol."""


@dataclass(frozen=True, slots=True)
class Request:
    id: RequestId
    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Notification:
    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Answer:
    id: RequestId | None
    result: Any
    error: RpcError | None


Message: TypeAlias = Request | Notification | Answer


def request_bytes(request_id: RequestId, method: str, params: Any, limit_bytes: int) -> bytes:
    """A request as it is sent.

    Raises:
        RpcError: it is larger than the limit, or holds what JSON cannot.
    """
    message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    try:
        data = codec.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RpcError(RpcCode.INVALID_PARAMS, f"What was to be sent is not JSON: {error}") from error
    if len(data) > limit_bytes:
        raise RpcError(
            RpcCode.INVALID_PARAMS, f"What was to be sent has {len(data):,} bytes; {limit_bytes:,} are the limit."
        )
    return data


def notification_bytes(method: str, params: Any) -> bytes:
    return codec.encode({"jsonrpc": "2.0", "method": method, "params": params})


def answer_bytes(request_id: RequestId | None, result: Any, limit_bytes: int) -> bytes:
    """A result as it is sent, or an error that says why it cannot be."""
    try:
        data = codec.encode({"jsonrpc": "2.0", "id": request_id, "result": result})
    except (TypeError, ValueError, OverflowError, RecursionError):
        return error_bytes(request_id, RpcError(RpcCode.INTERNAL, "The result is not JSON."))
    if len(data) > limit_bytes:
        text = f"The result has {len(data):,} bytes; {limit_bytes:,} are the limit."
        return error_bytes(request_id, RpcError(RpcCode.INVALID_VALUE, text))
    return data


def error_bytes(request_id: RequestId | None, error: RpcError) -> bytes:
    return codec.encode({"jsonrpc": "2.0", "id": request_id, "error": error.to_dict()})


def read_message(data: bytes | bytearray, *, depth: int) -> Message | None:
    """What a line or a body says; None if it does not mean to be a message (programs print all sorts of things).

    Raises:
        Misbehaved: it does, and is none.
    """
    try:
        # Three levels are the message's own.
        value = codec.decode(data, "It", max_depth=depth + 3)  # pyright: ignore[reportArgumentType]  (any buffer is read)
    except (InvalidJson, TooDeep) as error:
        if b'"jsonrpc"' not in data:
            return None
        raise Misbehaved(f"it sent a message that cannot be read ({_shown(data)}): {error.message}") from None
    if isinstance(value, dict):
        message = cast("dict[str, Any]", value)
        method = message.get("method")
        if method is not None:
            return _asked(message, method, data)
        if "result" in message or "error" in message:
            return _answered(message, data)
        if "jsonrpc" not in message:
            return None
    elif isinstance(value, list) and b'"jsonrpc"' in data:
        raise Misbehaved("it sent several messages in one (a batch), which is no part of the protocol")
    elif b'"jsonrpc"' not in data:
        return None
    raise Misbehaved(f"it sent what is neither a request nor an answer ({_shown(data)})")


def _asked(message: Mapping[str, Any], method: Any, data: bytes | bytearray) -> Message | None:
    if "jsonrpc" not in message:
        return None
    if not isinstance(method, str):
        raise Misbehaved(f"it sent a request whose method is no text ({_shown(data)})")
    if "id" not in message:
        return Notification(method, message.get("params"))
    return Request(_id(message["id"], data), method, message.get("params"))


def _answered(message: Mapping[str, Any], data: bytes | bytearray) -> Answer | None:
    if "jsonrpc" not in message and "id" not in message:
        return None
    given = message.get("id")
    answered = None if given is None else _id(given, data)
    error = message.get("error")
    if error is None:
        return Answer(answered, message.get("result"), None)
    return Answer(answered, None, _error(error))


def _id(value: Any, data: bytes | bytearray) -> RequestId:
    # `True` and `1.0` are equal to 1, and would be taken for it.
    if type(value) is int or type(value) is str:
        return value
    raise Misbehaved(f"it sent a message whose id is neither a text nor a whole number ({_shown(data)})")


def _error(value: Any) -> RpcError:
    if isinstance(value, dict):
        error = cast("dict[str, Any]", value)
        code, message = error.get("code"), error.get("message")
        if type(code) is int and isinstance(message, str):
            return RpcError(code, message, error.get("data"))
    return RpcError(RpcCode.CRASHED, "It answered with an error that has no code and message.")


def _shown(data: bytes | bytearray) -> str:
    text = bytes(data[:120]).decode(errors="replace")
    return ascii(text) + ("…" if len(data) > 120 else "")


class Writer(Protocol):
    """Where messages go."""

    def write(self, data: bytes) -> None:
        """Send bytes, or keep them until they can be sent."""
        ...

    def writable(self) -> Awaitable[None] | None:
        """None if there is room; else what to wait for."""
        ...


class Peer:
    """One end of a conversation. It belongs to the event loop that it was made on.

    `handle` answers the other side's requests; `on_stray` gets lines that are no messages; `on_fault` is told once if
    the other side breaks the protocol, and has to end it (`ended`).
    """

    __slots__ = (
        "_handle",
        "_last_id",
        "_limits",
        "_loop",
        "_on_fault",
        "_on_stray",
        "_pending",
        "_rest",
        "_story",
        "_stray_bytes",
        "_stray_lines",
        "_tasks",
        "_writer",
    )

    def __init__(
        self,
        writer: Writer,
        handle: Handler,
        *,
        limits: RpcLimits | None = None,
        on_stray: Callable[[bytes], None],
        on_fault: Callable[[str], None],
    ) -> None:
        self._writer = writer
        self._handle = handle
        self._limits = limits or RpcLimits()
        self._on_stray = on_stray
        self._on_fault = on_fault
        self._loop = asyncio.get_running_loop()
        self._pending: dict[RequestId, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rest = bytearray()
        self._last_id = 0
        self._stray_lines = 0
        self._stray_bytes = 0
        self._story: str | None = None

    @property
    def is_over(self) -> bool:
        return self._story is not None

    @property
    def pending(self) -> int:
        """How many requests of ours wait for an answer."""
        return len(self._pending)

    async def request(self, method: str, params: Any, *, give_up: Callable[[RequestId], None] | None = None) -> Any:
        """Ask, and wait for the answer. If the caller is cancelled, an answer that still comes is dropped.

        `give_up` is called in that case, to tell the other side if the protocol has words for it.

        Raises:
            RpcError: the answer is an error, or the request cannot be sent.
            PeerEnded: the other side ended before it answered.
        """
        if self._writer.writable() is not None:
            await self.ready()
        if self._story is not None:
            raise PeerEnded(self._story)
        if len(self._pending) >= self._limits.pending:
            raise RpcError(RpcCode.INTERNAL, f"{self._limits.pending:,} requests wait for their answers already.")
        self._last_id = request_id = self._last_id + 1
        data = request_bytes(request_id, method, params, self._limits.message_bytes)
        self._pending[request_id] = answered = self._loop.create_future()
        try:
            self._writer.write(data + b"\n")
            return await answered
        except asyncio.CancelledError:
            if give_up is not None and self._story is None:
                give_up(request_id)
            raise
        finally:
            self._pending.pop(request_id, None)

    async def ready(self) -> None:
        """Wait until there is room for another message, or it is over."""
        while self._story is None and (room := self._writer.writable()) is not None:
            await room

    def notify(self, method: str, params: Any) -> None:
        """Tell something that has no answer."""
        if self._story is None:
            self._writer.write(notification_bytes(method, params) + b"\n")

    def feed(self, data: bytes) -> None:
        """Take what the other side has sent, in pieces of any size."""
        start = 0
        while self._story is None and (end := data.find(b"\n", start)) >= 0:
            line: bytes | bytearray = data[start:end]
            if self._rest:
                self._rest += line
                line, self._rest = self._rest, bytearray()
            start = end + 1
            if self._fits(line):
                self._take(line)
        if self._story is None and start < len(data):
            self._rest += data[start:]
            self._fits(self._rest)

    def ended(self, story: str) -> None:
        """The conversation is over: nobody waits for an answer any more, and nothing is answered."""
        if self._story is None:
            self._story = story
            self._rest = bytearray()
        for answered in self._pending.values():
            if not answered.done():
                answered.set_exception(PeerEnded(self._story))
        self._pending.clear()
        for task in self._tasks:
            task.cancel()

    async def aclose(self, story: str) -> None:
        """End it, and wait until whatever answered requests has stopped."""
        self.ended(story)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _fits(self, line: bytes | bytearray) -> bool:
        if len(line) <= self._limits.message_bytes:
            return True
        self._fault(f"it sent a line of more than {self._limits.message_bytes:,} bytes")
        return False

    def _fault(self, story: str) -> None:
        if self._story is None:
            self.ended(story)
            self._on_fault(story)

    def _take(self, line: bytes | bytearray) -> None:
        if not line.strip():
            return
        try:
            message = read_message(line, depth=self._limits.depth)
        except Misbehaved as error:
            self._fault(str(error))
            return
        match message:
            case None:
                self._take_stray(bytes(line))
                return
            case Answer():
                self._take_answer(message)
            case Request():
                self._take_request(message)
            case Notification():
                pass  # there is none that means anything to us
        self._stray_lines = self._stray_bytes = 0

    def _take_stray(self, line: bytes) -> None:
        self._stray_lines += 1
        self._stray_bytes += len(line)
        self._on_stray(line)
        if self._stray_lines > self._limits.stray_lines or self._stray_bytes > self._limits.stray_bytes:
            self._fault("it floods its standard output with text that is no part of the protocol")

    def _take_answer(self, answer: Answer) -> None:
        if answer.id is None:
            # It could not read what it was sent. If there was one request only, that was it.
            if len(self._pending) != 1:
                return
            answered = self._pending.popitem()[1]
        else:
            found = self._pending.pop(answer.id, None)
            if found is None:
                return  # to a request that was given up, or answered before, or never made: nobody waits for it
            answered = found
        if answered.done():
            return
        if answer.error is None:
            answered.set_result(answer.result)
        else:
            answered.set_exception(answer.error)

    def _take_request(self, request: Request) -> None:
        if len(self._tasks) >= self._limits.serving:
            text = f"{self._limits.serving:,} requests are being answered already."
            self._writer.write(error_bytes(request.id, RpcError(RpcCode.INTERNAL, text)) + b"\n")
            return
        task = own_task(self._loop, self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        try:
            result = await self._handle(request.method, request.params)
        except RpcError as error:
            data = error_bytes(request.id, error)
        except Exception as error:  # noqa: BLE001  (an answer is owed, whatever went wrong with it)
            data = error_bytes(request.id, RpcError(RpcCode.INTERNAL, f"{type(error).__name__}: {error}"))
        else:
            data = answer_bytes(request.id, result, self._limits.message_bytes)
        await self.ready()
        if self._story is None:
            self._writer.write(data + b"\n")


def own_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task of a plugin's own. It outlives the run that happened to need it first, and knows nothing of it."""
    empty = Context()
    return empty.run(lambda: loop.create_task(work, context=empty))
