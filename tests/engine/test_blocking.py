"""`BlockingContext`: durable calls of workflows that are not async, in threads of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from pyflue import BlockingContext
from pyflue.engine import EmbeddedEngine
from pyflue.errors import RunStopped
from pyflue.journal import Journal, RunFilter, RunStatus
from pyflue.settings import Limits
from tests.support import Functions, engine_on, submission

from .durable import Context, asked, ended, error_of, interrupted, result_of, resume, run_once, until

Blocking = BlockingContext[Any]


def in_thread(function: Callable[[Blocking], Any]) -> Callable[[Context], Any]:
    """A plain function as the Python dialect runs it."""

    async def run(ctx: Context) -> Any:
        return await ctx.in_thread(function)

    run.__name__ = function.__name__
    return run


async def double(ctx: Context) -> Any:
    return ctx.payload * 2


def triple(number: int) -> int:
    return number * 3


async def test_every_durable_call_has_a_blocking_form(journal: Journal) -> None:
    def work(ctx: Blocking) -> Any:
        ctx.log.info("in a thread")
        ctx.sleep(0.001)
        return [
            ctx.step("triple", triple, 2),
            ctx.step("of async", double_number, 2),
            ctx.call("double", 4),
            len(ctx.start("double", 4)) > 10,
            ctx.parallel(lambda: ctx.step("p", triple, 1), lambda: ctx.step("p", triple, 2), limit=1),
            ctx.map(lambda number: ctx.step("m", triple, number), [1, 2, 3], limit=2),
            ctx.wait_for("paid"),
            ctx.approve("ship", {"order": 1}).by,
            ctx.now().tzinfo is not None,
        ]

    async def double_number(number: int) -> int:
        return number * 2

    functions = Functions(in_thread(work), double)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("work")))
        await engine.signal(handle.run_id, "paid", "yes")
        await engine.decide((await asked(journal, handle.run_id)).wait.wait_id or "", approved=True, by="ada")
        run = await ended(engine, handle.run_id)
    assert result_of(run) == [6, 4, 8, True, [3, 6], [3, 6, 9], "yes", "ada", True]


async def test_a_blocked_thread_waits_without_a_slot_and_a_restart_goes_on(journal: Journal) -> None:
    starts: list[int] = []

    def work(ctx: Blocking) -> Any:
        starts.append(ctx.attempt)
        first = ctx.step("first", triple, len(starts))
        return [first, *ctx.map(lambda name: ctx.wait_for(name), ["a", "b"])]

    functions = Functions(in_thread(work))
    async with interrupted(journal, functions, "work") as run_id:
        await until(journal, run_id, RunStatus.WAITING)
    async with engine_on(journal, functions, limits=Limits(running=1)) as engine:
        await engine.signal(run_id, "a", 1)
        async with asyncio.timeout(5):
            while len(await journal.open_waits(run_id)) != 1 or engine.stats()["running"]:
                await asyncio.sleep(0.001)
        await engine.signal(run_id, "b", 2)
        run = await ended(engine, run_id)
    assert (result_of(run), starts) == ([3, 1, 2], [1, 2])


async def test_a_step_of_a_blocking_run_may_make_durable_calls_itself(journal: Journal) -> None:
    def work(ctx: Blocking) -> Any:
        def outer() -> int:
            ctx.sleep(0.001)
            return ctx.step("inner", triple, 5)

        return ctx.step("outer", outer)

    run = await run_once(journal, in_thread(work))

    assert result_of(run) == 15
    assert [step.key for step in await journal.steps(run.run_id)] == [
        "outer/attempt-1/sleep",
        "outer/attempt-1/inner",
        "outer",
    ]


async def test_a_thread_the_run_does_not_know_is_refused(journal: Journal) -> None:
    def work(ctx: Blocking) -> Any:
        errors: list[str] = []

        def elsewhere() -> None:
            try:
                ctx.step("elsewhere", triple, 1)
            except Exception as error:
                errors.append(type(error).__name__)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return errors

    assert result_of(await run_once(journal, in_thread(work))) == ["CallMisplaced"]


async def test_errors_reach_the_thread(journal: Journal) -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    def work(ctx: Blocking) -> Any:
        try:
            ctx.step("fail", fail)
        except LookupError as error:
            raise ValueError(f"found out: {error}") from error

    assert error_of(await run_once(journal, in_thread(work)))["message"] == "found out: nothing there"


async def test_a_thread_is_told_when_its_run_is_stopped(journal: Journal) -> None:
    told: list[str] = []
    over = threading.Event()

    def work(ctx: Blocking) -> None:
        try:
            ctx.wait_for("never")
        except RunStopped as error:
            told.append(error.type)
            over.set()
            raise

    functions = Functions(in_thread(work))
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("work")))
        await until(journal, handle.run_id, RunStatus.WAITING)
        run = await engine.cancel(handle.run_id)
        await asyncio.to_thread(over.wait, 5)
    assert (run.status, told) == (RunStatus.CANCELLED, ["run_stopped"])


async def test_an_engine_that_stops_leaves_no_thread_blocked(journal: Journal) -> None:
    over = threading.Event()

    def work(ctx: Blocking) -> None:
        try:
            ctx.wait_for("never")
        finally:
            over.set()

    functions = Functions(in_thread(work))
    engine: EmbeddedEngine
    async with engine_on(journal, functions) as engine:
        await engine.submit(submission(functions.find("work")))
        async with asyncio.timeout(5):
            while not (await journal.runs(RunFilter(statuses=[RunStatus.WAITING]))).runs:
                await asyncio.sleep(0)
    assert await asyncio.to_thread(over.wait, 5)


async def test_what_a_blocking_run_recorded_is_given_back(journal: Journal) -> None:
    done: list[int] = []

    def note() -> int:
        done.append(1)
        return len(done)

    def work(ctx: Blocking) -> Any:
        return [ctx.step("note", note), ctx.wait_for("go"), ctx.step("note", note)]

    functions = Functions(in_thread(work))
    async with interrupted(journal, functions, "work") as run_id:
        await until(journal, run_id, RunStatus.WAITING)
    async with engine_on(journal, functions) as engine:
        await engine.signal(run_id, "go", None)
    run = await resume(journal, functions, run_id)

    assert result_of(run) == [1, None, 2]
