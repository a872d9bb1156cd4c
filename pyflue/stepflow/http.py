"""Stepflow's HTTP API: flows, runs, their items and steps, and components, under `/api/v1`.

Paths, bodies and answers as in stepflow-ai/stepflow (`crates/stepflow-server/src/api`); `wait`, `timeoutSecs` and
`dryRun` come from its later versions. Only this module writes camelCase. What a request leads to is the business of a
`Backend`; `openapi.py` describes what is answered here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from .. import __version__, codec, errors
from ..errors import PyFlueError, TooLarge, UnsupportedMediaType
from ..ids import new_ulid
from ..logs import logger
from .backend import (
    DEFAULT_LIMIT,
    LARGEST_LIMIT,
    Backend,
    FlowNotFound,
    FlowView,
    ItemView,
    NewRun,
    NotAFlow,
    RunDetails,
    RunRefused,
    RunStatus,
    RunSummary,
    RunsWanted,
    StepView,
)
from .blobs import BlobsFull
from .exceptions import FlowMalformed, LanguageError
from .openapi import OPERATIONS, PREFIX, document
from .outcome import Outcome, to_wire
from .plugins.port import ComponentInfo

Fields: TypeAlias = Mapping[str, Any]
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]

#: How long an answer is waited for if the request does not say, and at the most.
WAIT_S = 300.0
LONGEST_WAIT_S = 3600.0
#: The most inputs of one run.
LARGEST_BATCH = 10_000

_log = logger("pyflue.stepflow")
_JSON = b"application/json"
_UNPACKED = frozenset({b"", b"identity"})
_LONGEST_KEY = 255
_FLOW_ID = re.compile(r"[0-9a-f]{64}")
_UUID_LENGTHS = frozenset({32, 36})
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

#: The status of each class of error; a class without a row has that of the class it derives from.
_STATUSES: Mapping[type[Exception], int] = {
    FlowNotFound: 404,
    NotAFlow: 400,
    RunRefused: 400,
    LanguageError: 400,
    BlobsFull: 507,
    errors.RunNotFound: 404,
    errors.RunFinished: 409,
    errors.RunNotFinished: 409,
    errors.IdempotencyConflict: 409,
    errors.InvalidJson: 400,
    errors.PayloadInvalid: 400,
    errors.TooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.EngineStopping: 503,
    errors.JournalBusy: 503,
    errors.JournalFull: 507,
}


def api_routes(backend: Backend, *, prefix: str = PREFIX) -> list[BaseRoute]:
    """The routes of the API. Hosts, origins and tokens are checked by whatever serves them."""
    api = _Api(backend, prefix)
    # A route is found by trying one after the other: what is asked for most goes first.
    ordered = sorted(OPERATIONS, key=lambda operation: operation.id != "create_run")
    routes = [
        Route(prefix + operation.path, _Endpoint(api.handlers[operation.id]), methods=[operation.method])
        for operation in ordered
    ]
    # What is left of the prefix: whatever serves it would answer in a form of its own.
    rest = _Rest(routes)
    return [*routes, Route(prefix, rest), Route(prefix + "/{path:path}", rest)]


def project_routes(services: Any) -> Sequence[BaseRoute]:
    """The routes for a project's server."""
    from .runs import JournalBackend

    root = services.settings.root
    limit_bytes = services.settings.limits.payload_bytes
    return api_routes(
        JournalBackend(services.engine, services.journal, folder=root, root=root, limit_bytes=limit_bytes)
    )


