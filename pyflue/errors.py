"""Every error PyFlue raises on purpose, in one tree.

PyFlueError
├── SettingsInvalid                 a setting, variable or option has no usable value
├── ProjectNotFound                 no project above the folder the command was started in
├── InvalidJson                     text that is not JSON, or holds NaN, infinities or lone surrogates
│   └── TooDeep                     JSON nested deeper than the limit
├── NotSerializable                 a value that JSON cannot hold, named by its path
├── TooLarge                        a value above a size limit
├── PayloadInvalid                  JSON that does not fit the workflow's payload type
├── ResultInvalid                   a returned value that does not fit the workflow's result type
├── WorkflowNotFound                no workflow has this name
├── WorkflowInvalid                 the file is there but cannot be used
├── RunNotFound                     no run has this id
├── RunFinished                     the run is final, so it cannot be changed any more
├── RunNotFinished                  the run still goes on, so it cannot be deleted or retried
├── RunFailed                       the run ended as failed (raised to those who waited for its result)
├── RunCancelled                    the run ended as cancelled (likewise)
├── RunTimedOut                     the run passed its deadline
├── CrashLoop                       the run ended its process each time it was tried
├── TooManyEvents                   the run wrote more events than the limit
├── RunStopped                      a late call on a context whose run no longer goes on here
├── RunInterrupted                  the run was interrupted, and its workflow does not want to be resumed
├── CallMisplaced                   a durable call from outside of its run, or one the run has made already
├── StepFailed                      a recorded step failed with an exception that cannot be made again
├── StepTimedOut                    a step ran longer than its `timeout_s`
├── ReplayMismatch                  the code now makes another kind of call where a recorded one was
├── ReplayDrifted                   (strict workflows) the code has changed around a recorded call
├── WaitTimedOut                    nothing came within a wait's `timeout_s`
├── ChildrenTooDeep                 runs that start runs that start runs, beyond the limit
├── StepNotFound                    the run has no such step to fork from
├── SignalInvalid                   a signal whose name or data does not fit
├── SignalConflict                  the same signal id came with another signal
├── ApprovalNotFound                no approval has this id
├── ApprovalClosed                  the approval is decided, expired or cancelled
├── DecisionInvalid                 a decision whose data does not fit what was asked
├── IdempotencyConflict             the same key came with another request
├── EngineStopping                  the engine takes no more work
├── AgentInvalid                    an agent, profile, tool, skill or role that cannot be used as it is defined
├── AgentNotFound                   no agent has this name
├── InstanceNotFound                the agent has no instance of this id
├── InstanceBusy                    the instance has unfinished work, so it cannot be deleted
├── DispatchNotFound                the instance has had no dispatch of this id
├── DispatchFinished                it has ended, so it cannot be cancelled
├── DispatchFailed                  a prompt or dispatch failed
├── DispatchCancelled               a prompt or dispatch was aborted
├── SessionBusy                     the session has an operation under way
├── SessionNotFound                 there is no session of this name (or it is closed)
├── SessionExists                   there is a session of this name already
├── NameUnknown                     an operation named a skill, role, subagent or secret that the agent does not have
├── TaskTooDeep                     tasks that start tasks that start tasks, beyond the limit
├── BudgetExceeded                  turns, tokens, cost or time of model work are used up
├── ResultUnavailable               the model did not give data that fits `result=`
├── ModelError
│   ├── ModelUnknown                no provider or model of this name
│   ├── ModelKeyMissing             there is no key for the model's provider
│   ├── ContextOverflow             the conversation is longer than the model takes
│   ├── ModelRefused                the model, or a filter of its provider, would not answer
│   └── ModelFailed                 the provider could not be reached, or answered with an error
├── SandboxError
│   ├── SandboxRefused              the sandbox or the agent's policy does not allow it
│   └── SandboxUnavailable          the sandbox cannot be made here, or cannot do this
├── McpFailed                       an MCP server that cannot be started, reached or understood
├── JournalError
│   ├── JournalBusy                 another process held the journal for too long
│   ├── JournalFull                 the disk is full
│   ├── JournalUnreadable           the file is corrupted, not ours, or not readable
│   ├── JournalReadOnly             the file or its folder cannot be written
│   ├── JournalTooNew               a newer PyFlue wrote it
│   ├── JournalUnsupported          a place or an address no adapter can use
│   └── JournalClosed               used after it was closed
├── RequestRefused                  an HTTP request or WebSocket message that is not acceptable
│   ├── InvalidRequest · InvalidQuery · RouteNotFound · MethodNotAllowed · UnsupportedMediaType
│   ├── Unauthorized · Forbidden · OriginRefused · HostRefused
│   │   └── AccessRefused           (of Forbidden) an agent's file does not let this caller do it
│   ├── HeadersTooLarge · RequestTooSlow · SocketMisused
│   └── TooManyConnections          the server has as many connections as it takes
├── Unreachable                     (client) no server answered
└── ServerAnswered                  (client) the server answered with an error of a type not listed here

`type` is the stable word that goes over the wire and into run records; the sentence may change. The HTTP status and
the CLI exit code of each class stand in `server/errors.py` and `cli/errors.py`, nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class PyFlueError(Exception):
    """The base of all of PyFlue's errors, and the one to raise from a workflow to choose what its caller is told.

    A workflow that raises `PyFlueError("The quota is used up.", type="quota", status=429)` fails its run with that
    type and sentence, and a caller that waits over HTTP gets that status. `details` must be a JSON value.
    """

    type: str = "error"
    #: Set per instance by an author; the classes below leave the status to the server's table.
    status: int | None = None
    #: The prompt to, or dispatch for, an agent's instance that this is about.
    dispatch_id: str | None = None

    def __init__(
        self,
        message: str,
        *,
        type: str | None = None,  # noqa: A002  (the wire word is `type`, and the author writes it)
        status: int | None = None,
        details: Any = None,
        hint: str | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        self.run_id = run_id
        if type is not None:
            self.type = type
        if status is not None:
            if not 400 <= status <= 599:
                raise ValueError(f"PyFlueError(status={status}): an error's status is between 400 and 599.")
            self.status = status

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def to_dict(self) -> dict[str, Any]:
        """The error as run records and answers carry it: `type`, `message`, then `details` and `status` if given."""
        record: dict[str, Any] = {"type": self.type, "message": str(self)}
        if self.details is not None:
            record["details"] = self.details
        if self.status is not None:
            record["status"] = self.status
        return record


class SettingsInvalid(PyFlueError):
    """A setting, environment variable or option has no usable value."""

    type = "settings_invalid"

    def __init__(self, name: str, source: str, problem: str) -> None:
        super().__init__(f"Setting {name} (from {source}): {problem}")


class ProjectNotFound(PyFlueError):
    """No folder here or above holds workflows or a `pyflue.toml`."""

    type = "project_not_found"

    def __init__(self, start: str) -> None:
        super().__init__(
            f"No PyFlue project in {start} or above it: no pyflue.toml, src/workflows/ or workflows/.",
            hint="Run `pyflue init`, or name the project with --project.",
        )


class InvalidJson(PyFlueError):
    """Text that is not JSON, or JSON that no other program could read back (NaN, infinities, lone surrogates)."""

    type = "invalid_json"

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(f"{what} is not valid JSON: {problem}.")


class TooDeep(InvalidJson):
    """JSON nested deeper than the limit."""

    type = "too_deep"

    def __init__(self, what: str, limit: int) -> None:
        PyFlueError.__init__(self, f"{what} is nested deeper than {limit} levels.")


class NotSerializable(PyFlueError):
    """A value JSON cannot hold; `path` is where in the value it was found, such as `$.rows[3].at`."""

    type = "not_serializable"

    def __init__(self, what: str, path: str, problem: str) -> None:
        super().__init__(
            f"{what} cannot be stored: {problem} at {path}.",
            hint="Use dicts with string keys, lists, strings, finite numbers, booleans and None.",
            details={"path": path},
        )
        self.path = path


class TooLarge(PyFlueError):
    """A value above a size limit."""

    type = "too_large"

    def __init__(self, what: str, size_bytes: int | None, limit_bytes: int, setting: str) -> None:
        if size_bytes is None:
            sentence = f"{what} is larger than the limit of {limit_bytes:,} bytes."
        else:
            sentence = f"{what} has {size_bytes:,} bytes; the limit is {limit_bytes:,} bytes."
        super().__init__(
            sentence,
            hint=f"Make it smaller, or raise the setting {setting}.",
            details={"limit_bytes": limit_bytes},
        )


class PayloadInvalid(PyFlueError):
    """A payload that does not fit the workflow's payload type.

    `details` lists each problem as `{"path": "$.ticket.id", "message": "…"}`.
    """

    type = "payload_invalid"

    def __init__(self, workflow: str, problems: Sequence[Mapping[str, str]]) -> None:
        listed = "; ".join(f"{p['path']}: {p['message']}" for p in problems[:5])
        agent = workflow.removeprefix("agent:")  # what is said to an agent is a payload, too
        whose = f"workflow {workflow!r}" if agent == workflow else f"agent {agent!r}"
        super().__init__(
            f"The payload does not fit {whose}: {listed}.",
            details=[dict(p) for p in problems],
        )


class ResultInvalid(PyFlueError):
    """A workflow or a step returned a value that does not fit its declared result type."""

    type = "result_invalid"

    def __init__(self, what: str, problems: Sequence[Mapping[str, str]]) -> None:
        listed = "; ".join(f"{p['path']}: {p['message']}" for p in problems[:5])
        super().__init__(
            f"The result of {what} does not fit its declared type: {listed}.",
            details=[dict(p) for p in problems],
        )


class WorkflowNotFound(PyFlueError):
    """No workflow has this name."""

    type = "workflow_not_found"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        shown = name if len(name) <= 128 else name[:128] + "…"
        listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        super().__init__(f"There is no workflow {shown!r}.", hint=f"Known: {listed or '(none)'}.")
        self.name = name


class WorkflowInvalid(PyFlueError):
    """A workflow file is there but cannot be used; says which file, which line and why."""

    type = "workflow_invalid"

    def __init__(self, path: str, problem: str, *, line: int | None = None, details: Any = None) -> None:
        where = path if line is None else f"{path}:{line}"
        super().__init__(f"{where}: {problem}", details=details)
        self.path = path
        self.line = line
        self.problem = problem


class RunNotFound(PyFlueError):
    """No run has this id."""

    type = "run_not_found"

    def __init__(self, run_id: str) -> None:
        shown = run_id if len(run_id) <= 200 else run_id[:200] + "…"
        super().__init__(f"There is no run {shown!r}.", hint="`pyflue runs list` shows the recent ones.")


class RunFinished(PyFlueError):
    """The run is final; `status` is the state it ended in."""

    type = "run_finished"

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(f"Run {run_id} is already {status}.", details={"status": status}, run_id=run_id)


class RunNotFinished(PyFlueError):
    """The run still goes on, so it cannot be deleted or retried."""

    type = "run_not_finished"

    def __init__(self, run_id: str, status: str, verb: str) -> None:
        super().__init__(
            f"Run {run_id} is {status} and cannot be {verb} yet.",
            hint="Wait for it to end, or cancel it.",
            details={"status": status},
            run_id=run_id,
        )


class RunFailed(PyFlueError):
    """The run ended as failed; `error` is the error its record holds (`type`, `message`, …)."""

    type = "run_failed"

    def __init__(self, run_id: str, error: Mapping[str, Any], *, message: str | None = None) -> None:
        said = message or f"{error.get('exception') or error.get('type', 'error')}: {error.get('message', '')}"
        super().__init__(f"Run {run_id} failed: {said}", run_id=run_id)
        self.error = dict(error)


class RunCancelled(PyFlueError):
    """The run ended as cancelled."""

    type = "run_cancelled"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Run {run_id} was cancelled.", run_id=run_id)


class RunTimedOut(PyFlueError):
    """The run passed its deadline and was ended."""

    type = "deadline_exceeded"

    def __init__(self, run_id: str, deadline_at: str) -> None:
        super().__init__(
            f"Run {run_id} did not end before its deadline, {deadline_at}.",
            hint="Give it a later deadline, or none.",
        )


class CrashLoop(PyFlueError):
    """The run ended its process each time it was tried, the last time with nothing else running beside it."""

    type = "crash_loop"

    def __init__(self, run_id: str, crashes: int, how: str) -> None:
        super().__init__(
            f"Run {run_id} ended its process {crashes} times without finishing a step; the last time {how}.",
            hint="Look for os._exit, a crash in a native library, or too much memory; then retry the run.",
        )


class TooManyEvents(PyFlueError):
    """The run wrote more events than the limit."""

    type = "too_many_events"

    def __init__(self, run_id: str, limit: int) -> None:
        super().__init__(
            f"Run {run_id} wrote {limit:,} events, which is the limit.",
            hint="Log less, or raise the setting limits.events_per_run.",
        )


class RunStopped(PyFlueError):
    """A late call on a context whose run no longer goes on in this process; nothing was recorded."""

    type = "run_stopped"

    def __init__(self, run_id: str, why: str) -> None:
        super().__init__(f"Run {run_id} no longer goes on here ({why}); the call was not recorded.", run_id=run_id)


class RunInterrupted(PyFlueError):
    """The run was interrupted, and its workflow says that it must not be taken up again (`recovery = "fail"`)."""

    type = "interrupted"

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"Run {run_id} was interrupted, and its workflow is not to be resumed.",
            hint="See what it has done, then retry or fork it.",
        )


class CallMisplaced(PyFlueError):
    """A durable call was made from outside of its run, or with a key that the run has used already."""

    type = "call_misplaced"


class StepFailed(PyFlueError):
    """A recorded step failed, and what it raised cannot be made again from its record; `error` is that record."""

    type = "step_failed"

    def __init__(self, step: str, error: Mapping[str, Any]) -> None:
        said = f"{error.get('exception') or error.get('type', 'error')}: {error.get('message', '')}"
        super().__init__(f"Step {step!r} failed: {said}", details={"step": step})
        self.step = step
        self.error = dict(error)


class StepTimedOut(PyFlueError):
    """A step ran longer than its `timeout_s`; the run fails unless its retry policy allows another attempt."""

    type = "step_timed_out"

    def __init__(self, run_id: str, step: str, timeout_s: float) -> None:
        super().__init__(
            f"Step {step!r} of run {run_id} did not finish in {timeout_s:g} s.",
            hint="Raise timeout_s on the step, or split it into smaller steps.",
        )


class ReplayMismatch(PyFlueError):
    """The workflow makes another kind of call where its record has one; the record stays as it is."""

    type = "replay_mismatch"

    def __init__(self, run_id: str, step: str, recorded: str, found: str) -> None:
        super().__init__(
            f"Run {run_id} recorded {recorded} under {step!r}, but its workflow now makes {found} there.",
            hint="Give the changed call another name or key=, or fork the run from before it.",
            details={"step": step, "recorded": recorded, "found": found},
        )


class ReplayDrifted(PyFlueError):
    """The workflow has changed around a recorded call, and says that this must not be (`strict = True`)."""

    type = "replay_drift"

    def __init__(self, run_id: str, step: str, what: str) -> None:
        super().__init__(
            f"Run {run_id} recorded {step!r} with another {what} than its workflow now gives it.",
            hint="Bring the earlier version of the workflow back, or fork the run.",
            details={"step": step, "what": what},
        )


class WaitTimedOut(PyFlueError):
    """Nothing came within a wait's `timeout_s`."""

    type = "wait_timed_out"

    def __init__(self, run_id: str, step: str, what: str) -> None:
        super().__init__(f"Run {run_id} waited too long for {what} ({step!r}).", details={"step": step})


