"""How a command ends that cannot do what was asked: one line on stderr, and an exit code from the table below."""

from __future__ import annotations

from typing import IO, Any

import click

from .. import errors
from ..errors import PyFlueError
from .output import paint, shown

FAILED = 1  #: the run failed, or something else went wrong
USAGE = 2  #: the command line, a setting or a payload has to be changed
NOT_FOUND = 3  #: there is no such thing, or no server to ask
REFUSED = 4  #: the run's state or the server's rules do not allow it
JOURNAL = 5  #: the journal cannot be used

#: A class that is not listed has the code of the nearest one above it.
EXIT_CODES: dict[type[PyFlueError], int] = {
    PyFlueError: FAILED,
    errors.SettingsInvalid: USAGE,
    errors.ProjectNotFound: NOT_FOUND,
    errors.InvalidJson: USAGE,
    errors.NotSerializable: FAILED,
    errors.TooLarge: USAGE,
    errors.PayloadInvalid: USAGE,
    errors.ResultInvalid: FAILED,
    errors.WorkflowNotFound: NOT_FOUND,
    errors.WorkflowInvalid: FAILED,
    errors.RunNotFound: NOT_FOUND,
    errors.RunFinished: REFUSED,
    errors.RunNotFinished: REFUSED,
    errors.RunFailed: FAILED,
    errors.RunCancelled: FAILED,
    errors.RunTimedOut: FAILED,
    errors.CrashLoop: FAILED,
    errors.TooManyEvents: FAILED,
    errors.RunStopped: FAILED,
    errors.RunInterrupted: FAILED,
    errors.CallMisplaced: FAILED,
    errors.StepFailed: FAILED,
    errors.StepTimedOut: FAILED,
    errors.ReplayMismatch: FAILED,
    errors.ReplayDrifted: FAILED,
    errors.WaitTimedOut: FAILED,
    errors.ChildrenTooDeep: FAILED,
    errors.StepNotFound: NOT_FOUND,
    errors.SignalInvalid: USAGE,
    errors.SignalConflict: REFUSED,
    errors.ApprovalNotFound: NOT_FOUND,
    errors.ApprovalClosed: REFUSED,
    errors.DecisionInvalid: USAGE,
    errors.IdempotencyConflict: REFUSED,
    errors.EngineStopping: NOT_FOUND,
    errors.AgentInvalid: FAILED,
    errors.AgentNotFound: NOT_FOUND,
    errors.InstanceNotFound: NOT_FOUND,
    errors.DispatchNotFound: NOT_FOUND,
    errors.InstanceBusy: REFUSED,
    errors.DispatchFinished: REFUSED,
    errors.DispatchFailed: FAILED,
    errors.DispatchCancelled: FAILED,
    errors.SessionBusy: REFUSED,
    errors.SessionNotFound: NOT_FOUND,
    errors.SessionExists: REFUSED,
    errors.NameUnknown: USAGE,
    errors.TaskTooDeep: FAILED,
    errors.BudgetExceeded: FAILED,
    errors.ResultUnavailable: FAILED,
    errors.ModelError: FAILED,
    errors.ModelUnknown: USAGE,
    errors.ModelKeyMissing: USAGE,
    errors.SandboxError: FAILED,
    errors.McpFailed: FAILED,
    errors.JournalError: JOURNAL,
    errors.RequestRefused: USAGE,
    errors.RouteNotFound: NOT_FOUND,
    errors.Unauthorized: REFUSED,
    errors.Forbidden: REFUSED,
    errors.OriginRefused: REFUSED,
    errors.HostRefused: REFUSED,
    errors.Unreachable: NOT_FOUND,
    errors.ServerAnswered: FAILED,
}

#: Hints in the words of the command line, for errors whose own hint is for callers of the HTTP API.
_HINTS: dict[type[PyFlueError], str] = {
    errors.Unauthorized: "Set the variable PYFLUE_TOKEN, or server.token in pyflue.toml.",
}


def exit_code(kind: type[PyFlueError]) -> int:
    """The exit code of a command that ends with this kind of error."""
    return next(EXIT_CODES[cls] for cls in kind.__mro__ if cls in EXIT_CODES)


class Problem(click.ClickException):
    """Why a command ends, as click ends it: a line on stderr, a hint, an exit code."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # pyright: ignore[reportAttributeAccessIssue]  (click: set per instance)
        self._hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{paint('error:', fg='red', bold=True)} {shown(self.message)}", file=file, err=True)
        if self._hint:
            click.echo(f"{paint('hint:', fg='cyan')} {shown(self._hint)}", file=file, err=True)


class Failure(Problem):
    """A `PyFlueError` as click ends a command with it."""

    def __init__(self, error: PyFlueError) -> None:
        hint = _HINTS.get(type(error), error.hint)
        super().__init__(error.message, hint=hint, exit_code=exit_code(type(error)))
