"""The ASGI application: every request passes the gate and finds its route; whatever is raised becomes an answer.

`build_app` is called by `main.py`, which wraps the result into the application that also starts and stops the engine.
`POST /workflows/<name>` goes straight to `starting.py`, everything else through the route table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, cast

from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import EngineStopping, MethodNotAllowed, RouteNotFound
from .about import AboutRoutes
from .agent_socket import AgentSocket
from .agents import AgentRoutes
from .answers import Answer, Headers
from .approvals import ApprovalRoutes
from .asking import Asking
from .body import ClientGone, RequestHeaders, read_body, single_headers
from .catalog import CatalogRoutes
from .errors import error_answer
from .operations import OPERATIONS
from .runs import RunRoutes
from .security import Gate
from .services import Services
from .starting import RunStarter, WorkflowFinder
from .websocket import WorkflowSocket

if TYPE_CHECKING:
    from ..workflows import Dialect

Handler = Callable[[Scope, RequestHeaders], Awaitable[ASGIApp]]
BodyHandler = Callable[[Scope, RequestHeaders, bytes], Awaitable[ASGIApp]]

_WORKFLOWS = "/workflows/"
_AGENTS = "/agents/"
_TASK = "/agents/{name}/{instance_id}/sessions/{session:path}"


class PyFlueApp:
    """PyFlue's HTTP and WebSocket surface as an ASGI application, at the root or under any prefix."""

    def __init__(self, services: Services, dialects: Sequence[Dialect] = ()) -> None:
        self.services = services
        self._gate = Gate(services.settings.server, [dialect.scope_of for dialect in dialects])
        self._finder = WorkflowFinder(services)
        self._starter = RunStarter(services, self._finder)
        self._asking = Asking(services)
        ours = _routes(services, dialects, self._finder, self._gate, self._asking)
        self._routes = [*ours, *(route for dialect in dialects for route in dialect.routes(services))]
        #: Routes without parameters by their path, so that they are not looked for among all others.
        self._plain: dict[str, list[Route]] = {}
        for route in self._routes:
            if isinstance(route, Route) and not route.param_convertors:
                self._plain.setdefault(route.path, []).append(route)

    def begin_stop(self) -> None:
        """End open streams and waiting answers and refuse new requests; for whoever is about to stop the engine."""
        self.services.stopping.set()
        self.services.patience.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            raise RuntimeError(f"ASGI scope {scope['type']!r}: starting and stopping is what create_app() adds.")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = single_headers(scope["headers"])
            if b"origin" in headers:
                send = _adding(send, self._gate.cors_headers(headers))
            path = _path(scope)
            self._gate.admit(scope, headers, path)
            if self.services.stopping.is_set():
                raise EngineStopping
            if (name := _workflow_name(path)) is not None and scope["method"] == "POST":
                answer = await self._starter.answer(name, scope, headers, receive)
            elif self._gate.is_preflight(scope, headers):
                answer = self._gate.preflight_answer()
            else:
                answer = self._find_route(scope, path)
            await answer(scope, receive, send)
        except ClientGone:
            pass
        except Exception as error:  # noqa: BLE001  (plug-ins' routes and workflows' types run below: the last boundary)
            await error_answer(error)(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = single_headers(scope["headers"])
            path = _path(scope)
            self._gate.admit(scope, headers, path)
            if self.services.stopping.is_set():
                raise EngineStopping
            name, instance = _workflow_name(path), _instance(path)
            if name is None and instance is None:
                raise RouteNotFound(path)
        except Exception as error:  # noqa: BLE001  (as above)
            await _deny(scope, receive, send, error_answer(error))
        else:
            if name is not None:
                await WorkflowSocket(self.services, self._finder, scope, headers, receive, send).converse(name)
            elif instance is not None:
                await AgentSocket(self.services, self._asking, scope, headers, receive, send).converse(*instance)

    def _find_route(self, scope: Scope, path: str) -> ASGIApp:
        for route in self._plain.get(path, ()):
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                scope.update(child_scope)
                return route.handle
        allowed: set[str] = set()
        for route in self._routes:
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                scope.update(child_scope)
                return route.handle
            if match is Match.PARTIAL:
                allowed.update(cast("Route", route).methods or ())
        if not allowed:
            raise RouteNotFound(path)
        if _workflow_name(path) is not None:
            allowed.add("POST")
        raise MethodNotAllowed(scope["method"], sorted(allowed))


def build_app(services: Services, *, dialects: Sequence[Dialect] = ()) -> PyFlueApp:
    """The application for a project, with the routes of dialects after its own."""
    return PyFlueApp(services, dialects)


class _Endpoint:
    """A handler as the ASGI application that a Starlette route wants."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._handler(scope, single_headers(scope["headers"]))
        await answer(scope, receive, send)


class _BodyEndpoint:
    """As `_Endpoint`, for a handler that takes the request's body."""

    def __init__(self, handler: BodyHandler, limit_bytes: int) -> None:
        self._handler = handler
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = single_headers(scope["headers"])
        body = await read_body(receive, headers, self._limit_bytes)
        answer = await self._handler(scope, headers, body)
        await answer(scope, receive, send)


def _routes(
    services: Services, dialects: Sequence[Dialect], finder: WorkflowFinder, gate: Gate, asking: Asking
) -> list[BaseRoute]:
    about, catalog = AboutRoutes(services, dialects), CatalogRoutes(services, finder)
    runs, approvals, agents = RunRoutes(services), ApprovalRoutes(services, gate), AgentRoutes(services, asking)
    handlers: dict[str, Handler] = {
        "health": about.health,
        "openapi": about.openapi,
        "list_workflows": catalog.list,
        "get_workflow": catalog.get,
        "list_runs": runs.list,
        "get_run": runs.get,
        "delete_run": runs.delete,
        "list_events": runs.events,
        "stream_events": runs.stream,
        "get_blob": runs.blob,
        "list_steps": runs.steps,
        "cancel_run": runs.cancel,
        "retry_run": runs.retry,
        "list_approvals": approvals.list,
        "get_approval": approvals.get,
        "list_agents": agents.list,
        "get_agent": agents.get,
        "list_instances": agents.instances,
        "get_instance": agents.instance,
        "delete_instance": agents.delete,
        "list_dispatches": agents.dispatches,
        "get_dispatch": agents.get_dispatch,
        "cancel_dispatch": agents.cancel_dispatch,
        "list_instance_events": agents.events,
        "stream_instance_events": agents.stream,
        "get_instance_blob": agents.blob,
        "list_sessions": agents.sessions,
        "get_history": agents.history,
        "delete_session": agents.delete_session,
        "abort_session": agents.abort,
    }
    with_body: dict[str, BodyHandler] = {
        "fork_run": runs.fork,
        "send_signal": runs.signal,
        "decide_approval": approvals.decide,
        "prompt_agent": agents.prompt,
        "dispatch_agent": agents.dispatch,
    }
    limit_bytes = services.settings.limits.payload_bytes
    endpoints: dict[str, ASGIApp] = {name: _Endpoint(handler) for name, handler in handlers.items()}
    endpoints |= {name: _BodyEndpoint(handler, limit_bytes) for name, handler in with_body.items()}
    return [
        *(
            Route(operation.path, endpoints[operation.id], methods=[operation.method])
            for operation in OPERATIONS
            if operation.id in endpoints
        ),
        # A signal's name with a slash, which paths are decoded to, is to be refused as what it is.
        Route("/runs/{run_id}/signals/{name:path}", endpoints["send_signal"], methods=["POST"]),
        # The names of tasks' sessions have slashes.
        Route(f"{_TASK}/history", endpoints["get_history"], methods=["GET"]),
        Route(f"{_TASK}/abort", endpoints["abort_session"], methods=["POST"]),
        Route(_TASK, endpoints["delete_session"], methods=["DELETE"]),
    ]


def _path(scope: Scope) -> str:
    """The path below the prefix the application is mounted at."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"}:
        return path[len(prefix) :]
    return path


def _workflow_name(path: str) -> str | None:
    if not path.startswith(_WORKFLOWS):
        return None
    name = path[len(_WORKFLOWS) :]
    return name if name and "/" not in name else None


def _instance(path: str) -> tuple[str, str] | None:
    """The names of an agent and its instance."""
    if not path.startswith(_AGENTS):
        return None
    name, _, instance_id = path[len(_AGENTS) :].partition("/")
    return (name, instance_id) if name and instance_id and "/" not in instance_id else None


def _adding(send: Send, headers: Headers) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return send_with_headers if headers else send


async def _deny(scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
    """Refuse a WebSocket before it is accepted, with the answer if the server can send one, else with a bare 403."""
    if (await receive())["type"] != "websocket.connect":
        return
    if "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "websocket.http.response.body", "body": answer.body})
    else:
        await send({"type": "websocket.close", "code": 1008})
