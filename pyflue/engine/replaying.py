"""Replaying a run that has ended, offline: does its workflow, as it is now, still do what the run recorded?

Called by `pyflue runs replay`, for example before a changed workflow is put where runs wait for it. The workflow's
code runs against the record: recorded calls give back what they gave, and the first call that is not recorded as the
code makes it ends the replay. No step is done, nothing is written, no child is started. Code outside of durable calls
does run, as it would at any recovery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from .. import codec
from ..clock import SystemClock, to_us
from ..codec import Raw
from ..errors import PyFlueError, RunNotFinished, RunNotFound
from ..journal import EventType, Fence, Journal, NewEvent, NewRun, Run, RunStatus, Step, StepStatus, Wait, WaitState
from ..settings import Limits
from . import failures, scopes
from .agents import AgentHost
from .calls import Call, Calls
from .context import FlueContext, Written
from .recorder import JournalRecorder
from .slots import Slots
from .workflow import Workflow, WorkflowSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay found."""

    #: The code made the recorded calls and came to the recorded end.
    is_same: bool
    #: How many recorded calls it made.
    calls: int
    #: The first thing that was different, in words.
    divergence: str | None = None
    #: The key of the call where it was.
    step: str | None = None


class _Diverged(BaseException):
    """Ends a replay. Not an `Exception`: the workflow's code must not catch it."""

    def __init__(self, divergence: str | None, step: str | None) -> None:
        super().__init__(divergence)
        self.divergence = divergence
        self.step = step


async def replay(
    journal: Journal,
    workflows: WorkflowSource,
    run_id: str,
    *,
    limits: Limits | None = None,
    root: Path | None = None,
    agents: AgentHost | None = None,
) -> Replayed:
    """Run a workflow's code against the record of one of its runs.

    `agents` makes the harnesses of its agents, which have their records and nothing else; the caller closes it.

    Raises:
        RunNotFound; RunNotFinished; WorkflowNotFound; WorkflowInvalid; PayloadInvalid.
    """
    run = await journal.run(run_id)
    if run is None:
        raise RunNotFound(run_id)
    if not run.is_final:
        raise RunNotFinished(run_id, run.status, "replayed")
    workflow = await asyncio.to_thread(workflows.find, run.workflow)
    parsed = workflow.parse(codec.load(run.payload or codec.NULL))
    scopes.install(asyncio.get_running_loop())
    calls = _RecordedCalls(run, journal, workflow, limits or Limits(), root, agents)
    calls.remember(await journal.history(run_id))
    try:
        return await _play(run, workflow, parsed, calls)
    finally:
        calls.parking.close()
        ending = None if agents is None else agents.end(calls)
        if ending is not None:
            await ending