class ChildrenTooDeep(PyFlueError):
    """A run started a run that started a run …, beyond the limit."""

    type = "children_too_deep"

    def __init__(self, run_id: str, limit: int) -> None:
        super().__init__(
            f"Run {run_id} has {limit} runs above it and may not start another one.",
            hint="Does a workflow call itself? Else raise the setting limits.child_depth.",
        )


class StepNotFound(PyFlueError):
    """The run has no such step."""

    type = "step_not_found"

    def __init__(self, run_id: str, step: str, known: Sequence[str]) -> None:
        shown = step if len(step) <= 200 else step[:200] + "…"
        listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        super().__init__(f"Run {run_id} has no step {shown!r}.", hint=f"It has: {listed or '(none)'}.", run_id=run_id)


class SignalInvalid(PyFlueError):
    """A signal with a name that cannot be one, or with data that does not fit what the run waits for."""

    type = "signal_invalid"

    def __init__(self, name: str, problem: str, *, details: Any = None) -> None:
        super().__init__(f"Signal {name[:200]!r}: {problem}", details=details)


class SignalConflict(PyFlueError):
    """The same signal id came before with another name or other data."""

    type = "signal_conflict"

    def __init__(self, signal_id: str, run_id: str) -> None:
        super().__init__(
            f"Run {run_id} has had a signal with the id {signal_id!r}, with another name or other data.",
            hint="Use a new id for a new signal.",
            run_id=run_id,
        )


