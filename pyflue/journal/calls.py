"""What the journal holds of a run's durable calls: steps, waits, and the signals that answer waits.

Made by the engine (`NewStep`, `NewWait`, `NewSignal`) and read back at recovery and by whoever shows or decides them.
Like `records.py` these are plain frozen values: an adapter makes them of its rows, `to_dict` makes them JSON.

A durable call is known by its `key`, a path within the run such as `charge`, `charge#2` or `(branch)/charge`; how keys
are made is the engine's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from .. import codec, ids
from ..clock import rfc3339
from ..codec import Raw
from ..errors import RunCancelled
from .records import NewEvent, RunStatus


class StepStatus(StrEnum):
    """What is recorded of a step. The last two are those of a wait that is shown as a step, and never recorded."""

    COMPLETED = "completed"  #: `value` is its result
    FAILED = "failed"  #: `error` is what it raised, after the last attempt
    RETRYING = "retrying"  #: `attempts` of it have failed, another one will follow
    STARTED = (
        "started"  #: it has begun, and must not be begun again: what came of it is not known unless it is recorded
    )
    CANCELLED = "cancelled"  #: the workflow's own code cut it off
    WAITING = "waiting"  #: it is still waited for
    EXPIRED = "expired"  #: nothing came in time


class WaitKind(StrEnum):
    """What ends a wait."""

    TIMER = "timer"
    SIGNAL = "signal"
    APPROVAL = "approval"
    CHILD = "child"  #: the end of the run whose id is the wait's `name`

    @property
    def call(self) -> str:
        """The kind of durable call that waits for it, as steps and events name it."""
        return "sleep" if self is WaitKind.TIMER else self.value


class WaitState(StrEnum):
    """Where a wait is in its life; all but the first are final."""

    OPEN = "open"
    ANSWERED = "answered"  #: `answer` holds the signal's data, the decision, or the child's outcome
    EXPIRED = "expired"  #: its time has come: what a timer waits for, and too late for everything else
    CANCELLED = "cancelled"  #: the run ended, or the workflow gave the wait up


class NewStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The record of a step, or of another value that must be the same when the run is replayed."""

    key: str
    kind: str
    name: str
    #: Which durable call of its scope it is: 1, 2, 3 …
    position: int
    status: StepStatus
    input_digest: str | None = None
    value: Raw | None = None
    error: Raw | None = None
    attempts: int = 1
    started_us: int
    #: Records of the run with a `recorded_index` up to this one were on disk when the step began.
    started_index: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A recorded step, or a wait as one (`Wait.as_step`)."""

    run_id: str
    key: str
    kind: str
    name: str
    position: int
    status: StepStatus
    input_digest: str | None
    value: Raw | None
    error: Raw | None
    attempts: int
    started_at: datetime
    finished_at: datetime | None
    #: The run's `last_index` when it began and when it was recorded: its place in time among the run's other records.
    #: Negative, in the same order, if it was copied from an earlier run.
    started_index: int
    recorded_index: int

    @property
    def call(self) -> str:
        """The kind of durable call that it is, as events name it."""
        return self.kind

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be recorded at this key."""
        return self.status in (StepStatus.COMPLETED, StepStatus.FAILED)

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.key,
            "kind": self.kind,
            "name": self.name,
            "status": self.status.value,
            "value": self.value,
            "error": _told(self.error),
            "attempts": self.attempts,
            "started_at": rfc3339(self.started_at),
            "finished_at": None if self.finished_at is None else rfc3339(self.finished_at),
        }


def _told(error: Raw | None) -> dict[str, Any] | None:
    """A step's error without what is there to make its exception again."""
    if error is None:
        return None
    told = codec.load(error)
    told.pop("class", None)
    return told


