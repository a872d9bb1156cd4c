"""Components of a server that is spoken to over HTTP: JSON-RPC in the body of a POST.

The protocol is that of stepflow-ai/stepflow (`crates/stepflow-protocol/src/http`): a component that asks for something
answers with a stream of events, in which its requests come before its answer; what it asked for is posted to the same
address with the `Stepflow-Instance-Id` of the stream. The address comes from the operator's config: it may be any, but
redirects are not followed. A body, and an event, has a largest size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from .. import protocol
from ..jsonrpc import (
    Answer,
    Message,
    Misbehaved,
    Request,
    RpcCode,
    RpcError,
    RpcLimits,
    answer_bytes,
    error_bytes,
    notification_bytes,
    read_message,
    request_bytes,
)
from .port import ComponentCall, ComponentFailed, ComponentInfo

if TYPE_CHECKING:
    from .posting import Poster, Response

_JSON = "application/json"
_EVENTS = "text/event-stream"
_INSTANCE = "Stepflow-Instance-Id"
_INSTANCE_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Where a component server is, and how long to wait for it."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    #: Values that must not be told.
    secrets: Sequence[str] = field(default=(), repr=False)
    list_timeout_s: float = 30.0
    #: None: a component may take as long as it likes.
    execute_timeout_s: float | None = None
    limits: RpcLimits = field(default_factory=RpcLimits)


class Unanswered(ComponentFailed):
    """The server could not be reached, or did not answer: nobody knows what it has done."""


class HttpPlugin:
    """A component server behind an address."""

    def __init__(self, name: str, settings: HttpSettings) -> None:
        self._name = name
        self._settings = settings
        self._poster: Poster | None = None
        self._is_initialized = False
        self._initializing = asyncio.Lock()
        self._is_closed = False
        self._last_id = 0

    def is_composite(self, component: str) -> bool:
        return False

    async def components(self) -> Sequence[ComponentInfo]:
        result = await self._ask("components/list", {}, None, self._settings.list_timeout_s)
        return protocol.infos_of(result, self._name)

    async def execute(self, call: ComponentCall) -> Any:
        span_id = f"{self._last_id + 1:016x}"
        params = protocol.execute_params(call, call.attempt, span_id)
        result = await self._ask("components/execute", params, call, self._settings.execute_timeout_s)
        return protocol.output_of(result, self._name)

    async def close(self) -> None:
        self._is_closed = True
        poster, self._poster = self._poster, None
        if poster is not None:
            poster.close()

    async def _ask(self, method: str, params: Any, call: ComponentCall | None, timeout_s: float | None) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                await self._initialize()
                return await self._request(method, params, call)
        except TimeoutError:
            raise self._unanswered(f"it did not answer `{method}` within {timeout_s:g} s") from None
        except RpcError as error:
            raise protocol.failure_of(error, self._redact) from error

    async def _initialize(self) -> None:
        """Say who speaks, once; again when the server may be another one."""
        if self._is_initialized:
            return
        async with self._initializing:
            if self._is_initialized:
                return
            said = await self._request("initialize", {"runtime_protocol_version": protocol.PROTOCOL_VERSION}, None)
            if (problem := protocol.version_problem(said)) is not None:
                raise protocol.broken(self._name, problem)
            await self._tell(notification_bytes("initialized", {}), {})
            self._is_initialized = True

    async def _request(self, method: str, params: Any, call: ComponentCall | None) -> Any:
        self._last_id = request_id = self._last_id + 1
        limits = self._settings.limits
        body = request_bytes(request_id, method, params, limits.message_bytes)
        async with self._post(body, {}) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.status == 200 and kind == _EVENTS:
                return await self._follow(response, request_id, call)
            data = await self._read(response)
            if response.status == 200 and kind == _JSON:
                return self._result(self._message(data), request_id)
            raise self._refused(response, data)

    async def _follow(self, response: Response, request_id: int, call: ComponentCall | None) -> Any:
        """Answer what the component asks for, until its answer comes."""
        instance = response.headers.get(_INSTANCE.lower(), "")
        if len(instance) > _INSTANCE_CHARS or not instance.isprintable() or not instance.isascii():
            raise protocol.broken(self._name, f"its {_INSTANCE} cannot be sent back")
        headers = {_INSTANCE: instance} if instance else {}
        answering: set[asyncio.Task[None]] = set()
        try:
            async with asyncio.TaskGroup() as tasks, aclosing(self._events(response)) as events:
                async for data in events:
                    message = self._message(data)
                    if isinstance(message, Request):
                        if len(answering) >= self._settings.limits.serving:
                            raise protocol.broken(self._name, "it asks for too much at once")
                        task = tasks.create_task(self._answer(message, call, headers))
                        answering.add(task)
                        task.add_done_callback(answering.discard)
                    elif isinstance(message, Answer) and message.id in (request_id, None):
                        for task in answering:
                            task.cancel()
                        return self._result(message, request_id)
        except BaseExceptionGroup as group:
            raise _first(group) from group
        raise self._unanswered("its stream of events ended without an answer")

    async def _answer(self, request: Request, call: ComponentCall | None, headers: Mapping[str, str]) -> None:
        try:
            if call is None:
                raise RpcError(RpcCode.INVALID_PARAMS, "There is no call under way that this request could belong to.")
            result = await protocol.answer(call, request.method, request.params)
        except RpcError as error:
            data = error_bytes(request.id, error)
        except Exception as error:  # noqa: BLE001  (an answer is owed, whatever went wrong with it)
            data = error_bytes(request.id, RpcError(RpcCode.INTERNAL, f"{type(error).__name__}: {error}"))
        else:
            data = answer_bytes(request.id, result, self._settings.limits.message_bytes)
        await self._tell(data, headers)

    async def _tell(self, body: bytes, headers: Mapping[str, str]) -> None:
        async with self._post(body, headers) as response:
            data = await self._read(response)
            if not 200 <= response.status < 300:
                raise self._refused(response, data)

    @asynccontextmanager
    async def _post(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[Response]:
        from .posting import PostFailed

        if self._is_closed:
            raise protocol.broken(self._name, "it is closed", is_retryable=False)
        try:
            async with self._opened().post(body, headers) as response:
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise protocol.broken(self._name, "its answer is compressed, which was not asked for")
                yield response
        except PostFailed as error:
            # A server that has been started anew has to be told again who speaks.
            self._is_initialized = False
            raise self._unanswered(f"it cannot be reached or broke off ({error})") from error

    def _opened(self) -> Poster:
        if self._poster is None:
            from .posting import Poster

            headers = {
                **self._settings.headers,
                "Content-Type": _JSON,
                "Accept": f"{_JSON}, {_EVENTS}",
                # Compressed, a small answer may be a large one.
                "Accept-Encoding": "identity",
            }
            try:
                self._poster = Poster(self._settings.url, headers)
            except ValueError as error:
                raise protocol.broken(self._name, str(error), is_retryable=False) from error
        return self._poster

    async def _read(self, response: Response) -> bytes:
        limit = self._settings.limits.message_bytes
        data = bytearray()
        async for part in response.parts():
            data += part
            if len(data) > limit:
                raise protocol.broken(self._name, f"its answer is larger than {limit:,} bytes")
        return bytes(data)

    async def _events(self, response: Response) -> AsyncGenerator[bytes]:
        """The data of each event."""
        limit = self._settings.limits.message_bytes
        rest = bytearray()
        lines: list[bytes] = []
        size = 0
        async for part in response.parts():
            start = 0
            while (end := part.find(b"\n", start)) >= 0:
                rest += part[start:end]
                line, rest = bytes(rest).removesuffix(b"\r"), bytearray()
                start = end + 1
                if line.startswith(b"data:"):
                    lines.append(line[5:].removeprefix(b" "))
                    size += len(line)
                elif not line and lines:
                    yield b"\n".join(lines)
                    lines, size = [], 0
            rest += part[start:]
            if size + len(rest) > limit:
                raise protocol.broken(self._name, f"it sent an event of more than {limit:,} bytes")

    def _message(self, data: bytes) -> Message:
        try:
            message = read_message(data, depth=self._settings.limits.depth)
        except Misbehaved as error:
            raise protocol.broken(self._name, self._redact(str(error))) from error
        if message is None:
            raise protocol.broken(self._name, "it answered with what is no JSON-RPC message")
        return message

    def _result(self, message: Message, request_id: int) -> Any:
        if not isinstance(message, Answer):
            raise protocol.broken(self._name, "it answered with what is no answer")
        if message.error is not None:
            raise message.error
        if message.id != request_id:
            raise protocol.broken(self._name, f"it answered request {request_id} with an answer to {message.id!r}")
        return message.result

    def _refused(self, response: Response, data: bytes) -> Exception:
        status = response.status
        if 300 <= status < 400:
            return protocol.broken(self._name, f"it redirects (HTTP status {status}), which is not followed")
        try:
            message = read_message(data, depth=self._settings.limits.depth)
        except Misbehaved:
            message = None
        if isinstance(message, Answer) and message.error is not None:
            return message.error
        if 200 <= status < 300:
            return protocol.broken(self._name, f"it did not answer with JSON or a stream of events (HTTP {status})")
        return protocol.broken(
            self._name, f"it answered with HTTP status {status}", is_retryable=status >= 500 or status in (408, 429)
        )

    def _unanswered(self, problem: str) -> Unanswered:
        text = f"component server error({int(RpcCode.CRASHED)}): {self._redact(problem)}"
        return Unanswered(
            f"Plugin {self._name!r} did not answer: {self._redact(problem)}.",
            attachments=("error executing component", text),
        )

    def _redact(self, text: str) -> str:
        for secret in self._settings.secrets:
            text = text.replace(secret, "[REDACTED]")
        return text


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first that went wrong; the rest is what it led to."""
    first = group.exceptions[0]
    return _first(cast("BaseExceptionGroup[BaseException]", first)) if isinstance(first, BaseExceptionGroup) else first