class ApprovalNotFound(PyFlueError):
    """No approval has this id."""

    type = "approval_not_found"

    def __init__(self, approval_id: str) -> None:
        super().__init__(
            f"There is no approval {approval_id[:200]!r}.", hint="`pyflue approvals list` shows the open ones."
        )


class ApprovalClosed(PyFlueError):
    """The approval is decided otherwise, expired or cancelled; `details` is the approval as it is."""

    type = "approval_closed"

    def __init__(self, approval: Mapping[str, Any]) -> None:
        state = approval["state"]
        decision: Mapping[str, Any] = approval.get("decision") or {}
        by = decision.get("by")
        super().__init__(
            f"Approval {approval['approval_id']} is already {state}{f' (by {by})' if by else ''}.",
            details=dict(approval),
            run_id=approval["run_id"],
        )


class DecisionInvalid(PyFlueError):
    """A decision whose data does not fit the schema of what was asked; `details` lists paths and messages."""

    type = "decision_invalid"

    def __init__(self, approval_id: str, problems: Sequence[Mapping[str, str]]) -> None:
        listed = "; ".join(f"{p['path']}: {p['message']}" for p in problems[:5])
        super().__init__(
            f"The decision's data does not fit approval {approval_id}: {listed}.",
            details=[dict(p) for p in problems],
        )


