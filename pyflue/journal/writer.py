"""The writer: one thread that turns queued records into transactions, as many records into one as are waiting.

Adapters queue records (`submit`, `append`, `note`); the thread takes what is queued, runs it in one transaction,
commits once (one fsync for all), and only then resolves the waiters and rings the bells of the readers. It knows
transactions and queues; what a record does is a verb of the adapter's, which it is given as data (`Verb`), so that
another process can do it as well (`writer_process.py`).

Events of a run that are still in the queue join the next record of their fence (`submit_with_events`, `note`): the
run's row is then written once for both. Events that are announced wait a while for such a record before they join the
queue at all: of work that ends soon, beginning and end are written at once.

A record that fails must not harm the others. The batch is rolled back and each of its records tried in a transaction
of its own; the one that fails again poisons its fence: later records of that run's attempt are refused with the same
error, so that no event is ever missing in the middle. While another process holds the journal, records that have a
caller waiting (`patient=False`) give up after the busy timeout; the others wait on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from ..errors import JournalClosed
from ..ids import stream_of
from .records import Fence, NewEvent

_POLL_S = 0.05
_MOST_RECORDS = 2000
#: What people see within a tenth of a second they see at once.
_ANNOUNCED_S = 0.1


class Transactions(Protocol):
    """What the writer needs of a database connection. Used by the writer thread only."""

    def begin(self) -> None:
        """Start a write transaction, waiting as long as the busy timeout."""
        ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def after_commit(self) -> None:
        """Called when waiters have been resolved: time for housekeeping."""
        ...

    def pause(self) -> None:
        """Called when nothing is left to write: let other processes have their turn."""
        ...

    def append(self, fence: Fence, events: list[NewEvent]) -> bool:
        """Store events in the open transaction; False if the fence no longer holds."""
        ...

    def translate(self, error: Exception) -> Exception:
        """The database's error as one of ours."""
        ...

    def is_busy(self, error: Exception) -> bool:
        """Whether the error only says that another process writes."""
        ...

    def foreign_commits(self) -> bool:
        """Whether other processes have committed since the last call."""
        ...

    def close(self) -> None: ...


