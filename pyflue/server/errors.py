"""From errors to answers: one envelope, and one table of statuses.

A route raises; `app.py` and the streams ask here what to say. An error's status is the row of its class or of the
nearest class above it. Whatever the table calls 500 was not meant for callers: they get a `ref`, and the log has the
rest under it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import codec, errors
from ..codec import Raw
from ..errors import DispatchCancelled, DispatchFailed, MethodNotAllowed, PyFlueError, RunCancelled, RunFailed
from ..ids import new_ulid, split_interaction_id
from ..journal import RunStatus
from ..logs import logger
from .answers import Answer, Headers, dispatch_id_header, run_id_header

_log = logger("pyflue.server")

#: The HTTP status of each class of error; a class without a row has that of the class it derives from.
STATUSES: Mapping[type[PyFlueError], int] = {
    errors.PyFlueError: 500,
    errors.SettingsInvalid: 500,
    errors.ProjectNotFound: 500,
    errors.InvalidJson: 400,
    errors.TooDeep: 400,
    errors.NotSerializable: 500,
    errors.TooLarge: 413,
    errors.PayloadInvalid: 422,
    errors.ResultInvalid: 500,
    errors.WorkflowNotFound: 404,
    errors.WorkflowInvalid: 503,
    errors.RunNotFound: 404,
    errors.RunFinished: 409,
    errors.RunNotFinished: 409,
    errors.RunFailed: 500,
    errors.RunCancelled: 409,
    errors.RunTimedOut: 504,
    errors.CrashLoop: 500,
    errors.TooManyEvents: 500,
    errors.RunStopped: 500,
    errors.RunInterrupted: 500,
    errors.CallMisplaced: 500,
    errors.StepFailed: 500,
    errors.StepTimedOut: 500,
    errors.ReplayMismatch: 500,
    errors.ReplayDrifted: 500,
    errors.WaitTimedOut: 500,
    errors.ChildrenTooDeep: 500,
    errors.StepNotFound: 404,
    errors.SignalInvalid: 422,
    errors.SignalConflict: 409,
    errors.ApprovalNotFound: 404,
    errors.ApprovalClosed: 409,
    errors.DecisionInvalid: 422,
    errors.IdempotencyConflict: 422,
    errors.EngineStopping: 503,
    errors.AgentInvalid: 503,
    errors.AgentNotFound: 404,
    errors.InstanceNotFound: 404,
    errors.DispatchNotFound: 404,
    errors.InstanceBusy: 409,
    errors.DispatchFinished: 409,
    errors.DispatchFailed: 500,
    errors.DispatchCancelled: 409,
    errors.SessionBusy: 409,
    errors.SessionNotFound: 404,
    errors.SessionExists: 409,
    errors.NameUnknown: 422,
    errors.TaskTooDeep: 500,
    errors.BudgetExceeded: 500,
    errors.ResultUnavailable: 500,
    errors.ModelError: 502,
    errors.ModelUnknown: 503,
    errors.ModelKeyMissing: 503,
    errors.ContextOverflow: 502,
    errors.ModelRefused: 502,
    errors.ModelFailed: 502,
    errors.SandboxError: 500,
    errors.SandboxRefused: 500,
    errors.SandboxUnavailable: 503,
    errors.McpFailed: 502,
    errors.JournalError: 500,
    errors.JournalBusy: 503,
    errors.JournalFull: 507,
    errors.JournalUnreadable: 500,
    errors.JournalReadOnly: 500,
    errors.JournalTooNew: 500,
    errors.JournalUnsupported: 500,
    errors.JournalClosed: 503,
    errors.RequestRefused: 400,
    errors.InvalidRequest: 400,
    errors.InvalidQuery: 400,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.UnsupportedMediaType: 415,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.AccessRefused: 403,
    errors.OriginRefused: 403,
    errors.HostRefused: 421,
    errors.HeadersTooLarge: 431,
    errors.RequestTooSlow: 408,
    errors.TooManyConnections: 503,
    errors.SocketMisused: 400,
    errors.Unreachable: 502,
    errors.ServerAnswered: 502,
}

#: Errors that pass by themselves, and after how many seconds it is worth trying again.
_RETRY_AFTER_S: Mapping[type[PyFlueError], int] = {
    errors.EngineStopping: 5,
    errors.JournalBusy: 1,
    errors.JournalClosed: 5,
    errors.TooManyConnections: 5,
}


_JOURNAL_MESSAGES: Mapping[type[PyFlueError], str] = {
    errors.JournalBusy: "The journal is held by another process; nothing was recorded. Try again.",
    errors.JournalFull: "The server has no disk space left; nothing was recorded.",
    errors.JournalClosed: "The server is stopping and takes no new work. Try again in a few seconds.",
}
#: Errors of status 500 that are no accident of the server's: their text is for the caller.
_FAILURES = (RunFailed, DispatchFailed)


def status_of(error: PyFlueError) -> int:
    """The HTTP status of an error. A status its raiser chose wins."""
    if error.status is not None:
        return error.status
    return next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)


def envelope(error: BaseException) -> dict[str, Any]:
    """What a caller is told: `{"error": {"type", "message", "details"?, "run_id"?, "dispatch_id"?, "ref"?}}`.

    An error that is not meant for callers is logged here, under the `ref` that the envelope carries instead of it.
    """
    if isinstance(error, PyFlueError) and (status_of(error) != 500 or isinstance(error, _FAILURES)):
        told: dict[str, Any] = {"type": error.type, "message": str(error)}
        if error.details is not None:
            told["details"] = error.details
        if isinstance(error, errors.JournalError):
            # Where the journal lies on this machine is for its operator, not for callers.
            _log.error(error.type, problem=str(error))
            told["message"] = _JOURNAL_MESSAGES.get(type(error), "The journal cannot be used.")
    else:
        ref = new_ulid()
        _log.error("internal_error", ref=ref, exc_info=error)
        told = {"type": "internal_error", "message": "Something went wrong in the server.", "ref": ref}
    run_id = getattr(error, "run_id", None)
    if isinstance(run_id, str):
        told["run_id"] = run_id
    dispatch_id = getattr(error, "dispatch_id", None)
    if isinstance(dispatch_id, str):
        told["dispatch_id"] = dispatch_id
    return {"error": told}


def error_answer(error: BaseException) -> Answer:
    """The answer to a request that raised `error`."""
    known = isinstance(error, PyFlueError)
    return Answer(status_of(error) if known else 500, codec.encode(envelope(error)), _headers(error) if known else ())


def _headers(error: PyFlueError) -> Headers:
    headers: Headers = []
    if error.run_id is not None:
        headers.append(run_id_header(error.run_id))
    if error.dispatch_id is not None:
        headers.append(dispatch_id_header(error.dispatch_id))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    elif isinstance(error, errors.Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    retry_after_s = _RETRY_AFTER_S.get(type(error))
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    return headers


def error_of_run(run_id: str, status: RunStatus, error: Raw | None, *, dev: bool) -> PyFlueError | None:
    """The error that a caller who waited for a run, or for an agent's answer, is told; None if it completed.

    A `PyFlueError` with a status is what the workflow's author wants the caller to see, and it is passed on. Any other
    failure of a run is `run_failed`. That of an agent is what PyFlue calls it, if that has a status other than 500
    (`model_failed`, say), else `dispatch_failed`. The text of an exception the author did not mean for callers is shown
    in `dev` only.
    """
    if status is RunStatus.COMPLETED:
        return None
    interaction = split_interaction_id(run_id)
    dispatch_id = None if interaction is None else interaction[1]
    if status is RunStatus.CANCELLED:
        return RunCancelled(run_id) if dispatch_id is None else DispatchCancelled(dispatch_id)
    record: dict[str, Any] = codec.load(error) if error is not None else {}
    chosen = record.get("status")
    if dispatch_id is not None and chosen is None and "exception" not in record:
        chosen = _OWN_STATUSES.get(str(record.get("type")))
    if isinstance(chosen, int):
        failure = PyFlueError(
            str(record.get("message", "")),
            type=str(record.get("type")),
            status=chosen,
            details=record.get("details"),
            run_id=run_id if dispatch_id is None else None,
        )
        failure.dispatch_id = dispatch_id
        return failure
    if dev:
        shown = record
    elif "exception" in record:
        shown = {"type": record["type"]}
    else:
        shown = {key: record[key] for key in ("type", "message", "details") if key in record}
    if dispatch_id is not None:
        said = None if "message" in shown else "its code raised an exception."
        failed: RunFailed | DispatchFailed = DispatchFailed(dispatch_id, shown, message=said)
    else:
        failed = RunFailed(run_id, shown, message=None if "message" in shown else "its workflow raised an exception.")
    failed.details = shown
    return failed


#: What the failure of an agent may be answered with, by its type.
_OWN_STATUSES = {
    cls.type: status
    for cls, status in STATUSES.items()
    if status != 500 and issubclass(cls, (errors.ModelError, errors.SandboxError, errors.McpFailed, errors.NameUnknown))
}