class _Rest:
    """Answers what no operation answers."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed: set[str] = set()
        for route in self._routes:
            if route.matches(scope)[0] is Match.PARTIAL:
                allowed |= route.methods or set()
        if allowed:
            answer = _json({"code": 405, "message": "Method Not Allowed"}, 405)
            answer.headers["allow"] = ", ".join(sorted(allowed))
        else:
            answer = no_such_path(scope["path"])
        await answer(scope, receive, send)


class _Refused(Exception):
    """A request that cannot be understood."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class _Endpoint:
    """A handler as the ASGI application that a route wants; whatever is raised becomes an answer."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._handler(Request(scope, receive))
        except Exception as error:  # noqa: BLE001  (whatever goes wrong has the form of this API)
            answer = error_answer(error)
        await answer(scope, receive, send)


class _Api:
    """The operations, by their ids."""

    def __init__(self, backend: Backend, prefix: str) -> None:
        self._backend = backend
        self._prefix = prefix
        self._described: bytes | None = None
        self.handlers: Mapping[str, Handler] = {
            "health_check": self.health,
            "openapi": self.openapi,
            "list_components": self.list_components,
            "store_flow": self.store_flow,
            "get_flow": self.get_flow,
            "delete_flow": self.delete_flow,
            "create_run": self.create_run,
            "list_runs": self.list_runs,
            "get_run": self.get_run,
            "get_run_items": self.get_run_items,
            "get_run_steps": self.get_run_steps,
            "get_run_flow": self.get_run_flow,
            "cancel_run": self.cancel_run,
            "delete_run": self.delete_run,
        }

    # About the server

    async def health(self, request: Request) -> Response:
        return _json({"status": "healthy", "timestamp": datetime.now(UTC).isoformat(), "version": __version__})

    async def openapi(self, request: Request) -> Response:
        if self._described is None:
            self._described = codec.encode(document(__version__, prefix=self._prefix))
        return Response(self._described, media_type="application/json", headers=_HEADERS)

    async def list_components(self, request: Request) -> Response:
        with_schemas = _flag(request, "includeSchemas", default=True)
        found = await self._backend.components()
        shown = sorted(found.components, key=lambda component: component.path)
        answer: dict[str, Any] = {"components": [_component(info, with_schemas=with_schemas) for info in shown]}
        if found.failures:
            answer["failures"] = dict(found.failures)
        return _json(answer)

    # Flows

    async def store_flow(self, request: Request) -> Response:
        given = await self._body(request)
        if given.get("flow") is None:
            raise _Refused("The field `flow` is missing.")
        stored = await self._backend.store_flow(given["flow"], dry_run=_boolean(given, "dryRun", default=False))
        answer = {"stored": stored.is_stored, "diagnostics": stored.diagnostics}
        return _json(answer if stored.flow_id is None else {"flowId": stored.flow_id, **answer})

    async def get_flow(self, request: Request) -> Response:
        return _json(_flow(await self._backend.flow(_flow_id(request.path_params["flow_id"]))))

    async def delete_flow(self, request: Request) -> Response:
        # Flows are kept by their content, and runs refer to them: this is answered, and nothing goes away.
        _flow_id(request.path_params["flow_id"])
        return Response(b"", headers=_HEADERS)

    # Runs

    async def create_run(self, request: Request) -> Response:
        given = await self._body(request)
        new = NewRun(
            flow_id=_flow_id(given.get("flowId")),
            inputs=_inputs(given),
            overrides=_object(given, "overrides"),
            variables=_object(given, "variables"),
            max_concurrency=_whole_number(given, "maxConcurrency", at_least=1),
            idempotency_key=_idempotency_key(request),
        )
        if _boolean(given, "debug", default=False):
            raise _Refused("Debug mode is not offered: leave `debug` out.")
        waits = _boolean(given, "wait", default=True)
        started = await self._backend.start(new, wait_s=_seconds(given.get("timeoutSecs")) if waits else None)
        answer: dict[str, Any] = {"runId": started.run_id, "itemCount": len(new.inputs)}
        if started.outcome is not None and len(new.inputs) == 1:
            answer["result"] = to_wire(started.outcome)
        return _json({**answer, "status": started.status.value, "debug": False})

    async def list_runs(self, request: Request) -> Response:
        query = request.query_params
        wanted = RunsWanted(
            status=_status(query.get("status")),
            flow_id=None if query.get("flowId") is None else _flow_id(query["flowId"]),
            flow_name=query.get("flowName"),
            flow_label=query.get("flowLabel"),
            root_run_id=None if query.get("rootRunId") is None else _run_id(query["rootRunId"]),
            parent_run_id=None if query.get("parentRunId") is None else _run_id(query["parentRunId"]),
            max_depth=_count(request, "maxDepth", None),
            limit=min(_count(request, "limit", DEFAULT_LIMIT) or 0, LARGEST_LIMIT),
            offset=_count(request, "offset", 0) or 0,
        )
        return _json({"runs": [_summary(run) for run in await self._backend.runs(wanted)]})

    async def get_run(self, request: Request) -> Response:
        run_id = _run_id(request.path_params["run_id"])
        if _flag(request, "wait", default=False):
            await self._backend.wait(run_id, _seconds(request.query_params.get("timeoutSecs")))
        return _json(_details(await self._backend.run(run_id)))

    async def get_run_items(self, request: Request) -> Response:
        items = await self._backend.items(_run_id(request.path_params["run_id"]))
        return _json({"itemCount": len(items), "items": [_item(item) for item in items]})

    async def get_run_steps(self, request: Request) -> Response:
        steps = await self._backend.steps(_run_id(request.path_params["run_id"]))
        return _json({"steps": {step.step_id: _step(step) for step in steps}})

    async def get_run_flow(self, request: Request) -> Response:
        view = await self._backend.run_flow(_run_id(request.path_params["run_id"]))
        return _json({"flow": view.flow, "flowId": view.flow_id})

    async def cancel_run(self, request: Request) -> Response:
        await _read(request, self._backend.limit_bytes)  # nothing is asked for, but a body of another kind is refused
        run_id = _run_id(request.path_params["run_id"])
        try:
            return _json(_summary(await self._backend.cancel(run_id)))
        except errors.RunFinished as error:
            status = cast("Fields", error.details or {}).get("status")
            raise _Refused(f"Run '{run_id}' cannot be cancelled (status: {status})", 409) from error

    async def delete_run(self, request: Request) -> Response:
        run_id = _run_id(request.path_params["run_id"])
        try:
            await self._backend.delete(run_id)
        except errors.RunNotFinished as error:
            raise _Refused(f"Execution '{run_id}' is still running and cannot be deleted", 409) from error
        return Response(b"", headers=_HEADERS)

    async def _body(self, request: Request) -> Fields:
        data = await _read(request, self._backend.limit_bytes)
        if not data:
            raise _Refused("The body is missing: send a JSON object.")
        value = codec.decode(data, "The body")
        if not isinstance(value, dict):
            raise _Refused("The body has to be a JSON object.")
        return cast("Fields", value)


# From values to JSON


def error_answer(error: Exception) -> Response:
    """The answer to a request that raised: `{"code", "message", "stack"?}`.

    What was not meant for callers is logged, and they are told under which reference.
    """
    status = _status_of(error)
    if status == 500:
        reference = new_ulid()
        _log.error("request_failed", ref=reference, exc_info=error)
        return _json({"code": 500, "message": f"Internal server error (ref {reference})"}, 500)
    answer: dict[str, Any] = {"code": status, "message": _message(error)}
    if isinstance(error, FlowMalformed):
        answer["stack"] = [{"error": str(problem)} for problem in error.problems]
    response = _json(answer, status)
    if status == 503:
        response.headers["retry-after"] = "5"
    return response


def no_such_path(path: str) -> Response:
    """The answer to a request for something that there is not."""
    told = f"There is nothing at {path[:200]!r}. GET {PREFIX}/openapi.json lists what there is."
    return _json({"code": 404, "message": told}, 404)


def _status_of(error: Exception) -> int:
    if isinstance(error, _Refused):
        return error.status
    return next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), 500)


def _message(error: Exception) -> str:
    if isinstance(error, FlowMalformed):
        return f"Invalid flow: {error}"
    if isinstance(error, errors.RunNotFound):
        return "Execution not found"
    return error.message if isinstance(error, PyFlueError) else str(error)


def _component(info: ComponentInfo, *, with_schemas: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"component": info.path}
    if info.description is not None:
        shown["description"] = info.description
    if with_schemas and info.input_schema is not None:
        shown["inputSchema"] = info.input_schema
    if with_schemas and info.output_schema is not None:
        shown["outputSchema"] = info.output_schema
    return shown


def _flow(view: FlowView) -> dict[str, Any]:
    shown: dict[str, Any] = {"flow": view.flow, "flowId": view.flow_id}
    return {**shown, "allExamples": list(view.examples)} if view.examples else shown


def _summary(run: RunSummary) -> dict[str, Any]:
    items = run.items
    shown: dict[str, Any] = {
        "runId": run.run_id,
        "flowId": run.flow_id,
        "flowName": run.flow_name,
        "flowLabel": run.flow_label,
        "status": run.status.value,
        "items": {
            "total": items.total,
            "completed": items.completed,
            "running": items.running,
            "failed": items.failed,
            "cancelled": items.cancelled,
        },
        "debugMode": False,
        "createdAt": run.created_at,
        "completedAt": run.completed_at,
        "rootRunId": run.root_run_id or run.run_id,
    }
    return shown if run.parent_run_id is None else {**shown, "parentRunId": run.parent_run_id}


def _details(run: RunDetails) -> dict[str, Any]:
    shown = {**_summary(run.summary), "inputs": list(run.inputs)}
    if run.overrides:
        shown["overrides"] = run.overrides
    if run.variables:
        shown["variables"] = run.variables
    return shown


def _item(item: ItemView) -> dict[str, Any]:
    return _with_result({"itemIndex": item.item_index, "status": item.status.value}, item.outcome)


def _step(step: StepView) -> dict[str, Any]:
    shown = {
        "stepIndex": step.step_index,
        "stepId": step.step_id,
        "component": step.component,
        "status": step.status.value,
    }
    return _with_result(shown, step.outcome)


def _with_result(shown: dict[str, Any], outcome: Outcome | None) -> dict[str, Any]:
    return shown if outcome is None else {**shown, "result": to_wire(outcome)}


def _json(value: Any, status: int = 200) -> Response:
    return Response(codec.encode(value), status, media_type="application/json", headers=_HEADERS)


# From requests to values


async def _read(request: Request, limit_bytes: int) -> bytes:
    """The body. Only JSON: what a page of another site could send without being asked is refused.

    Raises:
        UnsupportedMediaType, TooLarge
    """
    headers = dict(cast("list[tuple[bytes, bytes]]", request.scope["headers"]))
    declared = headers.get(b"content-type")
    if declared is not None and declared.partition(b";")[0].strip().lower() != _JSON:
        raise UnsupportedMediaType(
            f"The body's type {declared[:100].decode('latin-1')!r} is not accepted: send {_JSON.decode()}."
        )
    if headers.get(b"content-encoding", b"").strip().lower() not in _UNPACKED:
        raise UnsupportedMediaType("A compressed body is not accepted.")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > limit_bytes:
            raise TooLarge("The request's body", None, limit_bytes, "limits.payload_bytes")
    body = b"".join(parts)
    if body and declared is None:
        raise UnsupportedMediaType(f"The body has no declared type: send {_JSON.decode()}.")
    return body


def _flow_id(value: Any) -> str:
    if value is None:
        raise _Refused("The field `flowId` is missing.")
    if not isinstance(value, str) or _FLOW_ID.fullmatch(value) is None:
        raise _Refused("A flow id has 64 characters out of 0-9 and a-f.")
    return value


def _run_id(text: str) -> str:
    try:
        if len(text) in _UUID_LENGTHS:
            return str(UUID(text))
    except ValueError:
        pass
    raise _Refused("Invalid run ID format: a run id is a UUID.")


def _inputs(given: Fields) -> Sequence[Any]:
    value = given.get("input")
    if not isinstance(value, list):
        raise _Refused("The field `input` has to be a list with one value for each item: `[value]` for a single run.")
    inputs = cast("list[Any]", value)
    if not 1 <= len(inputs) <= LARGEST_BATCH:
        raise _Refused(f"The list `input` has {len(inputs):,} values; 1 to {LARGEST_BATCH:,} are taken.")
    return inputs


def _object(given: Fields, name: str) -> Fields | None:
    value = given.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise _Refused(f"The field `{name}` has to be an object.")
    return cast("Fields | None", value)


def _boolean(given: Fields, name: str, *, default: bool) -> bool:
    value = given.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _Refused(f"The field `{name}` has to be true or false.")
    return value


def _whole_number(given: Fields, name: str, *, at_least: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise _Refused(f"The field `{name}` has to be a whole number, {at_least} or more.")
    return value


def _seconds(value: Any) -> float:
    if value is None:
        return WAIT_S
    try:
        seconds = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise _Refused(f"`timeoutSecs` has to be a number from 0 to {LONGEST_WAIT_S:.0f}.")
    return seconds


def _flag(request: Request, name: str, *, default: bool) -> bool:
    text = request.query_params.get(name)
    if text is None:
        return default
    if text not in {"true", "false"}:
        raise _Refused(f"The query parameter `{name}` has to be true or false.")
    return text == "true"


def _count(request: Request, name: str, default: int | None) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise _Refused(f"The query parameter `{name}` has to be a whole number, 0 or more.")
    return int(text)


def _status(text: str | None) -> RunStatus | None:
    if text is None:
        return None
    try:
        return RunStatus(text)
    except ValueError:
        raise _Refused(f"The query parameter `status` has to be one of {', '.join(RunStatus)}.") from None


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise _Refused(f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters.")
    return key
