"""`/openapi.json`: the table of operations, the shapes of answers and every workflow's own schemas, as OpenAPI 3.1.

Each workflow is its own path with its own payload and result, so that a generated client has a typed function for it.
Imported only when the document is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic.json_schema import models_json_schema

from .. import errors
from ..engine import Workflow
from ..errors import PyFlueError
from .errors import STATUSES
from .inputs import INPUTS
from .operation import EVENT_STREAM, JSON, Operation, Parameter, Reply
from .operations import COMMON_ERRORS, OPERATIONS
from .schemas import MODELS

if TYPE_CHECKING:
    from ..workflows import Dialect

_REFERENCE = "#/components/schemas/"
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]")
_LOCAL_DEFINITION = re.compile(r"#/(?:\$defs|definitions)/([^/]+)(.*)", re.DOTALL)
#: Keywords of JSON Schema that hold data, where something that looks like a reference is none.
_DATA = frozenset({"const", "default", "enum", "example", "examples"})
#: Keywords that map names of the author's choice to schemas.
_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas"})

Json = dict[str, Any]


#: What the server says to a request that brings work, besides what it says to every request.
_ERRORS_OF_WORK: Sequence[type[PyFlueError]] = (
    errors.TooLarge,
    errors.UnsupportedMediaType,
    errors.IdempotencyConflict,
    errors.JournalFull,
)


def build_document(
    workflows: Sequence[Workflow],
    *,
    dialects: Sequence[Dialect] = (),
    version: str,
    prefix: str,
    needs_token: bool,
) -> Json:
    """The OpenAPI document of a server with these workflows, mounted at `prefix`."""
    _, definitions = models_json_schema(
        [
            *((model, "serialization") for model in MODELS),
            *((model, "validation") for model in INPUTS),
        ],
        ref_template=_REFERENCE + "{model}",
    )
    components = _Components(definitions["$defs"])
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    ids = _Names(operation.id for operation in OPERATIONS)
    for workflow in workflows:
        paths[f"/workflows/{quote(workflow.name)}"] = _workflow_path(workflow, components, ids)
    tags: list[str] = []
    for dialect in dialects:
        for path, methods in dialect.operations().items():
            for method, described in methods.items():
                paths.setdefault(path, {}).setdefault(method, _dialect_operation(method, described, ids))
                tags += [tag for tag in described.get("tags", ()) if tag not in tags]
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "PyFlue",
            "version": version,
            "description": "Run workflows and look at their runs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {"schemas": components.schemas},
        "tags": [
            {"name": "workflows", "description": "What can be run."},
            {"name": "runs", "description": "What was run, and what came of it."},
            {"name": "agents", "description": "Agents that go on between calls: talk to them, hand them work."},
            {"name": "approvals", "description": "What people are asked, and what they say."},
            {"name": "server", "description": "This server."},
            *({"name": tag} for tag in tags),
        ],
    }
    if needs_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        paths["/health"]["get"]["security"] = []
    return document


class _Names:
    """Hands out names, each once."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def take(self, wanted: str) -> str:
        name = base = _UNNAMEABLE.sub("_", wanted) or "_"
        number = 1
        while name in self._taken:
            number += 1
            name = f"{base}-{number}"
        self._taken.add(name)
        return name


class _Components:
    """The document's named schemas. Those of workflows are moved in with their definitions, under their own names."""

    def __init__(self, schemas: Json) -> None:
        self.schemas: Json = dict(schemas)
        self._names = _Names(schemas)

    def add(self, wanted: str, schema: Mapping[str, Any]) -> Json:
        """Move a schema in; returns the reference to it."""
        name = self._names.take(wanted)
        if "$id" in schema:  # references inside are relative to that, wherever the schema stands
            self.schemas[name] = dict(schema)
            return {"$ref": _REFERENCE + name}
        definitions: Mapping[str, Any] = {**schema.get("definitions", {}), **schema.get("$defs", {})}
        moved = {key: self._names.take(f"{wanted}.{key}") for key in definitions}
        body = {key: value for key, value in schema.items() if key not in {"$defs", "definitions", "$schema"}}
        for key, definition in definitions.items():
            self.schemas[moved[key]] = _relocate(definition, name, moved)
        self.schemas[name] = _relocate(body, name, moved)
        return {"$ref": _REFERENCE + name}


