"""What a step or a flow came to: a value, a failure, or (in older documents) nothing because it was skipped.

A flow failure is a value: it is recorded, and `$if`, `$coalesce` and `onError` look at it. What a component raises
becomes one in `plugins/`; what is wrong with a run as a whole is raised as a `PyFlueError`.

Wire form as in stepflow-ai/stepflow (`crates/stepflow-core/src/workflow`): `{"outcome": "success", "result": …}`,
`{"outcome": "failed", "error": {"code", "message", "data"?}}`, `{"outcome": "skipped", "reason"?}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeAlias, cast

import msgspec


class ErrorCode(IntEnum):
    """The codes of flow failures that have a meaning of their own; components may use any other."""

    UNDEFINED_FIELD = 1  #: a path or variable that is not there
    BAD_REQUEST = 400  #: a flow that breaks the contract of `iterate`
    NOT_FOUND = 404  #: a step that is not there
    INTERNAL = 500  #: what a component, its transport or a route went wrong with


# Structs and no dataclasses, here and where else several are made for each step: those cost four times as much.
class Success(msgspec.Struct, frozen=True):
    """A value: any JSON value."""

    value: Any


class Failed(msgspec.Struct, frozen=True):
    """A failure that flows can look at."""

    code: int
    message: str
    data: Any = None

    def to_error(self) -> dict[str, Any]:
        """`{"code", "message"}`, with `data` if there is any."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        return error if self.data is None else {**error, "data": self.data}

    @classmethod
    def from_error(cls, error: Mapping[str, Any]) -> Failed:
        """The failure that `to_error` wrote."""
        return cls(error["code"], error["message"], error.get("data"))


class Skipped(msgspec.Struct, frozen=True):
    """Not done. Only in documents that use the older keys (`skipIf`, `onSkip`)."""

    reason: str | None = None


Outcome: TypeAlias = Success | Failed | Skipped


def to_wire(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON."""
    match outcome:
        case Success(value):
            return {"outcome": "success", "result": value}
        case Failed():
            return {"outcome": "failed", "error": outcome.to_error()}
        case Skipped(reason):
            return {"outcome": "skipped"} if reason is None else {"outcome": "skipped", "reason": reason}


def from_wire(value: Any) -> Outcome:
    """The outcome that a JSON value describes.

    Raises:
        ValueError: it describes none.
    """
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        match fields.get("outcome"):
            case "success":
                return Success(fields.get("result"))
            case "failed" if isinstance(error := fields.get("error"), Mapping):
                return _failed(cast("Mapping[str, Any]", error))
            case "skipped":
                return Skipped(fields.get("reason"))
            case _:
                pass
    raise ValueError("It is no outcome: it needs `outcome` (success, failed or skipped) and what belongs to that.")


def _failed(error: Mapping[str, Any]) -> Failed:
    code, message = error.get("code"), error.get("message", "")
    if not isinstance(code, int) or isinstance(code, bool) or not isinstance(message, str):
        raise ValueError("It is no outcome: an error has a whole number as `code` and a text as `message`.")
    return Failed(code, message, error.get("data"))
