"""The variables of a flow: what was given for a run, the defaults of their schema, and which of it is secret.

A flow declares its variables by a JSON Schema; `is_secret: true` on a property marks what must not be shown. Rules:
stepflow-ai/stepflow `crates/stepflow-core/src/workflow/variable_schema.rs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from .document import Flow
from .exceptions import MissingVariable
from .paths import MISSING

#: Stands where a secret was.
REDACTED: Final = "[REDACTED]"
#: In a path to secrets: each item of a list, each value of an object.
EACH: Final = "*"

#: Shorter ones would be found in innocent text.
_SHORTEST_SECRET: Final = 6
_ALTERNATIVES: Final = ("anyOf", "oneOf", "allOf")

SecretPath: TypeAlias = tuple[str, ...]

_EMPTY_OF_TYPE: Final[Mapping[str, Any]] = {"string": "", "number": 0, "integer": 0, "boolean": False}
_NONE_GIVEN: Final[Mapping[str, Any]] = {}


def resolve_variables(flow: Flow, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The variables of a run: those that were given, declared or not, and the defaults of the others.

    Raises:
        MissingVariable: one that the flow requires was not given.
    """
    given = _NONE_GIVEN if given is None else given
    for name in required_variables(flow):
        if name not in given:
            raise MissingVariable(name)
    return variable_defaults(flow) | dict(given)


def declared_variables(flow: Flow) -> Mapping[str, Any]:
    """The schema of each variable that the flow declares."""
    return _object(flow.variables_schema, "properties")


def required_variables(flow: Flow) -> list[str]:
    """The variables that must be given, in the order of the schema."""
    return [name for name in _list(flow.variables_schema, "required") if isinstance(name, str)]


def variable_defaults(flow: Flow) -> dict[str, Any]:
    """The variables that have a value when none is given: their `default`, or else what is empty for their type."""
    required = set(required_variables(flow))
    defaults: dict[str, Any] = {}
    for name, schema in declared_variables(flow).items():
        if isinstance(schema, dict) and "default" in schema:
            defaults[name] = schema["default"]
        elif name not in required and (value := _empty(schema)) is not MISSING:
            defaults[name] = value
    return defaults


def _empty(schema: Any) -> Any:
    type_: Any = cast("dict[str, Any]", schema).get("type") if isinstance(schema, dict) else None
    if isinstance(type_, list):
        return None if "null" in type_ else MISSING
    return _EMPTY_OF_TYPE.get(type_, MISSING) if isinstance(type_, str) else MISSING


def secret_paths(schema: Any, shared: Mapping[str, Any] | None = None) -> tuple[SecretPath, ...]:
    """Where the secrets are in a value of this schema; `()` in it is the whole value.

    Looks into properties, items, additional properties and alternatives; also through `$ref` to `shared` definitions
    and to those of the schema itself, once in each path.
    """
    definitions = {**(shared or {}), **_object(schema, "$defs")}
    found: list[SecretPath] = []
    pending: list[tuple[Any, SecretPath, frozenset[str]]] = [(schema, (), frozenset())]
    while pending:
        schema, path, followed = pending.pop()
        if not isinstance(schema, dict):
            continue
        fields = cast("dict[str, Any]", schema)
        if fields.get("is_secret") is True:
            found.append(path)
            continue
        name = _referred(fields.get("$ref"))
        if name is not None and name not in followed:
            pending.append((definitions.get(name), path, followed | {name}))
        for key in _ALTERNATIVES:
            pending.extend((one, path, followed) for one in _list(fields, key))
        pending.extend((inner, (*path, name), followed) for name, inner in _object(fields, "properties").items())
        further = ("items", "additionalProperties")
        pending.extend((fields[key], (*path, EACH), followed) for key in further if key in fields)
    return tuple(dict.fromkeys(reversed(found)))


def _referred(reference: Any) -> str | None:
    """The definition that a `$ref` names, as `#/$defs/X` or `#/schemas/$defs/X`."""
    if not isinstance(reference, str):
        return None
    head, separator, name = reference.partition("/$defs/")
    return name if separator and head in {"#", "#/schemas"} else None


def secret_paths_of(flow: Flow) -> tuple[SecretPath, ...]:
    """Where the secrets are among the variables of a flow."""
    return secret_paths(flow.variables_schema, _object(flow.schemas, "$defs"))


def secrets_among(flow: Flow, variables: Mapping[str, Any]) -> tuple[str, ...]:
    """The secret texts among the variables of a run, longest first; not those that any text may hold by chance."""
    paths = secret_paths_of(flow)
    found: set[str] = set()
    pending: list[tuple[Any, Sequence[SecretPath]]] = [(variables, paths)] if paths else []
    while pending:
        value, below = pending.pop()
        if isinstance(value, str):
            if () in below and len(value) >= _SHORTEST_SECRET:
                found.add(value)
        elif isinstance(value, Mapping):
            fields = cast("Mapping[str, Any]", value)
            pending.extend((item, [()] if () in below else _below(below, name)) for name, item in fields.items())
        elif isinstance(value, list):
            inner = [()] if () in below else _below(below, EACH)
            pending.extend((item, inner) for item in cast("list[Any]", value))
    return tuple(sorted(found, key=len, reverse=True))


def redact(value: Any, paths: Sequence[SecretPath]) -> Any:
    """The value with `REDACTED` at these paths; what has no secrets is not copied."""
    if not paths:
        return value
    if () in paths:
        return REDACTED
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {name: redact(item, _below(paths, name)) for name, item in fields.items()}
    if isinstance(value, list):
        below = _below(paths, EACH)
        return [redact(item, below) for item in cast("list[Any]", value)]
    return value


def _below(paths: Sequence[SecretPath], name: str) -> list[SecretPath]:
    return [path[1:] for path in paths if path and path[0] in (name, EACH)]


def _object(schema: Any, key: str) -> Mapping[str, Any]:
    value: Any = cast("dict[str, Any]", schema).get(key) if isinstance(schema, dict) else None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else _NONE_GIVEN


def _list(schema: Any, key: str) -> list[Any]:
    value: Any = cast("dict[str, Any]", schema).get(key) if isinstance(schema, dict) else None
    return cast("list[Any]", value) if isinstance(value, list) else []