class IdempotencyConflict(PyFlueError):
    """The same `Idempotency-Key` came with another workflow or payload."""

    type = "idempotency_conflict"

    def __init__(self, key: str, run_id: str) -> None:
        super().__init__(
            f"Idempotency-Key {key!r} was used before with another request (run {run_id}).",
            hint="Use a new key for a new request.",
            run_id=run_id,
        )


class EngineStopping(PyFlueError):
    """The engine is stopping and takes no more work; try again in a moment."""

    type = "stopping"

    def __init__(self) -> None:
        super().__init__("The server is stopping and takes no new work.", hint="Try again in a few seconds.")


class AgentInvalid(PyFlueError, ValueError):
    """An agent, profile, tool, command, skill or role is defined in a way that cannot be used."""

    type = "agent_invalid"


class AgentNotFound(PyFlueError):
    """No agent has this name."""

    type = "agent_not_found"

    def __init__(self, name: str, available: Sequence[str] = ()) -> None:
        known = ", ".join(available) or "(none)"
        super().__init__(
            f"There is no agent {name!r}.", details={"available": list(available)}, hint=f"Agents: {known}."
        )


class InstanceNotFound(PyFlueError):
    """The agent has no instance of this id: nobody has talked to it."""

    type = "instance_not_found"

    def __init__(self, agent: str, instance_id: str) -> None:
        super().__init__(f"Agent {agent!r} has no instance {instance_id!r}.")


