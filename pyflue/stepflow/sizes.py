"""How large a value would be if it were written down.

Expressions put values together by reference: ten steps that each list the one before ten times are a few lists in
memory, and more than any machine can hold once somebody writes them as JSON. So what several values were put together
to is weighed before it is passed on. Called by `scheduler.py`, `builtin/flows.py` and `durable.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

#: The largest value that is passed on, about in bytes of JSON.
LARGEST: Final = 64 * 1024**2
#: What is larger is read and written in a thread: the event loop has others to serve.
LARGE: Final = 128 * 1024
#: As deep as JSON may be everywhere in PyFlue.
_DEEPEST: Final = 100


def problem_with(value: Any) -> str | None:
    """Why a value cannot be passed on; None if it can. What is in it several times is looked at once."""
    try:
        size, height = _weigh(value, {})
    except RecursionError:
        size, height = 0, _DEEPEST + 1
    if height > _DEEPEST:
        return f"it is nested deeper than {_DEEPEST} levels"
    return f"it would have more than {LARGEST:,} bytes" if size > LARGEST else None


def _weigh(value: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """About how many bytes a value has as JSON, and how deep it is."""
    if isinstance(value, str):
        return len(value) + 2, 0
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        members, size = fields.values(), sum(map(len, fields))
    elif isinstance(value, (list, tuple)):
        members, size = cast("list[Any]", value), 0
    else:
        return 4, 0
    key = id(cast("object", value))
    found = known.get(key)
    if found is not None:
        return found
    height = 0
    for member in members:
        more, depth = _weigh(member, known)
        size += more + 1
        height = max(height, depth)
    weight = known[key] = (size + 2, height + 1)
    return weight


def is_larger(value: Any, limit: int) -> bool:
    """Whether a value has more bytes than the limit as JSON, in no more time than a value of that size takes."""
    left = limit
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            left -= len(value) + 2
        elif isinstance(value, Mapping):
            fields = cast("Mapping[str, Any]", value)
            left -= sum(map(len, fields)) + 4 * len(fields) + 2
            pending.extend(fields.values())
        elif isinstance(value, (list, tuple)):
            items = cast("list[Any]", value)
            left -= len(items) + 2
            if left >= 0:
                pending.extend(items)
        else:
            left -= 1
        if left < 0:
            return True
    return False


async def aside(function: Callable[..., T], *args: Any, is_large: bool) -> T:
    """What a function gives, which is called in a thread if it has something large to do."""
    return await asyncio.to_thread(function, *args) if is_large else function(*args)
