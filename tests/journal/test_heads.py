"""Where runs are at, kept beside the writer: several processes on one file, and a writer that keeps nothing.

`Bench` has the writing half of the journal twice on one file, as two processes have it, and beside that a file on which
each verb is done by a writer made for it alone. Whatever is done must leave the same rows in both.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pyflue.errors import JournalError
from pyflue.ids import new_ulid
from pyflue.journal import (
    Attached,
    Fence,
    FileRecord,
    Journal,
    NewEntry,
    NewEvent,
    NewStep,
    Outcome,
    Run,
    RunStatus,
    SignalAnswer,
    StepStatus,
    WaitKind,
)
from pyflue.journal.queries import load_queries
from pyflue.journal.sqlite_file import Database, connect, migrate
from pyflue.journal.sqlite_heads import Heads
from pyflue.journal.sqlite_writes import SqliteWrites
from pyflue.settings import JournalSettings, Limits
from tests.contracts.test_journal_calls import StillClock, new_park, new_signal, new_step, new_wait
from tests.promises import promise
from tests.support import fence_of, journal_at, new_event, new_run, raw

DONE = Outcome(status=RunStatus.COMPLETED, result=raw(1))
SQL = load_queries("sqlite")
TABLES = (
    "runs", "run_tags", "events", "steps", "waits", "signals", "streams", "conversation_entries", "workspace_files",
    "blobs", "counters",
)  # fmt: skip

# Two writers and one that keeps nothing

Action = Callable[[SqliteWrites], Any]


def event(kind: str = "log") -> NewEvent:
    return new_event(kind, at_us=1)


@functools.cache
def _empty() -> Database:
    """A new journal, to be copied: that takes less time than making it."""
    database = connect(":memory:", read_only=False, busy_timeout_s=1)
    migrate(database, "template", is_in_use=lambda: False)
    return database


class Bench:
    """Two writers on one file, and a file for those that are made for one verb."""

    def __init__(self, folder: Path, *, most_heads: int) -> None:
        self._most_heads = most_heads
        self._open: list[Database] = []
        self._file, self._plain_file = folder / "kept.db", folder / "plain.db"
        for file in (self._file, self._plain_file):
            made = self._connect(file)
            with made.backup("main", _empty(), "main") as copying:
                copying.step(-1)
            made.pragma("journal_mode", "wal")
        self.writers = [self._writes(self._connect(self._file), most_heads) for _ in range(2)]
        self._plain = self._connect(self._plain_file)

    def _connect(self, file: Path) -> Database:
        connection = connect(f"file:{file}?mode=rwc", read_only=False, busy_timeout_s=1)
        connection.pragma("synchronous", "off")
        self._open.append(connection)
        return connection

    def _writes(self, connection: Database, most_heads: int) -> SqliteWrites:
        return SqliteWrites(
            connection,
            "bench",
            folder=None,
            turnstile=None,
            checkpointer=None,
            touch=lambda stream_id: None,
            is_alive=lambda engine_id: True,
            note_ended=lambda run_id, key: None,
            sql=SQL,
            clock=StillClock(),
            settings=JournalSettings(),
            limits=Limits(),
            most_heads=most_heads,
        )

    def do(self, number: int, actions: Sequence[Action]) -> None:
        """Let one of the two do something in one transaction, and others each verb by itself."""
        done = _transact(self.writers[number], actions)
        alone = [_transact(self._writes(self._plain, 0), [action])[0] for action in actions]
        assert done == alone

    def begin_and_give_up(self, number: int, actions: Sequence[Action]) -> None:
        """Let one of the two do something that does not come to its commit."""
        writes = self.writers[number]
        writes.begin()
        with suppress(Exception):
            for action in actions:
                action(writes)
        writes.rollback()

    def compare(self) -> None:
        """All rows are the same, and all streams are dense."""
        kept, plain = self._connect(self._file), self._connect(self._plain_file)
        for table in TABLES:
            rows, expected = (sorted(db.execute(f"SELECT * FROM {table}"), key=repr) for db in (kept, plain))
            assert rows == expected, table
        for stream_id, last_index in kept.execute(
            "SELECT run_id, last_index FROM runs WHERE stream IS NULL "
            "UNION ALL SELECT stream_id, last_index FROM streams"
        ):
            indexes = [index for (index,) in kept.execute("SELECT idx FROM events WHERE stream_id = ?", (stream_id,))]
            assert indexes == list(range(1, last_index + 1))

    def close(self) -> None:
        for connection in self._open:
            connection.close()


def _transact(writes: SqliteWrites, actions: Sequence[Action]) -> list[Any]:
    """As the writer does it: one transaction, or each alone if one fails; the answers, or the names of errors."""
    try:
        writes.begin()
        answers = [action(writes) for action in actions]
        writes.commit()
    except Exception as error:
        writes.rollback()
        if len(actions) == 1:
            return [type(error).__name__]
        return [_transact(writes, [action])[0] for action in actions]
    return answers


@contextmanager
def bench(*, most_heads: int) -> Generator[Bench]:
    with tempfile.TemporaryDirectory() as folder:
        made = Bench(Path(folder), most_heads=most_heads)
        try:
            yield made
        finally:
            made.close()


@dataclass
class Script:
    """Makes verbs about a few runs: of two workflows, a child of the first, and an interaction with an agent."""

    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        first, second, child = (new_run() for _ in range(3))
        interaction = replace(new_run(), run_id=f"agent:helper:ada:{new_ulid()}")
        self.runs = [first, second, replace(child, parent_run_id=first.run_id, depth=1), interaction]

    def start(self) -> list[Action]:
        return [lambda db, new=new: db.accept(new) for new in self.runs]

    def _fenced(self, run: int, is_late: bool, action: Callable[[SqliteWrites, Fence], Any]) -> Action:
        run_id = self.runs[run].run_id

        def act(db: SqliteWrites) -> Any:
            # Owner and attempt as they are on disk; or those of the attempt before.
            row = db.connection.execute("SELECT owner, attempt FROM runs WHERE run_id = ?", (run_id,)).fetchone()
            owner, attempt = row or (None, 1)
            fence = Fence(run_id=run_id, owner=owner or "engine-1", attempt=attempt - is_late)
            return action(db, fence)

        return act

    def append(self, run: int, is_late: bool, count: int) -> Action:
        return self._fenced(run, is_late, lambda db, fence: db.append(fence, [event()] * count))

    def record(self, run: int, is_late: bool, key: str | None, count: int, leaves: Sequence[str]) -> Action:
        number = next(self.numbers)
        key = key or f"step-{number}"
        status = StepStatus.RETRYING if "retries" in leaves else StepStatus.COMPLETED
        step = NewStep(
            key=key, kind="step", name=key, position=1, started_us=1, status=status, value=raw("v" * number * 1000)
        )
        attached = Attached(
            entries=[NewEntry(session="main", entry=raw(number))] * leaves.count("entry"),
            files=[FileRecord(workspace="main", path="a.txt", data=bytes([number % 256]))] * leaves.count("file"),
            usage=raw({"tokens": number}) if "usage" in leaves else None,
            also=replace(step, key=f"{key}/also") if "also" in leaves else None,
        )
        if "no wait" in leaves and attached.also is None:
            return self._fenced(
                run, is_late, lambda db, fence: db.calls.note(fence, step, attached, earlier=[event()] * count)
            )
        return self._fenced(
            run,
            is_late,
            lambda db, fence: db.calls.record(
                fence, step, [event("step_end")] * 2, attached, earlier=[event()] * count
            ),
        )

    def open_wait(self, run: int, is_late: bool, key: str, parks: bool) -> Action:
        wait = new_wait(WaitKind.SIGNAL, key)
        park = replace(new_park(), event=event("run_waiting")) if parks else None
        return self._fenced(run, is_late, lambda db, fence: db.calls.open_wait(fence, wait, [event()], park, [event()]))

    def wait_for_child(self, parks: bool) -> Action:
        wait = new_wait(WaitKind.CHILD, "child", name=self.runs[2].run_id)
        park = replace(new_park(), event=event("run_waiting")) if parks else None
        return self._fenced(0, False, lambda db, fence: db.calls.open_wait(fence, wait, [], park, []))

    def park(self, run: int) -> Action:
        park = replace(new_park(), event=event("run_waiting"))
        return self._fenced(run, False, lambda db, fence: db.calls.park(fence, park))

    def close_wait(self, run: int, is_late: bool, key: str) -> Action:
        return self._fenced(run, is_late, lambda db, fence: db.calls.close_wait(fence, key, [event()]))

    def expire(self, run: int, key: str) -> Action:
        return self._fenced(run, False, lambda db, fence: db.calls.expire(fence.run_id, key, fence))

    def signal(self, run: int, name: str) -> Action:
        signal = new_signal(name, next(self.numbers))
        return lambda db: db.calls.signal(self.runs[run].run_id, signal)

    def finish(self, run: int, is_late: bool, count: int) -> Action:
        return self._fenced(run, is_late, lambda db, fence: db.finish(fence, DONE, [event()] * count))

    def cancel(self, run: int) -> Action:
        return lambda db: db.cancel(self.runs[run].run_id)

    def requeue(self, run: int, is_late: bool, crashed: bool) -> Action:
        return self._fenced(run, is_late, lambda db, fence: db.requeue(fence, crashed))

    def claim(self, owner: str) -> Action:
        return lambda db: db.claim(owner, 10, None, None)

    def adopt(self, run: int, owner: str) -> Action:
        run_id = self.runs[run].run_id
        return self._fenced(
            run, False, lambda db, fence: [db.requeue(fence, False), db.claim(owner, 1, [run_id], None)]
        )

    def release(self, run: int) -> Action:
        return self._fenced(run, False, lambda db, fence: db.release(fence))

    def disown(self, owner: str) -> Action:
        return lambda db: db.disown(owner)

    def restart(self, run: int, is_late: bool) -> Action:
        return self._fenced(run, is_late, lambda db, fence: db.calls.restart(fence))

    def delete(self, run: int) -> Action:
        return lambda db: db.delete(self.runs[run].run_id)

    def delete_session(self, run: int) -> Action:
        stream_id = self.runs[run].run_id.rpartition(":")[0] if run == 3 else self.runs[run].run_id
        return lambda db: db.conversations.delete_session(stream_id, "main")

    def accept(self, run: int) -> Action:
        """Again: an error, unless it was deleted."""
        return lambda db: db.accept(self.runs[run])


_run = st.sampled_from([0, 0, 0, 0, 1, 2, 3, 3])
_late = st.sampled_from([False] * 9 + [True])
_name = st.sampled_from(["paid", "sent"])
_count = st.sampled_from([0, 0, 1, 3])
_leaves = st.lists(st.sampled_from(["entry", "entry", "file", "usage", "also", "retries", "no wait"]), max_size=3)
_engine = st.sampled_from(["engine-1", "engine-2"])
# Seldom a key that may be recorded already: an error ends a transaction, and with it what is kept.
_keys = st.sampled_from([None] * 19 + ["a"])
_records = st.tuples(st.just("record"), _run, _late, _keys, _count, _leaves)
_appends = st.tuples(st.just("append"), _run, _late, st.sampled_from([1, 2]))
_waits = st.one_of(
    st.tuples(st.just("open_wait"), _run, _late, _name, st.booleans()),
    st.tuples(st.just("wait_for_child"), st.booleans()),
    st.tuples(st.just("park"), _run),
    st.tuples(st.just("close_wait"), _run, _late, _name),
    st.tuples(st.just("expire"), _run, _name),
    st.tuples(st.just("signal"), _run, _name),
    st.tuples(st.just("signal"), _run, _name),
)
_owners = st.one_of(
    st.tuples(st.just("adopt"), _run, _engine),
    st.tuples(st.just("adopt"), _run, _engine),
    st.tuples(st.just("requeue"), _run, _late, st.booleans()),
    st.tuples(st.just("claim"), _engine),
    st.tuples(st.just("claim"), _engine),
    st.tuples(st.just("release"), _run),
    st.tuples(st.just("disown"), _engine),
)
_ends = st.one_of(
    st.tuples(st.just("finish"), _run, _late, _count),
    st.tuples(st.just("finish"), _run, _late, _count),
    st.tuples(st.just("cancel"), _run),
    st.tuples(st.just("restart"), _run, _late),
    st.tuples(st.just("delete"), _run),
    st.tuples(st.just("delete_session"), _run),
    st.tuples(st.just("accept"), _run),
)
_verbs = st.integers(0, 99).flatmap(
    lambda share: _records if share < 60 else _appends if share < 80 else _waits if share < 90
    else _owners if share < 95 else _ends
)  # fmt: skip
_batches = st.tuples(
    st.sampled_from([0, 1]), st.lists(_verbs, min_size=1, max_size=4), st.sampled_from([True] * 9 + [False])
)


@given(batches=st.lists(_batches, min_size=12, max_size=16), most_heads=st.sampled_from([1, 10_000]))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.reuse, Phase.generate, Phase.shrink],
)
def _write_turn_about(batches: list[tuple[int, list[tuple[Any, ...]], bool]], most_heads: int) -> None:
    script = Script()
    with bench(most_heads=most_heads) as made:
        made.do(0, script.start())
        for number, verbs, is_committed in batches:
            actions: list[Action] = [getattr(script, name)(*arguments) for name, *arguments in verbs]
            if is_committed:
                made.do(number, actions)
            else:
                made.begin_and_give_up(number, actions)
        made.compare()


@promise("R3", "R4", "R9")
def test_what_the_writer_keeps_makes_no_difference_to_what_is_on_disk() -> None:
    _write_turn_about()


# How many are kept


def test_more_runs_than_are_kept_are_written_and_looked_up_again() -> None:
    with bench(most_heads=10_000) as made:
        db = made.writers[0].connection
        runs = [new_run() for _ in range(5)]
        made.do(0, [lambda writes, new=new: writes.accept(new) for new in runs])
        heads = Heads(db, SQL, most_kept=3)
        rows: dict[Any, Any] = dict(db.execute("SELECT run_id, seq FROM runs"))

        for new in runs:
            heads.keep(fence_of(new), rows[new.run_id], 1)
        for number, new in enumerate(runs):
            assert heads.move(fence_of(new), number) == 1 + number
        heads.write()

        written = [index for (index,) in db.execute("SELECT last_index FROM runs ORDER BY seq")]
        assert written == [1, 2, 3, 4, 5]
        assert [heads.move(fence_of(new), 1) for new in runs] == [None] * 5
        for new in runs[:3]:
            heads.keep(fence_of(new), rows[new.run_id], written[runs.index(new)])
        heads.write()
        assert [heads.move(fence_of(new), 1) for new in runs] == [2, 3, 4, None, None]


# Two journals, as two processes have them


@dataclass
class Two:
    """Two journals on one file."""

    one: Journal
    other: Journal


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    one, other = journal_at(tmp_path), journal_at(tmp_path)
    one.enlist("engine-1")
    other.enlist("engine-2")
    yield Two(one, other)
    await one.close()
    await other.close()


async def running(journal: Journal) -> Fence:
    """A run that has recorded two steps, so that the second found what the first had left."""
    new = new_run()
    await journal.accept(new)
    for key in ("first", "second"):
        assert await record(journal, fence_of(new), key) is not None
    return fence_of(new)


async def record(journal: Journal, fence: Fence, key: str, **attached: Any) -> int | None:
    """Record a step with one event; the run's `last_index`."""
    return await journal.record(fence, new_step(key), [new_event("step_end")], attached=Attached(**attached))


