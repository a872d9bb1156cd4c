"""The journal on SQLite: the verbs of the `Journal` port as statements of `sql/sqlite/queries.sql`.

Opened by `open_journal` only. Writes go through the `Writer` (one thread, one connection, group commit); reads run on
a few threads with a connection each. WAL mode with `synchronous=FULL`: a commit is on disk when it returns.

`memory:` is the same code on SQLite's in-memory file system, so there is no second implementation to drift away.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from .. import codec, ids
from ..clock import Clock
from ..codec import Raw
from ..errors import JournalClosed, JournalError, JournalReadOnly, JournalUnreadable
from ..settings import JournalSettings, Limits
from . import sqlite_file
from .locks import Roster
from .port import Watch
from .queries import load_queries
from .records import (
    Accepted,
    CancelAnswer,
    Checked,
    Event,
    Fence,
    NewEvent,
    NewRun,
    Outcome,
    Page,
    Run,
    RunFilter,
    RunStatus,
)
from .sqlite_file import Database
from .sqlite_opening import Place, open_writes
from .sqlite_rows import answers_since, filters, read_blob, read_definition, read_run, to_event, to_page, to_run
from .sqlite_writes import SqliteWrites
from .writer import Bell, PollingBell, Verb, Writer

if TYPE_CHECKING:
    from .calls import (
        Approval,
        ApprovalFilter,
        Decided,
        History,
        NewSignal,
        NewStep,
        NewWait,
        Opened,
        Park,
        ParkedTimer,
        SignalAnswer,
        Step,
        Wait,
    )
    from .conversations import Attached, Entry, FileVersion, SessionInfo, StreamInfo
    from .sqlite_call_rows import CallRows
    from .sqlite_conversations import ConversationRows

T = TypeVar("T")

_READERS = 4
#: Above this size a start does not read the whole file through; `pyflue db check` does.
_CHECKED_AT_START_BYTES = 1024**3

_memory_names = itertools.count(1)


class SqliteJournal:
    """One journal file, open in this process."""

    #: The queue in front of the database; a simulation has one without a thread.
    writer_type: type[Writer] = Writer

    def __init__(
        self,
        name: str,
        *,
        path: Path | None,
        settings: JournalSettings,
        limits: Limits,
        clock: Clock,
        read_only: bool,
        writer_process: bool = False,
    ) -> None:
        self._name = name
        self._path = path
        self._settings = settings
        self._limits = limits
        self._is_read_only = read_only
        self._clock = clock
        self._sql = load_queries("sqlite")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="pyflue-journal-reader")
        self._local = threading.local()
        self._connections: list[Database] = []
        self._is_closed = False
        self._roster = Roster(path.parent / "engines") if path is not None else None
        self._own_engines: set[str] = set()
        # Opened here so that what is wrong with the file is said now; it also keeps an in-memory database alive.
        self._anchor = self._open_connection()
        self._writer: Writer | None = None
        self._is_outdated = False
        if read_only:
            self._is_outdated = sqlite_file.is_outdated(self._anchor, name)
        else:
            self._set_up()
            self._writer = self._make_writer(apart=writer_process)
            self._writer.start()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        settings: JournalSettings,
        limits: Limits,
        clock: Clock,
        read_only: bool,
        writer_process: bool = False,
    ) -> SqliteJournal:
        """Open a file; see `open_journal`."""
        path = path.absolute()
        if read_only:
            if not path.is_file():
                raise JournalUnreadable(str(path), "there is no such file")
        else:
            sqlite_file.prepare_file(path)
        try:
            return cls(
                str(path),
                path=path,
                settings=settings,
                limits=limits,
                clock=clock,
                read_only=read_only,
                writer_process=writer_process,
            )
        except apsw.Error as error:
            raise sqlite_file.translate(str(path), error, settings.busy_timeout_s) from error

    @classmethod
    def in_memory(cls, *, settings: JournalSettings, limits: Limits, clock: Clock) -> SqliteJournal:
        """A private journal that ends with the process."""
        name = f"file:/pyflue-{next(_memory_names)}?vfs=memdb"
        return cls(name, path=None, settings=settings, limits=limits, clock=clock, read_only=False)

    # Runs: writes

    def accept(self, new: NewRun, *, is_awaited: bool = True) -> asyncio.Future[Accepted]:
        return self._the_writer().submit(
            Verb("accept", (new,)), patient=False, rings=is_awaited, is_new=new.copies is None
        )

    def ring(self) -> None:
        self._the_writer().ring()

    def claim(
        self, owner: str, limit: int, *, run_ids: Sequence[str] | None = None, max_crashes: int | None = None
    ) -> Awaitable[Sequence[Run]]:
        return self._write("claim", owner, limit, run_ids, max_crashes)

    def requeue(self, lost: Fence, *, crashed: bool) -> Awaitable[bool]:
        return self._write("requeue", lost, crashed)

    def disown(self, owner: str) -> Awaitable[int]:
        return self._write("disown", owner)

    def append(self, fence: Fence, *events: NewEvent) -> None:
        self._the_writer().append(fence, *events)

    def announce(self, fence: Fence, event: NewEvent) -> None:
        self._the_writer().announce(fence, event)

    def finish(self, fence: Fence, outcome: Outcome) -> Awaitable[Outcome | None]:
        return self._write_after_events(fence, "finish", fence, outcome)

    def finish_queued(self, run_id: str, outcome: Outcome) -> Awaitable[bool]:
        return self._write("finish_queued", run_id, outcome)

    def release(self, fence: Fence) -> Awaitable[bool]:
        return self._write("release", fence, fence=fence)

    def cancel(self, run_id: str) -> Awaitable[CancelAnswer | None]:
        return self._write("cancel", run_id, patient=False)

    def delete(self, run_id: str) -> Awaitable[RunStatus | None]:
        return self._write("delete", run_id, patient=False)

    def delete_finished(self, *, before_us: int, limit: int) -> Awaitable[Sequence[str]]:
        return self._write("delete_finished", before_us, limit)

    def keep_blob(self, stream_id: str, data: bytes) -> Awaitable[str]:
        return self._write("keep_blob", stream_id, data)

    def forget_keys(self) -> Awaitable[None]:
        return self._write("forget_keys")

    # Durable calls: writes

    def record(
        self, fence: Fence, step: NewStep, events: Sequence[NewEvent] = (), *, attached: Attached | None = None
    ) -> Awaitable[int | None]:
        verb = Verb("calls.record", (fence, step, events, attached), takes_events=True)
        return self._the_writer().submit_with_events(verb, fence)

    def note(self, fence: Fence, step: NewStep, *, attached: Attached | None = None) -> None:
        self._the_writer().note(Verb("calls.note", (fence, step, attached), takes_events=True), fence)

    def settle(self, fence: Fence) -> Awaitable[bool]:
        return self._write("calls.holds", fence, fence=fence)

    def open_wait(
        self, fence: Fence, wait: NewWait, events: Sequence[NewEvent] = (), *, park: Park | None = None
    ) -> Awaitable[Opened | None]:
        return self._write_after_events(fence, "calls.open_wait", fence, wait, events, park)

    def start_child(
        self,
        fence: Fence,
        child: NewRun,
        call: NewStep | NewWait,
        events: Sequence[NewEvent] = (),
        *,
        park: Park | None = None,
    ) -> Awaitable[Opened | int | None]:
        return self._write_after_events(fence, "calls.start_child", fence, child, call, events, park)

    def park(self, fence: Fence, park: Park) -> Awaitable[bool]:
        return self._write("calls.park", fence, park, fence=fence)

    def expire(self, run_id: str, key: str, *, fence: Fence | None) -> Awaitable[Wait | None]:
        return self._write("calls.expire", run_id, key, fence, fence=fence)

    def close_wait(self, fence: Fence, key: str) -> None:
        self._the_writer().note(Verb("calls.close_wait", (fence, key), takes_events=True), fence)

    def signal(self, run_id: str, signal: NewSignal) -> Awaitable[SignalAnswer | None]:
        return self._write("calls.signal", run_id, signal, patient=False)

    def decide(self, approval_id: str, decision: Raw) -> Awaitable[Decided | None]:
        return self._write("calls.decide", approval_id, decision, patient=False)

    def restart(self, fence: Fence) -> Awaitable[bool]:
        return self._write("calls.restart", fence, fence=fence)

    # Durable calls: reads

    async def history(self, run_id: str) -> History:
        return await self._read_calls(lambda rows: rows.history(run_id))

    async def steps(
        self, run_id: str, *, after: str | None = None, limit: int = 1000, limit_bytes: int | None = None
    ) -> Sequence[Step]:
        return await self._read_calls(lambda rows: rows.steps(run_id, after, limit, limit_bytes))

    async def wait(self, run_id: str, key: str) -> Wait | None:
        return await self._read_calls(lambda rows: rows.wait(run_id, key))

    async def open_waits(self, run_id: str) -> Sequence[Wait]:
        return await self._read_calls(lambda rows: rows.open_waits(run_id))

    async def approval(self, approval_id: str) -> Approval | None:
        return await self._read_calls(lambda rows: rows.approval(approval_id))

    async def approvals(
        self, where: ApprovalFilter, *, before: str | None = None, limit: int = 50
    ) -> Sequence[Approval]:
        return await self._read_calls(lambda rows: rows.approvals(where, before, limit))

    async def parked_timers(self, limit: int) -> Sequence[ParkedTimer]:
        return await self._read_calls(lambda rows: rows.parked_timers(limit))

    async def answers_since(self, seq: int) -> tuple[int, Sequence[tuple[str, str]]]:
        return await self._read(lambda db: answers_since(db, self._sql, seq))

    # Agents

    def delete_session(self, stream_id: str, session: str) -> Awaitable[int]:
        return self._write("conversations.delete_session", stream_id, session, patient=False)

    def delete_stream(self, stream_id: str) -> Awaitable[bool | None]:
        return self._write("conversations.delete_stream", stream_id, patient=False)

    async def entries(
        self, stream_id: str, session: str, *, after: int = 0, limit: int = 1000, limit_bytes: int | None = None
    ) -> Sequence[Entry]:
        return await self._read_conversations(lambda rows: rows.entries(stream_id, session, after, limit, limit_bytes))

    async def sessions(self, stream_id: str) -> Sequence[SessionInfo]:
        return await self._read_conversations(lambda rows: rows.sessions(stream_id))

    async def files(self, stream_id: str, workspace: str) -> Sequence[FileVersion]:
        return await self._read_conversations(lambda rows: rows.files(stream_id, workspace))

    async def stream(self, stream_id: str) -> StreamInfo | None:
        return await self._read_conversations(lambda rows: rows.stream(stream_id))

    async def streams(self, agent: str, *, before: int | None = None, limit: int = 50) -> Sequence[StreamInfo]:
        return await self._read_conversations(lambda rows: rows.streams(agent, before, limit))

    async def interactions(self, stream_id: str, *, before: int | None = None, limit: int = 50) -> Page:
        return await self._read_conversations(lambda rows: rows.interactions(stream_id, before, limit))

    # Runs: reads

    async def run(self, run_id: str, *, values: bool = True) -> Run | None:
        return await self._read(lambda db: read_run(db, self._sql, run_id, values=values))

    async def definition(self, run_id: str) -> Raw | None:
        return await self._read(lambda db: read_definition(db, self._sql, run_id))

    async def runs(self, where: RunFilter, *, before: int | None = None, limit: int = 50) -> Page:
        conditions, bindings = filters(where)
        sql = self._sql["runs"].replace("/*filters*/", conditions)
        bindings |= {"before": before if before is not None else 2**62, "limit": limit + 1}

        def read(db: Database) -> Page:
            runs = [to_run(row) for row in db.execute(sql, bindings)]
            return to_page(runs, limit)

        return await self._read(read)

    async def unfinished(self, *, owner: str | None = None) -> Sequence[Run]:
        return await self._read(
            lambda db: [to_run(row) for row in db.execute(self._sql["unfinished_runs"], {"owner": owner})]
        )

    async def count_unfinished(self, owner: str) -> int:
        bindings = {"owner": owner}
        return await self._read(lambda db: int(db.execute(self._sql["count_unfinished"], bindings).get))

    async def lost(self) -> Sequence[Run]:
        def read(db: Database) -> list[Run]:
            owners = self._owners(db, "owners_of_running")
            if self._roster is not None and not self._is_read_only:
                self._roster.forget_dead(owners | self._owners(db, "owners_of_waiting"))
            dead = self._dead(owners)
            if not dead:
                return []
            bindings = {"owners": codec.encode(dead).decode()}
            return [to_run(row) for row in db.execute(self._sql["lost_runs"], bindings)]

        return await self._read(read)

    async def dead_owners_of_waiting(self) -> Sequence[str]:
        return await self._read(lambda db: self._dead(self._owners(db, "owners_of_waiting")))

    async def cancel_requests(self, owner: str) -> Sequence[str]:
        return await self._read(
            lambda db: [run_id for (run_id,) in db.execute(self._sql["cancel_requests"], {"owner": owner})]
        )

    async def suspects(self, crashes: int) -> Sequence[str]:
        return await self._read(
            lambda db: [run_id for (run_id,) in db.execute(self._sql["suspects"], {"crashes": crashes})]
        )

    async def count_queued(self) -> int:
        return await self._read(lambda db: int(db.execute(self._sql["count_queued"]).get))

    async def has_queued(self, *, max_crashes: int | None = None) -> bool:
        bindings = {"max_crashes": max_crashes}
        return await self._read(lambda db: bool(db.execute(self._sql["has_queued"], bindings).get))

    async def expired(self) -> Sequence[tuple[str, int]]:
        bindings = {"now": self._clock.now_us()}
        return await self._read(
            lambda db: [(row[0], row[1]) for row in db.execute(self._sql["expired_unowned"], bindings)]
        )

    async def events(
        self,
        stream_id: str,
        *,
        after: int = 0,
        limit: int = 1000,
        types: Sequence[str] = (),
        limit_bytes: int | None = None,
    ) -> Sequence[Event]:
        interaction = ids.split_interaction_id(stream_id)

        def read(db: Database) -> list[Event]:
            wanted = codec.encode(list(types)).decode() if types else None
            if interaction is not None:
                rows = db.execute(self._sql["events_of_interaction"], (*interaction, after, wanted, limit))
            elif wanted is not None:
                rows = db.execute(self._sql["events_of_types"], (stream_id, after, wanted, limit))
            else:
                rows = db.execute(self._sql["events"], (stream_id, after, limit))
            events: list[Event] = []
            left = limit_bytes if limit_bytes is not None else 2**62
            for row in rows:
                events.append(to_event(row))
                left -= len(row[4])
                if left <= 0:
                    break
            return events

        return await self._read(read)

    async def first_event_since(self, stream_id: str, since_us: int) -> int:
        bindings = {"stream_id": ids.stream_of(stream_id), "since": since_us}
        return await self._read(lambda db: int(db.execute(self._sql["index_before"], bindings).get))

    async def blob(self, stream_id: str, digest: str) -> bytes | None:
        return await self._read(lambda db: read_blob(db, self._sql, stream_id, digest))

    # Waking

    def watch(self, stream_id: str) -> Watch:
        if self._writer is None:
            return PollingBell(self._data_version)
        return Bell(self._writer, stream_id)

    def on_foreign_commit(self, callback: Callable[[], None]) -> None:
        self._the_writer().on_foreign.append(callback)

    def on_lost(self, callback: Callable[[Fence, Exception | None], None]) -> None:
        self._the_writer().on_lost.append(callback)

    def on_answered(self, callback: Callable[[Sequence[tuple[str, str]]], None]) -> None:
        self._the_writer().on_answered.append(callback)

    # Life

    def enlist(self, engine_id: str) -> None:
        if self._roster is None:
            self._own_engines.add(engine_id)
            return
        if self._path is not None and self._path.stat().st_size <= _CHECKED_AT_START_BYTES:
            problems = sqlite_file.find_problems(self._anchor, thorough=False)
            if problems:
                raise JournalUnreadable(self._name, f"it is corrupted ({problems[0]})")
        try:
            self._roster.enlist(engine_id)
        except OSError as error:
            raise JournalReadOnly(str(self._path), error.strerror or str(error)) from error

    def unwritten(self, run_id: str) -> int:
        return self._the_writer().unwritten(run_id)

    def drain(self, run_id: str) -> None:
        self._the_writer().drain(run_id)

    async def check(self) -> Checked:
        def read(db: Database) -> Checked:
            problems = sqlite_file.find_problems(db, thorough=True)
            with contextlib.suppress(apsw.Error):
                problems += [f"table row without parent: {row[0]}" for row in db.execute("PRAGMA foreign_key_check")]
            count = 0
            with contextlib.suppress(apsw.Error):
                count = int(db.execute("SELECT count(*) FROM runs").get)
            return Checked(
                path=self._name,
                schema_version=int(db.pragma("user_version")),
                size_bytes=self._path.stat().st_size if self._path is not None else 0,
                runs=count,
                problems=tuple(problems),
            )

        return await self._read_any_schema(read)

    async def backup(self, target: Path) -> int:
        return await self._read_any_schema(lambda db: sqlite_file.copy(db, target))

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    # Parts

    async def _data_version(self) -> int:
        # Always the same connection: the number means something only compared with its own earlier one.
        def read() -> int:
            return int(self._anchor.execute("PRAGMA data_version").get)

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    def _set_up(self) -> None:
        if self._path is not None:
            sqlite_file.use_wal(self._anchor, self._name, timeout_s=self._settings.busy_timeout_s)
        roster = self._roster
        sqlite_file.migrate(self._anchor, self._name, is_in_use=lambda: roster is not None and roster.anyone_else())

    def _open_connection(self) -> Database:
        connection = sqlite_file.connect(
            self._name, read_only=self._is_read_only, busy_timeout_s=self._settings.busy_timeout_s
        )
        self._connections.append(connection)
        return connection

    def _make_writer(self, *, apart: bool) -> Writer:
        if apart:
            from .writer_process import ProcessWriter  # only servers have one

            return ProcessWriter(self._place())
        return self.writer_type(self._open_writes)

    def _place(self) -> Place:
        return Place(name=self._name, path=self._path, settings=self._settings, limits=self._limits, clock=self._clock)

    def _open_writes(self) -> SqliteWrites:
        writer = self._the_writer()
        return open_writes(
            self._place(),
            touch=writer.touch,
            note_ended=writer.note_ended,
            is_alive=self._is_alive,
        )

    def _the_writer(self) -> Writer:
        if self._writer is None:
            raise JournalReadOnly(self._name, "it was opened for reading only")
        return self._writer

    def _write(self, verb: str, *args: Any, fence: Fence | None = None, patient: bool = True) -> asyncio.Future[Any]:
        return self._the_writer().submit(Verb(verb, args), fence=fence, patient=patient)

    def _write_after_events(self, fence: Fence, verb: str, *args: Any) -> asyncio.Future[Any]:
        return self._the_writer().submit_with_events(Verb(verb, args, takes_events=True), fence)

    async def _read_calls(self, query: Callable[[CallRows], T]) -> T:
        from .sqlite_call_rows import CallRows  # at first use: a run without durable calls pays nothing for them

        return await self._read(lambda db: query(CallRows(db, self._sql)))

    async def _read_conversations(self, query: Callable[[ConversationRows], T]) -> T:
        from .sqlite_conversations import ConversationRows  # likewise

        return await self._read(lambda db: query(ConversationRows(db, self._sql)))

    async def _read(self, query: Callable[[Database], T]) -> T:
        if self._is_outdated:
            raise JournalError(
                f"{self._name} was written by an older PyFlue, and has to be migrated before it can be read.",
                hint="Start `pyflue dev` or `pyflue serve` once: it copies the journal, then migrates it.",
            )
        return await self._read_any_schema(query)

    async def _read_any_schema(self, query: Callable[[Database], T]) -> T:
        if self._is_closed:
            raise JournalClosed
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._run_query, query)

    def _run_query(self, query: Callable[[Database], T]) -> T:
        connection: Database | None = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = self._local.connection = self._open_connection()
            return query(connection)
        except apsw.Error as error:
            raise sqlite_file.translate(self._name, error, self._settings.busy_timeout_s) from error
        except OSError as error:
            raise JournalError(f"Reading {self._name} failed: {error.strerror}.") from error

    def _is_alive(self, engine_id: str) -> bool:
        return self._roster.is_alive(engine_id) if self._roster is not None else engine_id in self._own_engines

    def _owners(self, db: Database, query: str) -> set[str]:
        return {owner for (owner,) in db.execute(self._sql[query])}

    def _dead(self, owners: set[str]) -> list[str]:
        return sorted(owner for owner in owners if not self._is_alive(owner))

    def _close(self) -> None:
        self._readers.shutdown(wait=True)
        if self._writer is not None:
            self._writer.stop()
        for connection in self._connections:
            connection.close()
        if self._roster is not None:
            self._roster.close()
