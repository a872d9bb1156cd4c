"""A schema of a flow that can stand by itself: with the definitions of the flow that it refers to.

In a flow `schemas` is one JSON Schema, and its parts refer to definitions as `#/schemas/$defs/X`, which means nothing
outside of the document. Called by `workflow.py`, whose schemas are used and published without the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

_SHARED = "#/schemas/$defs/"
#: Keywords whose values are data and no schemas.
_DATA = frozenset({"const", "default", "enum", "examples"})
#: Keywords whose values are schemas by names of any sort.
_BY_NAME = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})


def standalone(schema: Any, definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with the flow's definitions in its own `$defs`, where it refers to them. What is none says nothing."""
    if not isinstance(schema, Mapping):
        return {}
    found = cast("Mapping[str, Any]", schema)
    if not definitions or not _refers(found):
        return found
    own = cast("Mapping[str, Any]", found.get("$defs") or {})
    # A definition of the schema's own goes by its name, and that of the flow by another one.
    names = {name: f"schemas.{name}" if name in own else name for name in definitions}
    shared = {names[name]: _moved(definition, names) for name, definition in definitions.items()}
    moved = _moved(found, names)
    return {**moved, "$defs": {**shared, **moved.get("$defs", {})}}


def _refers(value: Any) -> bool:
    """Whether there is a reference to a definition in a schema."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        reference = fields.get("$ref")
        if isinstance(reference, str) and reference.startswith((_SHARED, "#/$defs/")):
            return True
        return any(_refers(inner) for inner in fields.values())
    return isinstance(value, list) and any(_refers(inner) for inner in cast("list[Any]", value))


def _moved(value: Any, names: Mapping[str, str]) -> Any:
    """The same with references to where the definitions are now."""
    if isinstance(value, list):
        return [_moved(inner, names) for inner in cast("list[Any]", value)]
    if not isinstance(value, Mapping):
        return value
    moved: dict[str, Any] = {}
    for key, inner in cast("Mapping[str, Any]", value).items():
        if key == "$ref" and isinstance(inner, str) and inner.startswith(_SHARED):
            name, slash, rest = inner.removeprefix(_SHARED).partition("/")
            moved[key] = f"#/$defs/{names.get(name, name)}{slash}{rest}"
        elif key in _BY_NAME and isinstance(inner, Mapping):
            moved[key] = {name: _moved(one, names) for name, one in cast("Mapping[str, Any]", inner).items()}
        else:
            moved[key] = inner if key in _DATA else _moved(inner, names)
    return moved
