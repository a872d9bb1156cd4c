"""What the journal holds, as values.

Everything that passes between the journal and the rest of the program is one of these frozen records. A database row
becomes a record in its adapter; a record becomes the JSON that HTTP, the client and the CLI show in `to_dict`, here
and nowhere else. Stored JSON (payload, result, event data) stays `Raw`: most readers only pass it on.

They are structs of msgspec and no dataclasses: several are made for each step, at a quarter of the time, and the
classes themselves cost every command that imports them a tenth. What they hold cannot lead back to them, so the garbage
collector need not look at those that are made often (`gc=False`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from .. import codec
from ..clock import rfc3339
from ..codec import Raw

if TYPE_CHECKING:
    from .calls import Copies


class RunStatus(StrEnum):
    """Where a run is in its life. The last three are final."""

    QUEUED = "queued"  #: accepted; no engine drives it
    RUNNING = "running"  #: an engine owns and drives it
    WAITING = "waiting"  #: parked on a timer, a signal, an approval or a child
    COMPLETED = "completed"  #: `result` is set
    FAILED = "failed"  #: `error` is set
    CANCELLED = "cancelled"  #: a caller asked, and the work has stopped

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})


class EventType(StrEnum):
    """The types of event that the engine itself writes. Workflows add their own with `ctx.emit`."""

    RUN_START = "run_start"
    RUN_RESUMED = "run_resumed"
    RUN_WAITING = "run_waiting"
    RUN_END = "run_end"
    LOG = "log"
    PROGRESS = "progress"
    STEP_START = "step_start"
    STEP_RETRY = "step_retry"
    STEP_END = "step_end"
    APPROVAL_REQUESTED = "approval_requested"
    APPROVAL_DECIDED = "approval_decided"
    APPROVAL_REFUSED = "approval_refused"
    SIGNAL = "signal"
    SIGNAL_REFUSED = "signal_refused"
    REPLAY_DRIFT = "replay_drift"
    # Work of agents, in runs and on the streams of instances.
    OPERATION_START = "operation_start"
    OPERATION = "operation"
    TURN_REQUEST = "turn_request"
    TURN = "turn"
    TOOL_START = "tool_start"
    TOOL_END = "tool_end"
    COMMAND_START = "command_start"
    COMMAND_END = "command_end"
    TASK_START = "task_start"
    TASK_END = "task_end"
    COMPACTION_START = "compaction_start"
    COMPACTION_END = "compaction_end"
    TEXT_DELTA = "text_delta"  #: live only, never stored
    ERROR = "error"
    # On the stream of an agent's instance, where interactions are what runs are elsewhere.
    INTERACTION_ACCEPTED = "interaction_accepted"
    INTERACTION_START = "interaction_start"
    INTERACTION_RESUMED = "interaction_resumed"
    INTERACTION_WAITING = "interaction_waiting"
    INTERACTION_END = "interaction_end"


#: What events of runs are called on the stream of an agent's instance.
OF_INTERACTIONS: Mapping[str, EventType] = {
    EventType.RUN_START: EventType.INTERACTION_START,
    EventType.RUN_RESUMED: EventType.INTERACTION_RESUMED,
    EventType.RUN_WAITING: EventType.INTERACTION_WAITING,
    EventType.RUN_END: EventType.INTERACTION_END,
}


class Run(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One invocation of a workflow, as recorded.

    `payload` and `result` are None where they were not asked for (lists); a run without result has no `result` either.
    """

    run_id: str
    workflow: str
    kind: str
    status: RunStatus
    payload: Raw | None = None
    result: Raw | None = None
    error: Raw | None = None
    tags: tuple[str, ...] = ()
    attempt: int = 0
    owner: str | None = None
    workflow_version: str = ""
    parent_run_id: str | None = None
    retried_from: str | None = None
    forked_from: str | None = None
    idempotency_key: str | None = None
    request: Raw | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    usage: Raw | None = None
    last_index: int = 0
    #: Crashes of its engine since the run last recorded a step or a wait.
    crashes: int = 0
    #: Whether it lost its engine while it was running, and has not begun to wait since.
    is_interrupted: bool = False
    #: How many runs stand above it: 0 unless another run started it.
    depth: int = 0
    #: Position in the order of acceptance; the cursor of lists.
    seq: int = 0

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    def to_dict(self, *, values: bool = True) -> dict[str, Any]:
        """The run as JSON; `values=False` leaves out payload, result and request, as lists do."""
        shown: dict[str, Any] = {
            "run_id": self.run_id,
            "workflow": self.workflow,
            "kind": self.kind,
            "status": self.status.value,
            "error": self.error,
            "tags": list(self.tags),
            "attempt": self.attempt,
            "owner": self.owner,
            "workflow_version": self.workflow_version,
            "parent_run_id": self.parent_run_id,
            "retried_from": self.retried_from,
            "forked_from": self.forked_from,
            "idempotency_key": self.idempotency_key,
            "created_at": rfc3339(self.created_at),
            "started_at": _time(self.started_at),
            "finished_at": _time(self.finished_at),
            "deadline_at": _time(self.deadline_at),
            "cancel_requested_at": _time(self.cancel_requested_at),
            "usage": self.usage,
            "last_index": self.last_index,
        }
        if values:
            shown["payload"] = self.payload
            shown["result"] = self.result
            shown["request"] = self.request
        return shown


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One numbered fact of a stream; `index` counts 1, 2, 3 … without gaps.

    `stream_id` is the run id, or the stream of the agent's instance for an interaction (`ids.stream_of`).
    """

    stream_id: str
    index: int
    type: str
    at: datetime
    data: Raw
    #: The attempt at a step that it comes from, such as `charge/attempt-1`; None outside of steps.
    step: str | None = None
    #: The ULID of the interaction that it comes from, on the stream of an agent's instance.
    interaction: str | None = None

    def to_dict(self) -> dict[str, Any]:
        shown = {
            "stream_id": self.stream_id,
            "index": self.index,
            "type": self.type,
            "at": rfc3339(self.at),
            "data": self.data,
        }
        if self.step is not None:
            shown["step"] = self.step
        if self.interaction is not None:
            shown["interaction_id"] = self.interaction
        return shown

    def to_json(self) -> bytes:
        """The event as one line of JSON."""
        return codec.encode(self.to_dict())

    @property
    def is_last(self) -> bool:
        """Whether the stream's run ended with this event."""
        return self.type == EventType.RUN_END