class Verb(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a record does: a method of the adapter's transactions, and what that is given."""

    name: str
    args: tuple[Any, ...] = ()
    #: Whether it is also given the events that come before it in the run's stream, as `earlier`, and writes them first.
    takes_events: bool = False

    def __call__(self, transactions: Transactions, earlier: list[NewEvent]) -> Any:
        method = attrgetter(self.name)(transactions)
        return method(*self.args, earlier=earlier) if self.takes_events else method(*self.args)


class Record:
    """A queued verb and who waits for it; without a verb it is only its events."""

    __slots__ = ("counted", "error", "events", "fence", "future", "loop", "patient", "value", "verb")

    def __init__(
        self,
        verb: Verb | None,
        fence: Fence | None,
        future: asyncio.Future[Any] | None = None,
        patient: bool = True,
    ) -> None:
        self.verb = verb
        self.fence = fence
        self.future = future
        self.loop = future.get_loop() if future is not None else None
        self.patient = patient
        self.events: list[NewEvent] = []
        #: How many of its writes count as unwritten until they are settled.
        self.counted = 0
        self.value: Any = None
        self.error: Exception | None = None

    @property
    def is_unwaited(self) -> bool:
        """Whether it holds something that nobody waits for."""
        return bool(self.events) or (self.future is None and self.verb is not None)

    @property
    def is_refused(self) -> bool:
        """Whether it has written nothing: the verbs of fenced records answer False or None then."""
        return self.error is not None or self.value is None or self.value is False


class Bell:
    """Rings after commits that touch a stream; see `port.Watch`."""

    def __init__(self, writer: Writer, stream_id: str) -> None:
        self._writer = writer
        self.stream_id = stream_id
        self.loop = asyncio.get_running_loop()
        self.rang = asyncio.Event()

    def __enter__(self) -> Bell:
        self._writer.add_bell(self)
        return self

    def __exit__(self, *args: object) -> None:
        self._writer.remove_bell(self)

    async def wait(self) -> None:
        await self.rang.wait()
        self.rang.clear()

    def ring(self) -> None:
        self.rang.set()


class PollingBell:
    """The bell of a journal without a writer: it looks every 50 ms whether anything was committed."""

    def __init__(self, version: Callable[[], Awaitable[int]]) -> None:
        self._version = version
        self._seen: int | None = None

    def __enter__(self) -> PollingBell:
        return self

    def __exit__(self, *args: object) -> None:
        return None

    async def wait(self) -> None:
        seen = self._seen
        # Another process cannot set an event here: looking is the only way.
        while (version := await self._version()) == seen:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        self._seen = version

    def ring(self) -> None:
        self._seen = None


class Writer:
    """The queue in front of a `Transactions`, and the thread behind it."""

    _transactions: Transactions

    def __init__(self, connect: Callable[[], Transactions]) -> None:
        self._connect = connect
        # Submitting takes no lock: the loop must never wait for a writer that holds one while it waits for the GIL.
        self._queue: deque[Record] = deque()
        self._alarm = threading.Lock()
        self._alarm.acquire()
        self._is_idle = False
        self._is_closed = False
        #: Guards the four below.
        self._lock = threading.Lock()
        self._has_written = threading.Condition(self._lock)
        #: Records of events that are in the queue, and take more of them.
        self._open_appends: dict[Fence, Record] = {}
        self._unwritten: dict[str, int] = {}
        self._bells: dict[str, set[Bell]] = {}
        #: Events that are not in the queue yet, and when they have to be. Not under the lock: who takes them has them.
        self._announced: dict[Fence, tuple[float, list[NewEvent]]] = {}
        self._next_due_at = 0.0
        self._poisoned: dict[Fence, Exception] = {}
        self._touched: set[str] = set()
        self._ended_waits: list[tuple[str, str]] = []
        self._uncommitted_ends: list[tuple[str, str]] = []
        self._next_look_at = 0.0
        self._opened: Exception | None = None
        self._ready = threading.Event()
        self.on_lost: list[Callable[[Fence, Exception | None], None]] = []
        self.on_foreign: list[Callable[[], None]] = []
        self.on_answered: list[Callable[[Sequence[tuple[str, str]]], None]] = []
        self._thread = threading.Thread(target=self._run, name="pyflue-journal-writer", daemon=True)

    def start(self) -> None:
        """Start the thread; returns when its connection is open."""
        self._thread.start()
        self._ready.wait()
        if self._opened is not None:
            raise self._opened

    def submit(
        self,
        verb: Verb,
        *,
        fence: Fence | None = None,
        patient: bool = True,
        rings: bool = True,
        is_new: bool = False,
    ) -> asyncio.Future[Any]:
        """Queue a record; the future resolves with what its verb returned, after its transaction is committed.

        One that does not ring is written with the next one that does, or when the thread next looks by itself.
        One that `is_new` touches nothing that other records may have touched.
        """
        if self._is_closed:
            raise JournalClosed
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Earlier events of the runs that this record is about come before it, later ones after it.
        if fence is not None:
            self._queue_announced(fence)
            self._open_appends.pop(fence, None)
        elif not is_new:
            for announced in list(self._announced):
                self._queue_announced(announced)
            self._open_appends.clear()
        self._queue.append(Record(verb, fence, future, patient))
        if rings and self._is_idle:
            self._wake()
        return future

    def submit_with_events(self, verb: Verb, fence: Fence) -> asyncio.Future[Any]:
        """As `submit`; the verb takes the events of its fence that are announced, or still in the queue."""
        if self._is_closed:
            raise JournalClosed
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        record = Record(verb, fence, future)
        if fence in self._open_appends:
            with self._lock:
                self._queue_with_events(record, fence)
        else:
            if (announced := self._announced.pop(fence, None)) is not None:
                record.events = announced[1]
            self._queue.append(record)
        if self._is_idle:
            self._wake()
        return future

    def note(self, verb: Verb, fence: Fence) -> None:
        """As `submit_with_events`, with nobody waiting. May be called from any thread."""
        if self._is_closed:
            raise JournalClosed
        record = Record(verb, fence)
        with self._lock:
            self._queue_with_events(record, fence)
            record.counted += 1
            self._unwritten[fence.run_id] = self._unwritten.get(fence.run_id, 0) + 1
        if self._is_idle:
            self._wake()

    def append(self, fence: Fence, *events: NewEvent) -> None:
        """Queue events; they join the run's events that are already waiting. May be called from any thread."""
        if self._is_closed:
            raise JournalClosed
        if not events:
            return
        with self._lock:
            record = self._queue_announced(fence) or self._open_appends.get(fence)
            if record is None:
                record = Record(None, fence)
                self._queue.append(record)
            self._open_appends[fence] = record
            record.events += events
            record.counted += len(events)
            self._unwritten[fence.run_id] = self._unwritten.get(fence.run_id, 0) + len(events)
        if self._is_idle:
            self._wake()

    def announce(self, fence: Fence, event: NewEvent) -> None:
        """As `append`, but it waits for a record of the same fence to join, though no longer than `_ANNOUNCED_S`.

        It does not wait while somebody watches the stream.
        """
        if self._bells and stream_of(fence.run_id) in self._bells:
            self.append(fence, event)
            return
        if self._is_closed:
            raise JournalClosed
        if fence in self._open_appends:
            self.append(fence, event)
            return
        due_at, events = self._announced.pop(fence, None) or (time.monotonic() + _ANNOUNCED_S, [])
        events.append(event)
        self._announced[fence] = (due_at, events)

    def _queue_with_events(self, record: Record, fence: Fence) -> None:
        # Under the lock: the thread looks into what it has taken only after it has cleared `_open_appends` under the
        # same lock, and an event of another thread must not come between.
        if (earlier := self._open_appends.pop(fence, None)) is not None:
            record.events, earlier.events = earlier.events, record.events
            record.counted, earlier.counted = earlier.counted, record.counted
        if (announced := self._announced.pop(fence, None)) is not None:
            record.events += announced[1]
        self._queue.append(record)

    def _queue_announced(self, fence: Fence) -> Record | None:
        """Put what is announced of a fence into the queue, if anything is."""
        announced = self._announced.pop(fence, None)
        if announced is None:
            return None
        record = Record(None, fence)
        record.events = announced[1]
        self._queue.append(record)
        return record

    def _queue_due(self) -> None:
        """In the thread: put what has been announced for long enough into the queue; at the end all of it."""
        now, is_end = time.monotonic(), self._is_closed
        if now < self._next_due_at and not is_end:
            return
        self._next_due_at = now + _POLL_S
        for fence, (due_at, _) in self._announced.copy().items():
            if due_at > now and not is_end:
                continue
            # First a place in the queue, then the events: who submits a record meanwhile either takes them along, or
            # finds them gone, and then their place is before his.
            record = Record(None, fence)
            self._queue.append(record)
            if (announced := self._announced.pop(fence, None)) is not None:
                record.events = announced[1]

    def ring(self) -> None:
        """Have records written that did not ring."""
        if self._is_idle:
            self._wake()

    def _wake(self) -> None:
        self._is_idle = False
        with contextlib.suppress(RuntimeError):  # another thread has rung already
            self._alarm.release()

    def touch(self, stream_id: str) -> None:
        """Say, from within a record's verb, that its commit changes a stream."""
        # Noted even if nobody listens yet: a reader that comes between here and the commit has to be woken, too.
        self._touched.add(stream_id)

    def note_ended(self, run_id: str, key: str) -> None:
        """Say, from within a record's verb, that a wait ends with its commit."""
        self._uncommitted_ends.append((run_id, key))

    def unwritten(self, run_id: str) -> int:
        """How many writes of a run that nobody waits for are not committed yet."""
        return self._unwritten.get(run_id, 0)

    def drain(self, run_id: str) -> None:
        """Block until the events and notes that a run has queued so far are committed or refused."""
        for fence in [fence for fence in self._announced.copy() if fence.run_id == run_id]:
            if (announced := self._announced.pop(fence, None)) is not None:
                self.append(fence, *announced[1])
        with self._lock:
            self._has_written.wait_for(lambda: not self._unwritten.get(run_id) or not self._thread.is_alive())

    def add_bell(self, bell: Bell) -> None:
        with self._lock:
            self._bells.setdefault(bell.stream_id, set()).add(bell)

    def remove_bell(self, bell: Bell) -> None:
        with self._lock:
            bells = self._bells.get(bell.stream_id, set())
            bells.discard(bell)
            if not bells:
                self._bells.pop(bell.stream_id, None)

    def stop(self) -> None:
        """Write what is queued, then end the thread. Blocks."""
        self._is_closed = True
        self._wake()
        self._thread.join()

    # The thread

    def _run(self) -> None:
        try:
            self._transactions = self._connect()
        except Exception as error:  # noqa: BLE001  (whatever it is, it is raised again in `start`)
            self._opened = error
            return
        finally:
            self._ready.set()
        try:
            while (batch := self._take()) is not None:
                if batch:
                    answered, again = self._write(batch)
                    self._queue.extendleft(reversed(again))
                    self._settle(answered)
                    self._transactions.after_commit()
                self._look_for_foreign_commits()
            self._transactions.close()
        except BaseException:  # noqa: BLE001
            # Without this thread nothing is durable any more, and every caller would wait for ever.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)

    def _take(self) -> list[Record] | None:
        """The records that are waiting; none after a quiet moment, None when all is written and the end has come."""
        if self._announced:
            self._queue_due()
        if not self._queue:
            if self._is_closed:
                return None
            self._rest()
            self._is_idle = True
            if not self._queue:  # whoever came before the flag was up has not rung
                self._alarm.acquire(timeout=_POLL_S)
            self._is_idle = False
        batch: list[Record] = []
        with contextlib.suppress(IndexError):
            while len(batch) < _MOST_RECORDS:
                batch.append(self._queue.popleft())
        with self._lock:
            self._open_appends.clear()  # from here on a new event starts a new record
        return batch

    def _rest(self) -> None:
        """Nothing is queued."""
        self._transactions.pause()

    def _look_for_foreign_commits(self) -> None:
        now = time.monotonic()
        if now >= self._next_look_at:
            self._next_look_at = now + _POLL_S
            if self._transactions.foreign_commits():
                self._ring_all()

    def _write(self, batch: list[Record]) -> tuple[list[Record], list[Record]]:
        """Commit the batch; returns the records that have their value or error, and those to try again."""
        waiting = self._refuse_poisoned(batch)
        try:
            if waiting:
                self._transact(waiting)
        except Exception as error:  # noqa: BLE001  (from the database, or from a value it cannot bind)
            self._transactions.rollback()
            self._uncommitted_ends.clear()
            if self._transactions.is_busy(error):
                again = self._give_up(waiting, error)
                return [record for record in batch if record.error is not None], again
            if len(waiting) > 1:
                return self._write_apart(batch)
            self._fail(waiting[0], error)
        return batch, []

    def _write_apart(self, batch: list[Record]) -> tuple[list[Record], list[Record]]:
        # One of them is at fault, or the disk is full for all: alone, each gets its own answer.
        answered: list[Record] = []
        for number, record in enumerate(batch):
            done, again = self._write([record])
            answered += done
            if again:
                return answered, batch[number:]
        return answered, []

    def _transact(self, records: list[Record]) -> None:
        transactions = self._transactions
        transactions.begin()
        for record in records:
            if record.verb is not None:
                record.value = record.verb(transactions, record.events)
            elif record.fence is not None:
                # Without events: a later record has taken them over.
                record.value = not record.events or transactions.append(record.fence, record.events)
        transactions.commit()
        self._ended_waits += self._uncommitted_ends
        self._uncommitted_ends.clear()

    def _refuse_poisoned(self, batch: list[Record]) -> list[Record]:
        if not self._poisoned:
            return batch
        good: list[Record] = []
        for record in batch:
            error = self._poisoned.get(record.fence) if record.fence is not None else None
            if error is None:
                good.append(record)
            else:
                record.error = error
        return good

    def _give_up(self, waiting: list[Record], error: Exception) -> list[Record]:
        """Give records that have a caller their error; returns the others, which wait on."""
        again: list[Record] = []
        for record in waiting:
            if record.patient and not self._is_closed:
                again.append(record)
            else:
                record.error = self._transactions.translate(error)
        return again

    def _fail(self, record: Record, error: Exception) -> None:
        record.error = self._transactions.translate(error)
        if record.fence is not None:
            self._poisoned[record.fence] = record.error
            if len(self._poisoned) > 10_000:
                self._poisoned.pop(next(iter(self._poisoned)))

    def _settle(self, batch: list[Record]) -> None:
        """Tell everybody who waits what has become of the batch: one call into each event loop."""
        answers: dict[asyncio.AbstractEventLoop, tuple[list[Record], list[Bell]]] = {}
        lost: list[Record] = []
        for record in batch:
            if record.loop is not None:
                answers.setdefault(record.loop, ([], []))[0].append(record)
            if record.is_unwaited and record.is_refused:
                lost.append(record)
        with self._lock:
            for record in batch:
                if record.fence is not None and record.counted:
                    self._count_written(record.fence.run_id, record.counted)
            for stream_id in self._touched & self._bells.keys():
                for bell in self._bells[stream_id]:
                    answers.setdefault(bell.loop, ([], []))[1].append(bell)
        self._touched.clear()
        for record in lost:
            for callback in self.on_lost:
                if record.fence is not None:
                    callback(record.fence, record.error)
        for loop, (records, bells) in answers.items():
            _call(loop, _resolve, records, bells)
        # After the futures: whoever has opened a wait hears of that before he hears of its end.
        if self._ended_waits:
            ended, self._ended_waits = self._ended_waits, []
            for callback in self.on_answered:
                callback(ended)

    def _count_written(self, run_id: str, count: int) -> None:
        left = self._unwritten.pop(run_id) - count
        if left:
            self._unwritten[run_id] = left
        self._has_written.notify_all()

    def _ring_all(self) -> None:
        with self._lock:
            everyone = [bell for bells in self._bells.values() for bell in bells]
        by_loop: dict[asyncio.AbstractEventLoop, list[Bell]] = {}
        for bell in everyone:
            by_loop.setdefault(bell.loop, []).append(bell)
        for loop, bells in by_loop.items():
            _call(loop, _resolve, [], bells)
        for callback in self.on_foreign:
            callback()


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
        loop.call_soon_threadsafe(function, *args)


def _resolve(records: list[Record], bells: list[Bell]) -> None:
    for record in records:
        future = record.future
        if future is None or future.done():
            continue
        if record.error is not None:
            future.set_exception(record.error)
        else:
            future.set_result(record.value)
    for bell in bells:
        bell.rang.set()