class DispatchNotFound(PyFlueError):
    """The agent's instance has had no dispatch or prompt of this id."""

    type = "dispatch_not_found"

    def __init__(self, dispatch_id: str) -> None:
        super().__init__(f"There is no dispatch {dispatch_id!r} of this agent's instance.")


class InstanceBusy(PyFlueError):
    """The instance has prompts or dispatches that have not ended, so it cannot be deleted."""

    type = "instance_busy"

    def __init__(self, agent: str, instance_id: str) -> None:
        super().__init__(
            f"Instance {instance_id!r} of agent {agent!r} has unfinished work.", hint="Wait for it, or abort it."
        )


class DispatchFinished(PyFlueError):
    """The dispatch or prompt has ended, so it cannot be cancelled."""

    type = "dispatch_finished"

    def __init__(self, dispatch_id: str, status: str) -> None:
        super().__init__(f"Dispatch {dispatch_id} is already {status}.", details={"status": status})
        self.dispatch_id = dispatch_id


class DispatchFailed(PyFlueError):
    """A prompt or dispatch failed; `error` is the error its record holds (`type`, `message`, …)."""

    type = "dispatch_failed"

    def __init__(self, dispatch_id: str, error: Mapping[str, Any], *, message: str | None = None) -> None:
        said = message or f"{error.get('exception') or error.get('type', 'error')}: {error.get('message', '')}"
        super().__init__(f"The agent could not answer: {said}")
        self.error = dict(error)
        self.dispatch_id = dispatch_id


