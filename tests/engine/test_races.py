"""What ends a wait or a run at the same moment: one wins, it has its effect once, and everybody is told the same.

The engine and the journal are real (a file), and each race is run a thousand times. Also timers while the wall clock
jumps.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pyflue import codec
from pyflue.clock import to_datetime
from pyflue.engine import EmbeddedEngine, FlueContext
from pyflue.errors import ApprovalClosed, RunFinished, WaitTimedOut
from pyflue.journal import Approval, ApprovalFilter, Journal, Outcome, RunStatus, open_journal
from tests.promises import promise
from tests.support import Functions, MovableClock, engine_on, journal_at, submission

RACES = 1000
AT_ONCE = 250

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = journal_at(tmp_path)
    yield journal
    await journal.close()


def value(outcome: Outcome) -> Any:
    return None if outcome.result is None else codec.load(outcome.result)


async def later(work: Awaitable[Any], delay_s: float) -> Any:
    """What came of it, or why it was refused."""
    await asyncio.sleep(delay_s)
    try:
        return await work
    except (ApprovalClosed, RunFinished) as refused:
        return refused


async def open_approvals(journal: Journal, count: int) -> dict[str, Approval]:
    """The open approvals by run id, once there are so many."""
    # Polled, because what is waited for is in many streams.
    while len(found := await journal.approvals(ApprovalFilter(states=("open",)), limit=count)) < count:
        await asyncio.sleep(0.005)
    return {approval.wait.run_id: approval for approval in found}


@promise("F20", "R7")
async def test_approving_rejecting_expiring_and_cancelling_at_once_ends_in_one_way(journal: Journal) -> None:
    shipped: list[str] = []

    async def ship(run_id: str) -> None:
        shipped.append(run_id)

    async def order(ctx: FlueContext[Any]) -> str:
        try:
            decision = await ctx.approve("ship", {"order": ctx.payload}, timeout_s=1.0)
        except WaitTimedOut:
            return "expired"
        if decision.approved:
            await ctx.step("ship", ship, ctx.id)
        return "approved" if decision.approved else "rejected"

    functions = Functions(order)
    chance = random.Random(7)
    seen = Counter[str]()

    async def race(engine: EmbeddedEngine, approval: Approval) -> None:
        approval_id, run_id = str(approval.wait.wait_id), approval.wait.run_id
        assert approval.wait.due_at is not None
        left_s = (approval.wait.due_at - datetime.now(UTC)).total_seconds()
        when = [max(0.0, left_s + chance.uniform(-0.4, 0.1)) for _ in range(3)]
        yes, no, cancelled = await asyncio.gather(
            later(engine.decide(approval_id, approved=True, by="ann"), when[0]),
            later(engine.decide(approval_id, approved=False, by="bob"), when[1]),
            later(engine.cancel(run_id), when[2]) if chance.random() < 0.5 else asyncio.sleep(0, None),
        )
        run = await engine.wait(run_id)
        after = await journal.approval(approval_id)
        assert after is not None
        winners = [told for told in (yes, no) if isinstance(told, Approval)]
        assert len(winners) <= 1
        for told in (yes, no):
            state = told.state.value if isinstance(told, Approval) else told.details["state"]
            assert state == after.state.value
        match after.state.value:
            case "approved" | "rejected" as decided:
                assert winners
                assert winners[0].decision == after.decision
                assert after.decision["by"] == {"approved": "ann", "rejected": "bob"}[decided]
                expected = {decided, None}
            case "expired":
                assert not winners
                expected = {"expired", None}
            case _:
                assert not winners
                expected = {None}
        assert (None if run.result is None else codec.load(run.result)) in expected
        if run.status is RunStatus.CANCELLED:
            assert cancelled is not None
            assert not isinstance(cancelled, RunFinished)
        else:
            assert run.status is RunStatus.COMPLETED
            assert cancelled is None or isinstance(cancelled, RunFinished)
        times = shipped.count(run_id)
        assert times <= 1
        if run.status is RunStatus.COMPLETED:
            assert times == (after.state.value == "approved")
        elif after.state.value != "approved":
            assert times == 0
        seen[f"{after.state.value}, {run.status.value}"] += 1

    async with engine_on(journal, functions) as engine:
        for _ in range(RACES // AT_ONCE):
            orders = [submission(functions.find("order"), number) for number in range(AT_ONCE)]
            await asyncio.gather(*[engine.submit(one) for one in orders])
            approvals = await open_approvals(journal, AT_ONCE)
            async with asyncio.timeout(30):
                await asyncio.gather(*[race(engine, approval) for approval in approvals.values()])
        assert engine.stats()["running"] == 0
    print(dict(seen))
    assert sum(seen.values()) == RACES
    assert {state.split(",")[0] for state in seen} == {"approved", "rejected", "expired", "cancelled"}


async def test_a_signal_that_comes_with_the_timeout_is_taken_or_kept_and_never_both(journal: Journal) -> None:
    async def takes(ctx: FlueContext[Any]) -> str:
        try:
            await ctx.wait_for("go", timeout_s=0.5)
            in_time = True
        except WaitTimedOut:
            in_time = False
        try:
            await ctx.wait_for("go", timeout_s=0 if in_time else 5)
        except WaitTimedOut:
            return "taken" if in_time else "lost"
        return "taken twice" if in_time else "kept"

    functions = Functions(takes)
    chance = random.Random(8)
    seen = Counter[str]()
    async with engine_on(journal, functions) as engine:
        for _ in range(RACES // AT_ONCE):
            submissions = [submission(functions.find("takes"), {}) for _ in range(AT_ONCE)]
            handles = await asyncio.gather(*[engine.submit(one) for one in submissions])
            sent = [later(engine.signal(h.run_id, "go", "it"), 0.5 + chance.uniform(-0.15, 0.05)) for h in handles]
            async with asyncio.timeout(30):
                await asyncio.gather(*sent)
                outcomes = await asyncio.gather(*[handle.outcome() for handle in handles])
            seen.update(value(outcome) for outcome in outcomes)
    print(dict(seen))
    assert set(seen) == {"taken", "kept"}


@promise("R7", "F19")
async def test_a_cancel_that_comes_with_the_end_of_the_last_step_ends_in_one_way(journal: Journal) -> None:
    done: list[str] = []

    async def work(run_id: str) -> str:
        await asyncio.sleep(0.05)
        done.append(run_id)
        return "done"

    async def quick(ctx: FlueContext[Any]) -> str:
        return await ctx.step("work", work, ctx.id)

    functions = Functions(quick)
    chance = random.Random(9)
    seen = Counter[str]()

    async def race(engine: EmbeddedEngine) -> None:
        handle = await engine.submit(submission(functions.find("quick"), {}))
        told = await later(engine.cancel(handle.run_id), chance.uniform(0, 0.4))
        outcome = await handle.outcome()
        run = await journal.run(handle.run_id)
        assert run is not None
        assert run.status is outcome.status
        steps = await journal.steps(handle.run_id)
        assert done.count(handle.run_id) <= 1
        if isinstance(told, RunFinished):
            assert (outcome.status, value(outcome)) == (RunStatus.COMPLETED, "done")
            assert [step.key for step in steps] == ["work"]
        else:
            assert outcome.status is RunStatus.CANCELLED
        events = await journal.events(handle.run_id)
        assert [event.index for event in events] == list(range(1, run.last_index + 1))
        assert [event.type for event in events].count("run_end") == 1
        seen[f"{outcome.status.value}, {len(steps)} steps"] += 1

    async with engine_on(journal, functions) as engine:
        for _ in range(RACES // AT_ONCE):
            async with asyncio.timeout(30):
                await asyncio.gather(*[race(engine) for _ in range(AT_ONCE)])
    print(dict(seen))
    assert {"completed, 1 steps", "cancelled, 0 steps"} <= set(seen)


@promise("F20", "F04")
async def test_an_approval_survives_a_restart_and_two_engines_let_it_be_decided_once(tmp_path: Path) -> None:
    async def order(ctx: FlueContext[Any]) -> list[Any]:
        decision = await ctx.approve("ship", {"order": ctx.payload})
        return [decision.approved, decision.by]

    functions = Functions(order)
    count = 50
    first = journal_at(tmp_path)
    async with engine_on(first, functions) as engine:
        for number in range(count):
            await engine.submit(submission(functions.find("order"), number))
        before = await open_approvals(first, count)
    await first.close()

    one, other = journal_at(tmp_path), journal_at(tmp_path)
    async with engine_on(one, functions) as left, engine_on(other, functions) as right, asyncio.timeout(30):
        after = await open_approvals(one, count)
        assert after == before
        for approval in after.values():
            approval_id = str(approval.wait.wait_id)
            yes, no = await asyncio.gather(
                later(left.decide(approval_id, approved=True, by="ann"), 0),
                later(right.decide(approval_id, approved=False, by="bob"), 0),
            )
            assert [isinstance(told, Approval) for told in (yes, no)].count(True) == 1
            # The same answer again changes nothing and is no error, the other one is.
            approved = isinstance(yes, Approval)
            again = await right.decide(approval_id, approved=approved, by="carol")
            assert again.decision["by"] == ("ann" if approved else "bob")
            with pytest.raises(ApprovalClosed):
                await left.decide(approval_id, approved=not approved, by="carol")
            run = await left.wait(approval.wait.run_id)
            assert run.result is not None
            assert codec.load(run.result) == [approved, "ann" if approved else "bob"]
    await one.close()
    await other.close()


# Clock jumps

HOUR_US = 3_600_000_000
TEN_YEARS_US = 10 * 365 * 24 * HOUR_US
JUMPS = [HOUR_US, -HOUR_US, TEN_YEARS_US, -TEN_YEARS_US]
JUMP_NAMES = ["1 hour on", "1 hour back", "10 years on", "10 years back"]


async def sleeps(ctx: FlueContext[Any]) -> str:
    await ctx.sleep(0.4)
    return "slept"


async def asks(ctx: FlueContext[Any]) -> str:
    try:
        await ctx.approve("ship", {}, timeout_s=0.4)
    except WaitTimedOut:
        return "expired"
    return "decided"


async def hopes(ctx: FlueContext[Any]) -> str:
    try:
        await ctx.wait_for("go", timeout_s=0.4)
    except WaitTimedOut:
        return "expired"
    return "came"


async def until(ctx: FlueContext[Any]) -> str:
    await ctx.sleep(until=ctx.now() + timedelta(seconds=0.4))
    return "slept"


WAITERS = Functions(sleeps, asks, hopes, until)


@promise("F16")
@pytest.mark.parametrize("jump_us", JUMPS, ids=JUMP_NAMES)
async def test_timers_in_memory_do_not_notice_a_jump_of_the_clock(tmp_path: Path, jump_us: int) -> None:
    clock = MovableClock()
    journal = open_journal(f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}", clock=clock)
    began_at = clock.monotonic()
    async with engine_on(journal, WAITERS, clock=clock) as engine, asyncio.timeout(10):
        handles = [await engine.submit(submission(workflow, {})) for workflow in WAITERS.workflows.values()]
        await _until_waiting(journal, [handle.run_id for handle in handles])
        clock.offset_us += jump_us
        outcomes = await asyncio.gather(*[handle.outcome() for handle in handles])
    assert 0.4 <= clock.monotonic() - began_at < 5
    assert [value(outcome) for outcome in outcomes] == ["slept", "expired", "expired", "slept"]
    await _check_durations(journal, [handle.run_id for handle in handles])
    await journal.close()


@promise("F16", "F04")
@pytest.mark.parametrize("jump_us", JUMPS, ids=JUMP_NAMES)
async def test_after_a_restart_timers_take_their_whole_time_at_most(tmp_path: Path, jump_us: int) -> None:
    """The rest is taken from the wall clock: at once if it was set on, the whole time again if it was set back."""
    clock = MovableClock()
    journal = open_journal(f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}", clock=clock)
    async with engine_on(journal, WAITERS, clock=clock) as engine, asyncio.timeout(10):
        handles = [await engine.submit(submission(workflow, {})) for workflow in WAITERS.workflows.values()]
        run_ids = [handle.run_id for handle in handles]
        await _until_waiting(journal, run_ids)
    clock.offset_us += jump_us
    began_at = clock.monotonic()
    async with engine_on(journal, WAITERS, clock=clock) as engine, asyncio.timeout(10):
        runs = await asyncio.gather(*[engine.wait(run_id) for run_id in run_ids])
    took_s = clock.monotonic() - began_at
    assert took_s < 5
    if jump_us < 0:
        assert took_s >= 0.4
    assert [codec.load(run.result) for run in runs if run.result is not None] == [
        "slept", "expired", "expired", "slept"
    ]  # fmt: skip
    await _check_durations(journal, run_ids)
    await journal.close()


@promise("F16")
async def test_the_time_of_an_approval_is_not_over_because_the_clock_on_the_wall_jumped(tmp_path: Path) -> None:
    clock = MovableClock()
    journal = open_journal(f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}", clock=clock)

    async def patient(ctx: FlueContext[Any]) -> str:
        return (await ctx.approve("ship", {}, timeout_s=60)).by

    functions = Functions(patient)
    async with engine_on(journal, functions, clock=clock) as engine, asyncio.timeout(10):
        for jump_us in (HOUR_US, -TEN_YEARS_US):
            handle = await engine.submit(submission(functions.find("patient"), {}))
            (approval,) = (await open_approvals(journal, 1)).values()
            clock.offset_us += jump_us
            decided = await engine.decide(str(approval.wait.wait_id), approved=True, by="ann")
            assert value(await handle.outcome()) == "ann"
            assert decided.wait.answered_at is not None
            assert decided.wait.answered_at >= decided.wait.created_at
    await journal.close()


@promise("F16")
@pytest.mark.parametrize("jump_us", JUMPS, ids=JUMP_NAMES)
async def test_a_decision_on_a_run_that_no_engine_has_is_in_time_by_the_wall_clock(
    tmp_path: Path, jump_us: int
) -> None:
    async def patient(ctx: FlueContext[Any]) -> str:
        try:
            return (await ctx.approve("ship", {}, timeout_s=60)).by
        except WaitTimedOut:
            return "expired"

    clock = MovableClock()
    journal = open_journal(f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}", clock=clock)
    functions = Functions(patient)
    async with engine_on(journal, functions, clock=clock) as engine, asyncio.timeout(10):
        handle = await engine.submit(submission(functions.find("patient"), {}))
        await _until_waiting(journal, [handle.run_id])
        (approval,) = (await open_approvals(journal, 1)).values()
    clock.offset_us += jump_us
    async with engine_on(journal, functions, clock=clock, adopts=False) as aside, asyncio.timeout(10):
        told = await later(aside.decide(str(approval.wait.wait_id), approved=True, by="ann"), 0)
    async with engine_on(journal, functions, clock=clock) as engine, asyncio.timeout(10):
        run = await engine.wait(handle.run_id)
    assert run.result is not None
    assert isinstance(told, ApprovalClosed) == (jump_us > 0)
    assert codec.load(run.result) == ("expired" if jump_us > 0 else "ann")
    await journal.close()


async def _until_waiting(journal: Journal, run_ids: list[str]) -> None:
    for run_id in run_ids:
        with journal.watch(run_id) as bell:
            while (run := await journal.run(run_id)) is None or run.status is not RunStatus.WAITING:
                await bell.wait()


async def _check_durations(journal: Journal, run_ids: list[str]) -> None:
    """Nothing took less than no time."""
    for run_id in run_ids:
        run = await journal.run(run_id)
        assert run is not None
        assert run.started_at is not None
        assert run.finished_at is not None
        assert run.created_at <= run.started_at <= run.finished_at
        history = await journal.history(run_id)
        for wait in history.waits:
            assert wait.answered_at is not None
            assert to_datetime(0) < wait.created_at <= wait.answered_at
        for step in history.steps:
            assert step.finished_at is not None
            assert step.started_at <= step.finished_at


@promise("F16")
async def test_a_clock_set_back_while_a_wait_is_being_recorded_does_not_make_it_longer(tmp_path: Path) -> None:
    class Clock(MovableClock):
        """Set back by an hour right after the workflow's own thread has read it for the wait."""

        def now_us(self) -> int:
            if threading.current_thread().name == "pyflue-journal-writer":
                return super().now_us() - HOUR_US
            return super().now_us()

    clock = Clock()
    journal = open_journal(f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}", clock=clock)
    async with engine_on(journal, WAITERS, clock=clock) as engine, asyncio.timeout(10):
        handles = [await engine.submit(submission(workflow, {})) for workflow in WAITERS.workflows.values()]
        await _until_waiting(journal, [handle.run_id for handle in handles])
        for handle in handles:
            (wait,) = await journal.open_waits(handle.run_id)
            assert wait.due_at is not None
            assert wait.due_at - wait.created_at <= timedelta(seconds=0.4)
        clock.offset_us -= HOUR_US
        outcomes = await asyncio.gather(*[handle.outcome() for handle in handles])
    assert [value(outcome) for outcome in outcomes] == ["slept", "expired", "expired", "slept"]
    await journal.close()
