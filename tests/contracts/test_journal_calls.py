"""The contract of the `Journal` port about durable calls, run against every adapter."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pyflue import codec
from pyflue.clock import to_datetime
from pyflue.errors import JournalError
from pyflue.ids import new_ulid
from pyflue.journal import (
    Approval,
    ApprovalFilter,
    ApprovalState,
    CancelAnswer,
    Copies,
    Event,
    Fence,
    History,
    Journal,
    NewRun,
    NewSignal,
    NewStep,
    NewWait,
    Opened,
    Outcome,
    Park,
    ParkedTimer,
    Run,
    RunStatus,
    SignalAnswer,
    Step,
    StepStatus,
    Wait,
    WaitKind,
    WaitState,
    open_journal,
)
from tests.promises import promise
from tests.support import MovableClock, fence_of, new_event, new_run, raw, summary

DONE = Outcome(status=RunStatus.COMPLETED, result=raw({"ok": True}))
BROKEN = Outcome(status=RunStatus.FAILED, error=raw({"type": "exception", "message": "Disk on fire"}))
AN_HOUR = 3_600_000_000


class StillClock(MovableClock):
    """A clock whose wall time moves only when it is told to."""

    def now_us(self) -> int:
        return 1_700_000_000_000_000 + self.offset_us


@pytest.fixture(params=["memory", "sqlite", "process"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the journal is; the last one is a file that a process of its own writes."""
    return request.param


@pytest.fixture
def url(kind: str, tmp_path: Path) -> str:
    return "memory:" if kind == "memory" else f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}"


