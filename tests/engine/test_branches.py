"""Several branches of a run at once: each replays to its own results, whatever order they run in."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from pyflue.journal import Journal, RunStatus
from tests.support import Functions

from .durable import Context, data_of, error_of, interrupted, result_of, resume, run_once


async def test_gather_over_branches_of_several_steps_replays_to_its_own_results(journal: Journal) -> None:
    done: list[str] = []
    gate = asyncio.Event()
    delays = random.Random(7)

    async def note(what: str) -> str:
        done.append(what)
        return what

    async def branch(ctx: Context, name: str) -> list[str]:
        # Something plain first, of another length in each attempt: the branches meet their steps in any order.
        await asyncio.sleep(delays.random() / 200)
        return [await ctx.step("one", note, f"{name}-one"), await ctx.step("two", note, f"{name}-two")]

    async def work(ctx: Context) -> Any:
        results = await asyncio.gather(*[branch(ctx, name) for name in "abcdef"])
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(ctx, name)) for name in "xyz"]
        await ctx.step("held", gate.wait)
        return [*results, *[task.result() for task in tasks]]

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        async with asyncio.timeout(5):
            while not [d for d in await data_of(journal, run_id, "step_start") if d["step"] == "held"]:
                await asyncio.sleep(0)
    gate.set()
    run = await resume(journal, functions, run_id)

    assert result_of(run) == [[f"{name}-one", f"{name}-two"] for name in "abcdefxyz"]
    assert len(done) == len(set(done)) == 18


async def test_calls_gathered_directly_have_the_keys_of_the_order_they_are_written_in(journal: Journal) -> None:
    async def slow() -> str:
        await asyncio.sleep(0.01)
        return "slow"

    async def quick() -> str:
        return "quick"

    async def work(ctx: Context) -> Any:
        return await asyncio.gather(
            ctx.step("same", slow), ctx.step("same", quick), asyncio.wait_for(ctx.step("same", quick), 5)
        )

    run = await run_once(journal, work)

    assert result_of(run) == ["slow", "quick", "quick"]
    values = {step.key: bytes(step.value or b"") for step in await journal.steps(run.run_id)}
    assert values == {"same": b'"slow"', "same#2": b'"quick"', "same#3": b'"quick"'}


async def test_parallel_takes_coroutines_and_functions_and_keeps_to_its_limit(journal: Journal) -> None:
    running: list[int] = [0, 0]

    async def branch(number: int) -> int:
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.001)
        running[0] -= 1
        return number

    async def work(ctx: Context) -> Any:
        return await ctx.parallel(branch(0), lambda: branch(1), branch(2), lambda: branch(3), limit=2)

    assert result_of(await run_once(journal, work)) == [0, 1, 2, 3]
    assert running == [0, 2]


async def test_map_keys_its_items_by_their_place(journal: Journal) -> None:
    async def fetch(number: int) -> int:
        return number * 10

    async def work(ctx: Context) -> Any:
        async def each(number: int) -> int:
            await asyncio.sleep((3 - number) / 1000)
            return await ctx.step("fetch", fetch, number)

        return [await ctx.map(each, range(3), limit=2), await ctx.map(each, [1]), await ctx.map(each, [])]

    run = await run_once(journal, work)

    assert result_of(run) == [[0, 10, 20], [10], []]
    keys = {step.key for step in await journal.steps(run.run_id)}
    name = "test_map_keys_its_items_by_their_place.work.each"
    assert keys == {f"({name})[0]/fetch", f"({name})[1]/fetch", f"({name})[2]/fetch", f"({name})#2[0]/fetch"}


class Refused(Exception):
    pass


@pytest.mark.parametrize("limit", [None, 1, 2])
async def test_if_a_branch_fails_the_others_are_cancelled_and_its_error_is_raised(
    journal: Journal, limit: int | None
) -> None:
    cancelled: list[int] = []

    async def branch(number: int) -> None:
        if number == 1:
            raise Refused("branch 1")
        try:
            await asyncio.sleep(0 if limit == 1 else 60)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    async def work(ctx: Context) -> Any:
        with pytest.raises(Refused, match="branch 1"):
            await ctx.map(branch, range(2), limit=limit)
        with pytest.raises(Refused, match="branch 1"):
            await ctx.parallel(branch(0), branch(1), branch(2), limit=limit)
        return "caught"

    assert result_of(await run_once(journal, work)) == "caught"
    assert sorted(cancelled) == ([] if limit == 1 else [0, 0] if limit == 2 else [0, 0, 2])


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_is_refused(journal: Journal, limit: int) -> None:
    async def work(ctx: Context) -> Any:
        await ctx.map(lambda item: asyncio.sleep(0), [1], limit=limit)

    assert error_of(await run_once(journal, work))["message"] == f"limit={limit}: at least one branch has to run."


async def test_items_of_an_async_iterator_are_refused_with_a_hint(journal: Journal) -> None:
    async def numbers() -> Any:
        yield 1

    async def work(ctx: Context) -> Any:
        items: Any = numbers()
        try:
            await ctx.map(lambda item: asyncio.sleep(0), items)
        finally:
            await items.aclose()

    assert "collect the items of an async iterator" in error_of(await run_once(journal, work))["message"]


async def test_a_branch_that_fails_leaves_the_run_able_to_wait(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        async def fail() -> None:
            await asyncio.sleep(0)
            raise Refused("no")

        with pytest.raises(Refused):
            await ctx.parallel(ctx.wait_for("never"), fail())
        await ctx.sleep(0.01)
        return "rested"

    run = await run_once(journal, work)

    assert (run.status, result_of(run)) == (RunStatus.COMPLETED, "rested")
