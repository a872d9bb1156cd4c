"""Rows of durable calls as records, and the queries that read them.

Used by both halves of the SQLite journal, at first use: a run without durable calls never imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import codec
from ..clock import to_datetime
from .calls import (
    Approval,
    ApprovalFilter,
    ApprovalState,
    History,
    ParkedTimer,
    Step,
    StepStatus,
    Wait,
    WaitKind,
    WaitState,
)
from .sqlite_file import Database
from .sqlite_rows import to_raw, whole

#: Whether an answered approval was approved. An answer with a lot of data is a blob.
_APPROVED = """json_extract(
    iif(
        answer LIKE 'sha256:%',
        (SELECT CAST(data AS TEXT) FROM blobs WHERE stream_id = waits.run_id AND blobs.digest = answer),
        answer
    ),
    '$.approved'
)"""
_STATES = {
    ApprovalState.OPEN: "state = 'open'",
    ApprovalState.APPROVED: f"(state = 'answered' AND {_APPROVED})",
    ApprovalState.REJECTED: f"(state = 'answered' AND NOT {_APPROVED})",
    ApprovalState.EXPIRED: "state = 'expired'",
    ApprovalState.CANCELLED: "state = 'cancelled'",
}
_HIGHEST_ID = "\x7f"


class CallRows:
    """Reads durable calls through one connection."""

    def __init__(self, db: Database, sql: Mapping[str, str]) -> None:
        self._db = db
        self._sql = sql

    def history(self, run_id: str) -> History:
        # One transaction, or a step that replaces its `retrying` record between the two queries would be torn.
        self._db.execute("BEGIN")
        try:
            steps = [self._step(row) for row in self._db.execute(self._sql["all_steps"], {"run_id": run_id})]
            waits = [self.to_wait(row) for row in self._db.execute(self._sql["waits"], {"run_id": run_id})]
        finally:
            self._db.execute("ROLLBACK")
        return History(steps=steps, waits=waits)

    def steps(self, run_id: str, after: str | None, limit: int, limit_bytes: int | None) -> list[Step]:
        steps: list[Step] = []
        left = 2**62 if limit_bytes is None else limit_bytes
        self._db.execute("BEGIN")  # as for `history`
        try:
            bindings = {"run_id": run_id, "limit": limit, "after": after}
            for table, key in list(self._db.execute(self._sql["calls"], bindings)):
                (row,) = self._db.execute(self._sql[table], {"run_id": run_id, "key": key})
                step = self._step(row) if table == "step" else self.to_wait(row).as_step()
                steps.append(step)
                left -= sum(len(memoryview(value)) for value in (step.value, step.error) if value is not None)
                if left <= 0:
                    break
        finally:
            self._db.execute("ROLLBACK")
        return steps

    def wait(self, run_id: str, key: str) -> Wait | None:
        row = self._db.execute(self._sql["wait"], {"run_id": run_id, "key": key}).fetchone()
        return None if row is None else self.to_wait(row)

    def open_waits(self, run_id: str) -> list[Wait]:
        return [self.to_wait(row) for row in self._db.execute(self._sql["open_waits"], {"run_id": run_id})]

    def wait_for_signal(self, run_id: str, name: str, now: int) -> Wait | None:
        bindings = {"run_id": run_id, "name": name, "now": now}
        row = self._db.execute(self._sql["wait_for_signal"], bindings).fetchone()
        return None if row is None else self.to_wait(row)

    def waits_for_child(self, run_id: str, now: int) -> list[Wait]:
        bindings = {"name": run_id, "now": now}
        return [self.to_wait(row) for row in self._db.execute(self._sql["wait_for_child"], bindings)]

    def approval(self, approval_id: str) -> Approval | None:
        row = self._db.execute(self._sql["approval"], {"wait_id": approval_id}).fetchone()
        return None if row is None else self._approval(row)

    def approvals(self, where: ApprovalFilter, before: str | None, limit: int) -> list[Approval]:
        conditions, bindings = _filters(where)
        query = self._sql["approvals"].replace("/*filters*/", conditions)
        bindings |= {"before": _HIGHEST_ID if before is None else before, "limit": limit}
        return [self._approval(row) for row in self._db.execute(query, bindings)]

    def parked_timers(self, limit: int) -> list[ParkedTimer]:
        # Most often there is none, while many waits of runs that have an owner have a time limit.
        if not self._db.execute(self._sql["has_parked"]).get:
            return []
        return [
            ParkedTimer(run_id=run_id, key=key, created_us=created_us, due_us=due_us)
            for run_id, key, created_us, due_us in self._db.execute(self._sql["parked_timers"], {"limit": limit})
        ]

    def to_wait(self, row: Sequence[Any]) -> Wait:
        """A row of `wait`, `waits` or `open_waits`, with values whole."""
        (
            run_id, key, kind, name, position, wait_id, request, digest, state, answer, created_at, due_at, answered_at,
            started_index, answered_index,
        ) = row  # fmt: skip
        return Wait(
            run_id=run_id,
            key=key,
            kind=WaitKind(kind),
            name=name,
            position=position,
            wait_id=wait_id,
            request=to_raw(whole(self._db, self._sql, run_id, request)),
            digest=digest,
            state=WaitState(state),
            answer=to_raw(whole(self._db, self._sql, run_id, answer)),
            created_at=to_datetime(created_at),
            due_at=None if due_at is None else to_datetime(due_at),
            answered_at=None if answered_at is None else to_datetime(answered_at),
            started_index=started_index,
            answered_index=answered_index,
        )

    def _step(self, row: tuple[Any, ...]) -> Step:
        (
            run_id, key, kind, name, position, status, input_digest, value, error, attempts, started_at, finished_at,
            started_index, recorded_index,
        ) = row  # fmt: skip
        return Step(
            run_id=run_id,
            key=key,
            kind=kind,
            name=name,
            position=position,
            status=StepStatus(status),
            input_digest=input_digest,
            value=to_raw(whole(self._db, self._sql, run_id, value)),
            error=to_raw(whole(self._db, self._sql, run_id, error)),
            attempts=attempts,
            started_at=to_datetime(started_at),
            finished_at=None if finished_at is None else to_datetime(finished_at),
            started_index=started_index,
            recorded_index=recorded_index,
        )

    def _approval(self, row: tuple[Any, ...]) -> Approval:
        *wait, workflow = row
        return Approval(wait=self.to_wait(wait), workflow=workflow)


def _filters(where: ApprovalFilter) -> tuple[str, dict[str, Any]]:
    """The conditions of a list of approvals as SQL with named values, and those values."""
    conditions: list[str] = []
    bindings: dict[str, Any] = {}
    if where.states:
        conditions.append(" OR ".join(_STATES[state] for state in where.states))
    if where.workflows:
        conditions.append("workflow IN (SELECT value FROM json_each(:workflows))")
        bindings["workflows"] = codec.encode(list(where.workflows)).decode()
    if where.run_id is not None:
        conditions.append("waits.run_id = :run_id")
        bindings["run_id"] = where.run_id
    if where.name is not None:
        conditions.append("name = :name")
        bindings["name"] = where.name
    return "".join(f" AND ({condition})" for condition in conditions), bindings