class Fence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who may write for a run: this engine, in this attempt. Any other writer's record changes nothing."""

    run_id: str
    owner: str
    attempt: int


class NewRun(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run to accept. With `owner` it starts at once (attempt 1, `run_start` written); without, it is queued.

    One whose id is that of an interaction (`ids.is_interaction`) is in no list of runs, and its events go to the
    stream of the agent's instance.
    """

    run_id: str
    workflow: str
    kind: str
    payload: Raw
    workflow_version: str = ""
    tags: tuple[str, ...] = ()
    owner: str | None = None
    request: Raw | None = None
    deadline_us: int | None = None
    idempotency_key: str | None = None
    #: What must be equal for a second request with the same key to be the same request.
    request_digest: str | None = None
    parent_run_id: str | None = None
    depth: int = 0
    retried_from: str | None = None
    forked_from: str | None = None
    #: What it takes over from an earlier run.
    copies: Copies | None = None
    #: What it is to run, if that came with the request; `Journal.definition` gives it back.
    definition: Raw | None = None
    #: Runs of one lane go one after the other, in the order of acceptance; they are always queued, whatever `owner` is.
    lane: str | None = None
    #: Whether to record nothing unless all earlier runs of its lane have ended.
    needs_free_lane: bool = False


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An event to append; the writer numbers it."""

    type: str
    at_us: int
    data: Raw
    #: Kept as a blob, which the event's data (an object) then names as `blob`, with `size_bytes`.
    more: Raw | None = None
    #: The attempt at a step that said it, such as `charge/attempt-1`.
    step: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a run ended."""

    status: RunStatus
    result: Raw | None = None
    error: Raw | None = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an accept record: the run, or the earlier run of the same `Idempotency-Key`, or of its lane."""

    run_id: str
    is_repeat: bool = False
    #: The key came before with another request; nothing was recorded.
    is_conflict: bool = False
    #: `run_id` is the run that its lane is at; nothing was recorded.
    is_busy: bool = False


class CancelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request to cancel: the run as it is now, and whether it was final before."""

    run: Run
    was_final: bool


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a list holds. Empty fields filter nothing."""

    workflows: Sequence[str] = ()
    statuses: Sequence[RunStatus] = ()
    tags: Sequence[str] = ()
    kind: str | None = None
    parent_run_id: str | None = None
    created_after_us: int | None = None
    created_before_us: int | None = None
    finished_after_us: int | None = None
    #: Text contained in the run's error.
    error_text: str | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a list, newest first, and the cursor of the next part (None at the end)."""

    runs: tuple[Run, ...]
    next_before: int | None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of the journal file found; no problems means it is sound."""

    path: str
    schema_version: int
    size_bytes: int
    runs: int
    problems: tuple[str, ...] = ()


def blob_name(data: bytes) -> str:
    """The name of a large value by its content: `sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def stored_data(data: Raw, more: Raw | None, limit_bytes: int) -> tuple[Raw, bytes | None]:
    """What an event holds, and what is kept as a blob beside it: `more`, or data that is larger than the limit."""
    if more is None and len(memoryview(data)) <= limit_bytes:
        return data, None
    kept = bytes(memoryview(data if more is None else more))
    reference = {"blob": blob_name(kept), "size_bytes": len(kept)}
    return Raw(codec.encode(reference if more is None else {**codec.load(data), **reference})), kept


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)
