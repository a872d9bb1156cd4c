"""What a server answered, as values and as errors.

The error envelope's `type` names the class of `pyflue.errors` that the server raised; the client raises the same one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from .. import codec
from ..errors import DispatchCancelled, DispatchFailed, PyFlueError, RunCancelled, RunFailed, ServerAnswered

#: Deeper than any payload the server takes, with room for what is around it.
_DEPTH = 1000


def read_json(data: bytes, what: str) -> Any:
    """The JSON of an answer.

    Raises:
        InvalidJson: it is none.
    """
    return codec.decode(data, what, max_depth=_DEPTH)


def error_from(status: int | None, envelope: Mapping[str, Any]) -> PyFlueError:
    """The error that an envelope `{"type", "message", "details"?, "run_id"?, "dispatch_id"?, "ref"?}` stands for.

    It carries `type`, `message`, `status`, `details`, `run_id` and `dispatch_id`. Of the class's own attributes only
    `RunFailed.error` and `DispatchFailed.error` are there: the others do not travel.
    """
    kind = str(envelope.get("type", ServerAnswered.type))
    message = str(envelope.get("message", "The server gave no reason."))
    if "ref" in envelope:
        message = f"{message} (reference {envelope['ref']})"
    cls = _classes().get(kind, ServerAnswered)
    # The class's own constructor would build the sentence anew from parts; the server has already built it.
    error = cls.__new__(cls)
    details = envelope.get("details")
    run_id = envelope.get("run_id")
    PyFlueError.__init__(error, message, type=kind, details=details, run_id=None if run_id is None else str(run_id))
    error.status = status
    if (dispatch_id := envelope.get("dispatch_id")) is not None:
        error.dispatch_id = str(dispatch_id)
    if isinstance(error, (RunFailed, DispatchFailed)):
        error.error = dict(details) if isinstance(details, Mapping) else {}  # pyright: ignore[reportUnknownArgumentType]
    return error


def stranger(what: str, status: int) -> ServerAnswered:
    """The error for an answer that no PyFlue server gives: a proxy's page, or another program on this port."""
    error = ServerAnswered(f"{what}, and not as a PyFlue server does.")
    error.status = status  # not an argument: there it is the status of a failure, and this may be 200
    return error


def error_of_run(record: Mapping[str, Any]) -> PyFlueError:
    """The error of a run record that did not complete: the one a caller who waited for the run is told.

    A status in the record was chosen by the workflow's author for the caller to see; any other failure is `RunFailed`.
    """
    run_id = str(record["run_id"])
    if record["status"] == "cancelled":
        return RunCancelled(run_id)
    failure: Mapping[str, Any] = record["error"]
    if isinstance(status := failure.get("status"), int):
        return error_from(status, {**failure, "run_id": run_id})
    failed = RunFailed(run_id, failure)
    failed.details = dict(failure)
    return failed


def error_of_dispatch(record: Mapping[str, Any]) -> PyFlueError:
    """The error of a prompt's or dispatch's record that did not complete."""
    dispatch_id = str(record["dispatch_id"])
    if record["status"] == "cancelled":
        return DispatchCancelled(dispatch_id)
    failure: Mapping[str, Any] = record["error"]
    if "exception" not in failure and failure.get("type") in _classes():
        return error_from(failure.get("status"), {**failure, "dispatch_id": dispatch_id})
    failed = DispatchFailed(dispatch_id, failure)
    failed.details = dict(failure)
    return failed


@functools.cache
def _classes() -> Mapping[str, type[PyFlueError]]:
    """The errors by their wire word. Of two with one word the more general one is taken."""
    known: dict[str, type[PyFlueError]] = {}
    for cls in _below(PyFlueError):
        known.setdefault(cls.type, cls)
    return known


def _below(cls: type[PyFlueError]) -> Iterator[type[PyFlueError]]:
    # Authors' subclasses of PyFlueError are no part of the wire.
    for child in cls.__subclasses__():
        if child.__module__ == PyFlueError.__module__:
            yield child
            yield from _below(child)
