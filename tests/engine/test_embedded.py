"""The embedded engine on a real journal: how runs start, end, stop, wait their turn and change hands."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pyflue import codec
from pyflue.codec import Raw
from pyflue.engine import EmbeddedEngine, FlueContext, RunHandle, Submission
from pyflue.errors import (
    EngineStopping,
    IdempotencyConflict,
    PyFlueError,
    RunFinished,
    RunNotFinished,
    RunNotFound,
    RunStopped,
    TooLarge,
)
from pyflue.ids import workflow_of
from pyflue.journal import Fence, Journal, Outcome, Run, RunStatus
from pyflue.settings import EngineSettings, Limits
from tests.promises import promise
from tests.support import (
    Functions,
    MovableClock,
    engine_on,
    fence_of,
    journal_at,
    new_run,
    raw,
    submission,
    summary,
)

Context = FlueContext[Any]


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = journal_at(tmp_path)
    yield journal
    await journal.close()


async def echo(ctx: Context) -> Any:
    return ctx.payload


async def fail(ctx: Context) -> Any:
    raise ValueError("no such luck")


async def forever(ctx: Context) -> Any:
    ctx.log.info("started")
    await asyncio.Event().wait()


async def until_told(ctx: Context) -> Any:
    ctx.log.info("started")
    gates.setdefault(ctx.id, asyncio.Event())
    await gates[ctx.id].wait()
    return ctx.attempt


gates: dict[str, asyncio.Event] = {}
functions = Functions(echo, fail, forever, until_told)


async def submit(
    engine: EmbeddedEngine, name: str, payload: Any = None, *, eager: bool = False, **more: Any
) -> RunHandle:
    return await engine.submit(submission(functions.find(name), payload, **more), eager=eager)


async def started(engine: EmbeddedEngine, run_id: str) -> None:
    """Wait until the workflow has logged its first line."""
    async with asyncio.timeout(5):
        async for event in engine.events(run_id):
            if event.type == "log":
                return


async def final(engine: EmbeddedEngine, run_id: str) -> Run:
    async with asyncio.timeout(5):
        return await engine.wait(run_id)


def error_of(outcome: Outcome | Run) -> dict[str, Any]:
    assert outcome.error is not None
    return codec.load(outcome.error)


@promise("guide.record")
@pytest.mark.parametrize("eager", [False, True])
async def test_a_run_is_recorded_from_payload_to_result(journal: Journal, eager: bool) -> None:
    async with engine_on(journal, functions) as engine:
        handle = await submit(engine, "echo", {"n": 2**63}, eager=eager, tags=("t",))
        assert await handle.outcome() == Outcome(status=RunStatus.COMPLETED, result=raw({"n": 2**63}))

        run = await final(engine, handle.run_id)
    assert workflow_of(run.run_id) == "echo"
    assert (run.status, run.attempt, run.tags) == (RunStatus.COMPLETED, 1, ("t",))
    assert codec.load(run.payload) == codec.load(run.result) == {"n": 2**63}
    assert run.created_at <= run.started_at <= run.finished_at  # type: ignore[operator]
    assert summary(await journal.events(run.run_id)) == [(1, "run_start"), (2, "run_end")]


@promise("R1")
async def test_a_submitted_run_is_on_disk_when_submit_returns(journal: Journal, tmp_path: Path) -> None:
    async with engine_on(journal, functions) as engine:
        handle = await submit(engine, "forever", [1])
        beside = journal_at(tmp_path)
        run = await beside.run(handle.run_id)
        await beside.close()
        await engine.cancel(handle.run_id)
    assert run is not None
    assert codec.load(run.payload) == [1]


@promise("guide.context")
async def test_log_progress_and_emit_work_with_and_without_await(journal: Journal) -> None:
    async def talk(ctx: Context) -> str:
        ctx.log.info("one", a=1, level="ignored", odd={1, 2})
        await ctx.log.warn("two")
        ctx.log.error("three\ud800")
        ctx.progress(0.5, "half")
        await ctx.progress(1)
        await ctx.emit("order.shipped", {"id": 7})
        assert (ctx.req, ctx.deadline_at, ctx.attempt, ctx.tags) == (None, None, 1, ())
        assert ctx.env["PATH"]
        assert abs(ctx.now() - datetime.now(UTC)) < timedelta(minutes=1)
        return ctx.id

    workflows = Functions(talk)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("talk")), eager=True)
        outcome = await handle.outcome()
    assert codec.load(outcome.result) == handle.run_id  # type: ignore[arg-type]
    events = [(event.type, codec.load(event.data)) for event in await journal.events(handle.run_id)]
    assert events[1:-1] == [
        ("log", {"a": 1, "odd": "{1, 2}", "level": "info", "message": "one"}),
        ("log", {"level": "warn", "message": "two"}),
        ("log", {"level": "error", "message": "three\\ud800"}),
        ("progress", {"fraction": 0.5, "message": "half"}),
        ("progress", {"fraction": 1.0, "message": ""}),
        ("order.shipped", {"id": 7}),
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ctx: ctx.progress(2), "the fraction goes from 0 to 1"),
        (lambda ctx: ctx.progress(float("nan")), "the fraction goes from 0 to 1"),
        (lambda ctx: ctx.progress("half"), "the fraction goes from 0 to 1"),
        (lambda ctx: ctx.emit("run_end", {}), "written by the engine"),
        (lambda ctx: ctx.emit("Big Words", {}), "a lower-case word"),
        (lambda ctx: ctx.emit("x", {"a": [object()]}), "a value of type object at $.a[0]"),
    ],
)
async def test_wrong_events_fail_the_run_and_say_what_is_wrong(journal: Journal, call: Any, message: str) -> None:
    async def wrong(ctx: Context) -> None:
        call(ctx)

    workflows = Functions(wrong)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("wrong")), eager=True)
        assert message in error_of(await handle.outcome())["message"]


async def test_an_exception_is_recorded_with_its_type_and_place_in_the_authors_code(journal: Journal) -> None:
    async with engine_on(journal, functions, root=Path(__file__).parent) as engine:
        outcome = await (await submit(engine, "fail", eager=True)).outcome()
    error = error_of(outcome)
    assert outcome.status is RunStatus.FAILED
    assert (error["type"], error["exception"], error["message"]) == ("exception", "ValueError", "no such luck")
    assert error["where"].startswith("test_embedded.py:")
    assert 'raise ValueError("no such luck")' in error["traceback"]
    assert "pyflue/engine" not in error["traceback"]


async def test_what_went_wrong_in_a_task_group_or_before_is_in_the_record(journal: Journal) -> None:
    async def grouped(ctx: Context) -> None:
        async def bad() -> None:
            try:
                raise KeyError("the first reason")
            except KeyError as error:
                raise ValueError("the real reason") from error

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bad())

    async def chosen(ctx: Context) -> None:
        async def refuse() -> None:
            raise PyFlueError("Used up.", type="quota", status=429)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(refuse())

    workflows = Functions(grouped, chosen)
    async with engine_on(journal, workflows) as engine:
        error = error_of(await (await engine.submit(submission(workflows.find("grouped")))).outcome())
        quota = error_of(await (await engine.submit(submission(workflows.find("chosen")))).outcome())
    assert error["exception"] == "ValueError"
    assert error["message"].endswith("(1 sub-exception): ValueError: the real reason")
    assert "the first reason" in error["traceback"]
    assert "taskgroups.py" not in error["traceback"]
    assert (quota["type"], quota["status"]) == ("quota", 429)


async def test_an_authors_pyflue_error_is_recorded_as_it_is(journal: Journal) -> None:
    async def quota(ctx: Context) -> None:
        raise PyFlueError("Used up.", type="quota", status=429, details={"left": 0})

    workflows = Functions(quota)
    async with engine_on(journal, workflows) as engine:
        outcome = await (await engine.submit(submission(workflows.find("quota")))).outcome()
    error = error_of(outcome)
    where = error.pop("where")
    assert error == {"type": "quota", "message": "Used up.", "status": 429, "details": {"left": 0}}
    assert "test_embedded.py" in where


@promise("F33")
@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
async def test_whatever_a_workflow_raises_fails_its_run_and_nothing_else(
    journal: Journal, raised: BaseException
) -> None:
    async def wild(ctx: Context) -> None:
        raise raised

    workflows = Functions(wild, echo)
    async with engine_on(journal, workflows) as engine:
        outcome = await (await engine.submit(submission(workflows.find("wild")))).outcome()
        assert outcome.status is RunStatus.FAILED
        assert error_of(outcome)["type"] == "exception"
        assert (await (await engine.submit(submission(workflows.find("echo"), 1))).outcome()).result == raw(1)


@promise("F28", "F31")
@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"a": [float("nan")]}, "the number nan at $.a[0]"),
        ({"when": datetime.now(UTC)}, "a value of type datetime at $.when"),
        ({1: 2}, "a dict key of type int at $"),
        ({"s": {1}}, "a value of type set at $.s"),
        (threading.Lock(), "a value of type lock at $"),
    ],
)
async def test_a_result_json_cannot_hold_fails_the_run(journal: Journal, result: Any, message: str) -> None:
    async def give(ctx: Context) -> Any:
        return result

    workflows = Functions(give)
    async with engine_on(journal, workflows) as engine:
        outcome = await (await engine.submit(submission(workflows.find("give")))).outcome()
    error = error_of(outcome)
    assert error["type"] == "not_serializable"
    assert message in error["message"]


@promise("F31")
async def test_a_cyclic_and_an_oversized_result_fail_the_run(journal: Journal) -> None:
    async def cycle(ctx: Context) -> Any:
        loop: list[Any] = []
        loop.append(loop)
        return loop

    async def huge(ctx: Context) -> Any:
        return "x" * 2000

    workflows = Functions(cycle, huge)
    async with engine_on(journal, workflows, limits=Limits(payload_bytes=1000)) as engine:
        first = await (await engine.submit(submission(workflows.find("cycle")))).outcome()
        second = await (await engine.submit(submission(workflows.find("huge")))).outcome()
        with pytest.raises(TooLarge, match=r"The payload has 2,002 bytes; the limit is 1,000"):
            await engine.submit(submission(workflows.find("huge"), "x" * 2000))
    assert error_of(first)["type"] == "not_serializable"
    assert error_of(second)["type"] == "too_large"


async def test_a_large_log_line_keeps_its_level_and_message(journal: Journal) -> None:
    async def verbose(ctx: Context) -> None:
        ctx.log.error("very important", rows="x" * 300_000)
        ctx.log.info("long " * 20_000)

    workflows = Functions(verbose)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("verbose")))
        await handle.outcome()
    large, long = [codec.load(event.data) for event in await journal.events(handle.run_id, types=["log"])]
    assert (large["level"], large["message"]) == ("error", "very important")
    assert codec.load(await journal.blob(handle.run_id, large["blob"]))["rows"] == "x" * 300_000  # type: ignore[arg-type]
    assert len(long["message"]) == 64 * 1024 + 1


async def test_too_many_events_fail_the_run(journal: Journal) -> None:
    async def chatter(ctx: Context) -> None:
        while True:
            ctx.log.info("and another thing")

    workflows = Functions(chatter)
    async with engine_on(journal, workflows, limits=Limits(events_per_run=100)) as engine:
        handle = await engine.submit(submission(workflows.find("chatter")))
        outcome = await handle.outcome()
    assert error_of(outcome)["type"] == "too_many_events"
    assert len(await journal.events(handle.run_id)) == 101


@promise("F21")
async def test_a_run_of_100_000_events_is_stored_and_read_from_the_middle(journal: Journal) -> None:
    async def busy(ctx: Context) -> None:
        for number in range(99_998):
            ctx.log.info("tick", n=number)

    workflows = Functions(busy)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("busy")))
        await handle.outcome()
        indexes = [event.index async for event in engine.events(handle.run_id, after=50_000)]
    assert indexes == list(range(50_001, 100_001))


# Cancelling


async def test_cancelling_ends_a_run_and_is_refused_afterwards(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        handle = await submit(engine, "forever")
        await started(engine, handle.run_id)

        run = await engine.cancel(handle.run_id)

        assert run.status is RunStatus.CANCELLED
        assert (await handle.outcome()).status is RunStatus.CANCELLED
        with pytest.raises(RunFinished, match="is already cancelled"):
            await engine.cancel(handle.run_id)
        with pytest.raises(RunNotFound):
            await engine.cancel("workflow:x:01ARZ3NDEKTSV4RRFFQ69G5FAV")


@promise("R9")
async def test_a_run_that_ignores_its_cancellation_is_cut_off(journal: Journal) -> None:
    late: list[Exception] = []
    let_go = asyncio.Event()

    async def stubborn(ctx: Context) -> str:
        ctx.log.info("started")
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        try:
            ctx.log.info("still here")
        except RunStopped as error:
            late.append(error)
        return "done"

    workflows = Functions(stubborn)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("stubborn")))
        await started(engine, handle.run_id)
        assert (await engine.cancel(handle.run_id)).status is RunStatus.CANCELLED
        let_go.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert [type(error) for error in late] == [RunStopped]
    assert summary(await journal.events(handle.run_id)) == [(1, "run_start"), (2, "log"), (3, "run_end")]


async def test_a_cancelled_run_may_clean_up(journal: Journal) -> None:
    async def careful(ctx: Context) -> None:
        ctx.log.info("started")
        try:
            await asyncio.Event().wait()
        finally:
            ctx.log.info("cleaned up")

    workflows = Functions(careful)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("careful")))
        await started(engine, handle.run_id)
        await engine.cancel(handle.run_id)
    logged = [codec.load(e.data)["message"] for e in await journal.events(handle.run_id, types=["log"])]
    assert logged == ["started", "cleaned up"]


async def test_a_second_cancellation_does_not_cut_the_cleaning_up_short(journal: Journal) -> None:
    async def careful(ctx: Context) -> None:
        ctx.log.info("started")
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await may_end.wait()
            ctx.log.info("cleaned up")

    cleaning, may_end = asyncio.Event(), asyncio.Event()
    workflows = Functions(careful)
    settings = EngineSettings(cancel_grace_s=10, adopt_every_s=0.05)
    async with engine_on(journal, workflows, settings=settings) as engine, asyncio.timeout(5):
        handle = await engine.submit(submission(workflows.find("careful")))
        await started(engine, handle.run_id)
        first = asyncio.ensure_future(engine.cancel(handle.run_id))
        await cleaning.wait()
        second = asyncio.ensure_future(engine.cancel(handle.run_id))
        engine.look_again()
        await journal.check()  # by now the second request is on disk, and the look has been
        may_end.set()
        assert {run.status for run in await asyncio.gather(first, second)} == {RunStatus.CANCELLED}
    logged = [codec.load(e.data)["message"] for e in await journal.events(handle.run_id, types=["log"])]
    assert logged == ["started", "cleaned up"]


@promise("F19", "R7")
async def test_cancel_and_completion_race_to_one_end_that_all_readers_see(journal: Journal) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def short(ctx: Context) -> str:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        return "done"

    workflows = Functions(short)
    ends = {RunStatus.COMPLETED: 0, RunStatus.CANCELLED: 0}

    async def race(engine: EmbeddedEngine) -> None:
        handle = await engine.submit(submission(workflows.find("short")), eager=chance.random() < 0.5)
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        try:
            told = (await engine.cancel(handle.run_id)).status
        except RunFinished as error:
            told = RunStatus(error.details["status"])
        outcome = await handle.outcome()
        run = await final(engine, handle.run_id)
        (end,) = await journal.events(handle.run_id, types=["run_end"])
        assert told == outcome.status == run.status == codec.load(end.data)["status"]
        assert end.index == run.last_index
        ends[run.status] += 1

    async with engine_on(journal, workflows) as engine:
        for _ in range(20):
            await asyncio.gather(*(race(engine) for _ in range(50)))
    assert sum(ends.values()) == 1000
    assert min(ends.values()) > 0


# Deadlines and time


async def test_a_run_past_its_deadline_fails(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        handle = await submit(engine, "forever", deadline_s=0.1)
        outcome = await handle.outcome()
    assert error_of(outcome)["type"] == "deadline_exceeded"


@promise("F33")
async def test_a_deadline_is_kept_even_while_the_event_loop_is_blocked(journal: Journal, tmp_path: Path) -> None:
    seen: list[RunStatus] = []

    async def block(ctx: Context) -> str:
        beside = journal_at(tmp_path)

        async def status() -> RunStatus:
            run = await beside.run(ctx.id)
            assert run is not None
            return run.status

        # A second event loop in another thread sees what the blocked one cannot.
        thread = threading.Thread(target=lambda: seen.append(asyncio.run(_until_final(status))))
        thread.start()
        thread.join()
        await beside.close()
        return "too late"

    workflows = Functions(block)
    settings = EngineSettings(cancel_grace_s=0.1, adopt_every_s=0.05, blocked_loop_s=0.1)
    async with engine_on(journal, workflows, settings=settings) as engine:
        handle = await engine.submit(submission(workflows.find("block"), deadline_s=0.1), eager=True)
        outcome = await handle.outcome()
    assert seen == [RunStatus.FAILED]
    assert error_of(outcome)["type"] == "deadline_exceeded"


async def test_a_run_whose_deadline_passed_while_it_was_queued_is_not_started(journal: Journal) -> None:
    late = new_run(owner=None, workflow="echo", deadline_us=1)
    await journal.accept(late)
    async with engine_on(journal, functions) as engine:
        run = await final(engine, late.run_id)
    assert (run.status, error_of(run)["type"]) == (RunStatus.FAILED, "deadline_exceeded")


async def _until_final(status: Any) -> RunStatus:
    async with asyncio.timeout(10):
        while not (found := await status()).is_final:
            await asyncio.sleep(0.01)
        return found


async def test_who_blocks_the_event_loop_is_named_in_the_log(
    journal: Journal, capfd: pytest.CaptureFixture[str]
) -> None:
    async def block(ctx: Context) -> None:
        time.sleep(0.6)  # blocking is what this test is about

    workflows = Functions(block)
    settings = EngineSettings(blocked_loop_s=0.05, adopt_every_s=0.05, stop_s=1)
    async with engine_on(journal, workflows, settings=settings) as engine:
        handle = await engine.submit(submission(workflows.find("block")))
        await handle.outcome()
        logged = ""
        async with asyncio.timeout(5):
            while "event_loop_blocked" not in logged:
                await asyncio.sleep(0.01)
                logged += capfd.readouterr().err
    assert handle.run_id in logged


@promise("F16")
@pytest.mark.parametrize("years", [-10, -0.0001, 0.0001, 10])
async def test_clock_jumps_change_neither_durations_nor_deadlines_nor_order(tmp_path: Path, years: float) -> None:
    clock = MovableClock()
    from pyflue.journal import open_journal

    journal = open_journal(f"sqlite:///{tmp_path / 'j.db'}", clock=clock)
    async with engine_on(journal, functions, clock=clock) as engine:
        before = await submit(engine, "until_told", deadline_s=60)
        await started(engine, before.run_id)
        clock.offset_us = int(years * 365 * 86400 * 1_000_000)
        after = await submit(engine, "echo")
        await after.outcome()
        gates[before.run_id].set()
        assert (await before.outcome()).status is RunStatus.COMPLETED
        runs = [await final(engine, handle.run_id) for handle in (before, after)]
    await journal.close()
    assert before.run_id.rsplit(":", 1)[1] < after.run_id.rsplit(":", 1)[1]
    assert all(run.started_at <= run.finished_at for run in runs)  # type: ignore[operator]


async def test_a_finished_run_with_a_late_deadline_does_not_stay_in_memory(journal: Journal) -> None:
    contexts: list[weakref.ref[object]] = []

    class Payload:
        """Something to be seen going."""

    async def hold(ctx: Context) -> None:
        contexts.append(weakref.ref(ctx.payload))

    workflows = Functions(hold)
    async with engine_on(journal, workflows) as engine:
        asked = Submission(workflow=workflows.find("hold"), payload=raw(1), parsed=Payload(), deadline_s=3600)
        handle = await engine.submit(asked)
        await handle.outcome()
        del asked, handle
        await asyncio.sleep(0)
        gc.collect()
        assert contexts[0]() is None


# Taking turns


async def test_more_runs_than_may_run_at_once_wait_on_disk_and_all_end(journal: Journal) -> None:
    most, now = 0, 0

    async def count(ctx: Context) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    workflows = Functions(count)
    async with engine_on(journal, workflows, limits=Limits(running=5)) as engine:
        handles = await asyncio.gather(*(engine.submit(submission(workflows.find("count"))) for _ in range(50)))
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*(handle.outcome() for handle in handles))
    assert {outcome.status for outcome in outcomes} == {RunStatus.COMPLETED}
    assert 1 < most <= 5


async def test_a_queued_run_can_be_cancelled_before_it_starts(journal: Journal) -> None:
    async with engine_on(journal, functions, limits=Limits(running=1)) as engine:
        first = await submit(engine, "forever")
        await started(engine, first.run_id)
        second = await submit(engine, "echo")
        assert (await engine.cancel(second.run_id)).status is RunStatus.CANCELLED
        await engine.cancel(first.run_id)
    assert summary(await journal.events(second.run_id)) == [(1, "run_end")]


@promise("F18")
async def test_one_key_starts_one_run_even_after_a_restart(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        handles = await asyncio.gather(*(submit(engine, "echo", 1, idempotency_key="k", eager=True) for _ in range(50)))
        assert {codec.load((await h.outcome()).result) for h in handles} == {1}  # type: ignore[arg-type]
        assert sorted(handle.is_repeat for handle in handles) == [False] + [True] * 49
    async with engine_on(journal, functions) as engine:
        again = await submit(engine, "echo", 1, idempotency_key="k")
        spaced = await engine.submit(
            Submission(workflow=functions.find("echo"), payload=Raw(b" 1 "), parsed=1, idempotency_key="k")
        )
        assert spaced.run_id == again.run_id
        with pytest.raises(IdempotencyConflict, match="used before with another request"):
            await submit(engine, "echo", 2, idempotency_key="k")
    assert {handle.run_id for handle in handles} == {again.run_id}


# Stopping and taking over


@promise("F05", "R6")
async def test_a_stopping_engine_hands_its_runs_back_and_the_next_one_goes_on(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        handles = [await submit(engine, "until_told") for _ in range(20)]
        for handle in handles:
            await started(engine, handle.run_id)
    with pytest.raises(EngineStopping):
        await submit(engine, "echo")
    with pytest.raises(RunStopped):
        await handles[0].outcome()
    assert await journal.count_queued() == 20

    for gate in gates.values():
        gate.set()
    async with engine_on(journal, functions) as engine:
        runs = [await final(engine, handle.run_id) for handle in handles]
    assert {(run.status, run.attempt, codec.load(run.result)) for run in runs} == {(RunStatus.COMPLETED, 2, 2)}  # type: ignore[arg-type]
    events = summary(await journal.events(runs[0].run_id))
    assert [type_ for _, type_ in events] == ["run_start", "log", "run_resumed", "run_end"]


async def test_short_runs_end_before_the_engine_stops(journal: Journal) -> None:
    async def nap(ctx: Context) -> str:
        await asyncio.sleep(0.05)
        return "rested"

    workflows = Functions(nap)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("nap")))
    assert (await handle.outcome()).status is RunStatus.COMPLETED


@promise("R6")
async def test_runs_of_a_dead_engine_are_taken_over(journal: Journal) -> None:
    lost, unwanted = new_run(owner="gone", workflow="echo", payload=5), new_run(owner="gone", workflow="echo")
    unknown = new_run(owner="gone", workflow="nothing_of_this_name")
    for new in (lost, unwanted, unknown):
        await journal.accept(new)
    await journal.cancel(unwanted.run_id)

    async with engine_on(journal, functions) as engine:
        runs = [await final(engine, new.run_id) for new in (lost, unwanted, unknown)]

    assert [(run.status, run.attempt) for run in runs] == [
        (RunStatus.COMPLETED, 2),
        (RunStatus.CANCELLED, 1),
        (RunStatus.FAILED, 2),
    ]
    assert codec.load(runs[0].result) == 5  # type: ignore[arg-type]
    assert error_of(runs[2])["type"] == "workflow_not_found"


async def test_an_engine_that_does_not_adopt_leaves_others_runs_alone(journal: Journal) -> None:
    lost = new_run(owner="gone", workflow="echo")
    await journal.accept(lost)
    async with engine_on(journal, functions, adopts=False) as engine:
        assert (await (await submit(engine, "echo")).outcome()).status is RunStatus.COMPLETED
        run = await journal.run(lost.run_id)
    assert run is not None
    assert (run.status, run.owner) == (RunStatus.RUNNING, "gone")


async def test_a_changed_workflow_is_noted_when_its_run_is_taken_over(journal: Journal) -> None:
    lost = new_run(owner="gone", workflow="echo", workflow_version="0")
    await journal.accept(lost)
    async with engine_on(journal, functions) as engine:
        await final(engine, lost.run_id)
    logged = [codec.load(event.data) for event in await journal.events(lost.run_id, types=["log"])]
    assert [(entry["accepted_version"], entry["workflow_version"]) for entry in logged] == [("0", "1")]


@promise("F15", "R9")
async def test_of_two_engines_each_run_has_one_owner_and_a_superseded_one_stops(tmp_path: Path) -> None:
    """An engine whose lock file is gone counts as dead, though its process lives: its late writes are refused."""
    first_journal, second_journal = journal_at(tmp_path), journal_at(tmp_path)
    ended: list[BaseException] = []

    async def watchful(ctx: Context) -> int:
        ctx.log.info("started")
        try:
            gate = gates.setdefault(f"{ctx.id}/{ctx.attempt}", asyncio.Event())
            await gate.wait()
            ctx.log.info("late")
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended.append(error)
            raise
        return ctx.attempt

    workflows = Functions(watchful)
    async with engine_on(first_journal, workflows) as first:
        handle = await first.submit(submission(workflows.find("watchful")))
        await started(first, handle.run_id)
        (tmp_path / ".pyflue" / "engines" / f"{first.engine_id}.lock").unlink()
        async with engine_on(second_journal, workflows) as second, asyncio.timeout(10):
            while (run := await second_journal.run(handle.run_id)) is None or run.attempt == 1:
                await asyncio.sleep(0.01)
            gates[f"{handle.run_id}/1"].set()
            with pytest.raises(RunStopped, match="belongs to another engine"):
                await handle.outcome()
            assert run.owner == second.engine_id
            assert len(ended) == 1
            await second.cancel(handle.run_id)
    events = [type_ for _, type_ in summary(await second_journal.events(handle.run_id))]
    assert events == ["run_start", "log", "run_resumed", "run_end"]
    await first_journal.close()
    await second_journal.close()


async def test_a_run_is_cancelled_through_another_engine(tmp_path: Path) -> None:
    first_journal, second_journal = journal_at(tmp_path), journal_at(tmp_path)
    async with engine_on(first_journal, functions) as first, engine_on(second_journal, functions) as second:
        handle = await submit(first, "forever")
        await started(first, handle.run_id)
        assert (await second.cancel(handle.run_id)).status is RunStatus.CANCELLED
    await first_journal.close()
    await second_journal.close()


# Runs that end their process


class InProcessQuarantine:
    """Drives runs here; if one is poison, they are found under an engine that is not alive, as after a crash."""

    def __init__(self, journal: Journal, engine: EmbeddedEngine, poison: set[str], *, others_are_quick: bool) -> None:
        self.journal = journal
        self.others_are_quick = others_are_quick
        self.engine = engine
        self.poison = poison
        self.tried: list[int] = []

    async def try_runs(self, run_ids: Sequence[str]) -> str:
        self.tried.append(len(run_ids))
        if self.poison & set(run_ids):
            for run in await self.journal.claim("a process that died", len(run_ids), run_ids=run_ids):
                if self.others_are_quick:
                    # As the supervisor does, if it looks for lost runs in just this moment.
                    fence = Fence(run_id=run.run_id, owner="a process that died", attempt=run.attempt)
                    await self.journal.requeue(fence, crashed=True)
            return "signal 11"
        await self.engine.drive_these(run_ids)
        return "exit code 0"


@promise("F07")
@pytest.mark.parametrize("others_are_quick", [False, True])
async def test_the_one_run_that_ends_its_process_is_found_among_its_neighbours(
    journal: Journal, others_are_quick: bool
) -> None:
    runs = [new_run(owner="gone", workflow="echo", payload=n) for n in range(9)]
    poison = runs[5].run_id
    for new in runs:
        await journal.accept(new)
        await journal.requeue(fence_of(new), crashed=True)
    for run in await journal.claim("gone", 9):
        await journal.requeue(Fence(run_id=run.run_id, owner="gone", attempt=run.attempt), crashed=True)

    engine = EmbeddedEngine(journal, functions, settings=EngineSettings(adopt_every_s=0.05))
    quarantine = InProcessQuarantine(journal, engine, {poison}, others_are_quick=others_are_quick)
    engine._quarantine, engine._max_crashes = quarantine, 2  # type: ignore[attr-defined]  # it needs the engine
    async with engine:
        ended = [await final(engine, new.run_id) for new in runs]

    failed = [run for run in ended if run.status is RunStatus.FAILED]
    assert [run.run_id for run in failed] == [poison]
    assert error_of(failed[0])["type"] == "crash_loop"
    assert "signal 11" in error_of(failed[0])["message"]
    assert {run.status for run in ended if run.run_id != poison} == {RunStatus.COMPLETED}
    assert quarantine.tried[0] == 9


async def test_suspects_whose_quarantine_never_touched_them_are_not_blamed(journal: Journal) -> None:
    class NeverStarts:
        def __init__(self) -> None:
            self.tried = asyncio.Event()

        async def try_runs(self, run_ids: Sequence[str]) -> str:
            self.tried.set()
            return "exit code 1"

    suspect = new_run(owner="gone", workflow="echo")
    await journal.accept(suspect)
    await journal.requeue(fence_of(suspect), crashed=True)
    await journal.claim("gone", 1)
    await journal.requeue(fence_of(suspect, attempt=2), crashed=True)
    quarantine = NeverStarts()
    async with engine_on(journal, functions, quarantine=quarantine):
        async with asyncio.timeout(5):
            await quarantine.tried.wait()
        run = await journal.run(suspect.run_id)
    assert run is not None
    assert run.status is RunStatus.QUEUED


# Errors that make trouble themselves


async def test_an_error_that_cannot_be_described_still_ends_its_run(journal: Journal) -> None:
    class Quota(PyFlueError):
        def __init__(self, left: int) -> None:  # without calling the base: its attributes are missing
            self.left = left

    class Rude:
        def model_dump(self, mode: str) -> object:
            raise RuntimeError("no")

    async def odd(ctx: Context) -> None:
        ctx.log.info("rude", what=Rude())
        raise Quota(3)

    workflows = Functions(odd)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("odd")))
        async with asyncio.timeout(5):
            error = error_of(await handle.outcome())
    assert error["type"] == "exception"
    assert error["exception"].endswith("Quota")


async def test_a_workflow_that_turns_its_stop_into_an_error_is_handed_back(journal: Journal) -> None:
    async def converts(ctx: Context) -> None:
        ctx.log.info("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("I was interrupted") from None

    workflows = Functions(converts)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("converts")))
        await started(engine, handle.run_id)
    run = await journal.run(handle.run_id)
    assert run is not None
    assert (run.status, run.crashes) == (RunStatus.QUEUED, 0)


async def test_a_cancellation_that_was_requested_before_a_stop_is_honoured_by_it(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)
    await journal.cancel(new.run_id)
    assert await journal.release(fence_of(new))
    run = await journal.run(new.run_id)
    assert run is not None
    assert run.status is RunStatus.CANCELLED


async def test_the_deadline_of_a_queued_run_is_kept(journal: Journal) -> None:
    async with engine_on(journal, functions, limits=Limits(running=1)) as engine:
        first = await submit(engine, "forever")
        await started(engine, first.run_id)
        second = await submit(engine, "echo", deadline_s=0.05)
        run = await final(engine, second.run_id)
        await engine.cancel(first.run_id)
    assert (run.status, error_of(run)["type"]) == (RunStatus.FAILED, "deadline_exceeded")


async def test_runs_on_their_way_into_a_stopping_engine_are_handed_back(journal: Journal) -> None:
    for _ in range(300):
        await journal.accept(new_run(owner=None, workflow="forever"))
    async with engine_on(journal, functions) as engine:
        async with asyncio.timeout(5):
            while not engine.stats()["running"]:
                await asyncio.sleep(0)
    assert await journal.count_queued() == 300
    assert list(await journal.unfinished()) == []


@promise("F08")
async def test_a_run_that_fills_the_disk_fails_in_the_end_and_leaves_room_for_others(small_disk: Path) -> None:
    async def hoard(ctx: Context) -> None:
        while True:
            ctx.emit("junk", {"text": "x" * 20_000})
            await asyncio.sleep(0)

    workflows = Functions(hoard, echo)
    journal = journal_at(small_disk)
    async with engine_on(journal, workflows) as engine:
        handle = await engine.submit(submission(workflows.find("hoard")))
        async with asyncio.timeout(20):
            while (run := await journal.run(handle.run_id)) is None or not run.is_final:
                await asyncio.sleep(0.05)
        assert run.status is RunStatus.FAILED
        assert "could not be written in 3 attempts" in error_of(run)["message"]
        assert await journal.delete(run.run_id) is RunStatus.FAILED
        assert (await (await engine.submit(submission(workflows.find("echo"), 1))).outcome()).result == raw(1)
    await journal.close()


# Retrying


async def test_a_failed_run_is_retried_as_a_new_run(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        first = await submit(engine, "fail", {"n": 1}, tags=("t",))
        await first.outcome()
        second = await engine.retry(first.run_id)
        await second.outcome()
        run = await final(engine, second.run_id)
        completed = await submit(engine, "echo")
        await completed.outcome()
        with pytest.raises(RunFinished, match="is already completed"):
            await engine.retry(completed.run_id)
        running = await submit(engine, "forever")
        with pytest.raises(RunNotFinished, match="cannot be retried yet"):
            await engine.retry(running.run_id)
        with pytest.raises(RunNotFound):
            await engine.retry("workflow:fail:01ARZ3NDEKTSV4RRFFQ69G5FAV")
        await engine.cancel(running.run_id)
    assert run.run_id != first.run_id
    assert (run.retried_from, run.tags, codec.load(run.payload)) == (first.run_id, ("t",), {"n": 1})  # type: ignore[arg-type]


def test_the_engine_imports_nothing_heavy() -> None:
    """`pyflue run` pays for what the engine imports."""
    import subprocess

    program = "import sys, pyflue.engine, pyflue.journal; print(sorted(sys.modules))"
    names = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for heavy in ("pydantic", "structlog", "starlette", "rich", "ulid", "anthropic"):
        assert f"'{heavy}'" not in names