async def run_of(journal: Journal, fence: Fence) -> Run:
    run = await journal.run(fence.run_id)
    assert run is not None
    return run


async def story(two: Two, fence: Fence) -> list[str]:
    """The types of a run's events, after a look that both see the same and that the indexes are dense."""
    events, others = [list(await journal.events(fence.run_id)) for journal in (two.one, two.other)]
    assert events == others
    assert [event.index for event in events] == list(range(1, (await run_of(two.one, fence)).last_index + 1))
    return [event.type for event in events]


@promise("R4")
async def test_signals_of_another_process_come_between_the_records_of_a_run(two: Two) -> None:
    fence = await running(two.one)

    for number in range(3):
        assert await two.other.signal(fence.run_id, new_signal("paid", number)) is SignalAnswer.KEPT
        assert await record(two.one, fence, f"step-{number}") == 5 + 2 * number
    opened = await two.one.open_wait(fence, new_wait())

    assert opened is not None
    assert opened.wait.answer == raw(0)
    assert await story(two, fence) == [
        "run_start", "step_end", "step_end", *["signal", "step_end"] * 3, "step_end",
    ]  # fmt: skip


@promise("R7")
async def test_a_cancel_of_another_process_between_two_records_counts(two: Two) -> None:
    fence = await running(two.one)

    await two.other.cancel(fence.run_id)
    assert await record(two.one, fence, "third", usage=raw({"tokens": 3})) == 4
    assert list(await two.one.cancel_requests("engine-1")) == [fence.run_id]
    assert await two.one.finish(fence, DONE) == Outcome(status=RunStatus.CANCELLED)

    run = await run_of(two.other, fence)
    assert (run.status, run.usage, run.last_index) == (RunStatus.CANCELLED, raw({"tokens": 3}), 5)
    assert await story(two, fence) == ["run_start", *["step_end"] * 3, "run_end"]
    assert await record(two.one, fence, "fourth") is None


