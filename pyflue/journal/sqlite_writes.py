"""The writing half of the SQLite journal: each verb as statements inside the writer's open transaction.

Lives in the writer thread; `Writer` calls `begin`, the verbs, `commit`. Every verb that writes for a run is conditional
on its fence in the statement itself: no row changed means somebody else has the run, and nothing else is written.
The verbs of durable calls are in `sqlite_calls.py`, those of conversations and workspaces in `sqlite_conversations.py`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from .. import codec, ids
from ..clock import Clock
from ..codec import Raw
from ..errors import JournalBusy, JournalError, JournalFull
from ..settings import JournalSettings, Limits
from . import sqlite_file, sqlite_rows
from .locks import Turnstile
from .records import (
    OF_INTERACTIONS,
    Accepted,
    CancelAnswer,
    EventType,
    Fence,
    NewEvent,
    NewRun,
    Outcome,
    Run,
    RunStatus,
    stored_data,
)
from .sqlite_file import Database
from .sqlite_heads import MOST_KEPT, Heads
from .sqlite_many import ManyRows

if TYPE_CHECKING:
    from .sqlite_calls import SqliteCalls
    from .sqlite_conversations import SqliteConversations

_PAGE_BYTES = 4096
_FRAME_HEAD_BYTES = 24
#: How much of the write-ahead log is copied at once. Pages that were written again meanwhile are copied once: smaller
#: portions would copy nearly everything that is written.
_CHECKPOINT_PAGES = 24 * 1024**2 // _PAGE_BYTES
#: From here on the log is to begin anew, as soon as little enough is left to be copied while the writer pauses.
_LONG_WAL_PAGES = 48 * 1024**2 // _PAGE_BYTES
_LITTLE_LEFT_PAGES = 2 * 1024**2 // _PAGE_BYTES
#: Here it has to, whatever is left.
_MOST_WAL_PAGES = 64 * 1024**2 // _PAGE_BYTES
#: How long a busy process writes before it lets the others have their turn.
_TURN_S = 0.005
#: How long the writer waits for readers to let go of a log that has grown too large, before it writes on.
_RESET_TIMEOUT_MS = 1000
#: Space on the disk that new runs and events leave free, so that runs can still be ended, handed on and deleted: so
#: much, or this part of a small disk.
_RESERVE_BYTES = 16 * 1024**2
_RESERVE_SHARE = 4
#: The write-ahead log takes no larger part of a small disk than this, or there would be no space to copy it.
_WAL_SHARE = 16


_CANCELLED = Outcome(status=RunStatus.CANCELLED)


class SqliteWrites:
    """The write connection and its verbs. Used by one thread."""

    def __init__(
        self,
        connection: Database,
        name: str,
        *,
        folder: Path | None,
        turnstile: Turnstile | None,
        checkpointer: Checkpointer | None,
        touch: Callable[[str], None],
        is_alive: Callable[[str], bool],
        note_ended: Callable[[str, str], None],
        sql: Mapping[str, str],
        clock: Clock,
        settings: JournalSettings,
        limits: Limits,
        most_heads: int = MOST_KEPT,
    ) -> None:
        #: The connection, for statements that have nothing to do with a run's row; see `db`.
        self.connection = connection
        self._heads = Heads(connection, sql, most_kept=most_heads)
        self.on_forget = self._heads.on_forget
        self._name = name
        self._turnstile = turnstile
        self._checkpointer = checkpointer
        self.touch = touch
        self.is_alive = is_alive
        self.note_ended = note_ended
        self.sql = sql
        self.clock = clock
        self._settings = settings
        self._limits = limits
        self._has_turn = False
        self._turn_ends_at = 0.0
        self._folder = folder
        share = _MOST_WAL_PAGES
        if folder is not None:
            disk = os.statvfs(folder)
            share = disk.f_blocks * disk.f_frsize // _PAGE_BYTES // _WAL_SHARE
        self._checkpoint_pages = min(_CHECKPOINT_PAGES, share)
        self._long_wal_pages = min(_LONG_WAL_PAGES, share)
        self._most_wal_pages = min(_MOST_WAL_PAGES, share * 2)
        self._room_bytes: int | None = None
        self._wal_pages = 0
        self._seen_version = self._data_version()
        connection.set_wal_hook(self._note_wal)
        # Written in one go before the commit: nothing in a transaction reads them.
        self._event_rows: list[tuple[Any, ...]] = []
        #: Rows of `put_step`.
        self.step_rows: list[tuple[Any, ...]] = []
        #: Rows of `add_entry` and `add_file`.
        self.entry_rows: list[tuple[Any, ...]] = []
        self.file_rows: list[tuple[Any, ...]] = []
        self._append_events = ManyRows(sql["append_event"])
        self._put_steps = ManyRows(sql["put_step"])

    @property
    def db(self) -> Database:
        """The connection, for statements that may read or change any run."""
        self._heads.forget()
        return self.connection

    # Transactions

    def begin(self) -> None:
        if not self._take_turn(self._settings.busy_timeout_s):
            raise JournalBusy(self._name, self._settings.busy_timeout_s)
        self.connection.execute("BEGIN IMMEDIATE")
        self._heads.check()
        self._room_bytes = None

    def _take_turn(self, timeout_s: float) -> bool:
        """Wait for this process's turn among those that write; false if it did not come in time."""
        if self._turnstile is not None and not self._has_turn:
            if not self._turnstile.enter(timeout_s):
                return False
            self._has_turn = True
            self._turn_ends_at = time.monotonic() + _TURN_S
        return True

    def commit(self) -> None:
        self.flush()
        self.connection.execute("COMMIT")
        if self._has_turn and time.monotonic() >= self._turn_ends_at:
            self.pause()

    def rollback(self) -> None:
        self._event_rows.clear()
        self.step_rows.clear()
        self.entry_rows.clear()
        self.file_rows.clear()
        self._heads.roll_back()
        # A full disk may have ended the transaction already.
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.pause()

    def flush(self) -> None:
        """Write what the transaction has collected: how far runs are, events, steps, entries and files."""
        db = self.connection
        self._heads.write()
        if self._event_rows:
            self._append_events.write(db, self._event_rows)
            self._event_rows.clear()
        if self.step_rows:
            before = db.total_changes()
            self._put_steps.write(db, self.step_rows)
            if db.total_changes() - before != len(self.step_rows):
                run_id, key, *_ = self.step_rows[-1]  # the one at fault, once each record is tried alone
                raise JournalError(f"Run {run_id} has recorded step {key!r} already; its record is final.")
            self.step_rows.clear()
        if self.entry_rows:
            self.conversations.write_entries(self.entry_rows)
            self.entry_rows.clear()
        if self.file_rows:
            self.conversations.write_files(self.file_rows)
            self.file_rows.clear()

    def pause(self) -> None:
        if self._turnstile is not None and self._has_turn:
            self._has_turn = False
            self._turnstile.leave()

    def after_commit(self) -> None:
        if self._checkpointer is None:
            return
        left = self._wal_pages - self._checkpointer.copied(self._wal_pages)
        is_long = self._wal_pages > self._long_wal_pages
        if self._wal_pages > self._most_wal_pages or (is_long and left <= _LITTLE_LEFT_PAGES):
            self._begin_log_anew(self._checkpointer)
        elif is_long or left >= self._checkpoint_pages:
            self._checkpointer.wake()

    def _begin_log_anew(self, checkpointer: Checkpointer) -> None:
        # Passive checkpoints never catch up with a writer that does not pause; this is the pause. Other processes have
        # to make it as well, or their writes keep this one waiting for all of its time.
        if not self._take_turn(_RESET_TIMEOUT_MS / 1000):
            return
        checkpointer.wait(_RESET_TIMEOUT_MS / 1000)  # SQLite would not: two at once are one too many
        self.connection.set_busy_timeout(_RESET_TIMEOUT_MS)
        try:
            self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            self._wal_pages = 0
        except apsw.Error:
            pass  # a long read is under way, or the disk is full; the next batch tries again
        finally:
            self.connection.set_busy_timeout(int(self._settings.busy_timeout_s * 1000))
            self.pause()

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
        self.connection.close()
        if self._turnstile is not None:
            self._turnstile.close()

    def _data_version(self) -> int:
        return int(self.connection.execute("PRAGMA data_version").get)

    def _note_wal(self, connection: object, name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    # Verbs

    @functools.cached_property
    def calls(self) -> SqliteCalls:
        """The verbs of durable calls."""
        from .sqlite_calls import SqliteCalls  # at first use: a run without such calls pays nothing for them

        return SqliteCalls(self)

    @functools.cached_property
    def conversations(self) -> SqliteConversations:
        """The verbs of conversations and workspaces."""
        from .sqlite_conversations import SqliteConversations  # at first use, likewise

        return SqliteConversations(self)

    def accept(self, new: NewRun) -> Accepted:
        self.leave_room(_size(new.payload) + _size(new.definition))
        run_id = new.run_id
        if new.idempotency_key is not None:
            known = self.connection.execute(self.sql["known_key"], {"key": new.idempotency_key}).fetchone()
            if known is not None:
                if known[1] != (new.request_digest or ""):
                    return Accepted(run_id=known[0], is_conflict=True)
                return Accepted(run_id=known[0], is_repeat=True)
        if new.needs_free_lane and (head := self._head_of_lane(new.lane)) is not None:
            return Accepted(run_id=head, is_busy=True)
        self.insert_run(new)
        if new.idempotency_key is not None:
            self.connection.execute(
                self.sql["add_key"],
                {
                    "key": new.idempotency_key,
                    "digest": new.request_digest or "",
                    "run_id": run_id,
                    "at": self.clock.now_us(),
                },
            )
        if new.copies is not None:
            self.calls.copy(new.copies, run_id)
        return Accepted(run_id=run_id)

    def insert_run(self, new: NewRun) -> None:
        """Record a run; with an owner and without a lane, also that it has started."""
        # Nothing here is about a run that is there already.
        db, sql, run_id = self.connection, self.sql, new.run_id
        now = self.clock.now_us()
        is_owned = new.owner is not None and new.lane is None
        interaction = ids.split_interaction_id(run_id)
        last_index = int(is_owned) + int(interaction is not None)
        db.execute(
            sql["accept_run"],
            (
                run_id,
                new.workflow,
                new.kind,
                "running" if is_owned else "queued",
                new.owner if is_owned else None,
                1 if is_owned else 0,
                last_index,
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
                new.depth,
                None if interaction is None else interaction[0],
                new.lane,
                int(self._head_of_lane(new.lane) is not None),
                sqlite_rows.column_of(new.definition),
            ),
        )
        if new.tags:
            seq = db.last_insert_rowid()  # before anything else is inserted
            db.executemany(sql["add_tag"], [{"tag": tag, "seq": seq} for tag in new.tags])
        sqlite_rows.put_large(db, sql, run_id, new.payload)
        sqlite_rows.put_large(db, sql, run_id, new.definition)
        if interaction is not None:
            self.conversations.add_stream(interaction[0], now)
            self._event(run_id, 1, EventType.INTERACTION_ACCEPTED, now, new.payload)
            self.touch(run_id)
        if is_owned:
            self._event(run_id, last_index, EventType.RUN_START, now, _start(new.workflow, new.workflow_version))

    def claim(self, owner: str, limit: int, run_ids: Sequence[str] | None, max_crashes: int | None) -> list[Run]:
        if run_ids is None:
            run_ids = self._queued("resumed_runs", limit, max_crashes)
            if len(run_ids) < limit:
                run_ids += self._queued("fresh_runs", limit - len(run_ids), max_crashes)
        return [run for run_id in run_ids[:limit] if (run := self._start(run_id, owner))]

    def requeue(self, lost: Fence, crashed: bool) -> bool:
        bindings = {"run_id": lost.run_id, "owner": lost.owner, "attempt": lost.attempt, "crashed": crashed}
        row = self.db.execute(self.sql["requeue_run"], bindings).fetchone()
        if row is None:
            return False
        if row[0] is not None:
            self.finish_queued(lost.run_id, _CANCELLED)
        self.touch(lost.run_id)
        return True

    def disown(self, owner: str) -> int:
        cancelled = [run_id for (run_id,) in self.db.execute(self.sql["waiting_to_cancel"], {"owner": owner})]
        self.db.execute(self.sql["disown_runs"], {"owner": owner})
        count = self.db.changes()
        for run_id in cancelled:
            self.finish_queued(run_id, _CANCELLED)
        return count

    def append(self, fence: Fence, events: Sequence[NewEvent]) -> bool:
        self.leave_room(sum(len(memoryview(event.data)) for event in events))
        index = self._heads.move(fence, len(events))
        if index is None:
            row = self.db.execute(
                self.sql["take_indexes"], (len(events), fence.run_id, fence.owner, fence.attempt)
            ).fetchone()
            if row is None:
                return False
            index = int(row[0])
        self.write_events(fence.run_id, index, events)
        return True

    def progress(self, fence: Fence, events: Sequence[NewEvent]) -> int | None:
        """Append events to a run that has recorded something; returns its `last_index`, None if the fence is lost."""
        index = self._heads.move(fence, len(events))
        if index is None:
            index = self._first_progress(fence, len(events))
            if index is None:
                return None
        if events:
            self.write_events(fence.run_id, index, events)
        return index

    def _first_progress(self, fence: Fence, count: int) -> int | None:
        self._heads.forget_one(fence.run_id)
        bindings = (count, fence.run_id, fence.owner, fence.attempt)
        # Most runs are running and have not crashed. Then no index of the table has to be written.
        row = self.connection.execute(self.sql["record_progress"], bindings).fetchone()
        if row is None:
            row = self.connection.execute(self.sql["record_first_progress"], bindings).fetchone()
            if row is None:
                return None
        index, seq = row
        self._heads.keep(fence, seq, index)
        return index

    def set_usage(self, run_id: str, usage: str | None) -> None:
        """Set what a run has used."""
        if not self._heads.set_usage(run_id, usage):
            self.connection.execute(self.sql["put_usage"], {"run_id": run_id, "usage": usage})

    def write_events(self, run_id: str, last_index: int, events: Sequence[NewEvent]) -> None:
        """Store events under the indexes up to `last_index`, which the run's row has moved forward to.

        Those of an interaction have indexes of their own on the stream of the agent's instance.
        """
        interaction = ids.split_interaction_id(run_id)
        if interaction is not None:
            self._write_to_stream(*interaction, events)
            self.touch(run_id)
            return
        for index, event in enumerate(events, last_index - len(events) + 1):
            data = self._event_data(run_id, event.data, event.more)
            self._event_rows.append((run_id, index, event.type, event.at_us, data, event.step, None))
        self.touch(run_id)

    def _write_to_stream(self, stream_id: str, interaction: str, events: Sequence[NewEvent]) -> None:
        bindings = (len(events), self.clock.now_us(), stream_id)
        last_index = int(self.connection.execute(self.sql["take_stream_indexes"], bindings).get)
        for index, event in enumerate(events, last_index - len(events) + 1):
            data = self._event_data(stream_id, event.data, event.more)
            type_ = OF_INTERACTIONS.get(event.type, event.type)
            self._event_rows.append((stream_id, index, str(type_), event.at_us, data, event.step, interaction))
        self.touch(stream_id)

    def finish(self, fence: Fence, outcome: Outcome, earlier: Sequence[NewEvent]) -> Outcome | None:
        db, sql, run_id = self.connection, self.sql, fence.run_id
        self._heads.forget_one(run_id)
        now = self.clock.now_us()
        row = db.execute(
            sql["finish_run"],
            (
                outcome.status.value,
                sqlite_rows.column_of(outcome.result),
                sqlite_rows.text(outcome.error),
                now,
                len(earlier) + 1,
                run_id,
                fence.owner,
                fence.attempt,
            ),
        ).fetchone()
        if row is None:
            return None
        index, status, parent_run_id, has_open_waits, lane = row
        if status != outcome.status:
            outcome = Outcome(status=RunStatus(status))
        sqlite_rows.put_large(db, sql, run_id, outcome.result)
        if earlier:
            self.write_events(run_id, index - 1, earlier)
        self._end_event(run_id, index, now, outcome)
        self.touch(run_id)
        if lane is not None:
            self._move_lane(lane)
        if has_open_waits:
            self.cancel_all(self.calls.close_waits(run_id))
        if outcome.status is RunStatus.CANCELLED:
            # Those that it started after its end was asked for.
            self.cancel_below(run_id)
        if parent_run_id is not None:
            self.calls.answer_parent(run_id, parent_run_id, outcome)
        return outcome

    def finish_queued(self, run_id: str, outcome: Outcome) -> bool:
        children = self._finish_unowned(run_id, outcome)
        if children is None:
            return False
        self.cancel_all(children)
        if outcome.status is RunStatus.CANCELLED:
            self.cancel_below(run_id)
        return True

    def release(self, fence: Fence) -> bool:
        bindings = {"run_id": fence.run_id, "owner": fence.owner, "attempt": fence.attempt}
        row = self.db.execute(self.sql["release_run"], bindings).fetchone()
        if row is None:
            return False
        if row[0] is not None:
            self.finish_queued(fence.run_id, _CANCELLED)
        self.touch(fence.run_id)
        return True

    def cancel(self, run_id: str) -> CancelAnswer | None:
        before = self._head(run_id)
        if before is None:
            return None
        if not before.is_final:
            self.cancel_all([run_id])
        after = self._head(run_id)
        return None if after is None else CancelAnswer(run=after, was_final=before.is_final)

    def cancel_all(self, run_ids: Sequence[str]) -> None:
        """Ask for the end of runs and of all runs below them; what nobody owns ends at once."""
        for run_id in run_ids:
            self._cancel_one(run_id)
            self.cancel_below(run_id)

    def cancel_below(self, run_id: str) -> None:
        """Ask for the end of all runs below a run."""
        below = [child for (child,) in self.db.execute(self.sql["runs_below"], {"run_id": run_id})]
        for child in below:
            self._cancel_one(child)

    def delete(self, run_id: str) -> RunStatus | None:
        run = self._head(run_id)
        if run is None:
            return None
        if run.is_final:
            self.delete_whole(run_id)
        return run.status

    def delete_finished(self, before_us: int, limit: int) -> Sequence[str]:
        bindings = {"before": before_us, "limit": limit}
        run_ids = [run_id for (run_id,) in self.db.execute(self.sql["finished_before"], bindings)]
        for run_id in run_ids:
            self.delete_whole(run_id)
        return run_ids

    def keep_blob(self, stream_id: str, data: bytes) -> str:
        self.leave_room(len(data))
        return sqlite_rows.put_blob(self.db, self.sql, stream_id, data)

    def forget_keys(self) -> None:
        before = self.clock.now_us() - int(self._settings.idempotency_keep_s * 1_000_000)
        self.db.execute(self.sql["forget_keys"], {"before": before})

    # Parts

    def _queued(self, query: str, limit: int, max_crashes: int | None) -> list[str]:
        bindings = {"limit": limit, "max_crashes": max_crashes}
        return [run_id for (run_id,) in self.db.execute(self.sql[query], bindings)]

    def _finish_unowned(self, run_id: str, outcome: Outcome) -> list[str] | None:
        """End a run that nobody owns; returns the children it waited for, None if it has an owner or is final."""
        now = self.clock.now_us()
        row = self.db.execute(
            self.sql["finish_queued_run"], (outcome.status.value, sqlite_rows.text(outcome.error), now, run_id)
        ).fetchone()
        if row is None:
            return None
        index, parent_run_id, has_open_waits, lane = row
        self._end_event(run_id, index, now, outcome)
        self.touch(run_id)
        if lane is not None:
            self._move_lane(lane)
        children = self.calls.close_waits(run_id) if has_open_waits else []
        if parent_run_id is not None:
            self.calls.answer_parent(run_id, parent_run_id, outcome)
        return children

    def _cancel_one(self, run_id: str) -> None:
        # The children it waited for are not looked at here: whoever calls this goes through all runs below it.
        if self._finish_unowned(run_id, _CANCELLED) is None:
            self.db.execute(self.sql["request_cancel"], {"run_id": run_id, "at": self.clock.now_us()})
            self.touch(run_id)

    def _head(self, run_id: str) -> Run | None:
        return sqlite_rows.read_run(self.db, self.sql, run_id, values=False)

    def _start(self, run_id: str, owner: str) -> Run | None:
        now = self.clock.now_us()
        row = self.db.execute(self.sql["claim_run"], {"run_id": run_id, "owner": owner, "at": now}).fetchone()
        run = sqlite_rows.read_run(self.db, self.sql, run_id, values=True) if row is not None else None
        if run is None:
            return None
        if run.attempt == 1:
            self._event(run_id, run.last_index, EventType.RUN_START, now, _start(run.workflow, run.workflow_version))
        else:
            data = codec.encode({"attempt": run.attempt, "crashes": run.crashes})
            self._event(run_id, run.last_index, EventType.RUN_RESUMED, now, Raw(data))
        self.touch(run_id)
        return run

    def _head_of_lane(self, lane: str | None) -> str | None:
        """The run that a lane is at."""
        if lane is None:
            return None
        row = self.db.execute(self.sql["head_of_lane"], {"lane": lane}).fetchone()
        return None if row is None else row[0]

    def _move_lane(self, lane: str) -> None:
        """A run of a lane has ended: the one behind it may be claimed."""
        for (run_id,) in self.db.execute(self.sql["move_lane"], {"lane": lane}):
            self.note_ended(run_id, "")

    def _event(self, run_id: str, index: int, type_: EventType, at_us: int, data: Raw, more: Raw | None = None) -> None:
        interaction = ids.split_interaction_id(run_id)
        if interaction is not None:
            self._write_to_stream(*interaction, [NewEvent(type=type_, at_us=at_us, data=data, more=more)])
            return
        row = (run_id, index, type_.value, at_us, self._event_data(run_id, data, more), None, None)
        self._event_rows.append(row)

    def _end_event(self, run_id: str, index: int, at_us: int, outcome: Outcome) -> None:
        """Tell the end of a run. Whoever reads the stream of an agent's instance sees the result, too."""
        data, more = _end(outcome), None
        if outcome.result is not None and ids.is_interaction(run_id):
            whole = Raw(codec.encode({"status": outcome.status.value, "result": outcome.result}))
            is_large = len(memoryview(whole)) > self._limits.event_bytes
            data, more = (data, whole) if is_large else (whole, None)
        self._event(run_id, index, EventType.RUN_END, at_us, data, more)

    def _event_data(self, stream_id: str, data: Raw, more: Raw | None = None) -> str:
        stored, kept = stored_data(data, more, self._limits.event_bytes)
        if kept is not None:
            sqlite_rows.put_blob(self.connection, self.sql, stream_id, kept)
        return str(memoryview(stored), "utf-8")

    def leave_room(self, size_bytes: int) -> None:
        """Refuse what can wait if too little of the disk were left for what cannot.

        Raises:
            JournalFull
        """
        if self._folder is None:
            return
        if self._room_bytes is None:  # looked for once in a transaction
            disk = os.statvfs(self._folder)
            free = disk.f_bavail * disk.f_frsize
            reserve = min(_RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _RESERVE_SHARE)
            self._room_bytes = free - reserve
            if self._room_bytes < reserve:
                self._room_bytes += self._unused_bytes()
        # It is written to the log and then to the file, in whole pages.
        self._room_bytes -= 2 * (size_bytes + _PAGE_BYTES)
        if self._room_bytes < 0:
            raise JournalFull(self._name)

    def _unused_bytes(self) -> int:
        """Space that the files have and do not use: free pages, and what rolled-back transactions left of the log."""
        log_bytes = 0
        with contextlib.suppress(OSError):
            log_bytes = Path(f"{self._name}-wal").stat().st_size - self._wal_pages * (_PAGE_BYTES + _FRAME_HEAD_BYTES)
        return max(log_bytes, 0) + int(self.connection.pragma("freelist_count")) * _PAGE_BYTES

    def delete_whole(self, run_id: str) -> None:
        """Delete a final run and all that belongs to it."""
        self.flush()
        for statement in (
            "delete_key",  # first, because the run's row says which it is
            "delete_run",
            "delete_events",
            "delete_steps",
            "delete_waits",
            "delete_signals",
            "delete_blobs",
            "delete_entries",
            "delete_files",
        ):
            self.db.execute(self.sql[statement], {"run_id": run_id})
        self.touch(run_id)


class Checkpointer:
    """Copies the write-ahead log into the database file from a thread of its own, off the commit path."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._wanted = threading.Event()
        self._is_stopping = False
        self._idle = threading.Event()
        self._idle.set()
        self._copied_pages = 0
        self._thread = threading.Thread(target=self._run, name="pyflue-journal-checkpointer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ask for a checkpoint soon, unless one is under way."""
        if self._idle.is_set():
            self._idle.clear()
            self._wanted.set()

    def wait(self, timeout_s: float) -> None:
        """Return when no checkpoint is under way, or after a while."""
        self._idle.wait(timeout_s)

    def copied(self, wal_pages: int) -> int:
        """How much of a log of this length is copied."""
        # If it was longer when it was copied it has begun anew since, as it does by itself when all of it is copied.
        return self._copied_pages if self._copied_pages <= wal_pages else 0

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
            # If it is busy, or there is no space: the log keeps everything, and the next commit asks again.
            with contextlib.suppress(apsw.Error):
                db = db or self._connect()
                self._copied_pages = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)[1]
            self._idle.set()
        if db is not None:
            db.close()


def _size(value: Raw | None) -> int:
    return 0 if value is None else len(memoryview(value))


def _start(workflow: str, version: str) -> Raw:
    return Raw(codec.encode({"workflow": workflow, "workflow_version": version}))


def _end(outcome: Outcome) -> Raw:
    if outcome.error is None:
        return Raw(b'{"status":"%s"}' % outcome.status.value.encode())
    return Raw(codec.encode({"status": outcome.status.value, "error": outcome.error}))
