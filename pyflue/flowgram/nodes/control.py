"""Nodes that only look at values: start, end, the ends of loop bodies, condition, variable.

Their executors are plain functions: they are quick, and give the same again when a run is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from ..conditions import holds, is_usable
from ..document import Node, as_list, as_object
from ..exceptions import NodeError
from ..executing import Call, ExecutionResult, Pure
from ..values import Scope, Variable, declared, evaluate, variable_of

ELSE = "else"


def _start(call: Call) -> ExecutionResult:
    return ExecutionResult(call.run.inputs)


def _end(call: Call) -> ExecutionResult:
    call.run.outputs = call.inputs
    return ExecutionResult(call.inputs)


def _nothing(call: Call) -> ExecutionResult:
    return ExecutionResult({})


def _condition(call: Call) -> ExecutionResult:
    node, scope = call.node, call.scope
    if node.data.get("branch"):
        for key, logic, conditions in branches_of(node):
            if _all_or_any(logic, conditions, scope):
                return ExecutionResult({}, key)
        return ExecutionResult({}, ELSE)
    conditions = node.data.get("conditions")
    if not conditions:
        return ExecutionResult({})
    if not isinstance(conditions, (list, tuple)):
        raise NodeError("The conditions must be an array")
    for item in cast("Sequence[Any]", conditions):
        if is_usable(item) and holds(item, scope):
            return ExecutionResult({}, str(item["key"]))
    return ExecutionResult({}, ELSE)


def branches_of(node: Node) -> Iterator[tuple[str, str, Sequence[Any]]]:
    """The branches of a multi-condition: key, logic and conditions.

    The key is the branch's own, or the port that the editor names after its first condition, or its number.
    """
    branches = node.data.get("branch")
    ports = {edge.port for edge in node.outgoing}
    for number, branch in enumerate(as_list(branches)):
        fields = as_object(branch)
        listed = fields.get("conditions")
        conditions = as_list(listed)
        usable = [item for item in map(as_object, conditions) if is_usable({"key": "-", **item})]
        first: Any = usable[0].get("key") if usable else None
        keys = [str(key) for key in (fields.get("key"), fields.get("id"), first) if key] or [str(number)]
        yield next((key for key in keys if key in ports), keys[0]), str(fields.get("logic") or "and").lower(), usable


def _all_or_any(logic: str, conditions: Sequence[Any], scope: Scope) -> bool:
    if logic not in ("and", "or"):
        raise NodeError(f'Condition logic "{logic}" is neither "and" nor "or"')
    if not conditions:
        return False
    found = (holds(item, scope) for item in conditions)
    return all(found) if logic == "and" else any(found)


def _variable(call: Call) -> ExecutionResult:
    """Declare variables of the node's own, and assign to those of others (and of `global`)."""
    node, scope = call.node, call.scope
    steps = node.data.get("assign")
    outputs: dict[str, Any] = {}
    types = node.output_types
    for step in as_list(steps):
        fields = as_object(step)
        left, right = fields.get("left"), fields.get("right")
        match fields.get("operator"):
            case "declare" if isinstance(left, str):
                found = evaluate(right, _schema(right) or types.get(left), scope)
                outputs[left] = None if found is None else found.value
                if left not in types:
                    scope.nodes.setdefault(node.id, {})[left] = found or variable_of(None)
            case "assign" if isinstance(left, Mapping):
                _assign(cast("Mapping[str, Any]", left), right, scope)
            case other:
                raise NodeError(f"Invalid assignment: {other!r} to {left!r}")
    return ExecutionResult(outputs)


def _assign(left: Mapping[str, Any], right: Any, scope: Scope) -> None:
    content = left.get("content")
    path = [str(part) for part in cast("Sequence[Any]", content)] if isinstance(content, (list, tuple)) else []
    holder = scope.holder(path[0]) if len(path) == 2 else None
    known = None if holder is None else holder.get(path[1])
    if holder is None or known is None:
        raise NodeError(f"Cannot assign to {'.'.join(path) or repr(left)}: there is no such variable")
    schema = {"type": known.type, **({"items": known.items} if known.items else {})}
    found = evaluate(right, schema if known.type != "null" else _schema(right), scope)
    if found is None:
        holder[path[1]] = Variable(None, known.type, known.items)
    else:
        holder[path[1]] = declared(found.value, schema) if known.type != "null" else found


def _schema(value: Any) -> Mapping[str, Any] | None:
    schema = cast("Mapping[str, Any]", value).get("schema") if isinstance(value, Mapping) else None
    return cast("Mapping[str, Any]", schema) if isinstance(schema, Mapping) and "type" in schema else None


PURE: Mapping[str, Pure] = {
    "start": _start,
    "end": _end,
    "block-start": _nothing,
    "block-end": _nothing,
    "break": _nothing,
    "continue": _nothing,
    "condition": _condition,
    "variable": _variable,
}
