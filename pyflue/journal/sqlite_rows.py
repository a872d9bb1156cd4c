"""Rows of the SQLite journal as records, and records as rows: the one place where columns and fields meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import codec
from ..clock import to_datetime
from ..codec import Raw
from .records import Event, Page, Run, RunFilter, RunStatus, blob_name
from .sqlite_file import Database

#: Longer values are kept as blobs: the row of a run is rewritten with every batch of its events.
INLINE_BYTES = 2048
_BLOB_PREFIX = "sha256:"


def to_run(row: tuple[Any, ...]) -> Run:
    """A row of `run`, `run_head` or `runs`; blob names in payload and result are resolved by `read_run`."""
    (
        seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, interrupted, depth, created_at,
        started_at, finished_at, deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from,
        forked_from, idempotency_key, usage, error, *values,
    ) = row  # fmt: skip
    request, payload, result = values or (None, None, None)
    return Run(
        seq=seq,
        run_id=run_id,
        workflow=workflow,
        kind=kind,
        status=RunStatus(status),
        owner=owner,
        attempt=attempt,
        last_index=last_index,
        crashes=crashes,
        is_interrupted=bool(interrupted),
        depth=depth,
        created_at=to_datetime(created_at),
        started_at=None if started_at is None else to_datetime(started_at),
        finished_at=None if finished_at is None else to_datetime(finished_at),
        deadline_at=None if deadline_at is None else to_datetime(deadline_at),
        cancel_requested_at=None if cancel_requested_at is None else to_datetime(cancel_requested_at),
        workflow_version=workflow_version,
        tags=() if tags == "[]" else tuple(codec.load(tags.encode())),
        parent_run_id=parent_run_id,
        retried_from=retried_from,
        forked_from=forked_from,
        idempotency_key=idempotency_key,
        usage=to_raw(usage),
        error=to_raw(error),
        request=to_raw(request),
        payload=to_raw(payload),
        result=to_raw(result),
    )


def to_page(runs: Sequence[Run], limit: int) -> Page:
    """A part of a list, of one run more than it may hold if there are more."""
    return Page(runs=tuple(runs[:limit]), next_before=runs[limit - 1].seq if len(runs) > limit else None)


def to_event(row: tuple[Any, ...]) -> Event:
    """A row of `events`."""
    stream_id, index, type_, at, data, step, interaction = row
    return Event(
        stream_id=stream_id,
        index=index,
        type=type_,
        at=to_datetime(at),
        data=Raw(data.encode()),
        step=step,
        interaction=interaction,
    )


def read_run(db: Database, sql: Mapping[str, str], run_id: str, *, values: bool) -> Run | None:
    """One run; with `values`, payload and result come whole, also where they are blobs."""
    row = db.execute(sql["run" if values else "run_head"], {"run_id": run_id}).fetchone()
    if row is None:
        return None
    if values:
        *head, payload, result = row
        row = (*head, whole(db, sql, run_id, payload), whole(db, sql, run_id, result))
    return to_run(row)


def read_definition(db: Database, sql: Mapping[str, str], run_id: str) -> Raw | None:
    """The definition that came with the request for a run, whole."""
    row = db.execute(sql["definition"], {"run_id": run_id}).fetchone()
    return None if row is None else to_raw(whole(db, sql, run_id, row[0]))


def read_blob(db: Database, sql: Mapping[str, str], stream_id: str, digest: str) -> bytes | None:
    """A large value by the name of its content."""
    row = db.execute(sql["blob"], {"stream_id": stream_id, "digest": digest}).fetchone()
    return None if row is None else bytes(row[0])


def answers_since(db: Database, sql: Mapping[str, str], seq: int) -> tuple[int, list[tuple[str, str]]]:
    """The waits that ended after the `seq`-th did, and how many have ended; -1 asks for that number only."""
    # The number first: what ends between the two queries is told next time.
    now = int(db.execute(sql["answers_so_far"]).get)
    if seq < 0 or seq >= now:
        return now, []
    return now, [(run_id, key) for run_id, key in db.execute(sql["answers_between"], (seq, now))]


def column_of(value: Raw | None) -> str | None:
    """What a column holds for a value of any size: its text, or the name of the blob that `put_large` puts it into."""
    if value is None or len(memoryview(value)) <= INLINE_BYTES:
        return text(value)
    return blob_name(bytes(memoryview(value)))


def put_large(db: Database, sql: Mapping[str, str], stream_id: str, value: Raw | None) -> None:
    """Keep a value that is too long for its column."""
    if value is not None and len(memoryview(value)) > INLINE_BYTES:
        put_blob(db, sql, stream_id, bytes(memoryview(value)))


def put_blob(db: Database, sql: Mapping[str, str], stream_id: str, data: bytes) -> str:
    """Keep bytes as a blob of a stream; returns the blob's name."""
    digest = blob_name(data)
    db.execute(sql["put_blob"], {"stream_id": stream_id, "digest": digest, "data": data})
    return digest


def whole(db: Database, sql: Mapping[str, str], stream_id: str, column: str | None) -> str | None:
    """The text of a column that may hold the name of a blob instead."""
    if column is None or not column.startswith(_BLOB_PREFIX):
        return column
    data = read_blob(db, sql, stream_id, column)
    return None if data is None else data.decode()


def to_raw(column: str | None) -> Raw | None:
    """A column of JSON as the JSON it holds."""
    return None if column is None else Raw(column.encode())


def text(value: Raw | None) -> str | None:
    """Written JSON as a column holds it."""
    return None if value is None else str(memoryview(value), "utf-8")


def filters(where: RunFilter) -> tuple[str, dict[str, Any]]:
    """The conditions of a list as SQL with named values, and those values."""
    conditions: list[str] = []
    bindings: dict[str, Any] = {}

    def add(condition: str, name: str, value: Any) -> None:
        conditions.append(condition)
        bindings[name] = value

    if where.workflows:
        add("workflow IN (SELECT value FROM json_each(:workflows))", "workflows", _json(list(where.workflows)))
    if where.statuses:
        add("status IN (SELECT value FROM json_each(:statuses))", "statuses", _json([s.value for s in where.statuses]))
        if all(not status.is_final for status in where.statuses):
            conditions.append("finished_at IS NULL")
        elif all(status in (RunStatus.FAILED, RunStatus.CANCELLED) for status in where.statuses):
            conditions.append("status IN ('failed', 'cancelled')")
    for number, tag in enumerate(where.tags):
        name = f"tag{number}"
        add(f"seq IN (SELECT seq FROM run_tags WHERE tag = :{name})", name, tag)  # noqa: S608  (the name is ours)
    if where.kind is not None:
        add("kind = :kind", "kind", where.kind)
    if where.parent_run_id is not None:
        add("parent_run_id = :parent_run_id", "parent_run_id", where.parent_run_id)
    if where.created_after_us is not None:
        add("created_at >= :created_after", "created_after", where.created_after_us)
    if where.created_before_us is not None:
        add("created_at < :created_before", "created_before", where.created_before_us)
    if where.finished_after_us is not None:
        add("finished_at >= :finished_after", "finished_after", where.finished_after_us)
    if where.error_text is not None:
        add("instr(lower(error), lower(:error_text)) > 0", "error_text", where.error_text)
    return "".join(f" AND {condition}" for condition in conditions), bindings


def _json(value: Any) -> str:
    return codec.encode(value).decode()