@promise("R9", "F15")
async def test_a_run_that_another_process_has_taken_over_is_not_written_any_more(two: Two) -> None:
    fence = await running(two.one)
    lost: list[Fence] = []
    two.one.on_lost(lambda fence, error: lost.append(fence))

    assert await two.other.requeue(fence, crashed=True)
    (claimed,) = await two.other.claim("engine-2", 1)
    second = Fence(run_id=fence.run_id, owner="engine-2", attempt=2)
    assert (claimed.attempt, claimed.last_index) == (2, 4)
    assert await record(two.one, fence, "third", usage=raw({"tokens": 3})) is None
    two.one.append(fence, new_event(), new_event())
    two.one.note(fence, new_step("noted"))
    assert await two.one.settle(fence) is False
    assert await record(two.other, second, "third", usage=raw({"tokens": 4})) == 5
    assert await record(two.one, fence, "fourth") is None
    assert await record(two.other, second, "fourth") == 6
    # And back again: what the first process has kept is of an attempt that is over.
    assert await two.one.requeue(second, crashed=False)
    assert [run.attempt for run in await two.one.claim("engine-1", 1)] == [3]
    third = replace(fence, attempt=3)
    assert await record(two.other, second, "fifth") is None
    assert await record(two.one, fence, "fifth") is None
    assert await record(two.one, third, "fifth") == 8
    assert await two.one.finish(third, DONE) == DONE

    run = await run_of(two.other, fence)
    assert (run.status, run.usage, run.crashes) == (RunStatus.COMPLETED, raw({"tokens": 4}), 0)
    assert await story(two, fence) == [
        "run_start", "step_end", "step_end", "run_resumed", "step_end", "step_end", "run_resumed", "step_end",
        "run_end",
    ]  # fmt: skip
    steps = await two.one.steps(fence.run_id)
    assert [step.key for step in steps] == ["first", "second", "third", "fourth", "fifth"]
    assert set(lost) == {fence}


