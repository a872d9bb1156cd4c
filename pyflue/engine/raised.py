"""Exceptions of steps, recorded so that they can be raised again with their type when the run is replayed.

`steps.py` records what a step raised after its last attempt, and raises it again instead of doing the step. A class is
found by its module and name; modules of a project have private names, so theirs are looked for among what is loaded. An
exception that would not be the same comes as `StepFailed`.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from .. import codec
from ..codec import Raw
from ..errors import StepFailed
from . import failures
from .values import unwrapped

#: The private names that modules of a project are loaded under: helpers below a package, workflow files by themselves.
_PRIVATE = re.compile(r"_pyflue_(?:\d+\.|workflow_\d+_)")
_CLASS = "class"
#: Arguments and attributes larger than this are not kept: they would be written with each attempt.
_MOST_BYTES = 64 * 1024


def record_of(error: Exception, root: Path | None) -> Raw:
    """The exception as JSON: as a run's record has it, and under `class` what is needed to make it again."""
    described = codec.load(failures.describe(error, root))
    described[_CLASS] = _class_of(error)
    return codec.encode_loose(described)


def raise_again(record: Raw, step: str, function: Callable[..., Any]) -> Exception:
    """The recorded exception, to be raised."""
    described: dict[str, Any] = codec.load(record)
    made = described.pop(_CLASS, None)
    return _make(made, function) or StepFailed(step, described)


def shown(record: Raw) -> dict[str, str]:
    """Type and message, for events."""
    described = codec.load(record)
    told = {"type": described["type"], "message": described["message"]}
    if "exception" in described:
        told["exception"] = described["exception"]
    return told


def _class_of(error: Exception) -> dict[str, Any] | None:
    """What an exception can be made of again; None if it cannot."""
    kind = type(error)
    made: dict[str, Any] = {"module": _PRIVATE.sub("", kind.__module__), "name": kind.__qualname__}
    if isinstance(error, ExceptionGroup):
        members = cast("Sequence[Exception]", error.exceptions)  # pyright: ignore[reportUnknownMemberType]
        return {**made, "message": error.message, "members": [_class_of(member) for member in members]}
    try:
        reduced: Any = error.__reduce__()
        args = _same(list(reduced[1]))
        state = {name: _same(value) for name, value in vars(error).items() if not name.startswith("__")}
    except Exception:  # noqa: BLE001  (the author's exception class may do anything)
        return None
    made |= {"args": args, "state": state}
    return made if len(codec.encode(made)) <= _MOST_BYTES else None


def _same(value: Any) -> Any:
    """The value as JSON gives it back.

    Raises:
        ValueError: it would be another value then.
    """
    back = codec.load(codec.encode(value))
    if back != value:
        raise ValueError("not the same")
    return back


def _make(made: Any, function: Callable[..., Any]) -> Exception | None:
    if not isinstance(made, dict):
        return None
    described = cast("dict[str, Any]", made)
    kind = _find(described["module"], described["name"], function)
    if kind is None:
        return None
    try:
        # As pickle does it, but without its calls: what `__init__` would do is in the arguments and the state.
        if "members" in described:
            members = [_make(member, function) for member in described["members"]]
            return None if None in members else kind.__new__(kind, described["message"], members)
        args = tuple(described["args"])
        error = kind.__new__(kind, *args)
        if not isinstance(error, OSError):  # it has taken its arguments apart already
            error.args = args
        vars(error).update(described["state"])
        str(error)
    except Exception:  # noqa: BLE001  (the author's exception class may do anything)
        return None
    return error


def _find(module: str, name: str, function: Callable[..., Any]) -> type[Exception] | None:
    """The class of a name: as the step's function knows its module, as others do, or by importing it."""
    near = getattr(unwrapped(function), "__module__", None) or ""
    loaded = [known for known in list(sys.modules) if _PRIVATE.sub("", known) == module]
    # The function's own module, then those that were loaded last.
    for known in sorted(
        loaded, key=lambda known: (known == near, *map(int, re.findall(r"\d+", known)[:1])), reverse=True
    ):
        found = _attribute(sys.modules.get(known), name)
        if found is not None:
            return found
    try:
        return _attribute(importlib.import_module(module), name)
    except Exception:  # noqa: BLE001  (it may be gone, or fail when it is imported)
        return None


def _attribute(found: Any, name: str) -> type[Exception] | None:
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None
