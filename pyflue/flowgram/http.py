"""FlowGram's HTTP API: `/info`, `/task/*` and the tRPC form of both, at the root and under `/api`.

Paths, bodies and answers as in flowgram.ai, `packages/runtime/nodejs/src/api` and `js-core`; the editor's server client
calls the paths under `/api` and reads messages grouped by type, clients of flowgram-runtime those at the root and read
a list. Only this module knows the word `taskID`. What a request leads to is the business of `backends.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

from starlette.requests import ClientDisconnect, Request
from starlette.routing import BaseRoute, Route

from .. import __version__, codec
from ..errors import InvalidJson, PyFlueError, TooLarge, UnsupportedMediaType
from .backends import Backend, JournalBackend, Services, is_json
from .dialect import READING, procedure_of
from .document import Document, as_list
from .exceptions import GraphMalformed
from .library import WorkflowApplication, check
from .report import grouped
from .workflow import read_graph

Fields: TypeAlias = Mapping[str, Any]

PREFIXES = ("", "/api")
_HANDLER_FAILED = -32603
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]
_LONGEST_KEY = 255
_MOST_CALLS = 100


class ServerInfo:
    """What `/info` says."""

    def __init__(
        self,
        *,
        name: str = "pyflue-flowgram",
        title: str = "FlowGram graphs on PyFlue",
        description: str = "Runs graphs drawn in the FlowGram editor.",
        runtime: str = "python",
        version: str = __version__,
    ) -> None:
        self._said = {"name": name, "title": title, "description": description, "runtime": runtime, "version": version}

    def to_dict(self) -> dict[str, Any]:
        return {**self._said, "time": datetime.now(UTC).isoformat()}


def routes(services: Services) -> Sequence[BaseRoute]:
    """The routes for a project's server."""
    return task_routes(JournalBackend(services), ServerInfo())


def task_routes(backend: Backend, info: ServerInfo) -> list[BaseRoute]:
    """All routes, at the root and under `/api`."""
    made: list[BaseRoute] = []
    for prefix in PREFIXES:
        api = _Api(backend, info, is_grouped=bool(prefix))
        rest: list[tuple[str, str, Callable[[Request], Awaitable[_Answer]]]] = [
            ("/info", "GET", api.get_info),
            ("/task/run", "POST", api.post_run),
            ("/task/report", "GET", api.get_report),
            ("/task/result", "GET", api.get_result),
            ("/task/cancel", "PUT", api.put_cancel),
            ("/task/validate", "POST", api.post_validate),
        ]
        made.extend(Route(prefix + path, _Endpoint(handler), methods=[method]) for path, method, handler in rest)
        made.append(Route(f"{prefix}/trpc/{{procedures:path}}", _Endpoint(api.trpc), methods=["GET", "POST"]))
    return made


class _Refused(Exception):
    """A request that cannot be understood: its status and what its answer says."""

    def __init__(self, status: int, detail: Any) -> None:
        problems = as_list(detail)
        super().__init__(problems[0]["msg"] if problems else detail)
        self.status = status
        self.detail = detail


class _Misshapen(_Refused):
    """JSON that has not the shape of a graph; in a tRPC batch it is the trouble of one call."""

    def __init__(self, error: GraphMalformed) -> None:
        super().__init__(400, f"Invalid workflow schema: {error}")


class _Endpoint:
    """A handler as the ASGI application that a route wants; refusals become answers."""

    def __init__(self, handler: Callable[[Request], Awaitable[_Answer]]) -> None:
        self._handler = handler

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            answer = await self._handler(Request(scope, receive))
        except _Refused as refused:
            answer = _json({"detail": refused.detail}, refused.status)
        await answer(scope, receive, send)


