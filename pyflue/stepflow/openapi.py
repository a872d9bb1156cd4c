"""The table of the API's operations: `http.py` makes its routes of it, and it is written as an OpenAPI 3.1 document.

A project's server shows the same operations in its own document (`dialect_operations`, without references, because
that document has its own shapes). The names of operations and shapes are those of stepflow-ai/stepflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

Json: TypeAlias = dict[str, Any]

PREFIX = "/api/v1"
TAG = "stepflow"

_REFERENCE = "#/components/schemas/"
#: Names of shapes begin with this in a document, so that they are nobody else's.
_OURS = "Stepflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path below the prefix."""

    id: str
    method: str
    path: str
    summary: str
    parameters: Sequence[Json] = ()
    #: Names of shapes; without an answer it has no body.
    body: str | None = None
    answer: str | None = None
    #: What it can be refused with, besides what every operation can.
    errors: Mapping[int, str] | None = None


def _query(name: str, about: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": about, "schema": schema, "required": False}


def _reference(name: str) -> Json:
    return {"$ref": f"{_REFERENCE}{_OURS}{name}"}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _shape(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None) -> Json:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


_TEXT: Json = {"type": "string"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_FLAG: Json = {"type": "boolean"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_TIME: Json = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Json = {"type": ["string", "null"], "format": "date-time"}
_RUN_ID: Json = {"type": "string", "format": "uuid"}
_FLOW_ID: Json = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_OBJECT: Json = {"type": "object"}
_ANY: Json = {}
_RUN_STATUS: Json = {"type": "string", "enum": ["running", "completed", "failed", "cancelled", "paused"]}
_STEP_STATUS: Json = {
    "type": "string",
    "enum": ["blocked", "runnable", "running", "completed", "skipped", "failed"],
}
_SECONDS: Json = {"type": "number", "minimum": 0, "maximum": 3600}

_RUN: Json = {"name": "run_id", "in": "path", "description": "The id of a run.", "schema": _RUN_ID, "required": True}
_FLOW: Json = {
    "name": "flow_id",
    "in": "path",
    "description": "The id of a flow.",
    "schema": _FLOW_ID,
    "required": True,
}
_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Requests with the same key start one run; every answer names that run.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "required": False,
}
_WAIT = _query("wait", "Answer when the run has ended, or after `timeoutSecs`.", _FLAG)
_TIMEOUT = _query("timeoutSecs", "How long to wait.", _SECONDS)
_NO_RUN = {404: "There is no such run."}
_NO_FLOW = {404: "There is no such flow."}

OPERATIONS: Sequence[Operation] = (
    Operation(
        id="health_check", method="GET", path="/health", summary="Whether the server is well", answer="HealthResponse"
    ),
    Operation(id="openapi", method="GET", path="/openapi.json", summary="This description", answer="Document"),
    Operation(
        id="list_components",
        method="GET",
        path="/components",
        summary="The components that flows can call",
        parameters=[_query("includeSchemas", "Whether to show their schemas.", {"type": "boolean", "default": True})],
        answer="ListComponentsResponse",
    ),
    Operation(
        id="store_flow",
        method="POST",
        path="/flows",
        summary="Look a flow over and keep it",
        body="StoreFlowRequest",
        answer="StoreFlowResponse",
        errors={507: "There is no room for it."},
    ),
    Operation(
        id="get_flow",
        method="GET",
        path="/flows/{flow_id}",
        summary="A stored flow",
        parameters=[_FLOW],
        answer="FlowResponse",
        errors=_NO_FLOW,
    ),
    Operation(
        id="delete_flow",
        method="DELETE",
        path="/flows/{flow_id}",
        summary="Accepted, and does nothing: flows are kept by their content",
        parameters=[_FLOW],
    ),
    Operation(
        id="create_run",
        method="POST",
        path="/runs",
        summary="Run a stored flow, once for each input",
        parameters=[_KEY],
        body="CreateRunRequest",
        answer="CreateRunResponse",
        errors={**_NO_FLOW, 409: "The key came with another request before."},
    ),
    Operation(
        id="list_runs",
        method="GET",
        path="/runs",
        summary="Runs, newest first",
        parameters=[
            _query("status", "Only runs of this status.", _RUN_STATUS),
            _query("flowId", "Only runs of this flow.", _FLOW_ID),
            _query("flowName", "Only runs of flows of this name.", _TEXT),
            _query("flowLabel", "Only runs of flows of this label.", _TEXT),
            _query("rootRunId", "Only this run and those below it.", _RUN_ID),
            _query("parentRunId", "Only runs that this one started.", _RUN_ID),
            _query("maxDepth", "How deep below the root; 0 is the root alone.", _COUNT),
            _query("limit", "At most so many.", {**_COUNT, "default": 100, "maximum": 1000}),
            _query("offset", "Leave out so many.", {**_COUNT, "default": 0}),
        ],
        answer="ListRunsResponse",
    ),
    Operation(
        id="get_run",
        method="GET",
        path="/runs/{run_id}",
        summary="A run",
        parameters=[_RUN, _WAIT, _TIMEOUT],
        answer="RunDetails",
        errors=_NO_RUN,
    ),
    Operation(
        id="get_run_items",
        method="GET",
        path="/runs/{run_id}/items",
        summary="What became of each input of a run",
        parameters=[_RUN],
        answer="ListItemsResponse",
        errors=_NO_RUN,
    ),
    Operation(
        id="get_run_steps",
        method="GET",
        path="/runs/{run_id}/steps",
        summary="The steps of a run",
        parameters=[_RUN],
        answer="ListStepRunsResponse",
        errors=_NO_RUN,
    ),
    Operation(
        id="get_run_flow",
        method="GET",
        path="/runs/{run_id}/flow",
        summary="The flow of a run",
        parameters=[_RUN],
        answer="RunFlowResponse",
        errors=_NO_RUN,
    ),
    Operation(
        id="cancel_run",
        method="POST",
        path="/runs/{run_id}/cancel",
        summary="End a run",
        parameters=[_RUN],
        answer="RunSummary",
        errors={**_NO_RUN, 409: "The run has ended."},
    ),
    Operation(
        id="delete_run",
        method="DELETE",
        path="/runs/{run_id}",
        summary="Remove a run that has ended",
        parameters=[_RUN],
        errors={**_NO_RUN, 409: "The run still goes on."},
    ),
)

_COUNTS = _shape(dict.fromkeys(("total", "completed", "running", "failed", "cancelled"), _COUNT))
_SUMMARY_FIELDS: Json = {
    "runId": _RUN_ID,
    "flowId": _FLOW_ID,
    "flowName": _TEXT_OR_NULL,
    "flowLabel": _TEXT_OR_NULL,
    "status": _RUN_STATUS,
    "items": _COUNTS,
    "debugMode": _FLAG,
    "createdAt": _TIME,
    "completedAt": _TIME_OR_NULL,
    "rootRunId": _RUN_ID,
}
_ERROR_FIELDS: Json = {"code": {"type": "integer"}, "message": _TEXT}

#: The shapes of bodies, by name.
SHAPES: Mapping[str, Json] = {
    "Document": {"type": "object", "description": "An OpenAPI 3.1 document."},
    "Error": _shape(
        _ERROR_FIELDS,
        {
            "stack": _list(
                _shape({"error": _TEXT}, {"attachments": _list(_TEXT), "backtrace": _TEXT}),
            )
        },
    ),
    "HealthResponse": _shape({"status": _TEXT, "timestamp": _TIME, "version": _TEXT}),
    "FlowResult": {
        "oneOf": [
            _shape({"outcome": {"const": "success"}, "result": _ANY}),
            _shape({"outcome": {"const": "failed"}, "error": _shape(_ERROR_FIELDS, {"data": _ANY})}),
            _shape({"outcome": {"const": "skipped"}}, {"reason": _TEXT}),
        ]
    },
    "ComponentInfo": _shape(
        {"component": _TEXT}, {"description": _TEXT, "inputSchema": _OBJECT, "outputSchema": _OBJECT}
    ),
    "ListComponentsResponse": _shape(
        {"components": _list(_reference("ComponentInfo"))},
        {"failures": {"type": "object", "additionalProperties": _TEXT}},
    ),
    "StoreFlowRequest": _shape({"flow": _OBJECT}, {"dryRun": {"type": ["boolean", "null"], "default": False}}),
    "Diagnostics": _shape(
        {"diagnostics": _list(_OBJECT), "numFatal": _COUNT, "numError": _COUNT, "numWarning": _COUNT}
    ),
    "StoreFlowResponse": _shape(
        {"stored": _FLAG, "diagnostics": _reference("Diagnostics")},
        {"flowId": {**_FLOW_ID, "description": "Absent if a diagnostic is fatal."}},
    ),
    "FlowResponse": _shape(
        {"flow": _OBJECT, "flowId": _FLOW_ID},
        {"allExamples": _list(_shape({"name": _TEXT, "input": _ANY}, {"description": _TEXT}))},
    ),
    "CreateRunRequest": _shape(
        {
            "flowId": _FLOW_ID,
            "input": {
                "type": "array",
                "minItems": 1,
                "maxItems": 10_000,
                "items": _ANY,
                "description": "One value for each item: `[value]` for a single run.",
            },
        },
        {
            "overrides": {"type": ["object", "null"]},
            "variables": {"type": ["object", "null"]},
            "maxConcurrency": {"type": ["integer", "null"], "minimum": 1},
            "wait": {"type": ["boolean", "null"], "default": True},
            "timeoutSecs": {"type": ["number", "null"], "minimum": 0, "maximum": 3600, "default": 300},
            "debug": {"enum": [False, None], "description": "Debug mode is not offered."},
        },
    ),
    "CreateRunResponse": _shape(
        {"runId": _RUN_ID, "itemCount": _COUNT, "status": _RUN_STATUS, "debug": _FLAG},
        {"result": _reference("FlowResult")},
    ),
    "RunSummary": _shape(_SUMMARY_FIELDS, {"parentRunId": _RUN_ID}),
    "RunDetails": _shape(
        {**_SUMMARY_FIELDS, "inputs": _list(_ANY)},
        {"parentRunId": _RUN_ID, "overrides": _OBJECT, "variables": _OBJECT},
    ),
    "ListRunsResponse": _shape({"runs": _list(_reference("RunSummary"))}),
    "ItemResult": _shape({"itemIndex": _COUNT, "status": _RUN_STATUS}, {"result": _reference("FlowResult")}),
    "ListItemsResponse": _shape({"itemCount": _COUNT, "items": _list(_reference("ItemResult"))}),
    "StepRunResponse": _shape(
        {"stepIndex": _COUNT, "stepId": _TEXT, "component": _TEXT, "status": _STEP_STATUS},
        {"result": _reference("FlowResult")},
    ),
    "ListStepRunsResponse": _shape(
        {"steps": {"type": "object", "additionalProperties": _reference("StepRunResponse")}}
    ),
    "RunFlowResponse": _shape({"flow": _OBJECT, "flowId": _FLOW_ID}),
}

#: The same by the names that they have in a document.
SCHEMAS: Mapping[str, Json] = {_OURS + name: shape for name, shape in SHAPES.items()}


def described_paths(prefix: str = PREFIX) -> dict[str, Json]:
    """The paths of a document: `{path: {method: operation}}`."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(prefix + operation.path, {})[operation.method.lower()] = _described(operation)
    return paths


def document(version: str, *, prefix: str = PREFIX) -> Json:
    """The OpenAPI document of the API alone."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PyFlue: stepflow",
            "version": version,
            "description": "Keep flow documents and run them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": described_paths(prefix),
        "components": {"schemas": dict(SCHEMAS)},
        "tags": [{"name": TAG, "description": "Flow documents and their runs."}],
    }


def dialect_operations() -> Mapping[str, Mapping[str, Json]]:
    """The paths for the document of a project's server: with every shape in its place."""
    return _inlined(described_paths())


def _inlined(value: Any) -> Any:
    if isinstance(value, list):
        return [_inlined(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("Json", value)
    if "$ref" in fields:
        return _inlined(SCHEMAS[fields["$ref"].removeprefix(_REFERENCE)])
    return {key: _inlined(item) for key, item in fields.items()}


def _described(operation: Operation) -> Json:
    described: Json = {
        "operationId": f"stepflow_{operation.id}",
        "tags": [TAG],
        "summary": operation.summary,
        "responses": {"200": _answer("Done.", operation.answer)},
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    refusals = {400: "The request cannot be understood.", 500: "Something went wrong here.", **(operation.errors or {})}
    if operation.method == "POST":
        refusals |= {413: "The body is too large.", 415: "The body is not plain JSON."}
    if operation.id == "create_run":
        refusals[503] = "The server is about to stop."
    for status, about in sorted(refusals.items()):
        described["responses"][str(status)] = _answer(about, "Error")
    return described


def _answer(about: str, shape: str | None) -> Json:
    return {"description": about} if shape is None else {"description": about, "content": _content(shape)}


def _content(shape: str) -> Json:
    return {"application/json": {"schema": _reference(shape)}}