class DispatchCancelled(PyFlueError):
    """A prompt or dispatch was aborted."""

    type = "dispatch_cancelled"

    def __init__(self, dispatch_id: str) -> None:
        super().__init__(f"Dispatch {dispatch_id} was cancelled.")
        self.dispatch_id = dispatch_id


class SessionBusy(PyFlueError):
    """The session has an operation under way; one at a time is its rule."""

    type = "session_busy"

    def __init__(self, session: str) -> None:
        super().__init__(
            f"Session {session!r} has an operation under way.",
            hint="Wait for it, take another session, or dispatch: dispatches wait for their turn.",
        )


class SessionNotFound(PyFlueError, KeyError):
    """There is no session of this name, or it has been closed."""

    type = "session_not_found"
    __str__ = PyFlueError.__str__

    def __init__(self, session: str, *, why: str = "does not exist") -> None:
        super().__init__(f"Session {session!r} {why}.")


class SessionExists(PyFlueError):
    """There is a session of this name already."""

    type = "session_exists"

    def __init__(self, session: str) -> None:
        super().__init__(f"Session {session!r} exists already.", hint="harness.session(name) opens it.")


class NameUnknown(PyFlueError, KeyError):
    """An operation named a skill, role, subagent or secret that the agent does not have."""

    type = "name_unknown"
    __str__ = PyFlueError.__str__

    def __init__(self, what: str, name: str, available: Sequence[str]) -> None:
        """`what` is a word such as `skill`."""
        known = ", ".join(available) or "none"
        super().__init__(f"There is no {what} {name!r}.", hint=f"The agent's {what}s: {known}.")


class TaskTooDeep(PyFlueError):
    """Tasks that start tasks that start tasks, beyond `agent.task_depth`."""

    type = "task_too_deep"

    def __init__(self, depth: int) -> None:
        super().__init__(
            f"A task may not be started here: {depth} tasks stand above it already.",
            hint="The limit is agent.task_depth in pyflue.toml.",
        )


class BudgetExceeded(PyFlueError):
    """Turns, tokens, cost or seconds of model work are used up. What was done until then is recorded."""

    type = "budget_exceeded"

    def __init__(self, budget: str, limit: float, used: float, whose: str) -> None:
        """`budget` is `max_turns`, `max_tokens`, `max_cost_usd` or `max_seconds`; `whose` the part it belongs to."""
        super().__init__(
            f"The budget {budget}={limit:g} of {whose} is used up ({used:g}).",
            details={"budget": budget, "limit": limit, "used": used, "whose": whose},
        )