class SharedClock(StillClock):
    """One whose time stands in a file, for the writer's process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__()

    @property
    def offset_us(self) -> int:  # type: ignore[override]
        return int(self._path.read_text())

    @offset_us.setter
    def offset_us(self, value: int) -> None:
        self._path.write_text(str(value))


@pytest.fixture
def clock(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return clock_for(kind, tmp_path, monkeypatch)


def clock_for(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StillClock:
    """A clock that a journal of this kind can have."""
    if kind != "process":
        return StillClock()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # the clock is of a module of the tests
    return SharedClock(tmp_path / "clock")


@pytest.fixture
async def journal(url: str, kind: str, clock: StillClock) -> AsyncIterator[Journal]:
    journal = open_journal(url, clock=clock, writer_process=kind == "process")
    journal.enlist("engine-1")
    yield journal
    await journal.close()


async def started(journal: Journal, **fields: Any) -> tuple[NewRun, Fence]:
    """A run of `engine-1`, and the right to write for it."""
    new = new_run(**fields)
    await journal.accept(new)
    return new, fence_of(new)


async def the_run(journal: Journal, run_id: str) -> Run:
    run = await journal.run(run_id)
    assert run is not None
    return run


async def status_of(journal: Journal, run_id: str) -> tuple[RunStatus, str | None]:
    run = await the_run(journal, run_id)
    return run.status, run.owner


def new_step(key: str = "charge", value: Any = None, **fields: Any) -> NewStep:
    fields = {"status": StepStatus.COMPLETED, "kind": "step", "name": key, "position": 1, "started_us": 5, **fields}
    return NewStep(key=key, value=raw(value), **fields)


def new_wait(kind: WaitKind = WaitKind.SIGNAL, key: str = "paid", **fields: Any) -> NewWait:
    return NewWait(kind=kind, key=key, **{"name": key, "position": 1, "wait_id": new_ulid(), **fields})


def new_park(open_waits: int = 1) -> Park:
    return Park(open_waits=open_waits, event=new_event("run_waiting"))


def new_signal(name: str = "paid", data: Any = None, signal_id: str | None = None) -> NewSignal:
    return NewSignal(signal_id=signal_id or new_ulid(), name=name, data=raw(data))


def decision(approved: bool = True, data: Any = None, by: str = "ada") -> Any:
    said = {"approved": approved, "by": by, "at": "2026-11-21T05:12:44.498334Z", "reason": "fine", "data": data}
    return raw(said)


def of_type(events: Sequence[Event], type_: str) -> list[dict[str, Any]]:
    return [codec.load(event.data) for event in events if event.type == type_]


async def parked(journal: Journal, *waits: NewWait, **fields: Any) -> tuple[NewRun, Fence]:
    """A run that waits for some things and is parked."""
    new, fence = await started(journal, **fields)
    for number, wait in enumerate(waits, 1):
        opened = await journal.open_wait(fence, wait, park=new_park(number) if number == len(waits) else None)
        assert opened is not None
        assert opened.is_parked == (number == len(waits))
    return new, fence


async def wait_of(journal: Journal, new: NewRun, key: str = "paid") -> Wait:
    wait = await journal.wait(new.run_id, key)
    assert wait is not None
    return wait


async def refused(journal: Journal, action: Callable[[], object]) -> list[tuple[Fence, Exception | None]]:
    """What `on_lost` says about an action that nobody waits for."""
    lost: list[tuple[Fence, Exception | None]] = []
    journal.on_lost(lambda fence, error: lost.append((fence, error)))
    action()
    await journal.forget_keys()  # whatever is asked later is answered later
    return lost


# Steps


async def test_a_recorded_step_is_read_back_whole_with_its_place_in_the_stream(
    journal: Journal, clock: StillClock
) -> None:
    new, fence = await started(journal)
    step = new_step(
        "charge", {"id": 7}, kind="step", name="Charge", position=3, input_digest="d", attempts=2, started_index=1
    )

    index = await journal.record(fence, step, [new_event("step_start"), new_event("step_end")])

    assert index == 3
    assert summary(await journal.events(new.run_id)) == [(1, "run_start"), (2, "step_start"), (3, "step_end")]
    expected = Step(
        run_id=new.run_id,
        key="charge",
        kind="step",
        name="Charge",
        position=3,
        status=StepStatus.COMPLETED,
        input_digest="d",
        value=raw({"id": 7}),
        error=None,
        attempts=2,
        started_at=to_datetime(5),
        finished_at=to_datetime(clock.now_us()),
        started_index=1,
        recorded_index=3,
    )
    assert await journal.history(new.run_id) == History(steps=[expected], waits=[])
    assert list(await journal.steps(new.run_id)) == [expected]


@pytest.mark.parametrize("size", [10, 2048, 2049, 300_000])
async def test_values_and_errors_of_steps_come_back_whole_whatever_their_size(journal: Journal, size: int) -> None:
    new, fence = await started(journal)
    text = "ü" * (size // 2)

    await journal.record(fence, new_step("value", text))
    await journal.record(fence, replace(new_step("error"), value=None, error=raw([text]), status=StepStatus.FAILED))

    found = {step.key: (step.value, step.error) for step in await journal.steps(new.run_id)}
    assert found == {"value": (raw(text), None), "error": (None, raw([text]))}


async def test_only_a_record_that_will_be_retried_is_replaced(journal: Journal) -> None:
    new, fence = await started(journal)
    _, other_fence = await started(journal)
    retrying = replace(new_step(), value=None, error=raw("no"), status=StepStatus.RETRYING)
    await journal.record(fence, retrying)
    (step,) = await journal.steps(new.run_id)
    assert (step.status, step.finished_at, step.attempts) == (StepStatus.RETRYING, None, 1)

    await journal.record(fence, new_step(value="done", attempts=2))
    (step,) = await journal.steps(new.run_id)
    assert (step.status, step.value, step.error, step.attempts) == (StepStatus.COMPLETED, raw("done"), None, 2)

    again = asyncio.ensure_future(journal.record(fence, new_step(value="again"), [new_event()]))
    beside = asyncio.ensure_future(journal.record(other_fence, new_step()))
    with pytest.raises(JournalError, match="has recorded step 'charge' already"):
        await again
    assert await beside == 1
    with pytest.raises(JournalError, match="has recorded step 'charge' already"):
        await journal.record(fence, new_step("other"))
    assert [step.value for step in await journal.steps(new.run_id)] == [raw("done")]
    assert summary(await journal.events(new.run_id)) == [(1, "run_start")]


@promise("R9", "F15")
async def test_a_superseded_attempt_records_no_calls(journal: Journal) -> None:
    new, fence = await started(journal)
    await journal.requeue(fence, crashed=True)
    await journal.claim("engine-2", 1)
    current = Fence(run_id=new.run_id, owner="engine-2", attempt=2)
    await journal.open_wait(current, new_wait())
    child = new_run(owner=None, parent_run_id=new.run_id)

    assert await journal.record(fence, new_step(), [new_event()]) is None
    assert await journal.open_wait(fence, new_wait(key="other"), [new_event()], park=new_park()) is None
    assert await journal.start_child(fence, child, new_step()) is None
    assert await journal.start_child(fence, child, new_wait(WaitKind.CHILD, name=child.run_id)) is None
    assert await journal.park(fence, new_park()) is False
    assert await journal.restart(fence) is False
    assert await journal.expire(new.run_id, "paid", fence=fence) is None
    assert await refused(journal, lambda: journal.note(fence, new_step())) == [(fence, None)]
    assert await refused(journal, lambda: journal.close_wait(fence, "paid")) == [(fence, None)]

    assert (await wait_of(journal, new)).state is WaitState.OPEN
    assert [step.key for step in await journal.steps(new.run_id)] == ["paid"]
    assert await journal.run(child.run_id) is None
    assert summary(await journal.events(new.run_id)) == [(1, "run_start"), (2, "run_resumed")]


async def test_notes_are_recorded_in_the_order_of_the_calls_and_counted_until_they_are(journal: Journal) -> None:
    new, fence = await started(journal)

    journal.append(fence, new_event("one"))
    journal.note(fence, new_step("first", 1))
    journal.append(fence, new_event("two"))
    journal.note(fence, new_step("second", 2))
    journal.append(fence, new_event("three"))
    index = await journal.record(fence, new_step("third", 3), [new_event("four")])

    assert index == 5
    steps = await journal.steps(new.run_id)
    assert [(step.key, step.value, step.recorded_index) for step in steps] == [
        ("first", raw(1), 0),  # their place is where they were made
        ("second", raw(2), 0),
        ("third", raw(3), 5),
    ]
    assert [event.type for event in await journal.events(new.run_id)] == ["run_start", "one", "two", "three", "four"]
    await asyncio.to_thread(journal.drain, new.run_id)
    assert journal.unwritten(new.run_id) == 0


async def test_events_before_a_refused_record_are_reported_as_lost(journal: Journal) -> None:
    new, fence = await started(journal)
    await journal.finish(fence, DONE)
    lost: list[tuple[Fence, Exception | None]] = []
    journal.on_lost(lambda fence, error: lost.append((fence, error)))

    journal.append(fence, new_event())
    assert await journal.record(fence, new_step()) is None

    assert lost == [(fence, None)]
    assert journal.unwritten(new.run_id) == 0
    assert list(await journal.steps(new.run_id)) == []


async def test_what_another_verb_adds_to_the_stream_stays_behind_the_events_before_it(journal: Journal) -> None:
    new, fence = await started(journal)

    journal.append(fence, new_event("one"))
    signalled = asyncio.ensure_future(journal.signal(new.run_id, new_signal()))
    await journal.record(fence, new_step(), [new_event("two")])

    assert await signalled is SignalAnswer.KEPT
    assert [event.type for event in await journal.events(new.run_id)] == ["run_start", "one", "signal", "two"]


async def test_recording_is_progress_so_that_crashes_are_forgotten(journal: Journal) -> None:
    new, fence = await started(journal)
    await journal.requeue(fence, crashed=True)
    (claimed,) = await journal.claim("engine-1", 1)
    assert claimed.crashes == 1

    await journal.record(fence_of(new, attempt=2), new_step())

    assert (await the_run(journal, new.run_id)).crashes == 0


async def test_steps_are_listed_in_parts_in_the_order_they_were_recorded(journal: Journal) -> None:
    new, fence = await started(journal)
    for key in ("c", "a", "b"):
        await journal.record(fence, new_step(key), [new_event()])
    await journal.record(fence, new_step("a2"))

    first = await journal.steps(new.run_id, limit=2)
    rest = await journal.steps(new.run_id, after=first[-1].key)

    assert [step.key for step in [*first, *rest]] == ["c", "a", "a2", "b"]


async def test_waits_are_listed_among_the_steps_as_what_came_of_them(journal: Journal, clock: StillClock) -> None:
    new, fence = await started(journal)
    children = {
        how: new_run(workflow="child", parent_run_id=new.run_id, depth=1) for how in ("done", "broken", "ended")
    }
    asked = new_wait(WaitKind.APPROVAL, "ask", name="refund", position=2, digest="d", started_index=1)
    opened_us = clock.now_us()
    await journal.open_wait(fence, asked, [new_event()])
    await journal.open_wait(fence, new_wait(WaitKind.TIMER, "sleep", due_us=opened_us), [new_event()])
    await journal.open_wait(fence, new_wait(key="late", due_us=opened_us), [new_event()])
    await journal.open_wait(fence, new_wait(key="given up", started_index=4), [new_event()])
    await journal.open_wait(fence, new_wait(), [new_event()])
    for key, child in children.items():
        await journal.start_child(fence, child, new_wait(WaitKind.CHILD, key, name=child.run_id), [new_event()])
    for key in ("b open", "a open"):
        await journal.open_wait(fence, new_wait(key=key), [new_event()])
    journal.close_wait(fence, "given up")

    clock.offset_us = AN_HOUR
    await journal.record(fence, new_step(), [new_event()])
    await journal.signal(new.run_id, new_signal(data={"eur": 9}))
    await journal.expire(new.run_id, "sleep", fence=fence)
    await journal.decide(asked.wait_id, decision(True, "x" * 5000))
    await journal.expire(new.run_id, "late", fence=fence)
    for key, outcome in {"broken": BROKEN, "done": DONE, "ended": Outcome(status=RunStatus.CANCELLED)}.items():
        await journal.finish(fence_of(children[key]), outcome)

    steps = await journal.steps(new.run_id)
    cancelled = {"type": "run_cancelled", "message": f"Run {children['ended'].run_id} was cancelled."}
    assert [(step.key, step.kind, step.status, step.value, step.error) for step in steps] == [
        ("given up", "signal", StepStatus.CANCELLED, None, None),  # where it began
        ("charge", "step", StepStatus.COMPLETED, codec.NULL, None),
        ("paid", "signal", StepStatus.COMPLETED, raw({"eur": 9}), None),
        ("sleep", "sleep", StepStatus.COMPLETED, None, None),
        ("ask", "approval", StepStatus.COMPLETED, decision(True, "x" * 5000), None),
        ("late", "signal", StepStatus.EXPIRED, None, None),
        ("broken", "child", StepStatus.FAILED, None, BROKEN.error),
        ("done", "child", StepStatus.COMPLETED, DONE.result, None),
        ("ended", "child", StepStatus.FAILED, None, raw(cancelled)),
        ("a open", "signal", StepStatus.WAITING, None, None),
        ("b open", "signal", StepStatus.WAITING, None, None),
    ]
    approval = await wait_of(journal, new, "ask")
    assert steps[4] == Step(
        run_id=new.run_id,
        key="ask",
        kind="approval",
        name="refund",
        position=2,
        status=StepStatus.COMPLETED,
        input_digest="d",
        value=approval.answer,
        error=None,
        attempts=1,
        started_at=to_datetime(opened_us),
        finished_at=to_datetime(clock.now_us()),
        started_index=1,
        recorded_index=approval.answered_index,
    )
    assert {step.name for step in steps if step.kind == "child"} == {"child"}
    assert [step.finished_at for step in steps[-2:]] == [None, None]
    assert [step.key for step in (await journal.history(new.run_id)).steps] == ["charge"]

    for size in (1, 3, 10):
        pages: list[Step] = []
        while page := await journal.steps(new.run_id, after=pages[-1].key if pages else None, limit=size):
            pages += page
        assert pages == steps
    assert len(await journal.steps(new.run_id, limit_bytes=2000)) == 5
    assert list(await journal.steps(new.run_id, after="unknown")) == []


# Waits


async def test_an_open_wait_is_read_back_whole_and_parks_its_run(journal: Journal, clock: StillClock) -> None:
    new, fence = await started(journal)
    wait = new_wait(
        WaitKind.APPROVAL,
        "refund",
        name="Refund",
        position=2,
        request=raw({"request": {"eur": 9}}),
        digest="d",
        due_us=clock.now_us() + AN_HOUR,
        started_index=1,
    )

    opened = await journal.open_wait(fence, wait, [new_event("approval_requested")], park=new_park())

    expected = Wait(
        run_id=new.run_id,
        key="refund",
        kind=WaitKind.APPROVAL,
        name="Refund",
        position=2,
        wait_id=wait.wait_id,
        request=raw({"request": {"eur": 9}}),
        digest="d",
        state=WaitState.OPEN,
        answer=None,
        created_at=to_datetime(clock.now_us()),
        due_at=to_datetime(clock.now_us() + AN_HOUR),
        answered_at=None,
        started_index=1,
        answered_index=0,
    )
    assert opened == Opened(wait=expected, index=3, is_parked=True)
    assert await journal.history(new.run_id) == History(steps=[], waits=[expected])
    assert list(await journal.open_waits(new.run_id)) == [expected]
    assert await journal.approval(wait.wait_id) == Approval(wait=expected, workflow="greet")
    assert await status_of(journal, new.run_id) == (RunStatus.WAITING, "engine-1")
    assert [event.type for event in await journal.events(new.run_id)] == [
        "run_start",
        "approval_requested",
        "run_waiting",
    ]
    assert await journal.wait(new.run_id, "nothing") is None


async def test_a_run_is_not_parked_if_one_of_its_waits_has_ended_meanwhile(journal: Journal) -> None:
    new, fence = await started(journal)
    await journal.open_wait(fence, new_wait(key="a"))
    await journal.open_wait(fence, new_wait(key="b"))
    await journal.signal(new.run_id, new_signal("a"))

    assert await journal.park(fence, new_park(2)) is False
    assert await status_of(journal, new.run_id) == (RunStatus.RUNNING, "engine-1")
    opened = await journal.open_wait(fence, new_wait(key="c"), park=new_park(3))
    assert opened is not None
    assert not opened.is_parked

    assert await journal.park(fence, new_park(2)) is True
    assert await status_of(journal, new.run_id) == (RunStatus.WAITING, "engine-1")


async def test_a_parked_run_that_records_something_is_running_again(journal: Journal) -> None:
    new, fence = await parked(journal, new_wait(key="a"), new_wait(key="b"))

    await journal.record(fence, new_step())
    assert await status_of(journal, new.run_id) == (RunStatus.RUNNING, "engine-1")

    assert await journal.park(fence, new_park(2)) is True
    journal.close_wait(fence, "a")
    await journal.forget_keys()
    assert await status_of(journal, new.run_id) == (RunStatus.RUNNING, "engine-1")
    assert (await wait_of(journal, new, "a")).state is WaitState.CANCELLED


async def test_a_wait_that_was_given_up_can_be_opened_again_but_an_open_one_cannot(journal: Journal) -> None:
    _, fence = await started(journal)
    await journal.open_wait(fence, new_wait())
    journal.close_wait(fence, "paid")
    again = new_wait()
    opened = await journal.open_wait(fence, again)
    assert opened is not None
    assert (opened.wait.state, opened.wait.wait_id, opened.wait.answered_at) == (WaitState.OPEN, again.wait_id, None)

    with pytest.raises(JournalError, match="waits already at 'paid'"):
        await journal.open_wait(fence, new_wait())


# Signals


async def test_a_signal_answers_the_oldest_open_wait_of_its_name(journal: Journal, clock: StillClock) -> None:
    new, _ = await parked(journal, new_wait(key="z", name="paid"), new_wait(key="a", name="paid"), new_wait(key="b"))
    ended: list[tuple[str, str]] = []
    journal.on_answered(ended.extend)
    seq, _ = await journal.answers_since(-1)

    answer = await journal.signal(new.run_id, new_signal("paid", {"eur": 9}, "s-1"))

    assert answer is SignalAnswer.DELIVERED
    wait = await wait_of(journal, new, "z")
    assert (wait.state, wait.answer, wait.answered_at) == (
        WaitState.ANSWERED,
        raw({"eur": 9}),
        to_datetime(clock.now_us()),
    )
    assert [wait.key for wait in await journal.open_waits(new.run_id)] == ["a", "b"]
    assert await status_of(journal, new.run_id) == (RunStatus.RUNNING, "engine-1")
    events = await journal.events(new.run_id)
    assert [(event.type, codec.load(event.data)) for event in events[-2:]] == [
        ("signal", {"signal_id": "s-1", "name": "paid", "data": {"eur": 9}}),
        ("step_end", {"step": "z", "name": "paid", "kind": "signal", "status": "completed"}),
    ]
    assert wait.answered_index == events[-1].index
    await journal.forget_keys()  # the callbacks come after the answers, but before later ones
    assert ended == [(new.run_id, "z")]
    assert await journal.answers_since(seq) == (seq + 1, [(new.run_id, "z")])
    assert await journal.answers_since(-1) == (seq + 1, [])


async def test_signals_that_came_early_are_kept_and_taken_in_the_order_they_came(journal: Journal) -> None:
    new, fence = await started(journal)
    large = "x" * 5000
    # Ids from callers do not sort.
    for signal_id, data in (("b", "first"), ("c", large), ("a", "third")):
        assert await journal.signal(new.run_id, new_signal(data=data, signal_id=signal_id)) is SignalAnswer.KEPT

    taken: list[Any] = []
    for key in ("one", "two", "three", "four"):
        opened = await journal.open_wait(fence, new_wait(key=key, name="paid"), park=new_park())
        assert opened is not None
        assert opened.is_parked == (key == "four")
        assert opened.index == (await the_run(journal, new.run_id)).last_index
        taken.append(opened.wait.answer)

    assert taken == [raw("first"), raw(large), raw("third"), None]
    assert [data["step"] for data in of_type(await journal.events(new.run_id), "step_end")] == ["one", "two", "three"]


async def test_one_signal_id_is_one_signal(journal: Journal) -> None:
    new, fence = await started(journal)
    large = {"text": "x" * 5000, "n": 1}
    assert await journal.signal(new.run_id, new_signal(data=large, signal_id="s")) is SignalAnswer.KEPT
    same = new_signal(data={"n": 1, "text": "x" * 5000}, signal_id="s")

    assert await journal.signal(new.run_id, same) is SignalAnswer.REPEATED
    assert await journal.signal(new.run_id, new_signal(data=2, signal_id="s")) is SignalAnswer.CONFLICT
    assert await journal.signal(new.run_id, replace(same, name="other")) is SignalAnswer.CONFLICT
    assert await journal.signal("workflow:greet:none", same) is None
    await journal.finish(fence, DONE)
    assert await journal.signal(new.run_id, new_signal()) is SignalAnswer.RUN_FINISHED
    assert await journal.signal(new.run_id, same) is SignalAnswer.REPEATED
    assert [event.type for event in await journal.events(new.run_id)] == ["run_start", "signal", "run_end"]


async def test_a_wait_past_its_time_takes_no_signal_if_no_engine_has_the_run(
    journal: Journal, clock: StillClock
) -> None:
    new, _ = await parked(journal, new_wait(due_us=clock.now_us() + AN_HOUR))
    await journal.disown("engine-1")
    clock.offset_us = AN_HOUR

    assert await journal.signal(new.run_id, new_signal(data=1)) is SignalAnswer.KEPT
    assert await status_of(journal, new.run_id) == (RunStatus.WAITING, None)
    expired = await journal.expire(new.run_id, "paid", fence=None)
    assert expired is not None
    assert (expired.state, expired.answer) == (WaitState.EXPIRED, None)
    (run,) = await journal.claim("engine-1", 1)
    fence = Fence(run_id=new.run_id, owner="engine-1", attempt=run.attempt)
    opened = await journal.open_wait(fence, new_wait(key="next", name="paid"))
    assert opened is not None
    assert opened.wait.answer == raw(1)


# Expiry


@pytest.mark.parametrize(("kind", "word", "status"), [("timer", "sleep", "completed"), ("signal", "signal", "expired")])
async def test_a_wait_that_came_due_ends_once_and_wakes_its_run(
    journal: Journal, clock: StillClock, kind: str, word: str, status: str
) -> None:
    new, fence = await parked(journal, new_wait(WaitKind(kind), due_us=clock.now_us() + AN_HOUR))
    seq, _ = await journal.answers_since(-1)

    assert (await journal.expire(new.run_id, "paid", fence=None)) == await wait_of(journal, new)  # it has an owner
    assert (await wait_of(journal, new)).state is WaitState.OPEN
    expired = await journal.expire(new.run_id, "paid", fence=fence)
    again = await journal.expire(new.run_id, "paid", fence=fence)

    assert expired is not None
    assert expired.state is WaitState.EXPIRED
    assert again == expired == await wait_of(journal, new)
    assert await journal.expire(new.run_id, "nothing", fence=fence) is None
    assert await status_of(journal, new.run_id) == (RunStatus.RUNNING, "engine-1")
    assert of_type(await journal.events(new.run_id), "step_end") == [
        {"step": "paid", "name": "paid", "kind": word, "status": status}
    ]
    assert await journal.answers_since(seq) == (seq + 1, [(new.run_id, "paid")])


async def test_a_parked_timer_of_a_run_that_nobody_owns_is_found_and_wakes_it(
    journal: Journal, clock: StillClock
) -> None:
    """F04"""
    now = clock.now_us()
    later, later_fence = await parked(journal, new_wait(WaitKind.TIMER, due_us=now + 2))
    sooner, sooner_fence = await parked(journal, new_wait(WaitKind.TIMER, due_us=now + 1))
    await parked(journal, new_wait(WaitKind.TIMER, due_us=now))
    assert list(await journal.parked_timers(10)) == []
    for fence in (later_fence, sooner_fence):
        assert await journal.release(fence) is True

    timers = await journal.parked_timers(10)

    assert list(timers) == [
        ParkedTimer(run_id=sooner.run_id, key="paid", created_us=now, due_us=now + 1),
        ParkedTimer(run_id=later.run_id, key="paid", created_us=now, due_us=now + 2),
    ]
    assert list(await journal.parked_timers(1)) == list(timers[:1])
    await journal.expire(sooner.run_id, "paid", fence=None)
    assert await status_of(journal, sooner.run_id) == (RunStatus.QUEUED, None)
    (claimed,) = await journal.claim("engine-2", 10)
    assert (claimed.run_id, claimed.attempt) == (sooner.run_id, 2)


# Approvals


async def test_the_first_decision_counts_and_a_later_one_is_told_so(journal: Journal) -> None:
    """F20"""
    wait = new_wait(WaitKind.APPROVAL, "refund")
    new, _ = await parked(journal, wait)

    first = await journal.decide(wait.wait_id, decision(True, {"eur": 9}))
    same = await journal.decide(wait.wait_id, decision(True, {"eur": 9}, by="bob"))
    other = await journal.decide(wait.wait_id, decision(False, {"eur": 9}))
    edited = await journal.decide(wait.wait_id, decision(True, {"eur": 8}))

    assert first is not None
    assert same is not None
    assert other is not None
    assert edited is not None
    assert [(d.is_recorded, d.is_repeat) for d in (first, same, other, edited)] == [
        (True, False),
        (False, True),
        (False, False),
        (False, False),
    ]
    assert first.approval == same.approval == other.approval == await journal.approval(wait.wait_id)
    assert (first.approval.state, first.approval.decision["by"]) == (ApprovalState.APPROVED, "ada")
    assert await journal.decide(new_ulid(), decision()) is None
    events = await journal.events(new.run_id)
    assert [(event.type, codec.load(event.data)) for event in events[-2:]] == [
        (
            "approval_decided",
            {
                "approval_id": wait.wait_id,
                "step": "refund",
                "name": "refund",
                "approved": True,
                "by": "ada",
                "reason": "fine",
                "data": {"eur": 9},
            },
        ),
        ("step_end", {"step": "refund", "name": "refund", "kind": "approval", "status": "completed"}),
    ]
    assert first.approval.wait.answered_index == events[-1].index


async def test_a_decision_past_its_time_finds_the_approval_expired(journal: Journal, clock: StillClock) -> None:
    """F20"""
    wait = new_wait(WaitKind.APPROVAL, due_us=clock.now_us() + AN_HOUR)
    new, _ = await parked(journal, wait)
    await journal.disown("engine-1")
    clock.offset_us = AN_HOUR

    decided = await journal.decide(wait.wait_id, decision())

    assert decided is not None
    assert (decided.is_recorded, decided.is_repeat, decided.approval.state) == (False, False, ApprovalState.EXPIRED)
    assert await status_of(journal, new.run_id) == (RunStatus.QUEUED, None)
    assert of_type(await journal.events(new.run_id), "approval_decided") == []


@promise("F16")
async def test_while_an_engine_has_the_run_its_timer_decides_and_not_the_clock_on_the_wall(
    journal: Journal, clock: StillClock
) -> None:
    wait = new_wait(WaitKind.APPROVAL, due_us=clock.now_us() + AN_HOUR)
    await parked(journal, wait)
    new, _ = await parked(journal, new_wait(due_us=clock.now_us() + AN_HOUR))
    parent, child = await with_child(journal, due_us=clock.now_us() + AN_HOUR)
    clock.offset_us = 10 * AN_HOUR

    decided = await journal.decide(wait.wait_id, decision())
    await journal.finish(fence_of(child), DONE)

    assert decided is not None
    assert decided.is_recorded
    assert await journal.signal(new.run_id, new_signal(data=1)) is SignalAnswer.DELIVERED
    assert (await wait_of(journal, parent, "call")).state is WaitState.ANSWERED


async def test_a_decision_after_the_runs_end_finds_the_approval_cancelled(journal: Journal) -> None:
    """F20"""
    wait = new_wait(WaitKind.APPROVAL)
    new, fence = await parked(journal, wait)
    await journal.finish(fence, BROKEN)

    decided = await journal.decide(wait.wait_id, decision())

    assert decided is not None
    assert (decided.is_recorded, decided.is_repeat, decided.approval.state) == (False, False, ApprovalState.CANCELLED)
    assert [event.type for event in await journal.events(new.run_id)][-1] == "run_end"


async def test_approvals_are_listed_newest_first_and_filtered(journal: Journal, clock: StillClock) -> None:
    runs: dict[str, NewRun] = {}
    waits: dict[str, NewWait] = {}
    for name in ("open", "approved", "rejected", "expired", "cancelled"):
        due_us = clock.now_us() + AN_HOUR if name == "expired" else None
        waits[name] = new_wait(WaitKind.APPROVAL, name, due_us=due_us)
        runs[name], fence = await parked(journal, waits[name], workflow=f"w-{name}")
        if name == "cancelled":
            await journal.finish(fence, BROKEN)
    await parked(journal, new_wait())
    large = "x" * 5000
    await journal.decide(waits["approved"].wait_id, decision(True, large))
    await journal.decide(waits["rejected"].wait_id, decision(False, large))
    await journal.expire(runs["expired"].run_id, "expired", fence=fence_of(runs["expired"]))
    newest_first = list(reversed(waits))

    async def names(before: str | None = None, limit: int = 50, **where: Any) -> list[str]:
        approvals = await journal.approvals(ApprovalFilter(**where), before=before, limit=limit)
        return [approval.wait.name for approval in approvals]

    assert await names() == newest_first
    assert await names(limit=2) == newest_first[:2]
    assert await names(before=waits[newest_first[1]].wait_id) == newest_first[2:]
    for state in ApprovalState:
        assert await names(states=[state]) == [state.value]
    assert await names(states=[ApprovalState.OPEN, ApprovalState.REJECTED]) == ["rejected", "open"]
    assert await names(workflows=["w-open", "w-expired"]) == ["expired", "open"]
    assert await names(run_id=runs["open"].run_id) == ["open"]
    assert await names(name="rejected", states=[ApprovalState.APPROVED]) == []
    (approval,) = await journal.approvals(ApprovalFilter(name="approved"))
    assert (approval.state, approval.decision["data"]) == (ApprovalState.APPROVED, large)


# Children


async def with_child(
    journal: Journal, *, parks: bool = True, owner: str | None = "engine-1", **fields: Any
) -> tuple[NewRun, NewRun]:
    """A run that waits for another one, and that one."""
    parent, fence = await started(journal)
    child = new_run(workflow="child", owner=owner, parent_run_id=parent.run_id, depth=1)
    wait = new_wait(WaitKind.CHILD, "call", name=child.run_id, **fields)
    opened = await journal.start_child(
        fence, child, wait, [new_event("step_start")], park=new_park() if parks else None
    )
    assert isinstance(opened, Opened)
    assert opened.is_parked is parks
    return parent, child


async def test_a_child_is_accepted_with_its_parents_record(journal: Journal) -> None:
    parent, child = await with_child(journal)
    beside = new_run(owner=None, parent_run_id=parent.run_id, depth=1)
    index = await journal.start_child(fence_of(parent), beside, new_step("start", beside.run_id))

    run = await the_run(journal, child.run_id)
    assert (run.status, run.owner, run.attempt, run.parent_run_id, run.depth) == (
        RunStatus.RUNNING,
        "engine-1",
        1,
        parent.run_id,
        1,
    )
    assert await status_of(journal, beside.run_id) == (RunStatus.QUEUED, None)
    assert index == (await the_run(journal, parent.run_id)).last_index
    assert [step.key for step in await journal.steps(parent.run_id)] == ["start", "call"]
    assert summary(await journal.events(child.run_id)) == [(1, "run_start")]


@pytest.mark.parametrize("outcome", [DONE, BROKEN, Outcome(status=RunStatus.COMPLETED, result=raw("x" * 5000))])
async def test_a_childs_end_answers_its_parent(journal: Journal, outcome: Outcome) -> None:
    parent, child = await with_child(journal)

    await journal.finish(fence_of(child), outcome)

    wait = await wait_of(journal, parent, "call")
    assert wait.state is WaitState.ANSWERED
    assert wait.answer is not None
    assert codec.load(wait.answer) == {
        "status": outcome.status.value,
        "result": None if outcome.result is None else codec.load(outcome.result),
        "error": None if outcome.error is None else codec.load(outcome.error),
    }
    assert await status_of(journal, parent.run_id) == (RunStatus.RUNNING, "engine-1")
    assert of_type(await journal.events(parent.run_id), "step_end") == [
        {
            "step": "call",
            "name": "child",
            "kind": "child",
            "status": "completed",
            "child_run_id": child.run_id,
            "child_status": outcome.status.value,
        }
    ]
    # The parent has the answer whole, also when the child is deleted.
    await journal.delete(child.run_id)
    assert await wait_of(journal, parent, "call") == wait


async def test_a_child_that_ends_too_late_or_whose_parent_has_ended_answers_nobody(
    journal: Journal, clock: StillClock
) -> None:
    late_parent, late = await with_child(journal, due_us=clock.now_us() + AN_HOUR)
    ended_parent, child = await with_child(journal)
    await journal.finish(fence_of(ended_parent), DONE)
    await journal.release(fence_of(late_parent))
    clock.offset_us = AN_HOUR

    await journal.finish(fence_of(late), DONE)
    await journal.finish(fence_of(child), DONE)

    assert (await wait_of(journal, late_parent, "call")).state is WaitState.OPEN
    assert (await wait_of(journal, ended_parent, "call")).state is WaitState.CANCELLED
    assert (await the_run(journal, child.run_id)).status is RunStatus.CANCELLED


async def test_a_run_that_ends_gives_up_its_waits_and_the_child_it_waited_for(journal: Journal) -> None:
    parent, child = await with_child(journal, owner=None)
    grandchild = new_run(owner=None, parent_run_id=child.run_id)
    await journal.accept(grandchild)
    driven = new_run(owner="engine-2", parent_run_id=grandchild.run_id)
    await journal.accept(driven)
    beside = new_run(owner=None, parent_run_id=parent.run_id)
    await journal.start_child(fence_of(parent), beside, new_step())

    await journal.finish(fence_of(parent), DONE)

    assert (await wait_of(journal, parent, "call")).state is WaitState.CANCELLED
    assert await status_of(journal, child.run_id) == (RunStatus.CANCELLED, None)
    assert await status_of(journal, grandchild.run_id) == (RunStatus.CANCELLED, None)
    assert list(await journal.cancel_requests("engine-2")) == [driven.run_id]
    assert await status_of(journal, beside.run_id) == (RunStatus.QUEUED, None)  # it was only started
    assert [event.type for event in await journal.events(parent.run_id)][-1] == "run_end"


async def test_cancelling_flows_down_to_all_runs_below(journal: Journal) -> None:
    top = new_run(owner=None)
    await journal.accept(top)
    waiting, waiting_fence = await parked(journal, new_wait(), parent_run_id=top.run_id)
    await journal.release(waiting_fence)
    done, done_fence = await started(journal, parent_run_id=waiting.run_id)
    await journal.finish(done_fence, DONE)
    below_done = new_run(owner=None, parent_run_id=done.run_id)
    await journal.accept(below_done)
    driven, driven_fence = await started(journal, parent_run_id=waiting.run_id)
    other, _ = await started(journal)

    answer = await journal.cancel(top.run_id)

    assert answer == CancelAnswer(run=replace(await the_run(journal, top.run_id), payload=None), was_final=False)
    statuses = [await status_of(journal, new.run_id) for new in (top, waiting, done, below_done, driven, other)]
    assert statuses == [
        (RunStatus.CANCELLED, None),
        (RunStatus.CANCELLED, None),
        (RunStatus.COMPLETED, "engine-1"),
        (RunStatus.CANCELLED, None),
        (RunStatus.RUNNING, "engine-1"),
        (RunStatus.RUNNING, "engine-1"),
    ]
    assert list(await journal.cancel_requests("engine-1")) == [driven.run_id]
    assert await journal.finish(driven_fence, DONE) == Outcome(status=RunStatus.CANCELLED)
    assert (await wait_of(journal, waiting)).state is WaitState.CANCELLED


async def test_a_cancelled_child_answers_a_parent_that_goes_on(journal: Journal) -> None:
    parent, child = await with_child(journal, owner=None)
    await journal.release(fence_of(parent))
    assert await status_of(journal, parent.run_id) == (RunStatus.WAITING, None)

    await journal.cancel(child.run_id)

    wait = await wait_of(journal, parent, "call")
    assert wait.answer == raw({"status": "cancelled", "result": None, "error": None})
    assert await status_of(journal, parent.run_id) == (RunStatus.QUEUED, None)


async def test_a_waiting_run_that_nobody_owns_can_be_finished_by_anybody(journal: Journal) -> None:
    new, fence = await parked(journal, new_wait(), deadline_us=1)
    assert list(await journal.expired()) == []
    assert await journal.finish_queued(new.run_id, BROKEN) is False
    await journal.release(fence)

    assert list(await journal.expired()) == [(new.run_id, 1)]
    assert await journal.finish_queued(new.run_id, BROKEN) is True
    assert (await wait_of(journal, new)).state is WaitState.CANCELLED
    assert await status_of(journal, new.run_id) == (RunStatus.FAILED, None)


# Owners


@promise("R6")
async def test_a_waiting_run_whose_engine_is_gone_stays_waiting_and_belongs_to_nobody(journal: Journal) -> None:
    new, fence = await parked(journal, new_wait())
    running, running_fence = await started(journal)

    assert await journal.requeue(fence, crashed=True) is True
    assert await journal.requeue(running_fence, crashed=True) is True

    run = await the_run(journal, new.run_id)
    assert (run.status, run.owner, run.crashes) == (RunStatus.WAITING, None, 0)
    assert await status_of(journal, running.run_id) == (RunStatus.QUEUED, None)
    assert [run.run_id for run in await journal.claim("engine-2", 10)] == [running.run_id]
    await journal.signal(new.run_id, new_signal())
    assert [(run.run_id, run.attempt) for run in await journal.claim("engine-2", 10)] == [(new.run_id, 2)]


async def test_all_waiting_runs_of_a_dead_engine_are_disowned_at_once(journal: Journal) -> None:
    mine, _ = await parked(journal, new_wait())
    theirs = [(await parked(journal, new_wait(), owner="engine-gone"))[0] for _ in range(3)]
    running, _ = await started(journal, owner="engine-gone")
    await journal.cancel(theirs[0].run_id)
    assert list(await journal.dead_owners_of_waiting()) == ["engine-gone"]
    assert [run.run_id for run in await journal.lost()] == [running.run_id]

    assert await journal.disown("engine-gone") == 3

    statuses = [await status_of(journal, new.run_id) for new in (mine, *theirs, running)]
    assert statuses == [
        (RunStatus.WAITING, "engine-1"),
        (RunStatus.CANCELLED, None),
        (RunStatus.WAITING, None),
        (RunStatus.WAITING, None),
        (RunStatus.RUNNING, "engine-gone"),
    ]
    assert list(await journal.dead_owners_of_waiting()) == []
    assert await journal.disown("engine-gone") == 0


async def test_runs_that_were_begun_before_are_claimed_first(journal: Journal) -> None:
    fresh = [new_run(owner=None) for _ in range(2)]
    for new in fresh:
        await journal.accept(new)
    woken, woken_fence = await parked(journal, new_wait())
    lost, lost_fence = await started(journal)
    await journal.requeue(lost_fence, crashed=True)
    await journal.release(woken_fence)
    await journal.signal(woken.run_id, new_signal())

    order = [run.run_id for _ in range(2) for run in await journal.claim("engine-2", 3)]

    assert order == [woken.run_id, lost.run_id, *(new.run_id for new in fresh)]


async def test_a_restarted_run_has_forgotten_its_calls(journal: Journal) -> None:
    parent, child = await with_child(journal, owner=None)
    fence = fence_of(parent)
    await journal.record(fence, new_step())
    await journal.signal(parent.run_id, new_signal(data=1))
    await journal.open_wait(fence, new_wait())
    await journal.requeue(fence, crashed=True)
    await journal.claim("engine-1", 1, run_ids=[parent.run_id])
    again = fence_of(parent, attempt=2)

    assert await journal.restart(again) is True

    assert await journal.history(parent.run_id) == History(steps=[], waits=[])
    assert await status_of(journal, child.run_id) == (RunStatus.CANCELLED, None)
    run = await the_run(journal, parent.run_id)
    assert (run.status, run.crashes) == (RunStatus.RUNNING, 1)
    opened = await journal.open_wait(again, new_wait())
    assert opened is not None
    assert opened.wait.answer == raw(1)


# Copies


async def recorded_run(journal: Journal, clock: StillClock) -> tuple[NewRun, dict[str, Step | Wait]]:
    """A failed run with calls of every kind; and its calls."""
    new, fence = await started(journal)
    large = "x" * 5000
    await journal.record(fence, new_step("one", large, input_digest="d"), [new_event()])
    await journal.record(fence, new_step("caught", status=StepStatus.FAILED), [new_event()])
    await journal.signal(new.run_id, new_signal("paid", large, "taken"))
    await journal.open_wait(fence, new_wait(), [new_event()])
    approval = new_wait(WaitKind.APPROVAL, "refund", request=raw({"request": large}))
    await journal.open_wait(fence, approval)
    await journal.decide(approval.wait_id, decision(data=large))
    await journal.open_wait(fence, new_wait(WaitKind.TIMER, "nap", due_us=clock.now_us()))
    await journal.expire(new.run_id, "nap", fence=fence)
    for key, outcome in (("call", DONE), ("broken", BROKEN)):
        child = new_run(parent_run_id=new.run_id)
        await journal.start_child(fence, child, new_wait(WaitKind.CHILD, key, name=child.run_id))
        await journal.finish(fence_of(child), outcome)
    await journal.signal(new.run_id, new_signal("kept", 2, "b"))
    await journal.signal(new.run_id, new_signal("kept", 3, "a"))
    await journal.record(fence, new_step("two", 2, started_index=5), [new_event()])
    await journal.record(fence, new_step("trying", status=StepStatus.RETRYING))
    await journal.open_wait(fence, new_wait(key="never"))
    await journal.finish(fence, BROKEN)
    history = await journal.history(new.run_id)
    return new, {call.key: call for call in [*history.steps, *history.waits]}


async def test_a_new_run_begins_with_what_an_earlier_one_has_completed(journal: Journal, clock: StillClock) -> None:
    source, calls = await recorded_run(journal, clock)
    last_index = (await the_run(journal, source.run_id)).last_index
    retry = new_run(retried_from=source.run_id, copies=Copies(run_id=source.run_id, keeps_signals=True))

    await journal.accept(retry)
    await journal.delete(source.run_id)

    history = await journal.history(retry.run_id)
    moved = {"run_id": retry.run_id}

    def step(key: str) -> Step:
        call = calls[key]
        assert isinstance(call, Step)
        shift = last_index + 1
        return replace(
            call, started_index=call.started_index - shift, recorded_index=call.recorded_index - shift, **moved
        )

    def wait(key: str) -> Wait:
        call = calls[key]
        assert isinstance(call, Wait)
        shift = last_index + 1
        return replace(
            call,
            wait_id=None,
            started_index=call.started_index - shift,
            answered_index=call.answered_index - shift,
            **moved,
        )

    assert list(history.steps) == [step("one"), step("two")]
    assert list(history.waits) == [wait("call"), wait("nap"), wait("paid"), wait("refund")]
    assert list(await journal.approvals(ApprovalFilter(run_id=retry.run_id))) == []
    fence = fence_of(retry)
    taken = [
        opened.wait.answer
        for name in ("paid", "kept", "kept", "kept")
        if (opened := await journal.open_wait(fence, new_wait(key=new_ulid(), name=name))) is not None
    ]
    assert taken == [None, raw(2), raw(3), None]


async def test_a_fork_takes_over_only_what_was_recorded_before(journal: Journal, clock: StillClock) -> None:
    source, calls = await recorded_run(journal, clock)
    refund = calls["refund"]
    fork = new_run(copies=Copies(run_id=source.run_id, until_index=refund.recorded_index))
    earlier = new_run(copies=Copies(run_id=source.run_id, until_index=refund.recorded_index - 1))
    again = new_run(copies=Copies(run_id=fork.run_id, until_index=0))

    for new in (fork, earlier, again):
        await journal.accept(new)

    async def keys(new: NewRun) -> list[str]:
        history = await journal.history(new.run_id)
        return [call.key for call in [*history.steps, *history.waits]]

    assert await keys(fork) == await keys(again) == ["one", "paid", "refund"]
    assert await keys(earlier) == ["one", "paid"]
    opened = await journal.open_wait(fence_of(fork), new_wait(name="kept", key="k"))
    assert opened is not None
    assert opened.wait.state is WaitState.OPEN


async def test_a_deleted_run_leaves_no_calls(journal: Journal, clock: StillClock) -> None:
    source, calls = await recorded_run(journal, clock)
    approval_id = next(call.wait_id for call in calls.values() if isinstance(call, Wait) and call.key == "refund")
    seq, _ = await journal.answers_since(-1)

    await journal.delete(source.run_id)

    assert await journal.history(source.run_id) == History(steps=[], waits=[])
    assert approval_id is not None
    assert await journal.approval(approval_id) is None
    assert await journal.answers_since(0) == (seq, [])
    new, _ = await parked(journal, new_wait())
    await journal.signal(new.run_id, new_signal())
    assert await journal.answers_since(seq) == (seq + 1, [(new.run_id, "paid")])


async def test_waits_that_another_journal_ends_are_told_by_their_number(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}"
    ours, theirs = open_journal(url), open_journal(url)
    heard: list[tuple[str, str]] = []
    ours.on_answered(heard.extend)
    new, _ = await parked(ours, new_wait(key="a"), new_wait(key="b"))
    seq, _ = await ours.answers_since(-1)

    await theirs.signal(new.run_id, new_signal("a"))
    await ours.signal(new.run_id, new_signal("b"))

    assert await ours.answers_since(seq) == (seq + 2, [(new.run_id, "a"), (new.run_id, "b")])
    assert await ours.answers_since(seq + 1) == (seq + 2, [(new.run_id, "b")])
    await ours.forget_keys()
    assert heard == [(new.run_id, "b")]
    await ours.close()
    await theirs.close()


# Whatever happens


class Driver:
    """Calls verbs about one run and its children, as engines and people might in any order."""

    def __init__(self, journal: Journal, clock: StillClock) -> None:
        self.journal = journal
        self.clock = clock
        self.new = new_run()
        self.attempt = 1
        self.numbers: Iterator[int] = itertools.count(1)

    @property
    def fence(self) -> Fence:
        return Fence(run_id=self.new.run_id, owner="engine-1", attempt=self.attempt)

    async def record(self) -> None:
        await self.journal.record(self.fence, new_step(f"s-{next(self.numbers)}"), [new_event()])

    async def note(self) -> None:
        self.journal.note(self.fence, new_step(f"s-{next(self.numbers)}"))

    async def append(self) -> None:
        self.journal.append(self.fence, new_event())

    async def open_and_park(self) -> None:
        count = len(await self.journal.open_waits(self.new.run_id)) + 1
        wait = new_wait(key=f"w-{next(self.numbers)}", name="paid", due_us=self.clock.now_us() + AN_HOUR)
        await self.journal.open_wait(self.fence, wait, park=new_park(count))

    async def ask(self) -> None:
        await self.journal.open_wait(self.fence, new_wait(WaitKind.APPROVAL, f"w-{next(self.numbers)}"))

    async def call(self) -> None:
        child = new_run(owner=None, parent_run_id=self.new.run_id)
        wait = new_wait(WaitKind.CHILD, f"w-{next(self.numbers)}", name=child.run_id)
        await self.journal.start_child(self.fence, child, wait, [new_event()])

    async def end_child(self) -> None:
        for wait in await self.journal.open_waits(self.new.run_id):
            if wait.kind is WaitKind.CHILD:
                await self.journal.cancel(wait.name)
                return

    async def park(self) -> None:
        waits = await self.journal.open_waits(self.new.run_id)
        await self.journal.park(self.fence, new_park(len(waits) or 1))

    async def signal(self) -> None:
        await self.journal.signal(self.new.run_id, new_signal())

    async def decide(self) -> None:
        for approval in await self.journal.approvals(ApprovalFilter(run_id=self.new.run_id)):
            await self.journal.decide(str(approval.wait.wait_id), decision())

    async def expire(self) -> None:
        for wait in await self.journal.open_waits(self.new.run_id):
            await self.journal.expire(self.new.run_id, wait.key, fence=self.fence)
            await self.journal.expire(self.new.run_id, wait.key, fence=None)
            return

    async def close_wait(self) -> None:
        for wait in await self.journal.open_waits(self.new.run_id):
            self.journal.close_wait(self.fence, wait.key)
            return

    async def release(self) -> None:
        await self.journal.release(self.fence)

    async def crash(self) -> None:
        await self.journal.requeue(self.fence, crashed=True)

    async def disown(self) -> None:
        await self.journal.disown("engine-1")

    async def claim(self) -> None:
        for run in await self.journal.claim("engine-1", 10, run_ids=[self.new.run_id]):
            self.attempt = run.attempt

    async def restart(self) -> None:
        await self.journal.restart(self.fence)

    async def jump(self) -> None:
        self.clock.offset_us += AN_HOUR


_VERBS = [name for name in vars(Driver) if not name.startswith("_") and name != "fence"]


@promise("R4", "R7")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(verbs=st.lists(st.sampled_from(_VERBS), max_size=25), ends=st.sampled_from(["finish", "cancel", "no"]))
async def test_whatever_the_order_of_verbs_no_run_is_stranded(url: str, verbs: list[str], ends: str) -> None:
    clock = StillClock()
    journal = open_journal(url, clock=clock)
    driver = Driver(journal, clock)
    await journal.accept(driver.new)
    for verb in verbs:
        await getattr(driver, verb)()
        if journal.unwritten(driver.new.run_id):
            continue  # the next verb takes it along; until then two reads may see two states
        run = await the_run(journal, driver.new.run_id)
        waits = await journal.open_waits(run.run_id)
        assert run.status is not RunStatus.WAITING or waits, verb
        assert (run.status is RunStatus.QUEUED) <= (run.owner is None), verb
        assert run.status is not RunStatus.RUNNING or run.owner is not None, verb
    if ends == "finish":
        await journal.finish(driver.fence, DONE)
    elif ends == "cancel":
        await journal.cancel(driver.new.run_id)

    await journal.forget_keys()  # whatever was asked before is done before

    run = await the_run(journal, driver.new.run_id)
    events = await journal.events(run.run_id)
    history = await journal.history(run.run_id)
    await journal.close()

    assert [event.index for event in events] == list(range(1, run.last_index + 1))
    assert [event.index for event in events if event.type == "run_end"] == ([run.last_index] if run.is_final else [])
    assert not run.is_final or all(wait.state is not WaitState.OPEN for wait in history.waits)
    assert all(0 <= call.recorded_index <= run.last_index for call in [*history.steps, *history.waits])
