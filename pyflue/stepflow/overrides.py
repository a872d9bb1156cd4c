"""Overrides: a run of a flow with some of its steps changed, without a new document.

A change is a merge patch (RFC 7396) or a JSON patch (RFC 6902) to a step as `flow_to_value` writes it. What comes out
is read as a document again, so expressions in a patch are expressions. The original has merge patches only
(stepflow-ai/stepflow `crates/stepflow-core/src/workflow/overrides.rs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from .document import Flow, flow_to_value, read_flow, step_to_value
from .exceptions import FlowMalformed, OverridesInvalid

MERGE_PATCH = "merge_patch"
JSON_PATCH = "json_patch"

_MAX_DEPTH = 100
_MAX_COPIED = 100_000


def apply_overrides(flow: Flow, overrides: Mapping[str, Any] | None) -> Flow:
    """The flow with its overrides applied; the flow itself if there are none.

    `overrides` is `{"steps": {ID: {"$type"?, "value"}}}`, or the inner mapping by itself. Nothing is applied if a
    step is not there.

    Raises:
        OverridesInvalid: they name a step that the flow does not have, are of an unknown type, or make it no flow.
    """
    changes = _changes(overrides)
    if not changes:
        return flow
    for step_id, change in changes.items():
        if step_id not in flow.by_id:
            raise OverridesInvalid(f"Step '{step_id}' not found in workflow")
        _check(step_id, change)
    steps = [
        _changed(step.id, step_to_value(step), changes[step.id]) if step.id in changes else step_to_value(step)
        for step in flow.steps
    ]
    try:
        return read_flow({**flow_to_value(flow), "steps": steps})
    except FlowMalformed as error:
        raise OverridesInvalid(f"The overrides do not fit the flow: {error}") from error


def _changes(overrides: Any) -> Mapping[str, Mapping[str, Any]]:
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping):
        raise OverridesInvalid("Overrides are an object of step ids, each with a `value`.")
    fields = cast("Mapping[str, Any]", overrides)
    inner = fields.get("steps")
    # A step may be called `steps`: then what is below it is a change, not a mapping of changes.
    if isinstance(inner, Mapping) and len(fields) == 1:
        inside = cast("Mapping[str, Any]", inner)
        if all(map(_is_change, inside.values())):
            fields = inside
    elif "steps" in fields and len(fields) == 1 and inner is None:
        return {}
    return fields


def _is_change(value: Any) -> bool:
    return isinstance(value, Mapping) and ("value" in value or "$type" in value)


def _check(step_id: str, change: Any) -> None:
    if not _is_change(change) or "value" not in change:
        raise OverridesInvalid(f"The override of step '{step_id}' needs a `value`: what is to be changed.")
    type_ = change.get("$type")
    if type_ not in (None, MERGE_PATCH, JSON_PATCH):
        raise OverridesInvalid(f"Unsupported override type: {type_}. Use {MERGE_PATCH} or {JSON_PATCH}.")


def _changed(step_id: str, step: dict[str, Any], change: Mapping[str, Any]) -> Any:
    if change.get("$type") == JSON_PATCH:
        try:
            return json_patch(step, change["value"])
        except OverridesInvalid as error:
            raise OverridesInvalid(f"The override of step '{step_id}' cannot be applied: {error}") from error
    return merge_patch(step, change["value"])


def merge_patch(target: Any, patch: Any, depth: int = _MAX_DEPTH) -> Any:
    """The target with a merge patch (RFC 7396) applied; neither is changed.

    Raises:
        OverridesInvalid: the patch is nested too deep.
    """
    if not isinstance(patch, Mapping):
        return patch
    if depth == 0:
        raise OverridesInvalid(f"An override is nested deeper than {_MAX_DEPTH} levels.")
    merged: dict[str, Any] = dict(cast("Mapping[str, Any]", target)) if isinstance(target, Mapping) else {}
    for key, value in cast("Mapping[str, Any]", patch).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value, depth - 1)
    return merged


def json_patch(target: Any, patch: Any) -> Any:
    """The target with a JSON patch (RFC 6902) applied; neither is changed.

    Raises:
        OverridesInvalid: an operation that cannot be read or applied.
    """
    if not isinstance(patch, list):
        raise OverridesInvalid("A JSON patch is a list of operations.")
    left = _MAX_COPIED
    for operation in cast("list[Any]", patch):
        if not isinstance(operation, Mapping):
            raise OverridesInvalid("An operation is an object with `op` and `path`.")
        fields = cast("Mapping[str, Any]", operation)
        if fields.get("op") == "copy":
            # What is copied into itself doubles each time.
            left -= _count(_get(target, _pointer(fields, "from")), left)
            if left < 0:
                raise OverridesInvalid(f"A JSON patch copies more than {_MAX_COPIED:,} values.")
        target = _operate(target, fields)
    return target


def _count(value: Any, limit: int) -> int:
    """How many values there are in a value; may stop counting above the limit."""
    count = 0
    pending = [value]
    while pending and count <= limit:
        value = pending.pop()
        count += 1
        if isinstance(value, Mapping):
            pending.extend(cast("Mapping[str, Any]", value).values())
        elif isinstance(value, list):
            pending.extend(cast("list[Any]", value))
    return count


def _operate(target: Any, operation: Mapping[str, Any]) -> Any:
    name = operation.get("op")
    path = _pointer(operation, "path")
    match name:
        case "add" | "replace" | "test":
            if "value" not in operation:
                raise OverridesInvalid(f"The operation `{name}` needs a `value`.")
            value = operation["value"]
            if name == "add":
                return _put(target, path, value)
            found = _get(target, path)
            if name == "replace":
                return _with(target, path, value)
            if not _same(found, value):
                raise OverridesInvalid(f"The value at {_text(path)} is not the one of the `test`.")
            return target
        case "remove":
            return _remove(target, path)
        case "move":
            source = _pointer(operation, "from")
            if path[: len(source)] == source and path != source:
                raise OverridesInvalid(f"{_text(source)} cannot be moved into itself.")
            value = _get(target, source)
            return _put(_remove(target, source), path, value) if path != source else target
        case "copy":
            return _put(target, path, _get(target, _pointer(operation, "from")))
        case _:
            raise OverridesInvalid(f"There is no operation `{name}`: use add, remove, replace, move, copy or test.")


def _pointer(operation: Mapping[str, Any], key: str) -> tuple[str, ...]:
    text = operation.get(key)
    if not isinstance(text, str) or (text and text[0] != "/"):
        raise OverridesInvalid(f"`{key}` must be a JSON pointer such as `/input/name`.")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def _text(path: tuple[str, ...]) -> str:
    return "/" + "/".join(path)


def _index(items: list[Any], part: str, path: tuple[str, ...], *, end: int) -> int:
    if not part.isascii() or not part.isdigit() or (part != "0" and part[0] == "0") or len(part) > 15:
        raise OverridesInvalid(f"{_text(path)} is not in the step: {part!r} is no index of a list.")
    if int(part) >= end:
        raise OverridesInvalid(f"{_text(path)} is not in the step: the list has {len(items)} items.")
    return int(part)


def _get(target: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(target, Mapping) and part in target:
            target = cast("Mapping[str, Any]", target)[part]
        elif isinstance(target, list):
            items = cast("list[Any]", target)
            target = items[_index(items, part, path, end=len(items))]
        else:
            raise OverridesInvalid(f"{_text(path)} is not in the step.")
    return target


def _put(target: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of the target with a value added at the path."""
    if not path:
        return value
    *above, last = path
    holder = _get(target, tuple(above))
    if isinstance(holder, Mapping):
        return _with(target, tuple(above), {**cast("Mapping[str, Any]", holder), last: value})
    if isinstance(holder, list):
        items = list(cast("list[Any]", holder))
        items.insert(len(items) if last == "-" else _index(items, last, path, end=len(items) + 1), value)
        return _with(target, tuple(above), items)
    raise OverridesInvalid(f"{_text(path)} is not in the step.")


def _remove(target: Any, path: tuple[str, ...]) -> Any:
    if not path:
        raise OverridesInvalid("A step cannot be removed by an override.")
    *above, last = path
    _get(target, path)
    holder = _get(target, tuple(above))
    if isinstance(holder, Mapping):
        rest: Any = {key: item for key, item in cast("Mapping[str, Any]", holder).items() if key != last}
    else:
        items = cast("list[Any]", holder)
        rest = [item for index, item in enumerate(items) if index != int(last)]
    return _with(target, tuple(above), rest)


def _with(target: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of the target with what is at the path exchanged; the path is known to be there."""
    holders: list[Any] = [target]
    for part in path:
        holder = holders[-1]
        holders.append(holder[int(part)] if isinstance(holder, list) else holder[part])
    for part, holder in zip(reversed(path), reversed(holders[:-1]), strict=True):
        changed = holder.copy()
        changed[int(part) if isinstance(holder, list) else part] = value
        value = changed
    return value


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        left, right = cast("Mapping[str, Any]", one), cast("Mapping[str, Any]", other)
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(one, list) and isinstance(other, list):
        first, second = cast("list[Any]", one), cast("list[Any]", other)
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(one == other)