class NewWait(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A wait to open. `wait_id` is a ULID: it names an approval to those who decide it."""

    key: str
    kind: WaitKind
    #: The signal's or approval's name, or the child's run id.
    name: str
    position: int
    wait_id: str
    #: What is asked, for approvals: an object with `request` and, if the answer's data has a shape, its `schema`.
    request: Raw | None = None
    digest: str | None = None
    due_us: int | None = None
    #: By the reading of the clock that `due_us` was taken from: the time between is what the wait may take. None: now.
    created_us: int | None = None
    #: As in `NewStep`.
    started_index: int = 0


class Wait(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A recorded wait, of whatever state."""

    run_id: str
    key: str
    kind: WaitKind
    name: str
    position: int
    #: None if it was copied from an earlier run, where it was decided.
    wait_id: str | None
    request: Raw | None
    digest: str | None
    state: WaitState
    answer: Raw | None
    created_at: datetime
    due_at: datetime | None
    answered_at: datetime | None
    #: As a step's `started_index` and `recorded_index`; 0 while it is open.
    started_index: int
    answered_index: int

    @property
    def call(self) -> str:
        """As a step's."""
        return self.kind.call

    @property
    def input_digest(self) -> str | None:
        """As a step's: what stands for the call's input."""
        return self.digest

    @property
    def recorded_index(self) -> int:
        """As a step's."""
        return self.answered_index

    def as_step(self) -> Step:
        """The wait as a reader of the run's durable calls sees it, beside the steps."""
        status, value, error = self._outcome()
        workflow = ids.workflow_of(self.name) if self.kind is WaitKind.CHILD else None
        return Step(
            run_id=self.run_id,
            key=self.key,
            kind=self.kind.call,
            name=workflow or self.name,
            position=self.position,
            status=status,
            input_digest=self.digest,
            value=value,
            error=error,
            attempts=1,
            started_at=self.created_at,
            finished_at=self.answered_at,
            started_index=self.started_index,
            # A wait that was given up has no place of its own; like a step that was, it stands where it began.
            recorded_index=self.started_index if status is StepStatus.CANCELLED else self.answered_index,
        )

    def _outcome(self) -> tuple[StepStatus, Raw | None, Raw | None]:
        match self.state:
            case WaitState.OPEN:
                return StepStatus.WAITING, None, None
            case WaitState.CANCELLED:
                return StepStatus.CANCELLED, None, None
            case WaitState.EXPIRED:
                return StepStatus.COMPLETED if self.kind is WaitKind.TIMER else StepStatus.EXPIRED, None, None
            case WaitState.ANSWERED if self.kind is WaitKind.CHILD and self.answer is not None:
                return self._outcome_of_child(codec.load(self.answer))
            case WaitState.ANSWERED:
                return StepStatus.COMPLETED, self.answer, None

    def _outcome_of_child(self, answer: dict[str, Any]) -> tuple[StepStatus, Raw | None, Raw | None]:
        if answer["status"] == RunStatus.COMPLETED:
            return StepStatus.COMPLETED, Raw(codec.encode(answer["result"])), None
        error = answer["error"]
        if answer["status"] == RunStatus.CANCELLED:
            cancelled = RunCancelled(self.name)
            error = {"type": cancelled.type, "message": cancelled.message}
        return StepStatus.FAILED, None, Raw(codec.encode(error or {}))

    @property
    def is_over(self) -> bool:
        """As a step's."""
        return self.state in (WaitState.ANSWERED, WaitState.EXPIRED)

    def to_dict(self) -> dict[str, Any]:
        """As run records show what a run waits for."""
        shown: dict[str, Any] = {
            "step": self.key,
            "kind": self.kind.value,
            "name": self.name,
            "since": rfc3339(self.created_at),
            "due_at": None if self.due_at is None else rfc3339(self.due_at),
        }
        if self.kind is WaitKind.APPROVAL:
            shown["approval_id"] = self.wait_id
        return shown


class ApprovalState(StrEnum):
    """Where an approval is in its life, as people are told."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """An approval as those see it who decide it."""

    wait: Wait
    workflow: str

    @property
    def state(self) -> ApprovalState:
        if self.wait.state is not WaitState.ANSWERED:
            return ApprovalState(self.wait.state.value)
        return ApprovalState.APPROVED if self.decision["approved"] else ApprovalState.REJECTED

    @property
    def decision(self) -> dict[str, Any]:
        """`approved`, `by`, `at`, `reason`, `data`; empty unless it is decided."""
        return {} if self.wait.answer is None else codec.load(self.wait.answer)

    @property
    def asked(self) -> dict[str, Any]:
        """`request` and, if the decision's data has a shape, its `schema`."""
        return {} if self.wait.request is None else codec.load(self.wait.request)

    def to_dict(self) -> dict[str, Any]:
        wait = self.wait
        asked = self.asked
        return {
            "approval_id": wait.wait_id,
            "run_id": wait.run_id,
            "workflow": self.workflow,
            "name": wait.name,
            "step": wait.key,
            "state": self.state.value,
            "request": asked.get("request"),
            "schema": asked.get("schema"),
            "digest": wait.digest,
            "created_at": rfc3339(wait.created_at),
            "due_at": None if wait.due_at is None else rfc3339(wait.due_at),
            "decision": self.decision or None,
        }


class ApprovalFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which approvals a list holds. Empty fields filter nothing."""

    states: Sequence[ApprovalState] = ()
    workflows: Sequence[str] = ()
    run_id: str | None = None
    name: str | None = None


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a decision: the approval as it is now, and whether this decision is the one that counts.

    `is_repeat` says that the same decision had been recorded before.
    """

    approval: Approval
    is_recorded: bool
    is_repeat: bool = False


class NewSignal(msgspec.Struct, frozen=True, kw_only=True):
    """A signal for a run. Two with the same `signal_id` are one."""

    signal_id: str
    name: str
    data: Raw


class SignalAnswer(StrEnum):
    """What came of sending a signal."""

    DELIVERED = "delivered"  #: an open wait was answered with it
    KEPT = "kept"  #: the run's next wait for this name takes it
    REPEATED = "repeated"  #: it had been sent before; nothing was recorded
    CONFLICT = "conflict"  #: its id came before with another name or other data; nothing was recorded
    RUN_FINISHED = "run_finished"  #: the run is final; nothing was recorded


class Park(msgspec.Struct, frozen=True, kw_only=True):
    """A run has nothing to do until one of its open waits ends: it is to be `waiting`, unless one just ended.

    `open_waits` is how many waits of the run are open as far as its engine knows; `event` is `run_waiting`.
    """

    open_waits: int
    event: NewEvent


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What came of opening a wait: the wait, which a signal kept for it may have answered at once.

    `index` is the run's `last_index` after it.
    """

    wait: Wait
    index: int
    is_parked: bool = False


class Copies(msgspec.Struct, frozen=True, kw_only=True):
    """Which records of an earlier run a new one begins with: its completed calls and the answers to its waits.

    Only those with a `recorded_index` (`answered_index`) up to `until_index`, if that is given. In the new run their
    indexes are lowered by the earlier run's `last_index` + 1, so they stay in order and before everything new.
    """

    run_id: str
    until_index: int | None = None
    #: Whether to take over signals that no copied wait has taken, and to leave out waits that ended in failure.
    keeps_signals: bool = False


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All durable calls that a run has recorded."""

    steps: Sequence[Step]
    waits: Sequence[Wait]


class ParkedTimer(msgspec.Struct, frozen=True, kw_only=True):
    """A wait with a time limit, of a waiting run that belongs to no engine."""

    run_id: str
    key: str
    created_us: int
    due_us: int