class ResultUnavailable(PyFlueError):
    """The model did not give data that fits `result=`, not even after it was told what was wrong."""

    type = "result_unavailable"

    def __init__(self, attempts: int, problems: Sequence[Any], text: str) -> None:
        told = (": ".join(filter(None, (problem["path"], problem["message"].rstrip(".")))) for problem in problems[:3])
        last = "; ".join(told)
        why = f" (the last: {last})" if last else ""
        super().__init__(
            f"The model gave no data of the wanted type in {attempts} attempts{why}.",
            details={"problems": list(problems), "text": text[:2000]},
        )


class ModelError(PyFlueError):
    """A model could not answer."""

    type = "model_error"


class ModelUnknown(ModelError):
    """No provider or model of this name."""

    type = "model_unknown"


class ModelKeyMissing(ModelError):
    """There is no key for the model's provider."""

    type = "model_key_missing"

    def __init__(self, model: str, variable: str) -> None:
        super().__init__(
            f"Model {model} needs a key, and the variable {variable} is not set.",
            hint=f"Set {variable}, or work without a provider: PYFLUE_MODEL=scripted/hello (see docs/models.md).",
            details={"model": model, "variable": variable},
        )


class ContextOverflow(ModelError):
    """The conversation is longer than the model takes."""

    type = "context_overflow"


class ModelRefused(ModelError):
    """The model, or a filter of its provider, would not answer."""

    type = "model_refused"


class ModelFailed(ModelError):
    """The provider could not be reached, answered with an error, or broke its answer off.

    `is_retryable` says whether the same request may succeed later, `retry_after_s` when the provider wants it at the
    earliest, `provider_status` is its HTTP status.
    """

    type = "model_failed"

    def __init__(
        self,
        message: str,
        *,
        is_retryable: bool,
        retry_after_s: float | None = None,
        provider_status: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details={"provider_status": provider_status})
        self.is_retryable = is_retryable
        self.retry_after_s = retry_after_s
        self.provider_status = provider_status


class SandboxError(PyFlueError):
    """A sandbox cannot do what was asked."""

    type = "sandbox_error"


class SandboxRefused(SandboxError, PermissionError):
    """The sandbox, or the agent's policy, does not allow it."""

    type = "sandbox_refused"
    __str__ = PyFlueError.__str__


class SandboxUnavailable(SandboxError):
    """The sandbox cannot be made on this machine, or it has nothing that could do this."""

    type = "sandbox_unavailable"


class McpFailed(PyFlueError):
    """An MCP server could not be started or reached, or answered with something that is not MCP."""

    type = "mcp_failed"


class JournalError(PyFlueError):
    """The journal could not do what was asked."""

    type = "journal_error"


class JournalBusy(JournalError):
    """Another process held the journal for longer than the busy timeout; nothing was written."""

    type = "journal_busy"

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__(f"Another process has held {path} for more than {timeout_s:g} s.", hint="Try again.")


class JournalFull(JournalError):
    """The disk is full; nothing was written."""

    type = "journal_full"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"No space is left for {path}; nothing was recorded.",
            hint="Free disk space, or delete old runs with `pyflue db gc`.",
        )


class JournalUnreadable(JournalError):
    """The journal file is corrupted, is not a journal, or cannot be read; it was left as it is."""

    type = "journal_unreadable"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"{path} cannot be used: {problem}. It was left as it is.",
            hint="Run `pyflue db check`, or put a backup in its place.",
        )


class JournalReadOnly(JournalError):
    """The journal file or its folder cannot be written."""

    type = "journal_read_only"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"{path} cannot be written: {problem}.", hint="Check the permissions of the file and its folder."
        )


class JournalTooNew(JournalError):
    """A newer PyFlue wrote this journal."""

    type = "journal_too_new"

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(
            f"{path} has schema version {found}; this PyFlue knows versions up to {known}. Nothing was written.",
            hint="Install the newer PyFlue again.",
        )


