"""The writing half of the SQLite journal: each verb as statements inside the writer's open transaction.

Lives in the writer thread; `Writer` calls `begin`, the verbs, `commit`. Every verb that writes for a run is conditional
on its fence in the statement itself: no row changed means somebody else has the run, and nothing else is written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apsw

from .. import codec
from ..clock import Clock
from ..codec import Raw
from ..errors import JournalBusy
from ..settings import JournalSettings, Limits
from . import sqlite_file, sqlite_rows
from .locks import Turnstile
from .records import Accepted, CancelAnswer, EventType, Fence, NewEvent, NewRun, Outcome, Run, RunStatus
from .sqlite_file import Database

_PAGE_BYTES = 4096
_CHECKPOINT_PAGES = 8 * 1024**2 // _PAGE_BYTES
_MOST_WAL_PAGES = 64 * 1024**2 // _PAGE_BYTES
#: How long a busy process writes before it lets the others have their turn.
_TURN_S = 0.005
#: How long the writer waits for readers to let go of a log that has grown too large, before it writes on.
_RESET_TIMEOUT_MS = 1000


_CANCELLED = Outcome(status=RunStatus.CANCELLED)


class SqliteWrites:
    """The write connection and its verbs. Used by one thread."""

    def __init__(
        self,
        connection: Database,
        name: str,
        *,
        turnstile: Turnstile | None,
        checkpointer: Checkpointer | None,
        touch: Callable[[str], None],
        sql: Mapping[str, str],
        clock: Clock,
        settings: JournalSettings,
        limits: Limits,
    ) -> None:
        self._db = connection
        self._name = name
        self._turnstile = turnstile
        self._checkpointer = checkpointer
        self._touch = touch
        self._sql = sql
        self._clock = clock
        self._settings = settings
        self._limits = limits
        self._has_turn = False
        self._turn_ends_at = 0.0
        self._wal_pages = 0
        self._seen_version = self._data_version()
        connection.set_wal_hook(self._note_wal)
        self._append_event = sql["append_event"]

    # Transactions

    def begin(self) -> None:
        if self._turnstile is not None and not self._has_turn:
            if not self._turnstile.enter(self._settings.busy_timeout_s):
                raise JournalBusy(self._name, self._settings.busy_timeout_s)
            self._has_turn = True
            self._turn_ends_at = time.monotonic() + _TURN_S
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._db.execute("COMMIT")
        if self._has_turn and time.monotonic() >= self._turn_ends_at:
            self.pause()

    def rollback(self) -> None:
        # A full disk may have ended the transaction already.
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self.pause()

    def pause(self) -> None:
        if self._turnstile is not None and self._has_turn:
            self._has_turn = False
            self._turnstile.leave()

    def after_commit(self) -> None:
        if self._checkpointer is None or self._wal_pages < _CHECKPOINT_PAGES:
            return
        if self._wal_pages > _MOST_WAL_PAGES:
            # Passive checkpoints never catch up with a writer that does not pause; this is the pause.
            self._db.set_busy_timeout(_RESET_TIMEOUT_MS)
            try:
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
                self._wal_pages = 0
            except apsw.Error:
                pass  # a long read is under way, or the disk is full; the next batch tries again
            finally:
                self._db.set_busy_timeout(int(self._settings.busy_timeout_s * 1000))
        else:
            self._checkpointer.wake()

    def foreign_commits(self) -> bool:
        try:
            version = self._data_version()
        except apsw.Error:
            return False  # whatever it is, the next write meets it, too, and has somebody to tell
        if version == self._seen_version:
            return False
        self._seen_version = version
        return True

    def is_busy(self, error: Exception) -> bool:
        return isinstance(error, (apsw.BusyError, apsw.LockedError, JournalBusy))

    def translate(self, error: Exception) -> Exception:
        return sqlite_file.translate(self._name, error, self._settings.busy_timeout_s)

    def close(self) -> None:
        self.pause()
        if self._checkpointer is not None:
            self._checkpointer.stop()
        self._db.close()
        if self._turnstile is not None:
            self._turnstile.close()

    def _data_version(self) -> int:
        return int(self._db.execute("PRAGMA data_version").get)

    def _note_wal(self, connection: object, name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    # Verbs

    def accept(self, new: NewRun) -> Accepted:
        db, sql, run_id = self._db, self._sql, new.run_id
        now = self._clock.now_us()
        if new.idempotency_key is not None:
            known = db.execute(sql["known_key"], {"key": new.idempotency_key}).fetchone()
            if known is not None:
                if known[1] != (new.request_digest or ""):
                    return Accepted(run_id=known[0], is_conflict=True)
                return Accepted(run_id=known[0], is_repeat=True)
            db.execute(
                sql["add_key"],
                {"key": new.idempotency_key, "digest": new.request_digest or "", "run_id": run_id, "at": now},
            )
        is_owned = new.owner is not None
        db.execute(
            sql["accept_run"],
            (
                run_id,
                new.workflow,
                new.kind,
                "running" if is_owned else "queued",
                new.owner,
                1 if is_owned else 0,
                1 if is_owned else 0,
                now,
                now if is_owned else None,
                new.deadline_us,
                new.workflow_version,
                codec.encode(list(new.tags)).decode() if new.tags else "[]",
                new.parent_run_id,
                new.retried_from,
                new.forked_from,
                new.idempotency_key,
                sqlite_rows.text(new.request),
                sqlite_rows.column_of(new.payload),
            ),
        )
        sqlite_rows.put_large(db, sql, run_id, new.payload)
        if new.tags:
            seq = db.last_insert_rowid()
            db.executemany(sql["add_tag"], [{"tag": tag, "seq": seq} for tag in new.tags])
        if is_owned:
            self._event(run_id, 1, EventType.RUN_START, now, _start(new.workflow, new.workflow_version))
        return Accepted(run_id=run_id)

    def claim(self, owner: str, limit: int, run_ids: Sequence[str] | None, max_crashes: int | None) -> list[Run]:
        if run_ids is None:
            bindings = {"limit": limit, "max_crashes": max_crashes}
            run_ids = [run_id for (run_id,) in self._db.execute(self._sql["queued_runs"], bindings)]
        return [run for run_id in run_ids[:limit] if (run := self._start(run_id, owner))]

    def requeue(self, lost: Fence, crashed: bool) -> bool:
        bindings = {"run_id": lost.run_id, "owner": lost.owner, "attempt": lost.attempt, "crashed": crashed}
        row = self._db.execute(self._sql["requeue_run"], bindings).fetchone()
        if row is None:
            return False
        if row[0] is not None:
            self.finish_queued(lost.run_id, _CANCELLED)
        self._touch(lost.run_id)
        return True

    def append(self, fence: Fence, events: list[NewEvent]) -> bool:
        row = self._db.execute(
            self._sql["take_indexes"], (len(events), fence.run_id, fence.owner, fence.attempt)
        ).fetchone()
        if row is None:
            return False
        first = row[0] - len(events) + 1
        rows: list[tuple[Any, ...]] = []
        for index, event in enumerate(events, first):
            data = self._event_data(fence.run_id, event.data, event.more)
            rows.append((fence.run_id, index, event.type, event.at_us, data))
        self._db.executemany(self._append_event, rows)
        self._touch(fence.run_id)
        return True

    def finish(self, fence: Fence, outcome: Outcome) -> Outcome | None:
        db, sql, run_id = self._db, self._sql, fence.run_id
        now = self._clock.now_us()
        row = db.execute(
            sql["finish_run"],
            (
                outcome.status.value,
                sqlite_rows.column_of(outcome.result),
                sqlite_rows.text(outcome.error),
                now,
                run_id,
                fence.owner,
                fence.attempt,
            ),
        ).fetchone()
        if row is None:
            return None
        index, status = row
        if status != outcome.status:
            outcome = Outcome(status=RunStatus(status))
        sqlite_rows.put_large(db, sql, run_id, outcome.result)
        self._event(run_id, index, EventType.RUN_END, now, _end(outcome))
        self._touch(run_id)
        return outcome

    def finish_queued(self, run_id: str, outcome: Outcome) -> bool:
        now = self._clock.now_us()
        row = self._db.execute(
            self._sql["finish_queued_run"],
            {"run_id": run_id, "status": outcome.status.value, "error": sqlite_rows.text(outcome.error), "at": now},
        ).fetchone()
        if row is None:
            return False
        self._event(run_id, row[0], EventType.RUN_END, now, _end(outcome))
        self._touch(run_id)
        return True

    def release(self, fence: Fence) -> bool:
        bindings = {"run_id": fence.run_id, "owner": fence.owner, "attempt": fence.attempt}
        row = self._db.execute(self._sql["release_run"], bindings).fetchone()
        if row is None:
            return False
        if row[0] is not None:
            self.finish_queued(fence.run_id, _CANCELLED)
        self._touch(fence.run_id)
        return True

    def cancel(self, run_id: str) -> CancelAnswer | None:
        before = self._head(run_id)
        if before is None:
            return None
        if not before.is_final and not self.finish_queued(run_id, _CANCELLED):
            self._db.execute(self._sql["request_cancel"], {"run_id": run_id, "at": self._clock.now_us()})
            self._touch(run_id)
        after = self._head(run_id)
        return None if after is None else CancelAnswer(run=after, was_final=before.is_final)

    def delete(self, run_id: str) -> RunStatus | None:
        run = self._head(run_id)
        if run is None:
            return None
        if run.is_final:
            self._delete(run_id)
        return run.status

    def delete_finished(self, before_us: int, limit: int) -> int:
        bindings = {"before": before_us, "limit": limit}
        ids = [run_id for (run_id,) in self._db.execute(self._sql["finished_before"], bindings)]
        for run_id in ids:
            self._delete(run_id)
        return len(ids)

    def forget_keys(self) -> None:
        before = self._clock.now_us() - int(self._settings.idempotency_keep_s * 1_000_000)
        self._db.execute(self._sql["forget_keys"], {"before": before})

    # Parts

    def _head(self, run_id: str) -> Run | None:
        return sqlite_rows.read_run(self._db, self._sql, run_id, values=False)

    def _start(self, run_id: str, owner: str) -> Run | None:
        now = self._clock.now_us()
        row = self._db.execute(self._sql["claim_run"], {"run_id": run_id, "owner": owner, "at": now}).fetchone()
        run = sqlite_rows.read_run(self._db, self._sql, run_id, values=True) if row is not None else None
        if run is None:
            return None
        if run.attempt == 1:
            self._event(run_id, run.last_index, EventType.RUN_START, now, _start(run.workflow, run.workflow_version))
        else:
            data = codec.encode({"attempt": run.attempt, "crashes": run.crashes})
            self._event(run_id, run.last_index, EventType.RUN_RESUMED, now, Raw(data))
        self._touch(run_id)
        return run

    def _event(self, stream_id: str, index: int, type_: EventType, at_us: int, data: Raw) -> None:
        self._db.execute(self._append_event, (stream_id, index, type_.value, at_us, self._event_data(stream_id, data)))

    def _event_data(self, stream_id: str, data: Raw, more: Raw | None = None) -> str:
        view = memoryview(data)
        if more is None and len(view) <= self._limits.event_bytes:
            return str(view, "utf-8")
        kept = bytes(memoryview(data if more is None else more))
        reference = {"blob": sqlite_rows.put_blob(self._db, self._sql, stream_id, kept), "size_bytes": len(kept)}
        return codec.encode(reference if more is None else {**codec.load(data), **reference}).decode()

    def _delete(self, run_id: str) -> None:
        for statement in (
            "delete_key",  # first, because the run's row says which it is
            "delete_run",
            "delete_events",
            "delete_steps",
            "delete_waits",
            "delete_signals",
            "delete_blobs",
            "delete_entries",
        ):
            self._db.execute(self._sql[statement], {"run_id": run_id})
        self._touch(run_id)


class Checkpointer:
    """Copies the write-ahead log into the database file from a thread of its own, off the commit path."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._wanted = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="pyflue-journal-checkpointer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ask for a checkpoint soon."""
        self._wanted.set()

    def stop(self) -> None:
        """End the thread; a checkpoint under way is finished first."""
        self._is_stopping = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        db: Database | None = None
        while True:
            self._wanted.wait()
            if self._is_stopping:
                break
            self._wanted.clear()
            db = db or self._connect()
            try:
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error:
                continue  # busy or no space: the log keeps everything, and the next commit asks again
        if db is not None:
            db.close()


def _start(workflow: str, version: str) -> Raw:
    return Raw(codec.encode({"workflow": workflow, "workflow_version": version}))


def _end(outcome: Outcome) -> Raw:
    if outcome.error is None:
        return Raw(b'{"status":"%s"}' % outcome.status.value.encode())
    return Raw(codec.encode({"status": outcome.status.value, "error": outcome.error}))