@promise("F15")
async def test_a_run_that_another_process_has_ended_and_deleted_takes_no_record(two: Two) -> None:
    fence = await running(two.one)

    assert await two.other.requeue(fence, crashed=False)
    assert await two.other.finish_queued(fence.run_id, DONE)
    assert await record(two.one, fence, "third") is None
    assert await story(two, fence) == ["run_start", "step_end", "step_end", "run_end"]
    assert await two.other.delete(fence.run_id) is RunStatus.COMPLETED
    assert await record(two.one, fence, "third") is None

    assert await two.one.run(fence.run_id) is None
    assert list(await two.one.events(fence.run_id)) == []
    assert list(await two.one.steps(fence.run_id)) == []


@promise("R4")
async def test_a_parked_run_that_another_process_wakes_goes_on_where_it_is(two: Two) -> None:
    fence = await running(two.one)

    for number in range(2):
        opened = await two.one.open_wait(fence, new_wait(key=f"wait-{number}", name="paid"), park=new_park())
        assert opened is not None
        assert opened.is_parked
        assert (await run_of(two.other, fence)).status is RunStatus.WAITING
        assert await two.other.signal(fence.run_id, new_signal("paid", number)) is SignalAnswer.DELIVERED
        assert (await run_of(two.other, fence)).status is RunStatus.RUNNING
        assert await record(two.one, fence, f"step-{number}") is not None
        assert await record(two.one, fence, f"step-{number}/more") is not None
    assert await two.one.finish(fence, DONE) == DONE

    waited = ["run_waiting", "signal", "step_end", "step_end", "step_end"]
    assert await story(two, fence) == ["run_start", "step_end", "step_end", *waited, *waited, "run_end"]