class _Api:
    """The procedures, and both ways to call them."""

    def __init__(self, backend: Backend, info: ServerInfo, *, is_grouped: bool) -> None:
        self._backend = backend
        self._info = info
        self._is_grouped = is_grouped
        self._procedures: dict[str, Callable[[Fields, str | None], Awaitable[Any]]] = {
            "info": self._say_info,
            "task.run": self._run,
            "task.report": self._report,
            "task.result": self._result,
            "task.cancel": self._cancel,
            "task.validate": self._validate,
        }

    # Procedures

    async def _say_info(self, given: Fields, key: str | None) -> Any:
        return self._info.to_dict()

    async def _run(self, given: Fields, key: str | None) -> Any:
        schema, inputs = _schema_and_inputs(given)
        document = await _read_graph(schema)
        return {"taskID": await self._backend.run(schema, document, inputs, key=key)}

    async def _report(self, given: Fields, key: str | None) -> Any:
        report = await self._backend.report(_task_id(given))
        if report is not None and self._is_grouped:
            return {**report, "messages": grouped(report["messages"])}
        return report

    async def _result(self, given: Fields, key: str | None) -> Any:
        return await self._backend.result(_task_id(given))

    async def _cancel(self, given: Fields, key: str | None) -> Any:
        return {"success": await self._backend.cancel(_task_id(given))}

    async def _validate(self, given: Fields, key: str | None) -> Any:
        schema, inputs = _schema_and_inputs(given)
        await _read_graph(schema)
        # In a thread: the graph may be long.
        found = await asyncio.to_thread(check, schema, inputs, WorkflowApplication.instance().executors)
        return {"valid": found.valid, "errors": found.errors, "warnings": found.warnings}

    # REST

    async def get_info(self, request: Request) -> _Answer:
        return _json(self._info.to_dict())

    async def post_run(self, request: Request) -> _Answer:
        return _json(await self._run(await self._body(request), _idempotency_key(request)))

    async def get_report(self, request: Request) -> _Answer:
        return _json(await self._report(_query(request), None))

    async def get_result(self, request: Request) -> _Answer:
        return _json(await self._result(_query(request), None))

    async def put_cancel(self, request: Request) -> _Answer:
        return _json(await self._cancel(await self._body(request), None))

    async def post_validate(self, request: Request) -> _Answer:
        return _json(await self._validate(await self._body(request), None))

    # tRPC

    async def trpc(self, request: Request) -> _Answer:
        """One procedure, or a batch of them."""
        is_batch = request.query_params.get("batch") == "1"
        path = request.path_params["procedures"]
        names = [procedure_of(name) for name in (path.split(",") if is_batch else [path])]
        if len(names) > _MOST_CALLS:
            raise _Refused(400, f"Invalid input: a batch has {_MOST_CALLS} procedures at most")
        for name in names:
            if name not in self._procedures:
                raise _Refused(404, f"No such tRPC procedure: {name}")
            if request.method == "GET" and name not in READING:  # or any page could
                raise _Refused(405, f"The tRPC procedure {name} changes something: call it with POST")
        given = await self._trpc_input(request)
        if not is_batch:
            return _json(await self._call(names[0], given))
        inputs = _fields(given)
        answers = [await self._call(name, inputs.get(str(number))) for number, name in enumerate(names)]
        return _json(answers)

    async def _trpc_input(self, request: Request) -> Any:
        if request.method == "POST":
            data = await _read(request, self._backend.limit_bytes)
        else:
            data = request.query_params.get("input", "").encode()
        if not data:
            return {}
        try:
            return codec.decode(data, "The input")
        except InvalidJson as error:
            raise _Refused(400, f"Invalid input: {error}") from error

    async def _call(self, name: str, given: Any) -> dict[str, Any]:
        payload = _fields(given)
        if isinstance(payload.get("json"), Mapping):
            payload = cast("Fields", payload["json"])
        try:
            return {"result": {"data": await self._procedures[name](payload, None)}}
        except _Refused as refused:
            if refused.status == 400 and not isinstance(refused, _Misshapen):
                raise
            return _error(str(refused))
        except PyFlueError as error:
            return _error(str(error))

    async def _body(self, request: Request) -> Fields:
        data = await _read(request, self._backend.limit_bytes)
        try:
            value = codec.decode(data, "The body")
        except InvalidJson as error:
            raise _Refused(422, [_problem("json_invalid", ["body"], str(error))]) from error
        if not isinstance(value, dict):
            raise _Refused(422, [_problem("model_attributes_type", ["body"], "Input should be an object")])
        return cast("Fields", value)


def _schema_and_inputs(given: Fields) -> tuple[str, Fields]:
    """The graph's text and the inputs of a request.

    Raises:
        _Refused: 422.
    """
    problems: list[dict[str, Any]] = []
    schema, inputs = given.get("schema"), given.get("inputs", {})
    if "schema" not in given:
        problems.append(_problem("missing", ["body", "schema"], "Field required"))
    elif not isinstance(schema, str):
        problems.append(_problem("string_type", ["body", "schema"], "Input should be a valid string"))
    if not isinstance(inputs, Mapping):
        problems.append(_problem("dict_type", ["body", "inputs"], "Input should be a valid dictionary"))
    if problems:
        raise _Refused(422, problems)
    return cast("str", schema), cast("Fields", inputs)


async def _read_graph(text: str) -> Document:
    """The graph of a request.

    Raises:
        _Refused: 400; it is none.
    """
    try:
        return await read_graph(text)
    except GraphMalformed as error:
        raise _Misshapen(error) from error
    except ValueError as error:
        raise _Refused(400, f"Invalid schema JSON: {is_json(text) or error}") from error


def _task_id(given: Fields) -> str:
    task_id = given.get("taskID")
    if "taskID" not in given:
        raise _Refused(422, [_problem("missing", ["body", "taskID"], "Field required")])
    if not isinstance(task_id, str):
        raise _Refused(422, [_problem("string_type", ["body", "taskID"], "Input should be a valid string")])
    return task_id


def _query(request: Request) -> Fields:
    fields = dict(request.query_params)
    if "taskID" not in fields:
        raise _Refused(422, [_problem("missing", ["query", "taskID"], "Field required")])
    return fields


def _fields(value: Any) -> Fields:
    return cast("Fields", value) if isinstance(value, Mapping) else {}


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise _Refused(400, f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters")
    return key


async def _read(request: Request, limit_bytes: int) -> bytes:
    """The body. Only JSON: what a page of another site could send without being asked is refused.

    Raises:
        UnsupportedMediaType, TooLarge
    """
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != "application/json":
        raise UnsupportedMediaType(f"The body's type {declared[:100]!r} is not accepted.")
    parts: list[bytes] = []
    left = limit_bytes
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        left -= len(part)
        if left < 0:
            raise TooLarge("The request's body", None, limit_bytes, "limits.payload_bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _problem(type_: str, where: Sequence[str], text: str) -> dict[str, Any]:
    return {"type": type_, "loc": list(where), "msg": text}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "code": _HANDLER_FAILED}}


class _Answer:
    """JSON as an ASGI application: what a Starlette response would do besides, nobody needs here."""

    __slots__ = ("_body", "_status")

    def __init__(self, body: bytes, status: int) -> None:
        self._body = body
        self._status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [*_HEADERS, (b"content-length", b"%d" % len(self._body))]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


def _json(value: Any, status: int = 200) -> _Answer:
    try:
        body = codec.encode(value)
    except (TypeError, ValueError, OverflowError):
        body = bytes(memoryview(codec.encode_loose(value)))  # outputs of a node of somebody's own
    return _Answer(body, status)
