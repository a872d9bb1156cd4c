"""Which JSON Schemas a provider can enforce by itself, and what the model is told of the others.

Providers take a part of JSON Schema only: closed objects, no recursion, few keywords. A schema outside of that part is
not bent until it fits, because then another type would be enforced than the author asked for (`dict[str, int]` would
become an object without keys). It goes to the model as a sentence instead, and is checked where every answer is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ... import codec
from .parts import mapping

_COMBINATIONS = ("anyOf", "oneOf", "allOf")
#: Keywords whose meaning would be lost.
_BEYOND = frozenset(
    ("not", "if", "then", "else", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas",
     "dependencies", "unevaluatedProperties", "prefixItems", "contains")
)  # fmt: skip
_TYPES = frozenset(("object", "array", "string", "integer", "number", "boolean", "null"))
_MOST_NODES = 5000


def is_enforceable(schema: Mapping[str, Any], *, strict: bool = False) -> bool:
    """Whether the schema is an object made of closed objects, without recursion and keywords that would be lost.

    `strict` also asks for what OpenAI's strict mode does: every property required, every object explicitly closed.
    """
    root = _target(schema, schema)
    if root is None or root.get("type") != "object":
        return False
    try:
        return _Walk(schema, is_strict=strict).fits(schema, ())
    except RecursionError:
        return False


def has_object_root(schema: Mapping[str, Any]) -> bool:
    """Whether the schema says that the answer is an object."""
    root = _target(schema, schema)
    return root is not None and root.get("type") == "object"


def sentence(schema: Mapping[str, Any]) -> str:
    """The schema as an instruction."""
    text = codec.encode_value(schema, "The output schema")
    return (
        "Your last message must be one JSON value and nothing else: no prose, no code fence. "
        f"It must fit this JSON Schema:\n{bytes(text).decode()}"
    )


class _Walk:
    """One look through a schema, bounded, because schemas come from strangers too."""

    def __init__(self, root: Mapping[str, Any], *, is_strict: bool) -> None:
        self._root = root
        self._is_strict = is_strict
        self._nodes = 0

    def fits(self, node: Any, above: tuple[str, ...]) -> bool:
        """`above` are the references that led here: one that comes again is a recursion."""
        self._nodes += 1
        here = mapping(node)
        if self._nodes > _MOST_NODES or here is None:
            return False
        if "$ref" in here:
            target = _target(self._root, here)
            return target is not None and here["$ref"] not in above and self.fits(target, (*above, here["$ref"]))
        if not _BEYOND.isdisjoint(here) or (self._is_strict and ("oneOf" in here or "allOf" in here)):
            return False
        combined = [keyword for keyword in _COMBINATIONS if keyword in here]
        if combined:
            variants = here[combined[0]]
            return (
                len(combined) == 1
                and "properties" not in here
                and isinstance(variants, list)
                and all(self.fits(variant, above) for variant in cast("list[Any]", variants))
            )
        if "enum" in here or "const" in here:
            values: list[Any] = here.get("enum", [here.get("const")])
            return bool(values) and all(value is None or isinstance(value, (str, int, float)) for value in values)
        kind = here.get("type")
        if kind == "object":
            return self._object_fits(here, above)
        if kind == "array":
            return "items" in here and self.fits(here["items"], above)
        return isinstance(kind, str) and kind in _TYPES

    def _object_fits(self, node: Mapping[str, Any], above: tuple[str, ...]) -> bool:
        named = mapping(node.get("properties"))
        if named is None or node.get("additionalProperties", False) is not False:
            return False
        if self._is_strict and (
            node.get("additionalProperties") is not False or set(node.get("required", ())) != set(named)
        ):
            return False
        return all(self.fits(item, above) for item in named.values())


def _target(root: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a node's reference within the document leads to; the node itself if it has none."""
    for _ in range(10):
        reference = node.get("$ref")
        if reference is None:
            return node
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        found: Any = root
        for part in reference[2:].split("/"):
            found = (mapping(found) or {}).get(part.replace("~1", "/").replace("~0", "~"))
        target = mapping(found)
        if target is None:
            return None
        node = target
    return None
