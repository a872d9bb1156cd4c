"""Exceptions of steps, recorded so that they can be raised again with their type when the run is replayed.

`steps.py` records what a step raised after its last attempt, and raises it again instead of doing the step. A class is
found by its module and name; workflow files live in modules with private names, so theirs is looked for beside the
step's function. An exception that cannot be made again comes as `StepFailed`.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import codec
from ..codec import Raw
from ..errors import StepFailed
from . import failures

#: The private package that a loaded version of a workflow's modules lives in.
_NAMESPACE = re.compile(r"_pyflue_\d+\.")
_CLASS = "class"


def record_of(error: Exception, root: Path | None) -> Raw:
    """The exception as JSON: as a run's record has it, and under `class` what is needed to make it again."""
    described = codec.load(failures.describe(error, root))
    kind = type(error)
    described[_CLASS] = {
        "module": _NAMESPACE.sub("", kind.__module__),
        "name": kind.__qualname__,
        "args": codec.load(codec.encode_loose(list(error.args))),
        "state": _state(error),
    }
    return codec.encode_loose(described)


def raise_again(record: Raw, step: str, function: Callable[..., Any]) -> Exception:
    """The recorded exception, to be raised."""
    described: dict[str, Any] = codec.load(record)
    made = described.pop(_CLASS, None)
    if isinstance(made, dict):
        error = _make(made, function)  # pyright: ignore[reportUnknownArgumentType]
        if error is not None:
            return error
    return StepFailed(step, described)


def shown(record: Raw) -> dict[str, str]:
    """Type and message, for events."""
    described = codec.load(record)
    told = {"type": described["type"], "message": described["message"]}
    if "exception" in described:
        told["exception"] = described["exception"]
    return told


def _state(error: Exception) -> dict[str, Any]:
    """The attributes that JSON can hold."""
    state: dict[str, Any] = {}
    for name, value in vars(error).items():
        if name.startswith("__"):  # notes
            continue
        try:
            state[name] = codec.load(codec.encode(value))
        except (TypeError, ValueError, RecursionError, OverflowError):
            continue
    return state


def _make(made: dict[str, Any], function: Callable[..., Any]) -> Exception | None:
    kind = _class(made["module"], made["name"], function)
    if kind is None:
        return None
    args = tuple(made["args"])
    try:
        # As pickle does it, but without its calls: what `__init__` would do is in the arguments and the state.
        error = kind.__new__(kind, *args)
        error.args = args
        vars(error).update(made["state"])
        str(error)
    except Exception:  # noqa: BLE001  (the author's exception class may do anything)
        return None
    return error


def _class(module: str, name: str, function: Callable[..., Any]) -> type[Exception] | None:
    private = _NAMESPACE.match(getattr(function, "__module__", None) or "")
    found: Any = sys.modules.get(private[0] + module) if private else None
    if found is None:
        try:
            found = importlib.import_module(module)
        except Exception:  # noqa: BLE001  (it may be gone, or fail when it is imported)
            return None
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None