class JournalUnsupported(JournalError):
    """An address no adapter knows, or a place where a journal cannot be kept safely."""

    type = "journal_unsupported"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"A journal cannot be kept at {where}: {problem}.")


class JournalClosed(JournalError):
    """The journal was used after it was closed."""

    type = "journal_closed"

    def __init__(self) -> None:
        super().__init__("The journal is closed.")


class RequestRefused(PyFlueError):
    """An HTTP request or a WebSocket message that is not acceptable."""

    type = "invalid_request"


class InvalidRequest(RequestRefused):
    """The request is well-formed but asks for something that makes no sense here."""


class InvalidQuery(RequestRefused):
    """A query parameter has no usable value."""

    type = "invalid_query"

    def __init__(self, name: str, value: str, expected: str) -> None:
        shown = value if len(value) <= 100 else value[:100] + "…"
        super().__init__(
            f"Query parameter {name}={shown!r}: expected {expected}.",
            details={"parameter": name, "value": shown},
        )


class RouteNotFound(RequestRefused):
    """No route has this path."""

    type = "not_found"

    def __init__(self, path: str) -> None:
        shown = path if len(path) <= 200 else path[:200] + "…"
        super().__init__(f"There is nothing at {shown!r}.", hint="GET /openapi.json lists what there is.")


class MethodNotAllowed(RequestRefused):
    """The route does not answer to this method."""

    type = "method_not_allowed"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method} is not allowed here.", details={"allowed": sorted(allowed)})
        self.allowed = sorted(allowed)


class UnsupportedMediaType(RequestRefused):
    """The body is not `application/json`, or is compressed."""

    type = "unsupported_media_type"

    def __init__(self, problem: str) -> None:
        super().__init__(problem, hint="Send uncompressed JSON with `Content-Type: application/json`.")


class Unauthorized(RequestRefused):
    """No token, or one the server does not know."""

    type = "unauthorized"

    def __init__(self) -> None:
        super().__init__("This server needs a token.", hint="Send `Authorization: Bearer <token>`.")


class Forbidden(RequestRefused):
    """The token is good but does not allow this."""

    type = "forbidden"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This token does not have the scope {scope!r}.", details={"scope": scope})


class AccessRefused(Forbidden):
    """An agent's file does not let this caller do something with an instance (`authorize`)."""

    def __init__(self, agent: str, instance_id: str, action: str) -> None:
        RequestRefused.__init__(self, f"Agent {agent!r} does not allow this caller to {action} {instance_id!r}.")


class OriginRefused(RequestRefused):
    """A web page of another origin made this request."""

    type = "origin_refused"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"Requests from {origin[:200]!r} are not allowed.",
            hint="Add the page's origin to the setting server.allowed_origins.",
        )


class HostRefused(RequestRefused):
    """The `Host` header is not a name this server answers to."""

    type = "host_refused"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"This server does not answer to the host {host[:200]!r}.",
            hint="Add the name to the setting server.allowed_hosts.",
        )


class HeadersTooLarge(RequestRefused):
    """The request's headers are larger than the limit."""

    type = "headers_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request's headers are larger than {limit_bytes:,} bytes.")


class RequestTooSlow(RequestRefused):
    """The request did not arrive in time."""

    type = "request_too_slow"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"The request did not arrive within {limit_s:g} s.")


class TooManyConnections(RequestRefused):
    """The server has as many connections as it takes."""

    type = "too_many_connections"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The server has its {limit:,} connections.", hint="Try again in a few seconds.")


class SocketMisused(RequestRefused):
    """A WebSocket message came at the wrong time or in the wrong form."""

    type = "socket_misused"


class Unreachable(PyFlueError):
    """No server answered at the client's address, or the connection broke."""

    type = "unreachable"

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"No answer from {url}: {problem}.", hint="Is `pyflue dev` or `pyflue serve` running there?")


class ServerAnswered(PyFlueError):
    """The server answered with an error; `type`, `status`, `details` and `run_id` are what it sent."""

    type = "server_answered"