@promise("R4")
async def test_conversations_of_one_instance_written_by_two_processes_are_numbered_without_gaps(two: Two) -> None:
    stream_id = "agent:helper:ada"
    fences: list[Fence] = []
    for journal, owner in ((two.one, "engine-1"), (two.other, "engine-2")):
        new = replace(new_run(owner=owner), run_id=f"{stream_id}:{new_ulid()}")
        await journal.accept(new)
        fences.append(fence_of(new))

    for number in range(4):
        for journal, fence in zip((two.one, two.other), fences, strict=True):
            entries = [NewEntry(session="main", entry=raw([number, fence.owner]))] * 2
            assert await record(journal, fence, f"step-{number}", entries=entries) is not None
    await two.other.delete_session(stream_id, "main")
    await record(two.one, fences[0], "last", entries=[NewEntry(session="main", entry=raw("last"))])

    assert [(entry.position, entry.entry) for entry in await two.one.entries(stream_id, "main")] == [(1, raw("last"))]
    told = await two.other.stream(stream_id)
    assert told is not None
    assert [event.index for event in await two.one.events(stream_id)] == list(range(1, told.last_index + 1))


@promise("R4")
async def test_after_a_batch_with_a_bad_record_every_run_goes_on_where_it_is(two: Two) -> None:
    fences = [await running(two.one) for _ in range(6)]
    bad = fences[3]

    for number in range(3):
        answers = await asyncio.gather(
            *(
                record(two.one, fence, "second" if fence == bad else f"step-{number}", usage=raw(number))
                for fence in fences
            ),
            return_exceptions=True,
        )
        indexes = [answer for answer in answers if isinstance(answer, int)]
        assert (indexes, type(answers[3])) == ([4 + number] * 5, JournalError)
    good = [fence for fence in fences if fence != bad]
    assert await asyncio.gather(*(two.one.finish(fence, DONE) for fence in good)) == [DONE] * 5

    for fence in good:
        assert (await run_of(two.other, fence)).usage == raw(2)
        assert await story(two, fence) == ["run_start", *["step_end"] * 5, "run_end"]
    assert await story(two, bad) == ["run_start", "step_end", "step_end"]
    assert (await run_of(two.other, bad)).usage is None