def _relocate(schema: Any, root: str, moved: Mapping[str, str]) -> Any:
    """A schema whose references to its own document point to where its parts are now."""
    if isinstance(schema, list):
        return [_relocate(item, root, moved) for item in schema]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, Mapping):
        return schema
    result: Json = {}
    for key, value in schema.items():  # pyright: ignore[reportUnknownVariableType]
        if key in _DATA:
            result[key] = value
        elif key in _BY_NAME and isinstance(value, Mapping):
            result[key] = {name: _relocate(item, root, moved) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
        elif key == "$ref" and isinstance(value, str):
            result[key] = _target(value, root, moved)
        elif key == "mapping" and "propertyName" in schema and isinstance(value, Mapping):  # of a discriminator
            result[key] = {name: _target(str(item), root, moved) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        else:
            result[str(key)] = _relocate(value, root, moved)  # pyright: ignore[reportUnknownArgumentType]
    return result


def _target(reference: str, root: str, moved: Mapping[str, str]) -> str:
    match = _LOCAL_DEFINITION.fullmatch(reference)
    if match is not None:
        key = match[1].replace("~1", "/").replace("~0", "~")
        return f"{_REFERENCE}{moved[key]}{match[2]}" if key in moved else reference
    return _REFERENCE + root + reference[1:] if reference == "#" or reference.startswith("#/") else reference


def _workflow_path(workflow: Workflow, components: _Components, ids: _Names) -> Json:
    payload = components.add(f"{workflow.name}.payload", workflow.input_schema)
    result = components.add(f"{workflow.name}.result", workflow.output_schema)
    found = {operation.id: operation for operation in OPERATIONS}
    start = _operation(found["start_run"], without_name=True)
    start["operationId"] = ids.take(f"run_{workflow.name}")
    start["summary"] = f"Run {workflow.name}"
    if workflow.description:
        start["description"] = workflow.description
    start["requestBody"]["content"][JSON]["schema"] = payload
    completed = {"type": "object", "properties": {"result": result}, "required": ["result"]}
    start["responses"]["200"]["content"][JSON]["schema"] = {"allOf": [{"$ref": _REFERENCE + "Completed"}, completed]}
    show = _operation(found["get_workflow"], without_name=True)
    show["operationId"] = ids.take(f"get_{workflow.name}")
    show["summary"] = f"Show {workflow.name}"
    return {"get": show, "post": start}


def _operation(operation: Operation, *, without_name: bool = False) -> Json:
    described: Json = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {str(status): _reply(reply) for status, reply in operation.replies.items()},
    }
    if operation.about:
        described["description"] = operation.about
    parameters = [_parameter(item) for item in operation.parameters if not (without_name and item.name == "name")]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        content = {JSON: {"schema": _shape(JSON, operation.body.shape)}}
        described["requestBody"] = {"content": content, "required": operation.body.is_required}
    described["responses"].update(_errors([*operation.errors, *COMMON_ERRORS], chosen=operation.has_chosen_status))
    return described


def _dialect_operation(method: str, operation: Mapping[str, Any], ids: _Names) -> Json:
    """A dialect's operation, with what the server itself may answer in its place."""
    described: Json = {**operation, "operationId": ids.take(operation["operationId"])}
    responses: Json = dict(operation["responses"])
    further = [*COMMON_ERRORS, *(() if method == "get" else _ERRORS_OF_WORK)]
    for status, reply in _errors(further, chosen=False).items():
        own = responses.get(status)
        if own is None:
            responses[status] = reply
            continue
        shapes = [each["content"][JSON]["schema"] for each in (own, reply)]
        about = f"{own['description']} Or {reply['description']}."
        responses[status] = {"description": about, "content": {JSON: {"schema": {"anyOf": shapes}}}}
    described["responses"] = responses
    return described


def _parameter(parameter: Parameter) -> Json:
    described: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.about,
        "schema": parameter.schema,
        "required": parameter.place == "path",
    }
    if parameter.schema["type"] == "array":
        described |= {"style": "form", "explode": False}
    if parameter.example is not None:
        described["example"] = parameter.example
    return described


def _reply(reply: Reply) -> Json:
    described: Json = {"description": reply.about}
    if reply.content:
        described["content"] = {media: {"schema": _shape(media, shape)} for media, shape in reply.content.items()}
    if reply.names_run:
        described["headers"] = {
            "X-Flue-Run-Id": {"description": "The run this answer is about.", "schema": {"type": "string"}}
        }
    return described


def _shape(media: str, name: str | None) -> Json:
    if name is not None:
        return {"$ref": _REFERENCE + name}
    return {"type": "string"} if media == EVENT_STREAM else {}


def _errors(classes: Sequence[type[PyFlueError]], *, chosen: bool) -> Json:
    by_status: dict[int, list[str]] = {}
    for cls in classes:
        kind = "internal_error" if cls is PyFlueError else cls.type
        kinds = by_status.setdefault(STATUSES[cls], [])
        if kind not in kinds:
            kinds.append(kind)
    content = {JSON: {"schema": {"$ref": _REFERENCE + "ErrorEnvelope"}}}
    described: Json = {
        str(status): {"description": f"`{'` or `'.join(by_status[status])}`", "content": content}
        for status in sorted(by_status)
    }
    if chosen:
        for family in ("4XX", "5XX"):
            described[family] = {"description": "The status that the workflow's author chose.", "content": content}
    return described
