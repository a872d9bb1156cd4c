"""`ctx.call` and `ctx.start`: runs that run other workflows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyflue import codec
from pyflue.errors import RunCancelled, RunFailed, WaitTimedOut
from pyflue.journal import Journal, RunFilter, RunStatus
from pyflue.settings import Limits
from tests.support import Functions, engine_on, submission

from .durable import Context, data_of, ended, error_of, interrupted, result_of, resume, run_on, run_once, until


async def double(ctx: Context) -> Any:
    return ctx.payload * 2


async def broken(ctx: Context) -> Any:
    raise ValueError("no such luck")


async def forever(ctx: Context) -> Any:
    await ctx.wait_for("never")


async def family(ctx: Context) -> Any:
    return await ctx.call("double", ctx.payload)


async def test_a_child_is_a_run_of_its_own_linked_both_ways(journal: Journal) -> None:
    run = await run_once(journal, family, double, payload=21)

    (child,) = (await journal.runs(RunFilter(parent_run_id=run.run_id))).runs
    assert result_of(run) == 42
    assert (child.workflow, child.status, child.depth) == ("double", RunStatus.COMPLETED, 1)
    (start,) = await data_of(journal, run.run_id, "step_start")
    assert start == {"step": "double", "name": "double", "kind": "child", "child_run_id": child.run_id}


async def test_a_started_child_goes_on_by_itself(journal: Journal) -> None:
    async def parent(ctx: Context) -> Any:
        return await ctx.start("double", 4, tags=("blue",))

    functions = Functions(parent, double)
    async with engine_on(journal, functions) as engine:
        run = await run_on(engine, functions, parent)
        child = await ended(engine, result_of(run))
    assert (result_of(child), child.parent_run_id, child.tags) == (8, run.run_id, ("blue",))


async def test_how_a_child_ends_is_raised_in_its_parent_and_again_when_that_is_replayed(journal: Journal) -> None:
    seen: list[Any] = []
    gate = asyncio.Event()

    async def parent(ctx: Context) -> Any:
        try:
            await ctx.call("broken")
        except RunFailed as error:
            seen.append((error.run_id, error.error["message"]))
        await ctx.step("held", gate.wait)

    functions = Functions(parent, broken)
    async with interrupted(journal, functions, "parent") as run_id:
        async with asyncio.timeout(5):
            while len(await data_of(journal, run_id, "step_start")) < 2:
                await asyncio.sleep(0)
    gate.set()
    await resume(journal, functions, run_id)

    (child,) = (await journal.runs(RunFilter(parent_run_id=run_id))).runs
    assert seen == [(child.run_id, "no such luck")] * 2


async def test_a_cancelled_child_raises_in_its_parent(journal: Journal) -> None:
    async def parent(ctx: Context) -> Any:
        with pytest.raises(RunCancelled):
            await ctx.call("forever")
        return "went on"

    functions = Functions(parent, forever)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("parent")))
        await until(journal, handle.run_id, RunStatus.WAITING)
        (child,) = (await journal.runs(RunFilter(parent_run_id=handle.run_id))).runs
        await until(journal, child.run_id, RunStatus.WAITING)
        await engine.cancel(child.run_id)
        assert result_of(await ended(engine, handle.run_id)) == "went on"


async def test_cancelling_flows_down(journal: Journal) -> None:
    async def grandparent(ctx: Context) -> Any:
        await ctx.call("parent")

    async def parent(ctx: Context) -> Any:
        await ctx.start("forever")
        await ctx.call("forever")

    functions = Functions(grandparent, parent, forever)
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("grandparent")))
        async with asyncio.timeout(5):
            while len((await journal.runs(RunFilter(statuses=[RunStatus.WAITING]))).runs) < 4:
                await asyncio.sleep(0)
        await engine.cancel(handle.run_id)
        for run in (await journal.runs(RunFilter())).runs:
            assert (await ended(engine, run.run_id)).status is RunStatus.CANCELLED
        assert engine.stats()["running"] == 0


async def test_a_child_that_takes_too_long_is_cancelled(journal: Journal) -> None:
    async def parent(ctx: Context) -> Any:
        try:
            await ctx.call("forever", timeout_s=0.02)
        except WaitTimedOut as error:
            return str(error)

    functions = Functions(parent, forever)
    async with engine_on(journal, functions) as engine:
        run = await run_on(engine, functions, parent)
        (child,) = (await journal.runs(RunFilter(parent_run_id=run.run_id))).runs
        assert (await ended(engine, child.run_id)).status is RunStatus.CANCELLED
    assert "workflow 'forever'" in result_of(run)


async def test_a_child_nobody_waits_for_any_more_is_cancelled(journal: Journal) -> None:
    async def parent(ctx: Context) -> Any:
        try:
            async with asyncio.timeout(0.05):
                await ctx.call("forever")
        except TimeoutError:
            return "gave up"

    functions = Functions(parent, forever)
    async with engine_on(journal, functions) as engine:
        run = await run_on(engine, functions, parent)
        (child,) = (await journal.runs(RunFilter(parent_run_id=run.run_id))).runs
        assert (await ended(engine, child.run_id)).status is RunStatus.CANCELLED
    assert result_of(run) == "gave up"


async def test_parents_hold_no_slot_while_they_wait(journal: Journal) -> None:
    async def tower(ctx: Context) -> Any:
        return ctx.payload if ctx.payload == 5 else await ctx.call("tower", ctx.payload + 1)

    functions = Functions(tower)
    async with engine_on(journal, functions, limits=Limits(running=1)) as engine:
        handles = [await engine.submit(submission(functions.find("tower"), 0)) for _ in range(5)]
        for handle in handles:
            assert result_of(await ended(engine, handle.run_id)) == 5
        assert engine.stats()["running"] == 0


async def test_runs_below_runs_have_a_limit(journal: Journal) -> None:
    async def endless(ctx: Context) -> Any:
        return await ctx.call("endless")

    functions = Functions(endless)
    async with engine_on(journal, functions, limits=Limits(child_depth=3)) as engine:
        run = await run_on(engine, functions, endless)
    assert error_of(run)["type"] == "run_failed"
    errors = [codec.load(run.error or b"{}") for run in (await journal.runs(RunFilter())).runs]
    assert len(errors) == 4
    assert sorted(error["type"] for error in errors) == ["children_too_deep", *["run_failed"] * 3]


async def test_a_restart_goes_on_with_parent_and_child_and_starts_the_child_once(journal: Journal) -> None:
    async def parent(ctx: Context) -> Any:
        return [await ctx.call("child"), ctx.attempt]

    async def child(ctx: Context) -> Any:
        return [await ctx.wait_for("go"), ctx.attempt]

    functions = Functions(parent, child)
    async with interrupted(journal, functions, "parent") as run_id:
        async with asyncio.timeout(5):
            while len((await journal.runs(RunFilter(statuses=[RunStatus.WAITING]))).runs) < 2:
                await asyncio.sleep(0)
    async with engine_on(journal, functions) as engine:
        (below,) = (await journal.runs(RunFilter(parent_run_id=run_id))).runs
        await engine.signal(below.run_id, "go", "on")
        run = await ended(engine, run_id)
    assert result_of(run) == [["on", 2], 2]
    assert len((await journal.runs(RunFilter())).runs) == 2


@pytest.mark.parametrize("payload", [object(), {"a": float("inf")}])
async def test_a_payload_json_cannot_hold_is_refused(journal: Journal, payload: Any) -> None:
    async def parent(ctx: Context) -> Any:
        await ctx.call("double", payload)

    error = error_of(await run_once(journal, parent, double))

    assert error["type"] == "not_serializable"
    assert "The payload for workflow 'double'" in error["message"]


async def test_a_workflow_that_is_not_there_is_named(journal: Journal) -> None:
    async def parent(ctx: Context) -> Any:
        await ctx.start("doubel")

    error = error_of(await run_once(journal, parent, double))

    assert error["type"] == "workflow_not_found"
    assert "Known: double, parent" in error["message"]
