"""FlowGram's HTTP API as `/openapi.json` tells it, with the operation ids and tags of FlowGram's own server.

Called by the dialect when the document is asked for. `http.py` is what it describes; the server adds its own refusals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

_JSON = "application/json"
_TEXT: Json = {"type": "string"}
_OBJECT: Json = {"type": "object"}
_EXAMPLE = (
    '{"nodes": [{"id": "start", "type": "start"}, {"id": "end", "type": "end"}], '
    '"edges": [{"sourceNodeID": "start", "targetNodeID": "end"}]}'
)
_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Requests with the same key start one run; every answer names that run.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "required": False,
}
_TASK_ID: Json = {"name": "taskID", "in": "query", "description": "A run's id.", "schema": _TEXT, "required": True}


def operations() -> Mapping[str, Mapping[str, Json]]:
    """The paths at the root, which clients of flowgram-runtime use, and those under `/api`, which the editor uses."""
    return {**_operations("", ""), **_operations("/api", "Api")}


def _operations(prefix: str, id_prefix: str) -> dict[str, dict[str, Json]]:
    by_type: Json = {"type": "object", "additionalProperties": {"type": "array", "items": _OBJECT}}
    messages: Json = by_type if prefix else {"type": "array", "items": _OBJECT}
    graph = _fields(
        {
            "schema": {**_TEXT, "description": "The graph, as JSON text.", "example": _EXAMPLE},
            "inputs": {"type": "object", "default": {}, "description": "Values for what the start node declares."},
        },
        "schema",
    )
    report = _fields(
        {
            "id": _TEXT,
            "inputs": _OBJECT,
            "outputs": _OBJECT,
            "workflowStatus": _OBJECT,
            "reports": {"type": "object", "additionalProperties": _OBJECT},
            "messages": messages,
        }
    )
    validation = _fields(
        {"valid": {"type": "boolean"}, "errors": {"type": ["array", "null"], "items": _TEXT}, "warnings": _texts()}
    )
    success = _fields({"success": {"type": "boolean"}})
    rest: dict[str, dict[str, Json]] = {
        "/info": {"get": _operation("ServerInfo", "What this server is", _fields(dict.fromkeys(_INFO, _TEXT)))},
        "/task/run": {
            "post": {
                **_operation("TaskRun", "Run a graph", _fields({"taskID": _TEXT}), body=graph, refuses_shape=True),
                "description": "Answers once the run is recorded. A graph that cannot be run is a run that fails.",
                "parameters": [_KEY],
            }
        },
        "/task/report": {
            "get": {
                **_operation("TaskReport", "What became of a run", {"anyOf": [report, {"type": "null"}]}),
                "description": "`null` if there is no such run.",
                "parameters": [_TASK_ID],
            }
        },
        "/task/result": {
            "get": {
                **_operation("TaskResult", "A run's outputs", {}),
                "description": "`null` while it goes on, or if there is no such run; `{}` if it failed.",
                "parameters": [_TASK_ID],
            }
        },
        "/task/cancel": {
            "put": {
                **_operation("TaskCancel", "End a run", success, body=_fields({"taskID": _TEXT})),
                "description": "`success` says whether there is such a run; one that has ended stays as it is.",
            }
        },
        "/task/validate": {
            "post": _operation("TaskValidate", "Check a graph", validation, body=graph, refuses_shape=True)
        },
        "/trpc/{procedures}": {"get": _trpc("TrpcGet"), "post": _trpc("TrpcPost")},
    }
    return {
        prefix + path: {
            method: {**described, "operationId": id_prefix + described["operationId"]}
            for method, described in methods.items()
        }
        for path, methods in rest.items()
    }


_INFO = ("name", "title", "description", "runtime", "version", "time")


def _operation(
    operation_id: str, summary: str, answer: Json, *, body: Json | None = None, refuses_shape: bool = False
) -> Json:
    made: Json = {
        "operationId": operation_id,
        "tags": ["Info" if operation_id == "ServerInfo" else "Task"],
        "summary": summary,
        "responses": {"200": _reply("The answer.", answer)},
    }
    if operation_id != "ServerInfo":
        made["responses"]["422"] = _refusal("A field is missing, or of another type.")
    if refuses_shape:
        made["responses"]["400"] = _refusal("The graph is no JSON, or has not the shape of a graph.")
    if body is not None:
        made["requestBody"] = {"content": {_JSON: {"schema": body}}, "required": True}
    return made


def _trpc(operation_id: str) -> Json:
    is_post = operation_id == "TrpcPost"
    made: Json = {
        "operationId": operation_id,
        "tags": ["Task"],
        "summary": "Call procedures as tRPC does" if is_post else "Call procedures that change nothing as tRPC does",
        "description": "`info`, `task.run`, `task.report`, `task.result`, `task.cancel`, `task.validate`; several with "
        "commas between them if `batch` is 1.",
        "parameters": [
            {"name": "procedures", "in": "path", "schema": _TEXT, "required": True, "example": "task.result"},
            {"name": "batch", "in": "query", "schema": {"type": "string", "enum": ["1"]}, "required": False},
        ],
        "responses": {
            "200": _reply('`{"result": {"data": …}}` or `{"error": …}`; a list of those for a batch.', {}),
            "400": _refusal("The input, or the text of a graph in it, is no JSON."),
            "404": _refusal("There is no such procedure."),
            "405": _refusal("The procedure changes something and needs POST."),
        },
    }
    if is_post:
        made["requestBody"] = {"content": {_JSON: {"schema": {}}}, "required": False}
    else:
        asked = {"name": "input", "in": "query", "description": "JSON.", "schema": _TEXT, "required": False}
        made["parameters"].append(asked)
    return made


def _fields(properties: Mapping[str, Json], *required: str) -> Json:
    """An object with these fields; all of them are there unless some are named."""
    return {"type": "object", "properties": dict(properties), "required": list(required or properties)}


def _texts() -> Json:
    return {"type": "array", "items": _TEXT}


def _reply(about: str, schema: Json) -> Json:
    return {"description": about, "content": {_JSON: {"schema": schema}}}


def _refusal(about: str) -> Json:
    return _reply(about, _fields({"detail": {}}))
