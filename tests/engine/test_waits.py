"""`ctx.sleep`, `wait_for` and `approve`: runs that wait, who ends a wait, and what they cost meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from pyflue import Decision, codec
from pyflue.errors import (
    ApprovalClosed,
    ApprovalNotFound,
    DecisionInvalid,
    RunFinished,
    RunNotFound,
    SignalConflict,
    SignalInvalid,
    WaitTimedOut,
)
from pyflue.journal import ApprovalFilter, ApprovalState, Journal, RunFilter, RunStatus, SignalAnswer
from pyflue.settings import Limits
from tests.promises import promise
from tests.support import Functions, engine_on, submission

from .durable import Context, asked, data_of, ended, error_of, interrupted, result_of, resume, run_once, types_of, until


class Address(BaseModel):
    street: str
    number: int


async def nap(ctx: Context) -> Any:
    await ctx.sleep(0.01)
    return ctx.attempt


async def signalled(ctx: Context) -> Any:
    return [await ctx.wait_for("paid"), await ctx.wait_for("paid")]


async def approval(ctx: Context) -> Any:
    decision = await ctx.approve("refund", {"amount": ctx.payload}, timeout_s=60)
    return [decision.approved, decision.by, decision.reason, decision.data]


async def edited(ctx: Context) -> Any:
    decision = await ctx.approve("address", {"street": "Elm", "number": 1}, schema=Address)
    assert isinstance(decision.data, Address)
    return decision.data.number


async def test_a_sleeping_run_is_waiting_and_says_for_what(journal: Journal) -> None:
    async def long_nap(ctx: Context) -> None:
        await ctx.sleep(3600, name="rest")

    functions = Functions(long_nap)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("long_nap")))
        await until(journal, handle.run_id, RunStatus.WAITING)
        (wait,) = await journal.open_waits(handle.run_id)
        assert engine.stats()["running"] == 0
        await engine.cancel(handle.run_id)
    assert (wait.key, wait.kind, wait.name) == ("rest", "timer", "rest")
    assert wait.due_at is not None
    assert timedelta(minutes=59) < wait.due_at - datetime.now(UTC) < timedelta(hours=1)
    (told,) = await data_of(journal, handle.run_id, "run_waiting")
    assert [(w["step"], w["kind"]) for w in told["waits"]] == [("rest", "timer")]


async def test_a_sleep_ends_and_a_time_that_has_passed_is_no_sleep(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        await ctx.sleep(0.01)
        await ctx.sleep(until=datetime.now(UTC) - timedelta(days=1))
        await ctx.sleep(0)
        return "awake"

    run = await run_once(journal, work)

    assert result_of(run) == "awake"
    assert [data["step"] for data in await data_of(journal, run.run_id, "step_end")] == ["sleep", "sleep#2", "sleep#3"]


@pytest.mark.parametrize(
    ("seconds", "until_time"), [(None, None), (1, datetime.now(UTC)), (None, datetime.now()), (-1, None), ("1", None)]
)
async def test_a_sleep_without_a_usable_time_is_refused(journal: Journal, seconds: Any, until_time: Any) -> None:
    async def work(ctx: Context) -> None:
        await ctx.sleep(seconds, until=until_time)

    assert error_of(await run_once(journal, work))["exception"] == "ValueError"


@promise("F04")
async def test_a_timer_is_kept_while_no_engine_runs(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        await ctx.sleep(0.3)
        return ctx.attempt

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        waiting = await until(journal, run_id, RunStatus.WAITING)
    parked = await journal.run(run_id)
    run = await resume(journal, functions, run_id)

    assert waiting.owner is not None
    assert parked is not None
    assert (parked.status, parked.owner) == (RunStatus.WAITING, None)
    assert result_of(run) == 2
    (wait,) = (await journal.history(run_id)).waits
    assert wait.due_at is not None
    assert wait.answered_at is not None
    assert wait.answered_at >= wait.due_at


async def test_a_waiting_run_is_not_replayed_by_a_restart_but_when_it_is_woken(journal: Journal) -> None:
    starts: list[int] = []

    async def work(ctx: Context) -> Any:
        starts.append(ctx.attempt)
        return await ctx.wait_for("go")

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        await until(journal, run_id, RunStatus.WAITING)
    for _ in range(3):
        async with engine_on(journal, functions):
            await journal.check()
    assert starts == [1]
    async with engine_on(journal, functions) as engine:
        assert await engine.signal(run_id, "go", "now") is SignalAnswer.DELIVERED
        run = await ended(engine, run_id)
    assert (result_of(run), starts, run.attempt) == ("now", [1, 2], 2)


async def test_signals_are_kept_until_they_are_waited_for_and_taken_in_order(journal: Journal) -> None:
    async def late(ctx: Context) -> Any:
        await ctx.wait_for("start")
        return [await ctx.wait_for("paid"), await ctx.wait_for("paid"), await ctx.wait_for("paid")]

    functions = Functions(late)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("late")))
        assert await engine.signal(handle.run_id, "paid", 1) is SignalAnswer.KEPT
        assert await engine.signal(handle.run_id, "paid", 2) is SignalAnswer.KEPT
        await until(journal, handle.run_id, RunStatus.WAITING)
        assert await engine.signal(handle.run_id, "start", None) is SignalAnswer.DELIVERED
        async with asyncio.timeout(5):
            while not [w for w in await journal.open_waits(handle.run_id) if w.key == "paid#3"]:
                await asyncio.sleep(0)
        assert await engine.signal(handle.run_id, "paid", 3) is SignalAnswer.DELIVERED
        run = await ended(engine, handle.run_id)
    assert result_of(run) == [1, 2, 3]


async def test_a_signal_with_an_id_is_one_signal_however_often_it_is_sent(journal: Journal) -> None:
    functions = Functions(signalled)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("signalled")))
        await engine.signal(handle.run_id, "paid", {"sum": 3}, signal_id="payment-1")
        again = await engine.signal(handle.run_id, "paid", {"sum": 3}, signal_id="payment-1")
        with pytest.raises(SignalConflict, match="with another name or other data"):
            await engine.signal(handle.run_id, "paid", {"sum": 4}, signal_id="payment-1")
        await engine.signal(handle.run_id, "paid", {"sum": 5}, signal_id="payment-2")
        run = await ended(engine, handle.run_id)
        with pytest.raises(RunFinished):
            await engine.signal(handle.run_id, "paid", None)
        with pytest.raises(RunNotFound):
            await engine.signal("workflow:signalled:01KAJ5V3W8Y3N5QZ6E4T9R2M1B", "paid", None)
    assert again is SignalAnswer.REPEATED
    assert result_of(run) == [{"sum": 3}, {"sum": 5}]


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "x" * 129])
async def test_a_signal_needs_a_usable_name(journal: Journal, name: str) -> None:
    functions = Functions(signalled)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("signalled")))
        with pytest.raises(SignalInvalid, match="1 to 128 characters"):
            await engine.signal(handle.run_id, name, None)
        await engine.cancel(handle.run_id)


async def test_data_that_does_not_fit_is_refused_when_it_is_sent_and_passed_over_if_it_came_early(
    journal: Journal,
) -> None:
    async def typed(ctx: Context) -> Any:
        await ctx.wait_for("begin")
        address = await ctx.wait_for("address", schema=Address)
        number = await ctx.wait_for("number", schema={"type": "integer"})
        return [address.street, number]

    functions = Functions(typed)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("typed")))
        await engine.signal(handle.run_id, "address", {"street": 7})
        await engine.signal(handle.run_id, "begin", None)
        async with asyncio.timeout(5):
            while not [w for w in await journal.open_waits(handle.run_id) if w.name == "address"]:
                await asyncio.sleep(0)
        with pytest.raises(SignalInvalid, match="does not fit what the run waits for") as refused:
            await engine.signal(handle.run_id, "address", {"street": "Elm"})
        await engine.signal(handle.run_id, "address", {"street": "Elm", "number": 3})
        async with asyncio.timeout(5):
            while not [w for w in await journal.open_waits(handle.run_id) if w.name == "number"]:
                await asyncio.sleep(0)
        await engine.signal(handle.run_id, "number", 5)
        run = await ended(engine, handle.run_id)
    assert refused.value.details[0]["path"] == "$"
    assert result_of(run) == ["Elm", 5]
    (passed_over,) = await data_of(journal, run.run_id, "signal_refused")
    assert passed_over["step"] == "address"


async def test_a_wait_that_nobody_answers_in_time_raises(journal: Journal) -> None:
    seen: list[str] = []

    async def work(ctx: Context) -> None:
        for call in (ctx.wait_for("never", timeout_s=0.01), ctx.approve("nobody", timeout_s=0.01)):
            try:
                await call
            except WaitTimedOut as error:
                seen.append(str(error))

    run = await run_once(journal, work)

    assert run.status is RunStatus.COMPLETED
    assert ["signal 'never'" in seen[0], "decision on 'nobody'" in seen[1]] == [True, True]
    (found,) = await journal.approvals(ApprovalFilter(run_id=run.run_id))
    assert found.state is ApprovalState.EXPIRED


async def test_an_approval_shows_what_is_asked_and_the_decision_reaches_the_run(journal: Journal) -> None:
    functions = Functions(approval)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("approval"), 40))
        found = await asked(journal, handle.run_id)
        decided = await engine.decide(found.wait.wait_id or "", approved=True, by="ada", reason="fair")
        run = await ended(engine, handle.run_id)
    assert (found.workflow, found.wait.name, found.asked) == ("approval", "refund", {"request": {"amount": 40}})
    assert (found.state, decided.state) == (ApprovalState.OPEN, ApprovalState.APPROVED)
    assert result_of(run) == [True, "ada", "fair", {"amount": 40}]
    types = [type_ for type_ in await types_of(journal, run.run_id) if not type_.startswith("run_")]
    assert types == ["step_start", "approval_requested", "approval_decided", "step_end"]


async def test_a_rejection_has_no_data_of_its_own(journal: Journal) -> None:
    functions = Functions(approval)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("approval"), 40))
        found = await asked(journal, handle.run_id)
        await engine.decide(found.wait.wait_id or "", approved=False, by="bob", reason="too much")
        run = await ended(engine, handle.run_id)
    assert result_of(run) == [False, "bob", "too much", None]


async def test_an_edited_answer_is_checked_and_becomes_the_type_that_was_asked_for(journal: Journal) -> None:
    functions = Functions(edited)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("edited")))
        found = await asked(journal, handle.run_id)
        approval_id = found.wait.wait_id or ""
        with pytest.raises(DecisionInvalid, match="number") as refused:
            await engine.decide(approval_id, approved=True, by="ada", data={"street": "Oak"})
        await engine.decide(approval_id, approved=True, by="ada", data={"street": "Oak", "number": 12})
        run = await ended(engine, handle.run_id)
    assert found.asked["schema"]["title"] == "Address"
    assert refused.value.details[0]["path"] == "$"
    assert result_of(run) == 12


@promise("F20")
async def test_the_first_decision_counts_and_the_same_once_more_changes_nothing(journal: Journal) -> None:
    functions = Functions(approval)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("approval"), 1))
        approval_id = (await asked(journal, handle.run_id)).wait.wait_id or ""
        first = await engine.decide(approval_id, approved=True, by="ada")
        again = await engine.decide(approval_id, approved=True, by="bob")
        with pytest.raises(ApprovalClosed, match="is already approved") as closed:
            await engine.decide(approval_id, approved=False, by="bob")
        run = await ended(engine, handle.run_id)
        with pytest.raises(ApprovalNotFound):
            await engine.decide("01KAJ5V3W8Y3N5QZ6E4T9R2M1B", approved=True, by="ada")
    assert first.decision == again.decision
    assert closed.value.details["decision"]["by"] == "ada"
    assert result_of(run)[1] == "ada"


async def test_an_approval_survives_a_restart_and_is_decided_with_no_engine_at_all(journal: Journal) -> None:
    from pyflue.clock import SystemClock
    from pyflue.engine.answering import decide

    functions = Functions(approval)
    async with interrupted(journal, functions, "approval", 5) as run_id:
        found = await asked(journal, run_id)
    await decide(journal, found.wait.wait_id or "", approved=True, by="ada", limits=Limits(), clock=SystemClock())
    woken = await journal.run(run_id)
    run = await resume(journal, functions, run_id)

    assert woken is not None
    assert woken.status is RunStatus.QUEUED
    assert result_of(run)[:2] == [True, "ada"]
    assert (await types_of(journal, run_id)).count("approval_requested") == 1


async def test_cancelling_a_run_closes_its_approval(journal: Journal) -> None:
    functions = Functions(approval)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("approval"), 1))
        found = await asked(journal, handle.run_id)
        await engine.cancel(handle.run_id)
        with pytest.raises(ApprovalClosed, match="is already cancelled"):
            await engine.decide(found.wait.wait_id or "", approved=True, by="ada")
    assert list(await journal.approvals(ApprovalFilter(states=[ApprovalState.OPEN]))) == []


async def test_a_decision_is_neither_true_nor_false() -> None:
    decision = Decision(approved=False, by="ada", at=datetime.now(UTC))

    with pytest.raises(TypeError, match=r"\.approved"):
        bool(decision)


async def test_a_decision_counts_only_for_what_was_asked(journal: Journal) -> None:
    amounts = [10]

    async def work(ctx: Context) -> Any:
        decision = await ctx.approve("refund", {"amount": amounts[-1]})
        return decision.data

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        first = await asked(journal, run_id)
    amounts.append(10_000)
    async with engine_on(journal, functions) as engine:
        await engine.decide(first.wait.wait_id or "", approved=True, by="ada")
        second = await asked(journal, run_id)
        assert second.asked == {"request": {"amount": 10_000}}
        await engine.decide(second.wait.wait_id or "", approved=True, by="bob")
        run = await ended(engine, run_id)
    assert result_of(run) == {"amount": 10_000}
    (drift,) = await data_of(journal, run_id, "replay_drift")
    assert drift == {"step": "refund", "name": "refund", "what": "request"}


async def test_a_wait_the_author_gives_up_is_closed(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        try:
            async with asyncio.timeout(0.02):
                await ctx.approve("slow")
        except TimeoutError:
            return (await ctx.approve("again", timeout_s=30)).by

    functions = Functions(work)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("work")))
        async with asyncio.timeout(5):
            while (found := await asked(journal, handle.run_id)).wait.name != "again":
                await asyncio.sleep(0)
        await engine.decide(found.wait.wait_id or "", approved=True, by="ada")
        run = await ended(engine, handle.run_id)
    assert result_of(run) == "ada"
    states = {a.wait.name: a.state for a in await journal.approvals(ApprovalFilter(run_id=run.run_id))}
    assert states == {"slow": ApprovalState.CANCELLED, "again": ApprovalState.APPROVED}


async def test_waiting_runs_hold_no_slot_and_woken_ones_go_before_queued_ones(journal: Journal) -> None:
    order: list[str] = []
    gate = asyncio.Event()

    async def waiter(ctx: Context) -> None:
        await ctx.wait_for("go")
        order.append("woken")

    async def holder(ctx: Context) -> None:
        await gate.wait()

    async def fresh(ctx: Context) -> None:
        order.append("fresh")

    functions = Functions(waiter, holder, fresh)
    async with engine_on(journal, functions, limits=Limits(running=1)) as engine:
        waiting = [await engine.submit(submission(functions.find("waiter"))) for _ in range(3)]
        for handle in waiting:
            await until(journal, handle.run_id, RunStatus.WAITING)
        held = await engine.submit(submission(functions.find("holder")))
        queued = await engine.submit(submission(functions.find("fresh")))
        for handle in waiting:
            await engine.signal(handle.run_id, "go", None)
        gate.set()
        for handle in (*waiting, held, queued):
            await ended(engine, handle.run_id)
        assert engine.stats()["running"] == 0
    assert order == ["woken", "woken", "woken", "fresh"]


@pytest.mark.parametrize("shape", ["gather", "group", "parallel", "map", "wait", "shield", "nested"])
async def test_a_run_is_waiting_when_all_of_its_branches_are(journal: Journal, shape: str) -> None:
    async def branch(ctx: Context, number: int) -> Any:
        await asyncio.sleep(0)
        return await ctx.wait_for(f"go-{number}")

    async def group(ctx: Context) -> list[Any]:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(branch(ctx, number)) for number in range(2)]
        return [task.result() for task in started]

    async def work(ctx: Context) -> Any:
        match shape:
            case "gather":
                return await asyncio.gather(branch(ctx, 0), branch(ctx, 1))
            case "group":
                return await group(ctx)
            case "parallel":
                return await ctx.parallel(branch(ctx, 0), lambda: branch(ctx, 1))
            case "map":
                return await ctx.map(lambda number: branch(ctx, number), [0, 1])
            case "wait":
                tasks = [asyncio.create_task(branch(ctx, number)) for number in range(2)]
                await asyncio.wait(tasks)
                return [task.result() for task in tasks]
            case "shield":
                return await asyncio.gather(asyncio.shield(branch(ctx, 0)), branch(ctx, 1))
            case _:
                return await asyncio.wait_for(asyncio.create_task(group(ctx)), 30)

    functions = Functions(work)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("work")))
        await until(journal, handle.run_id, RunStatus.WAITING)
        assert {wait.name for wait in await journal.open_waits(handle.run_id)} == {"go-0", "go-1"}
        await engine.signal(handle.run_id, "go-1", "one")
        async with asyncio.timeout(5):
            while (await types_of(journal, handle.run_id)).count("run_waiting") < 2:
                await asyncio.sleep(0)
        await engine.signal(handle.run_id, "go-0", "zero")
        run = await ended(engine, handle.run_id)
        assert engine.stats()["running"] == 0
    assert result_of(run) == ["zero", "one"]


async def test_a_run_that_still_works_beside_its_wait_is_running(journal: Journal) -> None:
    gate = asyncio.Event()

    async def work(ctx: Context) -> Any:
        return await asyncio.gather(ctx.wait_for("go"), gate.wait())

    functions = Functions(work)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("work")))
        async with asyncio.timeout(5):
            while not await journal.open_waits(handle.run_id):
                await asyncio.sleep(0)
        run = await journal.run(handle.run_id)
        assert run is not None
        assert run.status is RunStatus.RUNNING
        gate.set()
        await until(journal, handle.run_id, RunStatus.WAITING)
        await engine.signal(handle.run_id, "go", 1)
        assert result_of(await ended(engine, handle.run_id)) == [1, True]


async def test_another_process_answers_and_this_one_goes_on(tmp_path: Any, journal: Journal) -> None:
    from tests.support import journal_at

    functions = Functions(signalled)
    beside = journal_at(tmp_path)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("signalled")))
        await until(journal, handle.run_id, RunStatus.WAITING)
        from pyflue.engine.answering import send_signal

        for number in range(2):
            await send_signal(beside, handle.run_id, "paid", number, limits=Limits())
        run = await ended(engine, handle.run_id)
    await beside.close()
    assert (result_of(run), run.attempt) == ([0, 1], 1)


async def test_a_list_of_runs_shows_the_waiting_ones(journal: Journal) -> None:
    functions = Functions(approval)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("approval"), 1))
        await until(journal, handle.run_id, RunStatus.WAITING)
        page = await journal.runs(RunFilter(statuses=[RunStatus.WAITING]))
        assert [run.run_id for run in page.runs] == [handle.run_id]
        assert codec.load(codec.encode((await journal.open_waits(handle.run_id))[0].to_dict()))["kind"] == "approval"


class Price(BaseModel):
    total: int

    @field_validator("total")
    @classmethod
    def whole_euros(cls, value: int) -> int:
        if value % 100:
            raise ValueError("cents are not accepted")
        return value


async def test_an_answer_that_fits_the_schema_but_not_the_type_is_asked_for_again(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        decision = await ctx.approve("price", {"total": 100}, schema=Price)
        await ctx.wait_for("go")
        return decision.data.total

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        first = (await asked(journal, run_id)).wait.wait_id or ""
        async with engine_on(journal, functions, adopts=False) as beside:
            await beside.decide(first, approved=True, by="ada", data={"total": 150})
        async with asyncio.timeout(5):
            while (second := await asked(journal, run_id)).wait.wait_id == first:
                await asyncio.sleep(0)
        async with engine_on(journal, functions, adopts=False) as beside:
            await beside.decide(second.wait.wait_id or "", approved=True, by="ada", data={"total": 200})
        async with asyncio.timeout(5):
            while not [wait for wait in await journal.open_waits(run_id) if wait.name == "go"]:
                await asyncio.sleep(0)
    async with engine_on(journal, functions) as engine:
        await engine.signal(run_id, "go", None)
        run = await ended(engine, run_id)
    assert result_of(run) == 200
    (refused,) = await data_of(journal, run_id, "approval_refused")
    assert (refused["approval_id"], refused["problems"][0]["path"]) == (first, "$.total")
