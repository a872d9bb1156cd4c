"""The writer with a process of its own: what its two sides say to one another, and what is left when one of them dies.

That the journal does the same with it as without is the business of the contract suites, which run with both.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue.codec import Raw
from pyflue.errors import JournalBusy
from pyflue.journal import (
    Attached,
    Fence,
    FileRecord,
    Journal,
    NewEntry,
    NewEvent,
    NewStep,
    RunStatus,
    StepStatus,
    open_journal,
    wire,
)
from pyflue.journal.wire import Order
from pyflue.journal.writer import Verb
from pyflue.settings import JournalSettings
from tests.contracts.test_journal import DONE
from tests.contracts.test_journal_calls import new_step
from tests.promises import promise
from tests.support import fence_of, new_event, new_run, raw

# What goes over the pipe

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
).map(raw)
TEXT = st.text(max_size=12)
FENCES = st.builds(Fence, run_id=TEXT, owner=TEXT, attempt=st.integers(0, 9))
EVENT = {"type": TEXT, "at_us": st.integers(0, 2**60), "data": JSON, "more": st.none() | JSON, "step": st.none() | TEXT}
EVENTS = st.builds(NewEvent, **EVENT)
STEP = {
    "key": TEXT,
    "kind": TEXT,
    "name": TEXT,
    "position": st.integers(0, 99),
    "status": st.sampled_from(StepStatus),
    "input_digest": st.none() | TEXT,
    "value": st.none() | JSON,
    "error": st.none() | JSON,
    "attempts": st.integers(1, 9),
    "started_us": st.integers(0, 2**60),
    "started_index": st.integers(-9, 9),
}
STEPS = st.builds(NewStep, **STEP)
FILE = {
    "workspace": TEXT,
    "path": TEXT,
    "is_gone": st.booleans(),
    "data": st.none() | st.binary(max_size=40),
    "target": st.none() | TEXT,
    "mode": st.integers(0, 0o777),
}
ATTACHED_FIELDS = {
    "entries": st.lists(st.builds(NewEntry, session=TEXT, entry=JSON), max_size=2),
    "files": st.lists(st.builds(FileRecord, **FILE), max_size=2),
    "usage": st.none() | JSON,
    "also": st.none() | STEPS,
}
ATTACHED = st.none() | st.builds(Attached, **ATTACHED_FIELDS)
VERBS = (
    st.none()
    | st.builds(
        lambda fence, step, events, attached: Verb("calls.record", (fence, step, events, attached), takes_events=True),
        FENCES,
        STEPS,
        st.lists(EVENTS, max_size=3),
        ATTACHED,
    )
    | st.builds(
        lambda fence, step, attached: Verb("calls.note", (fence, step, attached), takes_events=True),
        FENCES,
        STEPS,
        ATTACHED,
    )
    | st.builds(lambda fence: Verb("release", (fence,)), FENCES)
)
ORDERS = st.builds(
    Order,
    number=st.integers(0, 2**50),
    verb=VERBS,
    fence=st.none() | FENCES,
    events=st.lists(EVENTS, max_size=3),
    patient=st.booleans(),
)


@given(st.lists(ORDERS, max_size=4))
def test_records_arrive_as_they_were(orders: list[Order]) -> None:
    assert [_plain(order) for order in wire.decode(wire.encode(orders))] == [_plain(order) for order in orders]


@pytest.mark.parametrize(
    ("kind", "fields"), [(NewEvent, EVENT), (NewStep, STEP), (FileRecord, FILE), (Attached, ATTACHED_FIELDS)]
)
def test_all_fields_are_tried(kind: Any, fields: dict[str, Any]) -> None:
    # A new one would stay behind unless the twins in `wire.py` have it, too.
    assert set(fields) == set(kind.__struct_fields__)


def test_what_json_cannot_say_arrives_as_well() -> None:
    lone = new_step("a \ud800 surrogate")
    fence = Fence(run_id="workflow:a:b", owner="o", attempt=1)
    orders = [
        Order(number, Verb("calls.note", (fence, step, None), takes_events=True), fence, [], patient=True)
        for number, step in enumerate([lone, new_step("fine")])
    ]

    assert [_plain(order) for order in wire.decode(wire.encode(orders))] == [_plain(order) for order in orders]


def _plain(value: Any) -> Any:
    """A value of which two are equal if they hold the same; those of msgspec's `Raw` are compared as bytes."""
    if isinstance(value, Raw):
        return bytes(memoryview(value))
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if hasattr(value, "__struct_fields__"):
        return type(value), [_plain(getattr(value, name)) for name in value.__struct_fields__]
    return value


# In one process


