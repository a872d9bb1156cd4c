"""Conditions: fourteen operators on nine types.

The table says which operators a type on the left has, and what type the right side has to be of. The four operators
without a right side ignore one that is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from .exceptions import NodeError
from .values import Scope, Variable, evaluate, fits_value, referred

_TEXTS = {
    "eq": "string",
    "neq": "string",
    "in": "array",
    "nin": "array",
    "contains": "string",
    "not_contains": "string",
}
_SIZED = {"is_empty": "null", "is_not_empty": "null"}


def _ordered(type_: str) -> dict[str, str]:
    return dict.fromkeys(("eq", "neq", "gt", "gte", "lt", "lte"), type_)


#: The type that the right side has, by the type on the left and the operator.
RULES: Mapping[str, Mapping[str, str]] = {
    "string": _TEXTS | _SIZED,
    "number": _ordered("number") | {"in": "array", "nin": "array"} | _SIZED,
    "integer": _ordered("integer") | {"in": "array", "nin": "array"} | _SIZED,
    "boolean": {
        "eq": "boolean",
        "neq": "boolean",
        "in": "array",
        "nin": "array",
        "is_true": "null",
        "is_false": "null",
    }
    | _SIZED,
    "object": _SIZED,
    "map": _SIZED,
    "array": _SIZED,
    "date-time": _ordered("date-time") | _SIZED,
    "null": {"eq": "null"} | _SIZED,
}
UNARY = frozenset({"is_empty", "is_not_empty", "is_true", "is_false"})
OPERATORS = frozenset(name for rules in RULES.values() for name in rules)

#: Types whose nulls are neither equal to anything nor different from it.
_COMPARED = frozenset({"number", "integer", "date-time"})
_NOTHING = Variable(None, "null")


def is_usable(item: Any) -> bool:
    """Whether an entry of `conditions` is one: it has a key and an operator that there is."""
    if not isinstance(item, Mapping):
        return False
    fields = cast("Mapping[str, Any]", item)
    return bool(fields.get("key")) and operator_of(fields) in OPERATORS


def operator_of(item: Mapping[str, Any]) -> Any:
    value = item.get("value")
    operator = cast("Mapping[str, Any]", value).get("operator") if isinstance(value, Mapping) else None
    return operator if isinstance(operator, str) else None


def holds(item: Mapping[str, Any], scope: Scope) -> bool:
    """Whether a condition holds.

    Raises:
        NodeError: the type on the left does not have the operator, or two values cannot be compared.
    """
    value: Mapping[str, Any] = item["value"]
    operator: str = value["operator"]
    left = _left(value.get("left"), scope)
    wanted = RULES[left.type].get(operator)
    if wanted is None:
        raise NodeError(f'Condition left type "{left.type}" has no operator "{operator}"')
    if operator in UNARY:
        return _unary(operator, left)
    right = _right(value.get("right"), wanted, scope)
    return right is not None and _binary(operator, left, right.value)


def _left(value: Any, scope: Scope) -> Variable:
    return (referred(value, scope) if value else None) or _NOTHING


def _right(value: Any, wanted: str, scope: Scope) -> Variable | None:
    if value is None:
        return _NOTHING if wanted == "null" else None
    found = evaluate(value, {"type": wanted}, scope)
    if found is None:
        return _NOTHING if wanted == "null" else None
    return found if fits_value(found, wanted) else None


def _unary(operator: str, left: Variable) -> bool:
    value = left.value
    match operator:
        case "is_true":
            return value is True
        case "is_false":
            return not value
        case "is_empty":
            return _is_empty(value)
        case _:
            return not _is_empty(value)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, tuple, dict)) and not value)


def _binary(operator: str, left: Variable, right: Any) -> bool:
    value = left.value
    if left.type == "boolean":
        value, right = False if value is None else value, False if right is None else right
    if left.type in _COMPARED and value is None:
        return False
    if operator in ("in", "nin"):
        items: Any = () if right is None else right
        if not isinstance(items, (list, tuple)):
            raise _incomparable(operator, value, right)
        found = any(_same(value, item) for item in cast("Sequence[Any]", items))
        return found is (operator == "in")
    if operator in ("contains", "not_contains"):
        found = isinstance(value, str) and isinstance(right, str) and right in value
        return isinstance(right, str) and found is (operator == "contains")
    if left.type == "date-time":
        if right is None:
            return False
        value, right = _comparable(value, right)
    if operator in ("eq", "neq"):
        # Two texts that are not there are not the same.
        found = _same(value, right) and not (left.type == "string" and value is None)
        return found is (operator == "eq")
    if value is None or right is None:
        return False
    try:
        match operator:
            case "gt":
                return bool(value > right)
            case "gte":
                return bool(value >= right)
            case "lt":
                return bool(value < right)
            case _:
                return bool(value <= right)
    except TypeError:
        raise _incomparable(operator, value, right) from None


def _incomparable(operator: str, one: Any, other: Any) -> NodeError:
    kinds = f"{type(one).__name__} and {type(other).__name__}"
    return NodeError(f'Condition operator "{operator}" cannot compare {kinds}')


def _same(one: Any, other: Any) -> bool:
    """Equality as JSON has it: true is not 1."""
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    return one == other


def _comparable(one: Any, other: Any) -> tuple[Any, Any]:
    """Two times as instants; as they are if one of them is no time."""
    first, second = _instant(one), _instant(other)
    return (one, other) if first is None or second is None else (first, second)


def _instant(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value
