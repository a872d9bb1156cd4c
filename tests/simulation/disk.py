"""The journal's own SQL in memory, with a writer that works on the simulated event loop and a disk that has bad days.

`Disk` is what the processes share: the database, and who is alive. `SimulatedJournal` is the real `SqliteJournal`, as
one process has it open; only the thread of its writer is replaced. A process may die before or after any commit, and a
transaction may find the journal busy or the disk full.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import Callable
from typing import Any, cast

import apsw

from pyflue.clock import Clock
from pyflue.journal.sqlite import SqliteJournal
from pyflue.journal.sqlite_file import Database, connect, migrate
from pyflue.journal.sqlite_writes import SqliteWrites
from pyflue.journal.writer import Transactions, Writer
from pyflue.settings import JournalSettings, Limits

from .loop import Process, World, current_process

_names = itertools.count(1)
#: How long the writer takes to begin, to commit, and to tell.
COMMIT_S = 0.006
#: How soon a process notices the commits of another one.
NOTICE_S = 0.05


@functools.cache
def _empty() -> Database:
    """A new journal, to be copied: that takes less time than making it."""
    database = connect(":memory:", read_only=False, busy_timeout_s=1)
    migrate(database, "template", is_in_use=lambda: False)
    return database


class SimulatedClock:
    """The machine's clocks: the wall clock jumps when it is told to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.offset_us = 0

    def now_us(self) -> int:
        return 1_700_000_000_000_000 + int(self._world.time() * 1_000_000) + self.offset_us

    def monotonic(self) -> float:
        return self._world.time()


class Disk:
    """A machine's disk with one journal on it."""

    def __init__(self, world: World, chance: random.Random, clock: Clock, limits: Limits) -> None:
        self.world = world
        self.chance = chance
        self.clock = clock
        self.limits = limits
        self.name = f"file:/simulated-{next(_names)}?vfs=memdb"
        #: Engines whose lock is held.
        self.alive: set[str] = set()
        self.journals: list[SimulatedJournal] = []
        #: The share of transactions that fail, and with what.
        self.busy_share = 0.0
        self.full_share = 0.0
        self.full_faults = 0
        self.commits = 0
        #: Called after each commit.
        self.on_commit: list[Callable[[], None]] = []
        #: For those who look at the disk without any process.
        self.database: Database = connect(self.name, read_only=False, busy_timeout_s=1)
        with self.database.backup("main", _empty(), "main") as backup:
            backup.step(-1)

    def open(self) -> SimulatedJournal:
        """The journal, for the running process."""
        return SimulatedJournal(self, current_process())

    def committed(self, by: SimulatedJournal) -> None:
        """Something is on disk."""
        self.commits += 1
        for called in self.on_commit:
            called()
        for journal in self.journals:
            if journal is not by:
                journal.notice_soon()

    def read(self, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
        """What is on disk now."""
        return list(self.database.execute(sql, bindings))

    def close(self) -> None:
        for journal in list(self.journals):
            journal.leave()
        self.database.close()


class SimulatedJournal(SqliteJournal):
    """One process's journal."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self.disk = disk
        self.process = process
        self.writer_type = cast("type[Writer]", lambda opening: SimulatedWriter(opening, self))
        super().__init__(
            disk.name, path=None, settings=JournalSettings(), limits=disk.limits, clock=disk.clock, read_only=False
        )
        self._own_engines = disk.alive
        disk.journals.append(self)
        process.on_death.append(self.leave)

    def enlist(self, engine_id: str) -> None:
        super().enlist(engine_id)
        self.process.on_death.append(lambda: self.disk.alive.discard(engine_id))

    def notice_soon(self) -> None:
        self.process.run(self.disk.world.call_later, self.disk.chance.uniform(0, NOTICE_S), self._notice)

    def _notice(self) -> None:
        writer = cast("SimulatedWriter", self._writer)
        if self in self.disk.journals:
            writer.look()

    def _open_writes(self) -> SqliteWrites:
        return cast("SqliteWrites", _Transactions(super()._open_writes(), self.disk))

    def _close(self) -> None:
        super()._close()
        self.disk.journals.remove(self)

    def leave(self) -> None:
        """The kernel closes what the process had open."""
        if self in self.disk.journals:
            self.disk.journals.remove(self)
            cast("SimulatedWriter", self._writer).leave()
            for connection in self._connections:
                connection.close()


class _Transactions:
    """The database as the writer has it; now and then it fails."""

    def __init__(self, writes: SqliteWrites, disk: Disk) -> None:
        self._writes = writes
        self._disk = disk
        self._fails_at_commit = False

    def begin(self) -> None:
        chance = self._disk.chance
        if chance.random() < self._disk.busy_share:
            raise apsw.BusyError("simulated")
        self._fails_at_commit = chance.random() < self._disk.full_share
        self._writes.begin()

    def commit(self) -> None:
        if self._fails_at_commit:
            self._disk.full_faults += 1
            raise apsw.FullError("simulated")
        self._writes.commit()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writes, name)


class SimulatedWriter(Writer):
    """The writer, with turns on the event loop in the place of a thread."""

    def __init__(self, opening: Callable[[], Transactions], journal: SimulatedJournal) -> None:
        super().__init__(opening)
        self._journal = journal
        self._disk = journal.disk
        self._process = journal.process
        self._loop = journal.disk.world
        self._is_working = False
        self._untold: list[Any] = []

    def start(self) -> None:
        self._transactions = self._connect()
        self._is_idle = True

    def submit(self, work: Any, *, rings: bool = True, **options: Any) -> asyncio.Future[Any]:
        future = super().submit(work, rings=rings, **options)
        if self._is_idle and not rings:
            self._later(NOTICE_S, self._wake)
        return future

    def _wake(self) -> None:
        if self._is_idle and not self._is_working:
            self._is_idle = False
            self._is_working = True
            self._later(COMMIT_S, self._turn)

    def _later(self, most_s: float, function: Callable[..., None], *args: Any) -> None:
        # As the process, and not as whichever run has just written: that one's scope is not the writer's.
        self._process.run(self._loop.call_later, self._disk.chance.uniform(0, most_s), function, *args)

    def _turn(self) -> None:
        self._process.pass_point()
        if self._is_closed:
            return
        batch = self._take_now()
        answered, again = self._write(batch) if batch else ([], [])
        self._queue.extendleft(reversed(again))
        if answered:
            self._disk.committed(self._journal)
        self._process.pass_point()
        self._untold = answered
        self._later(COMMIT_S, self._tell)

    def _tell(self) -> None:
        answered, self._untold = self._untold, []
        if answered:
            self._settle(answered)
        self._is_working = False
        self._is_idle = True
        if self._queue:
            self._wake()

    def _take_now(self) -> list[Any]:
        batch = list(self._queue)
        self._queue.clear()
        self._open_appends.clear()
        return batch

    def look(self) -> None:
        """Look for what other processes have written."""
        if not self._is_closed and self._transactions.foreign_commits():
            self._ring_all()

    def drain(self, run_id: str) -> None:
        raise AssertionError("nothing may block in here")

    def stop(self) -> None:
        self._is_closed = True
        self._settle(self._untold)
        while self._queue:
            answered, again = self._write(self._take_now())
            self._queue.extendleft(reversed(again))
            self._disk.committed(self._journal)
            self._settle(answered)
        self._transactions.close()

    def leave(self) -> None:
        """The process has died: what is queued is lost."""
        self._is_closed = True
        self._queue.clear()
        self._transactions.close()
