"""What is wrong with a graph, before anything of it runs.

Errors are what makes a graph unusable; warnings are what its author should see and may have meant: a condition
without an else edge, say, can be right if one of its conditions always holds. Everything is iterative.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from .conditions import is_usable
from .document import DRAWN_ONLY, ERROR_PORT, Document, Level, Node, as_object, is_sound
from .values import declared_type, fits, known_names, references

_ENDS = frozenset({"end", "block-end", "break", "continue"})
#: Types that belong into loops, and types that do not.
_INSIDE = frozenset({"block-start", "block-end"})
_OUTSIDE = frozenset({"start", "end"})
#: What may fit once it is known: a text that is a time.
_MAYBE = frozenset({("string", "date-time")})
_SCHEMA = {"map": "object", "date-time": "string"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """What validation found. `errors` is None if there are none."""

    valid: bool
    errors: list[str] | None = None
    warnings: list[str] = field(default_factory=list[str])


def check_document(document: Document, types: Collection[str]) -> tuple[list[str], list[str]]:
    """Errors and warnings of a graph. `types` are those that nodes can have."""
    errors = list(document.problems)
    warnings: list[str] = []
    levels = [document.root]
    for level in levels:
        levels.extend(node.level for node in level.nodes if node.level is not None)
    _check_start_and_end(document.root, errors)
    for level in levels:
        if level.owner is not None:
            _check_body(level, errors)
        _check_cycle(level, errors)
        for node in level.nodes:
            _check_node(node, types, errors, warnings)
        if not errors:
            _check_reach(level, warnings)
    _check_references(document, errors, warnings)
    _check_types(document, warnings)
    return errors, list(dict.fromkeys(warnings))


def _check_start_and_end(root: Level, errors: list[str]) -> None:
    for type_, article in (("start", "a"), ("end", "an")):
        count = sum(node.type == type_ for node in root.nodes)
        if count != 1:
            errors.append(f"Workflow must have {f'{article} {type_}' if not count else f'exactly one {type_}'} node")


def _check_body(level: Level, errors: list[str]) -> None:
    owner = level.owner.id if level.owner is not None else ""
    if sum(node.type == "block-start" for node in level.nodes) != 1:
        errors.append(f"Loop {owner!r} must have exactly one block-start node")
    if sum(node.type == "block-end" for node in level.nodes) > 1:
        errors.append(f"Loop {owner!r} must have at most one block-end node")


def _check_cycle(level: Level, errors: list[str]) -> None:
    """Take nodes away that nothing leads to, again and again; what is left is in a cycle, or behind one."""
    left = {node.id: len(node.incoming) for node in level.nodes}
    free = [node for node in level.nodes if not node.incoming]
    while free:
        node = free.pop()
        left.pop(node.id, None)
        for edge in node.outgoing:
            if edge.target.id in left:
                left[edge.target.id] -= 1
                if left[edge.target.id] == 0:
                    free.append(edge.target)
    if not left:
        return
    # Going back from any of them ends up in the cycle.
    nodes = {node.id: node for node in level.nodes}
    current, seen = next(iter(left)), set[str]()
    while current not in seen:
        seen.add(current)
        current = next(edge.source.id for edge in nodes[current].incoming if edge.source.id in left)
    where = "Workflow" if level.owner is None else f"Loop {level.owner.id!r}"
    errors.append(f"{where} has a cycle (node {current})")


def _check_node(node: Node, types: Collection[str], errors: list[str], warnings: list[str]) -> None:
    if node.type in DRAWN_ONLY and not node.incoming:
        return
    inside = node.owner is not None
    if node.type not in types:
        errors.append(f"Node {node.id!r} has an unknown type {node.type!r}: No executor found for it")
    elif node.type in (_OUTSIDE if inside else _INSIDE):
        # A second start or end of the graph is told of as such.
        errors.append(f"Node {node.id!r} of type {node.type!r} cannot be {'inside' if inside else 'outside'} of a loop")
    if node.level is not None and node.type != "loop":
        errors.append(f"Node {node.id!r} has blocks, but is no loop")
    for name in ("inputs", "outputs"):
        schema = node.data.get(name)
        if schema is not None and not (isinstance(schema, Mapping) and is_sound(cast("Mapping[str, Any]", schema))):
            warnings.append(f"The {name} schema of node {node.id!r} is broken, and counts as none")
    if node.type == "condition":
        _check_branches(node, warnings)


def _check_branches(node: Node, warnings: list[str]) -> None:
    keys = branch_keys(node)
    if not keys:
        return
    ports = {edge.port for edge in node.outgoing}
    warnings.extend(f"Condition {node.id!r} has no edge for its branch {key!r}" for key in keys if key not in ports)
    if "else" not in ports:
        warnings.append(f"Condition {node.id!r} has no else edge: the run fails if nothing holds")
    unknown = sorted(port or "(none)" for port in ports - {*keys, "else", ERROR_PORT})
    warnings.extend(f"Condition {node.id!r} has an edge from {port!r}, which is never taken" for port in unknown)


def branch_keys(node: Node) -> Sequence[str]:
    """The branches that a condition may choose, but for `else`."""
    from .nodes.control import branches_of

    if node.data.get("branch"):
        return [key for key, _, _ in branches_of(node)]
    conditions = node.data.get("conditions")
    if not isinstance(conditions, (list, tuple)):
        return []
    return [str(item["key"]) for item in cast("Sequence[Any]", conditions) if is_usable(item)]


def _check_reach(level: Level, warnings: list[str]) -> None:
    reachable = level.plan.reachable
    for node in level.nodes:
        if node.id not in reachable and node.type not in DRAWN_ONLY:
            warnings.append(f"Nothing leads to node {node.id!r}")
        elif not node.outgoing and node.type not in _ENDS and node.type not in DRAWN_ONLY:
            warnings.append(f"Node {node.id!r} has no next nodes: the run fails after it")


def _check_references(document: Document, errors: list[str], warnings: list[str]) -> None:
    for node, path in references(document):
        names = known_names(document, path[0])
        if names is None:
            error = f"Node {node.id!r} refers to node {path[0]!r}, which does not exist"
            if error not in errors:
                errors.append(error)
        elif path[1] not in names:
            warnings.append(f"Node {node.id!r} refers to {path[0]}.{path[1]}, which is not declared")


def _check_types(document: Document, warnings: list[str]) -> None:
    """Tell inputs that will be left out, because what they are given is declared as something else."""
    for node in document.nodes.values():
        types = node.input_types
        for name, value in as_object(node.data.get("inputsValues")).items():
            wanted = as_object(types.get(name)).get("type")
            found = declared_type(document, value)
            # A variable may be null, and a text may be a time.
            if wanted is None or found in (None, "null") or fits(found, wanted) or (found, wanted) in _MAYBE:
                continue
            warnings.append(
                f"Input {name!r} of node {node.id!r} is declared as {wanted}, and given {found}: it will be left out"
            )


def check_inputs(document: Document, inputs: Any) -> list[str]:
    """What is wrong with the inputs of a run, in words."""
    if not isinstance(inputs, Mapping):
        return [f"Inputs must be an object, got {type(inputs).__name__}"]
    types = document.start.given_schema
    if not types or _fits(inputs, types):  # nearly always; the library that can say what is wrong is not imported then
        return []
    return _explain(inputs, json_schema(types))


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema of the editor in JSON Schema's own words: maps are objects, times are strings."""
    made: dict[str, Any] = {}
    for name, value in schema.items():
        match name:
            case "type":
                made[name] = _SCHEMA.get(value, value)
                if value == "date-time":
                    made["description"] = schema.get("description", "A time: YYYY-MM-DDTHH:MM:SS")
            case "properties" if isinstance(value, Mapping):
                made[name] = {
                    key: json_schema(as_object(part)) if isinstance(part, Mapping) else part
                    for key, part in cast("Mapping[str, Any]", value).items()
                }
            case "items" | "additionalProperties" if isinstance(value, Mapping):
                made[name] = json_schema(cast("Mapping[str, Any]", value))
            case "title" | "description" | "default" | "enum" | "required" | "additionalProperties" | "$ref":
                made[name] = value
            case _:
                pass  # hints for the editor
    if isinstance(made.get("default"), str) and made.get("type") in ("object", "array"):
        from .values import parsed

        made["default"] = parsed(made["default"])
    return made


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value surely fits; False may also mean that this is not sure."""
    if "enum" in schema or "$ref" in schema:
        return False
    match schema.get("type"):
        case "string" | "date-time":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            items = schema.get("items")
            if not isinstance(value, (list, tuple)):
                return False
            values = cast("Sequence[Any]", value)
            return not items or (isinstance(items, Mapping) and all(_fits(item, as_object(items)) for item in values))
        case "object" | "map":
            return isinstance(value, Mapping) and _fits_object(cast("Mapping[str, Any]", value), schema)
        case _:
            return False


def _fits_object(value: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    below: Mapping[str, Any] = schema.get("properties") or {}
    required = schema.get("required")
    if required and not (isinstance(required, list) and all(name in value for name in cast("list[Any]", required))):
        return False
    more = schema.get("additionalProperties")
    for name, item in value.items():
        part = below.get(name, more if isinstance(more, Mapping) else None)
        if part is not None:
            if not _fits(item, part):
                return False
        elif more is False:
            return False
    return True


def _explain(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """In the words of the library, as the original has them."""
    import jsonschema
    from referencing import Registry

    schema = {**schema}
    checker = jsonschema.Draft7Validator(schema, registry=Registry())  # it fetches nothing
    try:
        found = next(iter(checker.iter_errors(value)), None)  # pyright: ignore[reportUnknownMemberType]  (typed too narrowly)
    except Exception as error:  # noqa: BLE001  (a schema that refers to what is not there, or is none at all)
        return [f"JSON Schema validation failed: the schema cannot be used: {type(error).__name__}"]
    if found is None:
        return []
    where = ".".join(str(part) for part in found.absolute_path) or "root"
    return [f"JSON Schema validation failed: {found.message} (at {where})"]