async def _play(run: Run, workflow: Workflow, payload: Any, calls: _RecordedCalls) -> Replayed:
    context: FlueContext[Any] = FlueContext(
        run_id=run.run_id,
        workflow=run.workflow,
        payload=payload,
        recorder=calls.recorder,
        calls=calls,
        attempt=run.attempt,
        tags=run.tags,
        deadline_us=None if run.deadline_at is None else to_us(run.deadline_at),
        request=run.request,
    )
    try:
        with scopes.inside(calls.scope):
            value = await workflow.run(context)
        end = RunStatus.COMPLETED, codec.encode_value(value, "The result"), None
    except _Diverged as diverged:
        same = diverged.divergence is None
        return Replayed(is_same=same, calls=calls.made, divergence=diverged.divergence, step=diverged.step)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  (the workflow's code may raise anything)
        if (diverged := _diverged_in(error)) is not None:
            return Replayed(is_same=False, calls=calls.made, divergence=diverged.divergence, step=diverged.step)
        end = RunStatus.FAILED, None, failures.describe(error, calls.root)
    divergence, step = calls.not_made() or (_other_end(run, *end), None)
    return Replayed(is_same=divergence is None, calls=calls.made, divergence=divergence, step=step)


def _diverged_in(error: BaseException) -> _Diverged | None:
    """The divergence inside of the exception of a task group."""
    if isinstance(error, BaseExceptionGroup):
        members = cast("Sequence[BaseException]", error.exceptions)  # pyright: ignore[reportUnknownMemberType]
        return next((found for member in members if (found := _diverged_in(member)) is not None), None)
    return error if isinstance(error, _Diverged) else None


def _other_end(run: Run, status: RunStatus, result: Raw | None, error: Raw | None) -> str | None:
    """How the end differs from the recorded one."""
    if run.status is RunStatus.COMPLETED and status is RunStatus.COMPLETED:
        if codec.canonical(result or codec.NULL) == codec.canonical(run.result or codec.NULL):
            return None
        return "the result is another one"
    if status is RunStatus.FAILED:
        found = _said(error)
        if run.status is RunStatus.FAILED and found == _said(run.error):
            return None
        return f"it ends with {found}, and was recorded as {run.status}"
    return f"it completes, and was recorded as {run.status}"


def _said(error: Raw | None) -> str:
    described: Mapping[str, Any] = {} if error is None else codec.load(error)
    return f"{described.get('exception') or described.get('type')}: {described.get('message')}"


class _RecordedCalls(Calls):
    """Durable calls that have only their record."""

    __slots__ = ("_consumed", "_run", "made")

    def __init__(
        self,
        run: Run,
        journal: Journal,
        workflow: Workflow,
        limits: Limits,
        root: Path | None,
        agents: AgentHost | None,
    ) -> None:
        super().__init__(
            fence=Fence(run_id=run.run_id, owner="", attempt=run.attempt),
            journal=journal,
            recorder=cast("JournalRecorder", _Silence(limits)),
            clock=SystemClock(),
            limits=limits,
            slots=Slots(None),
            host=_NoHost(),
            root=root,
            accepted=None,
            is_strict=False,
            agents=agents,
        )
        self._run = run
        self._consumed: set[str] = set()
        #: How many recorded calls were made.
        self.made = 0

    def recorded(self, call: Call, digest: str | None) -> Step | Wait | None:
        record = super().recorded(call, digest)
        if isinstance(record, Step) and record.status is StepStatus.RETRYING:
            return record
        if record is None or (isinstance(record, Wait) and record.state in (WaitState.OPEN, WaitState.CANCELLED)):
            if call.name.startswith("pause-") or "/pause-" in call.key:
                return None
            self._end(call)
        self.made += 1
        self._consumed.add(call.key)
        return record

    async def ready(self) -> None:
        # Asked before anything new is done: nothing is.
        raise _Diverged("it does something that is not recorded", None)

    def announce(self, type_: EventType, data: Mapping[str, Any]) -> None:
        raise _Diverged(self._new(str(data["step"]), "step"), str(data["step"]))

    def tell(self, type_: EventType, data: Mapping[str, Any]) -> None:
        if type_ is EventType.REPLAY_DRIFT:
            raise _Diverged(f"{data['step']!r} has another {data['what']} than recorded", str(data["step"]))

    def not_made(self) -> tuple[str, str] | None:
        """The first recorded call that the code did not make."""
        left: Sequence[Step | Wait] = [
            record
            for record in self.left
            if not any(record.key.startswith(f"{key}/") for key in self._consumed)  # inside of a step that is recorded
            and not (isinstance(record, Wait) and record.state in (WaitState.OPEN, WaitState.CANCELLED))
        ]
        if not left:
            return None
        first = min(left, key=lambda record: (record.started_index, record.key))
        return f"the recorded {first.call} {first.key!r} is not made any more", first.key

    def _end(self, call: Call) -> NoReturn:
        if self._run.status is not RunStatus.COMPLETED:
            self._consumed.add(call.key)  # what an unfinished prompt did is recorded below it
            if self.not_made() is None:
                raise _Diverged(None, call.key)  # where the run was ended
        raise _Diverged(self._new(call.key, call.kind), call.key)

    def _new(self, key: str, kind: str) -> str:
        return f"the {kind} {key!r} is not recorded"


class _Silence:
    """A recorder that writes nothing."""

    def __init__(self, limits: Limits) -> None:
        self.log_bytes = limits.log_bytes
        self.event_bytes = limits.event_bytes

    def event(self, type: str, data: Raw, *, more: Raw | None = None) -> Written:  # noqa: A002  (the port's name)
        return Written()

    def count(self) -> None:
        return

    def hold(self, event: NewEvent) -> None:
        return

    def keep_pace(self) -> int:
        return 0

    def take_held(self) -> list[NewEvent]:
        return []

    def write_held(self) -> None:
        return


class _NoHost:
    """What durable calls need of an engine, where there is none."""

    stopped_because = None

    def fail(self, error: PyFlueError) -> None:
        details: dict[str, Any] = error.details or {}
        raise _Diverged(str(error), details.get("step"))

    def give_up(self, error: Exception) -> None:
        raise _Diverged(str(error), None)

    async def find(self, workflow: str) -> Workflow:
        raise _Diverged(f"it starts workflow {workflow!r}, which is not recorded", None)

    def place_child(self, workflow: Workflow, payload: Raw, tags: tuple[str, ...]) -> NewRun:
        raise _Diverged(f"it starts workflow {workflow.name!r}, which is not recorded", None)

    def child_accepted(self, child: NewRun, workflow: Workflow, parsed: Any, *, is_there: bool) -> None:
        return

    def cancel_soon(self, run_id: str) -> None:
        return

    def let_go(self) -> None:
        return