# A real second process

_OTHER = """
    import asyncio
    import sys
    from pathlib import Path

    from pyflue.journal import Fence
    from tests.contracts.test_journal_calls import new_signal, new_step
    from tests.support import fence_of, journal_at, new_event, new_run

    async def main(folder, theirs):
        journal = journal_at(Path(folder))
        journal.enlist("engine-2")
        own = new_run(owner="engine-2")
        await journal.accept(own)
        print(own.run_id, flush=True)
        for number in range(40):
            await journal.record(fence_of(own), new_step(f"step-{number}"), [new_event("step_end")])
            await journal.signal(theirs, new_signal("paid", number))
        print("ready", flush=True)
        sys.stdin.readline()
        fence = Fence(run_id=theirs, owner="engine-1", attempt=1)
        assert await journal.requeue(fence, crashed=False)
        (run,) = await journal.claim("engine-2", 1)
        mine = Fence(run_id=theirs, owner="engine-2", attempt=2)
        await journal.record(mine, new_step("taken over"), [new_event("step_end")])
        print("taken", flush=True)
        await journal.close()

    asyncio.run(main(*sys.argv[1:]))
"""


@promise("R4", "R9")
async def test_a_second_process_that_writes_at_the_same_time_leaves_every_stream_dense(tmp_path: Path) -> None:
    journal = journal_at(tmp_path)
    journal.enlist("engine-1")
    fence = await running(journal)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(_OTHER), str(tmp_path), fence.run_id,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            theirs = (await process.stdout.readline()).decode().strip()
            count = 0
            ready = asyncio.ensure_future(process.stdout.readline())
            while not ready.done():
                assert await record(journal, fence, f"step-{count}", usage=raw(count)) is not None
                assert await journal.signal(theirs, new_signal("paid", count)) is SignalAnswer.KEPT
                count += 1
            assert await ready == b"ready\n"
            process.stdin.write(b"\n")
            assert await process.stdout.readline() == b"taken\n"
            assert await record(journal, fence, "too late") is None
            assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
            await process.wait()

    run = await journal.run(fence.run_id)
    assert run is not None
    assert (run.attempt, run.owner, run.usage) == (2, "engine-2", raw(count - 1))
    for run_id, steps, signals in ((fence.run_id, count + 3, 40), (theirs, 40, count)):
        events = list(await journal.events(run_id, limit=100_000))
        types = [event.type for event in events]
        assert [event.index for event in events] == list(range(1, len(events) + 1))
        assert (types.count("step_end"), types.count("signal")) == (steps, signals)
    await journal.close()
