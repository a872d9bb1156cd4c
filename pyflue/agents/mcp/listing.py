"""The tools that an MCP server says it has: hostile definitions in, usable ones out.

`sifted` rebuilds a page of a server's `tools/list` before the SDK reads it: the SDK would refuse all of the tools for
one that is broken. Sizes are capped, because all of it goes into each request to a model. `loosened` makes the schema
that arguments are checked against here: a server can write patterns and references that take hours to check, so only
what is cheap to check is left, and the server itself checks the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ... import codec
from ...errors import NotSerializable
from ...typed import Misfit, check_schema
from ..bounded import bounded_misfits
from ..checking import shown

#: Most tools of one server.
MOST_TOOLS = 256
_NAME = re.compile(r"[^\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]{1,128}")
_DESCRIPTION_CHARACTERS = 8192
_SCHEMA_BYTES = 64 * 1024
_PAGE_SCHEMA_BYTES = 1024 * 1024
_SCHEMA_DEPTH = 40
_PROBLEM_CHARACTERS = 300

#: Keywords whose check takes no longer than the value is long.
_CHEAP = (
    "type",
    "enum",
    "const",
    "required",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class McpTool:
    """A tool of a server."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    #: What the server says of it, which need not be true.
    is_read_only: bool = False
    is_idempotent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a `tools/list`, as the SDK gets it."""

    tools: list[dict[str, Any]]
    #: Names, as they can be shown, and what is wrong.
    left_out: list[tuple[str, str]]


def sifted(tools: Sequence[Any]) -> Page:
    """The tools that can be used, with nothing in them but what is.

    What their results look like (`outputSchema`) is dropped, too: the SDK would check results against it.
    """
    kept: dict[str, dict[str, Any]] = {}
    left_out: list[tuple[str, str]] = []
    bytes_left = _PAGE_SCHEMA_BYTES
    for tool in tools[:MOST_TOOLS]:
        try:
            entry, schema_bytes = _entry(tool)
            if entry["name"] in kept:
                raise _Unusable("its name is taken by another tool of this server")
            if schema_bytes > bytes_left:
                raise _Unusable("the server's schemas are too large together")
        except _Unusable as error:
            left_out.append((_shown_name(tool), str(error)[:_PROBLEM_CHARACTERS]))
            continue
        bytes_left -= schema_bytes
        kept[entry["name"]] = entry
    if len(tools) > MOST_TOOLS:
        left_out.append((_shown_name(tools[MOST_TOOLS]), f"it and all others after the first {MOST_TOOLS}"))
    return Page(tools=list(kept.values()), left_out=left_out)


def _shown_name(tool: Any) -> str:
    given: Any = tool.get("name") if isinstance(tool, Mapping) else tool  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    return shown(given)  # pyright: ignore[reportUnknownArgumentType]


class _Unusable(Exception):
    """Why a tool cannot be offered to a model."""


def _entry(tool: Any) -> tuple[dict[str, Any], int]:
    if not isinstance(tool, Mapping):
        raise _Unusable("it is no JSON object")
    given: Mapping[str, Any] = tool  # pyright: ignore[reportUnknownVariableType]
    name = given.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _Unusable("its name is not 1 to 128 printable characters")
    schema, schema_bytes = _schema(given.get("inputSchema"))
    description = given.get("description")
    annotations = given.get("annotations")
    hints: Mapping[str, Any] = annotations if isinstance(annotations, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]
    return {
        "name": name,
        "description": _shortened(description) if isinstance(description, str) else "",
        "inputSchema": schema,
        "annotations": {
            "readOnlyHint": hints.get("readOnlyHint") is True,
            "idempotentHint": hints.get("idempotentHint") is True,
        },
    }, schema_bytes


def _schema(value: Any) -> tuple[dict[str, Any], int]:
    if not isinstance(value, Mapping):
        raise _Unusable("its inputSchema is no JSON object")
    given: dict[str, Any] = {"type": "object", **value}
    if given["type"] != "object":
        raise _Unusable('its inputSchema is not of "type": "object"')
    try:
        raw, plain = codec.round_trip(given, "inputSchema", max_depth=_SCHEMA_DEPTH)
    except NotSerializable as error:
        raise _Unusable(str(error)) from error
    if len(raw) > _SCHEMA_BYTES:
        raise _Unusable(f"its inputSchema is larger than {_SCHEMA_BYTES:,} bytes")
    try:
        check_schema(plain)
    except Exception as error:
        # What a stranger's schema makes the library raise has no limits.
        raise _Unusable(f"its inputSchema is no JSON Schema: {error}") from error
    return plain, len(raw)


def _shortened(text: str) -> str:
    clean = text.encode(errors="replace").decode()
    return clean if len(clean) <= _DESCRIPTION_CHARACTERS else clean[: _DESCRIPTION_CHARACTERS - 1] + "…"


class Arguments:
    """The arguments of an MCP tool as a `typed.Shape`."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self._checked = loosened(schema)

    def load(self, value: Any) -> Any:
        problems = bounded_misfits(value, self._checked)
        if problems:
            raise Misfit(problems)
        return value

    def dump(self, value: Any) -> Any:
        return value


def loosened(schema: Any) -> Any:
    """A schema that everything fits that fits `schema`, and that is cheap to check."""
    if not isinstance(schema, Mapping):
        # `true` and `false` are schemas, too.
        return schema
    given: Mapping[str, Any] = schema  # pyright: ignore[reportUnknownVariableType]
    loose: dict[str, Any] = {keyword: given[keyword] for keyword in _CHEAP if keyword in given}
    if "properties" in given:
        loose["properties"] = {name: loosened(each) for name, each in given["properties"].items()}
    if "additionalProperties" in given and "patternProperties" not in given:
        loose["additionalProperties"] = loosened(given["additionalProperties"])
    if "items" in given and "prefixItems" not in given:
        loose["items"] = loosened(given["items"])
    for keyword in ("allOf", "anyOf"):
        if keyword in given:
            loose[keyword] = [loosened(each) for each in given[keyword]]
    if "oneOf" in given and "anyOf" not in given:
        # Loosened, more than one may fit.
        loose["anyOf"] = [loosened(each) for each in given["oneOf"]]
    return loose
