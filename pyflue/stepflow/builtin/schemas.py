"""Input and output schemas of the built-in components, as `components/list` and editors show them (JSON Schema)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ANY: Mapping[str, Any] = {}
_TEXT = {"type": "string"}
_WHOLE = {"type": "integer"}
_FLOW = {"type": "object", "description": "A flow; protect it with $literal."}
_OUTCOME = {"type": "object", "required": ["outcome"], "properties": {"outcome": _TEXT, "result": {}, "error": {}}}


def _fields(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


_MESSAGES = {
    "type": "array",
    "items": _fields({"role": {"type": "string", "enum": ["system", "user", "assistant"]}, "content": _TEXT}),
}

#: By path: of the input, and of the output.
SCHEMAS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "/create_messages": (
        _fields({"user_prompt": _TEXT}, {"system_instructions": {"type": ["string", "null"]}}),
        _fields({"messages": _MESSAGES}),
    ),
    "/eval": (_fields({"flow_id": _TEXT, "input": _ANY}), _fields({"result": _OUTCOME, "run_id": _TEXT})),
    "/get_blob": (_fields({"blob_id": _TEXT}), _fields({"data": _ANY})),
    "/iterate": (
        _fields({"flow": _FLOW, "initial_input": _ANY}, {"max_iterations": {"type": "integer", "default": 1000}}),
        _fields({"result": _ANY, "iterations": _WHOLE, "terminated": {"type": "boolean"}}),
    ),
    "/load_file": (
        _fields({"path": _TEXT}, {"format": {"enum": ["json", "yaml", "text", None]}}),
        _fields(
            {
                "data": _ANY,
                "metadata": _fields({"resolved_path": _TEXT, "size_bytes": _WHOLE, "format": _TEXT}),
            }
        ),
    ),
    "/map": (
        _fields({"workflow": _FLOW, "items": {"type": "array"}}, {"max_concurrency": {"type": ["integer", "null"]}}),
        _fields({"results": {"type": "array", "items": _OUTCOME}, "successful": _WHOLE, "failed": _WHOLE}),
    ),
    "/noop": (_ANY, _ANY),
    "/openai": (
        _fields(
            {"messages": _MESSAGES},
            {
                "model": {"type": "string", "default": "openai/gpt-3.5-turbo"},
                "max_tokens": {"type": ["integer", "null"]},
                "temperature": {"type": ["number", "null"]},
                "api_key": {"type": ["string", "null"], "is_secret": True},
            },
        ),
        _fields({"response": _TEXT}),
    ),
    "/put_blob": (
        _fields({"data": _ANY, "blob_type": {"type": "string", "enum": ["data", "flow"]}}),
        _fields({"blob_id": _TEXT}),
    ),
    "/sleep": (
        _fields({"duration_ms": _WHOLE}, {"passthrough": _ANY}),
        _fields({"duration_ms": _WHOLE}, {"passthrough": _ANY}),
    ),
}
