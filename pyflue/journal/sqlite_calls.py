"""The verbs of durable calls on SQLite: steps, waits and what ends them, children, copies.

Lives in the writer thread beside `SqliteWrites`, which makes it at first use; every verb runs inside the writer's open
transaction. A wait has one owner (its run) and many who may end it, so its end is conditional on the wait being open,
not on a fence; everything else of a run is conditional on its fence.

`earlier` are events of the same fence that were still in the queue: they come first in the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import codec, ids
from ..clock import to_us
from ..codec import Raw
from ..errors import JournalError
from . import sqlite_rows
from .calls import (
    Approval,
    Copies,
    Decided,
    NewSignal,
    NewStep,
    NewWait,
    Opened,
    Park,
    SignalAnswer,
    StepStatus,
    Wait,
    WaitKind,
    WaitState,
)
from .records import EventType, Fence, NewEvent, NewRun, Outcome, Run, RunStatus
from .sqlite_call_rows import CallRows

if TYPE_CHECKING:
    from .conversations import Attached
    from .sqlite_file import Database
    from .sqlite_writes import SqliteWrites


class SqliteCalls:
    """Writes durable calls. Used by one thread."""

    def __init__(self, writes: SqliteWrites) -> None:
        self._writes = writes
        self._sql = writes.sql

    @property
    def _db(self) -> Database:
        return self._writes.db

    @property
    def _rows(self) -> CallRows:
        return CallRows(self._writes.db, self._sql)

    # Steps

    def record(
        self,
        fence: Fence,
        step: NewStep,
        events: Sequence[NewEvent],
        attached: Attached | None = None,
        *,
        earlier: Sequence[NewEvent],
    ) -> int | None:
        index = self._writes.progress(fence, [*earlier, *events])
        if index is not None:
            also = None if attached is None else attached.also
            # The last event is that of the further step: each of the two has a place of its own.
            own_index = index if also is None else index - 1
            self._add(fence.run_id, step, own_index)
            if also is not None:
                self._add(fence.run_id, also, index)
            if attached is not None:
                self._writes.conversations.attach(fence.run_id, step.key, own_index, attached)
        return index

    def note(
        self, fence: Fence, step: NewStep, attached: Attached | None = None, *, earlier: Sequence[NewEvent]
    ) -> int | None:
        index = self._writes.progress(fence, earlier)
        if index is not None:
            # Its place in time is where it was made: the workflow has gone on without waiting for this record.
            self._add(fence.run_id, step, step.started_index)
            if attached is not None:
                self._writes.conversations.attach(fence.run_id, step.key, step.started_index, attached)
        return index

    def _add(self, run_id: str, step: NewStep, index: int) -> None:
        finished_at = None
        if step.status not in (StepStatus.RETRYING, StepStatus.STARTED, StepStatus.CANCELLED):
            finished_at = max(self._now(), step.started_us)
        self._writes.step_rows.append(
            (
                run_id,
                step.key,
                step.kind,
                step.name,
                step.position,
                step.input_digest,
                step.status.value,
                self._column(run_id, step.value),
                self._column(run_id, step.error),
                step.attempts,
                step.started_us,
                finished_at,
                step.started_index,
                index,
            )
        )

    def holds(self, fence: Fence) -> bool:
        run = sqlite_rows.read_run(self._writes.connection, self._sql, fence.run_id, values=False)
        return run is not None and not run.is_final and (run.owner, run.attempt) == (fence.owner, fence.attempt)

    # Waits

    def open_wait(
        self,
        fence: Fence,
        new: NewWait,
        events: Sequence[NewEvent],
        park: Park | None,
        earlier: Sequence[NewEvent],
    ) -> Opened | None:
        index = self._writes.progress(fence, [*earlier, *events])
        if index is None:
            return None
        run_id = fence.run_id
        self._db.execute(
            self._sql["put_wait"],
            (
                run_id,
                new.key,
                new.kind.value,
                new.name,
                new.position,
                new.wait_id,
                self._column(run_id, new.request),
                new.digest,
                new.due_us,
                new.started_index,
                self._now() if new.created_us is None else new.created_us,
            ),
        )
        if not self._db.changes():
            raise JournalError(f"Run {run_id} waits already at {new.key!r}.")
        if new.kind is WaitKind.SIGNAL:
            answered_index = self._take_kept_signal(run_id, new)
            if answered_index is not None:
                return Opened(wait=self._wait(run_id, new.key), index=answered_index)
        parked_index = None if park is None else self._park(fence, park)
        is_parked = parked_index is not None
        return Opened(wait=self._wait(run_id, new.key), index=parked_index or index, is_parked=is_parked)

    def park(self, fence: Fence, park: Park) -> bool:
        return self._park(fence, park) is not None

    def expire(self, run_id: str, key: str, fence: Fence | None) -> Wait | None:
        wait = self._rows.wait(run_id, key)
        if wait is None or wait.state is not WaitState.OPEN:
            return wait
        if not self._may_expire(run_id, fence):
            return None if fence is not None else wait
        self._end(wait, WaitState.EXPIRED)
        if wait.kind is WaitKind.CHILD:
            self._writes.cancel_all([wait.name])
        return self._wait(run_id, key)

    def close_wait(self, fence: Fence, key: str, earlier: Sequence[NewEvent]) -> bool:
        if not self._keeps_running(fence):
            return False
        if earlier:
            self._writes.append(fence, earlier)
        closed = self._db.execute(self._sql["close_wait"], {"run_id": fence.run_id, "key": key, "at": self._now()})
        self._writes.cancel_all([name for kind, name in closed if kind == WaitKind.CHILD])
        return True

    # What ends waits

    def signal(self, run_id: str, new: NewSignal) -> SignalAnswer | None:
        run = sqlite_rows.read_run(self._db, self._sql, run_id, values=False)
        if run is None:
            return None
        known = self._db.execute(self._sql["known_signal"], {"run_id": run_id, "signal_id": new.signal_id}).fetchone()
        if known is not None:
            return SignalAnswer.REPEATED if self._is_same(run_id, new, known) else SignalAnswer.CONFLICT
        if run.is_final:
            return SignalAnswer.RUN_FINISHED
        wait = self._rows.wait_for_signal(run_id, new.name, self._now_for(run))
        event = self._event(EventType.SIGNAL, {"signal_id": new.signal_id, "name": new.name, "data": new.data})
        if wait is None:
            index = self._take_indexes("add_to_stream", run_id, [event])
        else:
            index = self._end(wait, WaitState.ANSWERED, answer=new.data, before=[event]) - 1
        self._db.execute(
            self._sql["add_signal"],
            (
                run_id,
                new.signal_id,
                new.name,
                self._column(run_id, new.data),
                self._now(),
                None if wait is None else wait.key,
                index,
            ),
        )
        return SignalAnswer.KEPT if wait is None else SignalAnswer.DELIVERED

    def decide(self, approval_id: str, decision: Raw) -> Decided | None:
        approval = self._rows.approval(approval_id)
        if approval is None:
            return None
        wait = approval.wait
        if wait.state is not WaitState.OPEN:
            return Decided(approval=approval, is_recorded=False, is_repeat=_repeats(decision, wait))
        run = sqlite_rows.read_run(self._db, self._sql, wait.run_id, values=False)
        if wait.due_at is not None and to_us(wait.due_at) <= self._now_for(run):
            self._end(wait, WaitState.EXPIRED)
            return Decided(approval=self._approval(approval_id), is_recorded=False)
        said = codec.load(decision)
        event = self._event(
            EventType.APPROVAL_DECIDED,
            {
                "approval_id": approval_id,
                "step": wait.key,
                "name": wait.name,
                "approved": said["approved"],
                "by": said.get("by"),
                "reason": said.get("reason"),
                "data": said.get("data"),
            },
        )
        self._end(wait, WaitState.ANSWERED, answer=decision, before=[event])
        return Decided(approval=self._approval(approval_id), is_recorded=True)

    def answer_parent(self, run_id: str, parent_run_id: str, outcome: Outcome) -> None:
        """Tell a run's end to the run that started it, if that waits for it."""
        parent = sqlite_rows.read_run(self._db, self._sql, parent_run_id, values=False)
        waits = self._rows.waits_for_child(run_id, self._now_for(parent))
        if not waits:
            return
        answer = codec.encode({"status": outcome.status.value, "result": outcome.result, "error": outcome.error})
        for wait in waits:
            self._end(wait, WaitState.ANSWERED, answer=Raw(answer), child_status=outcome.status)

    # Runs

    def start_child(
        self,
        fence: Fence,
        child: NewRun,
        call: NewStep | NewWait,
        events: Sequence[NewEvent],
        park: Park | None,
        earlier: Sequence[NewEvent],
    ) -> Opened | int | None:
        recorded: Opened | int | None
        if isinstance(call, NewStep):
            recorded = self.record(fence, call, events, earlier=earlier)
        else:
            recorded = self.open_wait(fence, call, events, park, earlier)
        if recorded is not None:
            self._writes.insert_run(child)
        return recorded

    def close_waits(self, run_id: str) -> list[str]:
        """Close what a run that has ended still waited for; returns the child runs among that."""
        rows = self._db.execute(self._sql["close_waits"], {"run_id": run_id, "at": self._now()})
        return [name for kind, name in rows if kind == WaitKind.CHILD]

    def restart(self, fence: Fence) -> bool:
        if not self._keeps_running(fence):
            return False
        self._writes.flush()
        for statement in ("delete_steps", "delete_waits", "keep_signals_again"):
            self._db.execute(self._sql[statement], {"run_id": fence.run_id})
        self._writes.conversations.forget(fence.run_id)
        self._writes.cancel_below(fence.run_id)
        return True

    def copy(self, copies: Copies, run_id: str) -> None:
        """Let a new run begin with what an earlier one has recorded."""
        self._writes.flush()
        bindings = {
            "run_id": run_id,
            "source": copies.run_id,
            "until": copies.until_index,
            "keeps_signals": copies.keeps_signals,
        }
        statements = ["copy_steps", "copy_waits"]
        if copies.keeps_signals:
            statements.append("copy_signals")
        if not ids.is_interaction(run_id):  # what an interaction left is in the stream of the instance already
            statements += ["copy_entries", "copy_files"]
        statements.append("copy_blobs")
        for statement in statements:
            self._db.execute(self._sql[statement], bindings)

    # Parts

    def _now(self) -> int:
        return self._writes.clock.now_us()

    def _now_for(self, run: Run | None) -> int:
        """What a wait's `due_at` is compared with when it is answered.

        While an engine has the run, that engine's timer says when it is too late: the wall clock may have jumped.
        """
        has_engine = run is not None and run.owner is not None and self._writes.is_alive(run.owner)
        return 0 if has_engine else self._now()

    def _park(self, fence: Fence, park: Park) -> int | None:
        row = self._db.execute(
            self._sql["park_run"], (fence.run_id, fence.owner, fence.attempt, park.open_waits)
        ).fetchone()
        if row is None:
            return None
        self._writes.write_events(fence.run_id, row[0], [park.event])
        return row[0]

    def _keeps_running(self, fence: Fence) -> bool:
        bindings = (fence.run_id, fence.owner, fence.attempt)
        return self._db.execute(self._sql["keep_running"], bindings).fetchone() is not None

    def _may_expire(self, run_id: str, fence: Fence | None) -> bool:
        run = sqlite_rows.read_run(self._db, self._sql, run_id, values=False)
        if run is None or run.is_final:
            return False
        if fence is None:
            return run.owner is None
        return (run.owner, run.attempt) == (fence.owner, fence.attempt)

    def _take_kept_signal(self, run_id: str, new: NewWait) -> int | None:
        """Answer a wait that has just been opened with a signal that came before; None if there is none."""
        row = self._db.execute(self._sql["kept_signal"], {"run_id": run_id, "name": new.name}).fetchone()
        if row is None:
            return None
        signal_id, data = row
        index = self._end(self._wait(run_id, new.key), WaitState.ANSWERED, answer_column=data)
        self._db.execute(self._sql["take_signal"], {"run_id": run_id, "signal_id": signal_id, "key": new.key})
        return index

    def _end(
        self,
        wait: Wait,
        state: WaitState,
        *,
        answer: Raw | None = None,
        answer_column: str | None = None,
        before: Sequence[NewEvent] = (),
        child_status: RunStatus | None = None,
    ) -> int:
        """End an open wait of a run that is not final; returns the run's `last_index`, which is its `step_end`.

        `answer_column` is an answer that the run's stream holds already.
        """
        run_id = wait.run_id
        index = self._take_indexes("wake_run", run_id, [*before, self._step_end(wait, state, child_status)])
        seq = self._db.execute(self._sql["next_answer"]).get
        column = answer_column if answer is None else self._column(run_id, answer)
        self._db.execute(self._sql["end_wait"], (state.value, column, self._now(), index, seq, run_id, wait.key))
        self._writes.note_ended(run_id, wait.key)
        return index

    def _step_end(self, wait: Wait, state: WaitState, child_status: RunStatus | None) -> NewEvent:
        is_expired = state is WaitState.EXPIRED and wait.kind is not WaitKind.TIMER
        data: dict[str, Any] = {
            "step": wait.key,
            "name": wait.name,
            "kind": wait.kind.call,
            "status": "expired" if is_expired else "completed",
        }
        if wait.kind is WaitKind.CHILD:
            data["name"] = ids.workflow_of(wait.name) or wait.name
            data["child_run_id"] = wait.name
            data["child_status"] = child_status
        return self._event(EventType.STEP_END, data)

    def _take_indexes(self, statement: str, run_id: str, events: Sequence[NewEvent]) -> int:
        """Append events that are not the owner's to a run that is not final; returns its `last_index`."""
        index = int(self._db.execute(self._sql[statement], (len(events), run_id)).get)
        self._writes.write_events(run_id, index, events)
        return index

    def _event(self, type_: EventType, data: dict[str, Any]) -> NewEvent:
        return NewEvent(type=type_.value, at_us=self._now(), data=Raw(codec.encode(data)))

    def _column(self, run_id: str, value: Raw | None) -> str | None:
        """What a column holds for a value, which is kept as a blob of the run if it is large."""
        if value is None:
            return None
        sqlite_rows.put_large(self._writes.connection, self._sql, run_id, value)
        return sqlite_rows.column_of(value)

    def _is_same(self, run_id: str, new: NewSignal, known: Sequence[Any]) -> bool:
        name, column = known
        data = sqlite_rows.to_raw(sqlite_rows.whole(self._db, self._sql, run_id, column))
        return name == new.name and data is not None and codec.canonical(data) == codec.canonical(new.data)

    def _wait(self, run_id: str, key: str) -> Wait:
        wait = self._rows.wait(run_id, key)
        assert wait is not None, key  # noqa: S101  (written in this transaction)
        return wait

    def _approval(self, approval_id: str) -> Approval:
        approval = self._rows.approval(approval_id)
        assert approval is not None, approval_id  # noqa: S101  (read in this transaction)
        return approval


def _repeats(decision: Raw, wait: Wait) -> bool:
    if wait.answer is None:
        return False
    said, recorded = codec.load(decision), codec.load(wait.answer)
    return all(_same(said.get(field), recorded.get(field)) for field in ("approved", "data"))


def _same(one: Any, other: Any) -> bool:
    return codec.canonical(codec.encode(one)) == codec.canonical(codec.encode(other))