@promise("F10")
async def test_a_caller_waits_for_a_locked_journal_and_is_then_told(tmp_path: Path) -> None:
    url = f"sqlite:///{_file(tmp_path)}"
    journal = open_journal(url, settings=JournalSettings(busy_timeout_s=0.2), writer_process=True)
    held = new_run()
    await journal.accept(held)
    other = apsw.Connection(str(_file(tmp_path)))
    other.execute("BEGIN IMMEDIATE")

    patient = asyncio.ensure_future(journal.finish(fence_of(held), DONE))
    with pytest.raises(JournalBusy, match=r"for more than 0\.2 s") as raised:
        await journal.accept(new_run())
    assert vars(raised.value) == vars(JournalBusy(str(_file(tmp_path)), 0.2))
    assert not patient.done()

    other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(5):
        assert await patient == DONE
    await journal.close()


async def test_a_record_that_cannot_be_written_harms_no_other(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    good, bad = new_run(), new_run()
    await asyncio.gather(journal.accept(good), journal.accept(bad))

    ends = await asyncio.gather(
        journal.record(fence_of(good), new_step("one")),
        journal.record(fence_of(bad), new_step("a \ud800 surrogate")),
        journal.record(fence_of(good), new_step("two")),
        return_exceptions=True,
    )

    assert isinstance(ends[1], UnicodeEncodeError)
    assert [ends[0], ends[2]] == [1, 1]
    assert [step.key for step in await journal.steps(good.run_id)] == ["one", "two"]
    # As without a process: later records of that run are refused with the same error.
    with pytest.raises(UnicodeEncodeError):
        await journal.record(fence_of(bad), new_step("later"))
    await journal.close()


async def test_closing_writes_what_is_queued_and_ends_the_process(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    run = new_run()
    await journal.accept(run)
    for number in range(1000):
        journal.append(fence_of(run), new_event(at_us=number))
    (child,) = _children(os.getpid())

    await journal.close()

    assert not Path(f"/proc/{child}").exists()
    async with asyncio.timeout(10):
        again = _journal(tmp_path)
        assert len(await again.events(run.run_id, limit=2000)) == 1001
        await again.close()


# Processes that die


@promise("F01")
async def test_what_was_answered_is_there_after_the_parent_was_killed(tmp_path: Path) -> None:
    with _accepting(tmp_path) as (process, answers):
        accepted = [answers.readline().strip() for _ in range(200)]
        (child,) = _children(process.pid)
        process.kill()
        accepted += answers.read().split()
        await _until_gone(child)

    journal = _journal(tmp_path)
    for run_id in accepted:
        run = await journal.run(run_id)
        assert run is not None
        assert run.status is RunStatus.QUEUED
    assert (await journal.check()).problems == ()
    await journal.close()


async def test_a_parent_ends_when_its_writer_has_died(tmp_path: Path) -> None:
    with _accepting(tmp_path) as (process, answers):
        accepted = [answers.readline().strip() for _ in range(50)]
        (child,) = _children(process.pid)
        os.kill(child, signal.SIGKILL)
        accepted += answers.read().split()

        assert process.wait(timeout=30) == 70
        assert process.stderr is not None
        assert "has ended (exit code -9)" in process.stderr.read()

    journal = _journal(tmp_path)
    assert {run_id for run_id in accepted if await journal.run(run_id) is None} == set()
    await journal.close()


async def test_signals_to_all_processes_of_a_service_leave_the_writer_to_its_parent(tmp_path: Path) -> None:
    with _accepting(tmp_path) as (process, answers):
        (child,) = _children(process.pid)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(child, number)

        before = [answers.readline() for _ in range(500)]

        assert all(before)
        assert process.poll() is None


@contextmanager
def _accepting(folder: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A process that accepts runs one after the other, and prints the id of each that was answered."""
    program = f"""
        import asyncio
        from pathlib import Path
        from pyflue.journal import open_journal
        from tests.support import new_run

        async def main():
            journal = open_journal("sqlite:///{_file(folder)}", writer_process=True)
            while True:
                run = new_run(owner=None)
                await journal.accept(run)
                print(run.run_id, flush=True)

        asyncio.run(main())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), "it has not begun"
        yield process, process.stdout
    finally:
        process.kill()
        process.communicate()


def _journal(folder: Path) -> Journal:
    return open_journal(f"sqlite:///{_file(folder)}", writer_process=True)


def _file(folder: Path) -> Path:
    return folder / ".pyflue" / "journal.db"


def _children(pid: int) -> list[int]:
    """The writers below a process."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [child for child in children if b"writer_process" in Path(f"/proc/{child}/cmdline").read_bytes()]


async def _until_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    try:
        async with asyncio.timeout(30):
            await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
